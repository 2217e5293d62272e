"""Pages of slices: see `models.slice_pages`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook.models import slice_pages
from webhook.store.text import insert_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.db import Session


class SlicePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some slices of a task, next to each other in time.

    Attributes:
        first_key, last_key: `payloads.slice_key` of the first and last slice.
        body: sealed JSON array of the slices, in order.
    """

    task_id: str
    first_key: bytes
    last_key: bytes
    slice_count: int
    body: bytes


_INSERT = insert_text(slice_pages, SlicePage.__struct_fields__)


def insert_pages(session: Session, pages: Iterable[SlicePage]) -> None:
    """Insert pages; their ranges must not overlap any that is there."""
    rows = [msgspec.structs.astuple(page) for page in pages]
    if rows:
        session.exec_driver_sql(_INSERT, rows)


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
        sa.select(slice_pages)
        .where(
            slice_pages.c.task_id == task_id,
            slice_pages.c.first_key <= last_key,
            slice_pages.c.last_key >= first_key,
        )
        .order_by(slice_pages.c.first_key)
    )
    return [SlicePage(**row._mapping) for row in session.execute(statement)]  # noqa: SLF001


def has_later(session: Session, task_id: str, key: bytes) -> bool:
    """Return whether the task has slices after this key."""
    statement = sa.select(slice_pages.c.last_key).where(slice_pages.c.task_id == task_id, slice_pages.c.first_key > key)
    return session.execute(statement.limit(1)).first() is not None


def pages(session: Session, task_id: str, *, after: bytes | None = None) -> Iterator[SlicePage]:
    """Yield the task's pages in time order, from the one that may hold slices after this key."""
    statement = sa.select(slice_pages).where(slice_pages.c.task_id == task_id).order_by(slice_pages.c.first_key)
    if after is not None:
        statement = statement.where(slice_pages.c.last_key > after)
    for row in session.execute(statement):
        yield SlicePage(**row._mapping)  # noqa: SLF001
