"""Pages of slices: see `models.slice_pages`."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.models import holds, slice_pages
from webhook.store.text import insert_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.db import Session


class SlicePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some slices of a task, next to each other in time.

    Attributes:
        first_key, last_key: `payloads.slice_key` of the first and last slice.
        body: sealed JSON array of the slices, in order.
        written_at: None where only risk, labels and times are left.
    """

    task_id: str
    first_key: bytes
    last_key: bytes
    slice_count: int
    body: bytes
    written_at: datetime | None


def insert_pages(session: Session, pages: Iterable[SlicePage]) -> None:
    """Insert pages; their ranges must not overlap any that is there."""
    values = [(*msgspec.structs.astuple(page)[:-1], _written(page.written_at)) for page in pages]
    insert_rows(session, slice_pages, SlicePage.__struct_fields__, values)


def _written(time: datetime | None) -> int | None:
    """Return a time as the database keeps it."""
    return None if time is None else clock.to_microseconds(time)


def delete_pages(session: Session, pages: Iterable[SlicePage]) -> None:
    """Delete pages that are about to be written anew."""
    for page in pages:
        session.execute(
            sa.delete(slice_pages).where(
                slice_pages.c.task_id == page.task_id, slice_pages.c.first_key == page.first_key
            )
        )


def overlapping_pages(session: Session, task_id: str, *, first_key: bytes, last_key: bytes) -> list[SlicePage]:
    """Return the task's pages whose range touches this one, in time order."""
    statement = (
        _from(task_id, first_key)
        .where(slice_pages.c.first_key <= last_key, slice_pages.c.last_key >= first_key)
        .order_by(slice_pages.c.first_key)
    )
    return [SlicePage(**row._mapping) for row in session.execute(statement)]  # noqa: SLF001


def has_later(session: Session, task_id: str, key: bytes) -> bool:
    """Return whether the task has slices after this key."""
    statement = sa.select(slice_pages.c.last_key).where(slice_pages.c.task_id == task_id, slice_pages.c.first_key > key)
    return session.execute(statement.order_by(slice_pages.c.first_key).limit(1)).first() is not None


def pages(session: Session, task_id: str, *, after: bytes | None = None) -> Iterator[SlicePage]:
    """Yield the task's pages in time order, from the one that may hold slices after this key.

    A few are read ahead. One that is written anew meanwhile may come with slices that came before.
    """
    key, found = after or b"", None
    while found is None or len(found) == _READ_AHEAD:
        statement = _from(task_id, key).where(slice_pages.c.last_key > key).order_by(slice_pages.c.first_key)
        found = session.execute(statement.limit(_READ_AHEAD)).all()
        for row in found:
            page = SlicePage(**row._mapping)  # noqa: SLF001
            key = page.last_key
            yield page


def old_pages(session: Session, *, before: datetime, limit: int) -> list[SlicePage]:
    """Return pages that have had their text since before a time, the oldest first; none of tasks that are held."""
    old = slice_pages.c.written_at < before
    held = slice_pages.c.task_id.in_(sa.select(holds.c.task_id))
    statement = sa.select(slice_pages).where(old, ~held).order_by(slice_pages.c.written_at).limit(limit)
    return [SlicePage(**row._mapping) for row in session.execute(statement)]  # noqa: SLF001


def has_text(session: Session) -> bool:
    """Return whether anything that was said is in any page."""
    some = sa.select(slice_pages.c.task_id).where(slice_pages.c.written_at.is_not(None)).limit(1)
    return session.execute(some).first() is not None


def rewrite_page(session: Session, page: SlicePage, *, was: datetime | None) -> None:
    """Write another body of a page's slices, unless it was written since.

    Args:
        was: its `written_at` before.
    """
    is_page = (slice_pages.c.task_id == page.task_id, slice_pages.c.first_key == page.first_key)
    statement = sa.update(slice_pages).where(*is_page, slice_pages.c.written_at == was)
    session.execute(statement.values(body=page.body, written_at=page.written_at))


def erase_pages(session: Session, task_id: str, *, limit: int) -> int:
    """Delete up to so many of a task's pages; return how many."""
    some = sa.select(slice_pages.c.first_key).where(slice_pages.c.task_id == task_id)
    keys = session.execute(some.order_by(slice_pages.c.first_key).limit(limit)).scalars().all()
    if not keys:
        return 0
    these = slice_pages.c.first_key.between(keys[0], keys[-1])
    return session.execute(sa.delete(slice_pages).where(slice_pages.c.task_id == task_id, these)).rowcount


_READ_AHEAD = 10  # pages of a stream hold what one callback brought


def _from(task_id: str, key: bytes) -> sa.Select[Any]:
    """Select the task's pages from the only one before this key that may reach it, since they do not overlap."""
    of_task = slice_pages.c.task_id == task_id
    before = sa.select(slice_pages.c.first_key).where(of_task, slice_pages.c.first_key <= key)
    reaching = before.order_by(slice_pages.c.first_key.desc()).limit(1)
    begin = sa.func.coalesce(reaching.scalar_subquery(), sa.literal(key, sa.LargeBinary))
    return sa.select(slice_pages).where(of_task, slice_pages.c.first_key >= begin)
