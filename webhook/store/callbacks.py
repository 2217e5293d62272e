"""Callbacks as they came: accepted, unreadable, or quarantined for their checksum."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.db import alone, for_update
from webhook.models import callbacks, holds
from webhook.store import text
from webhook.store.text import insert_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from webhook.db import Session


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `callbacks`, as it is shown and verified again."""

    id: str
    address_id: str
    task_id: str | None
    state: str
    digest: bytes
    checksum: str
    stated_task_id: str | None
    reason: str | None
    message: str | None
    content: bytes
    size: int
    received_at: datetime


_SHOWN = [column for column in callbacks.c if column is not callbacks.c.content]


def insert_callbacks(session: Session, rows: Sequence[Callback]) -> set[str]:
    """Insert callbacks and return the ids of those that are new; the others came before."""
    ids = [row.id for row in rows]
    if insert_rows(session, callbacks, Callback.__struct_fields__, _values(rows), known=True) == len(ids):
        return set(ids)
    return set(session.execute(sa.select(callbacks.c.id).where(callbacks.c.id.in_(ids))).scalars())


def ask_insert(rows: Sequence[Callback]) -> list[tuple[str, Sequence[Any]]]:
    """Return what to ask PostgreSQL to insert callbacks; the answers are the ids of those that are new."""
    return text.ask_insert(callbacks, Callback.__struct_fields__, _values(rows), known=True, returning="id")


def _values(rows: Sequence[Callback]) -> list[tuple[Any, ...]]:
    # in one order for all, or two batches with the same callbacks could wait for each other
    in_order = sorted(rows, key=lambda row: (row.address_id, row.digest))
    return [(*msgspec.structs.astuple(row)[:-1], clock.to_microseconds(row.received_at)) for row in in_order]


def take_quarantined(session: Session, callback_id: str) -> bool:
    """Forget a quarantined callback; return whether it was still there."""
    return session.execute(sa.delete(callbacks).where(callbacks.c.id == callback_id, _QUARANTINED)).rowcount == 1


def diagnose_quarantined(session: Session, callback_id: str, *, reason: str, message: str) -> None:
    """Note another cause of a callback's quarantine."""
    found = sa.update(callbacks).where(callbacks.c.id == callback_id, _QUARANTINED)
    session.execute(found.values(reason=reason, message=message))


def quarantined_ids(session: Session, *, reason: str | None, after: str, limit: int) -> list[str]:
    """Return the ids of up to `limit` quarantined callbacks, oldest first.

    Args:
        reason: why they are; None for whatever reason.
    """
    found = sa.select(callbacks.c.id).where(_QUARANTINED, _NOT_ACCEPTED, callbacks.c.id > after)
    if reason is not None:
        found = found.where(callbacks.c.reason == reason)
    return list(session.execute(found.order_by(callbacks.c.id).limit(limit)).scalars())


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why callbacks are quarantined, how many, and when the first and the last of them came."""

    reason: str
    message: str
    count: int
    first_received_at: datetime
    last_received_at: datetime


def causes(session: Session) -> list[Cause]:
    """Return the causes of what is quarantined, the most frequent first."""
    first, last = sa.func.min(callbacks.c.id), sa.func.max(callbacks.c.id)  # ids are ordered by time
    grouped = sa.select(callbacks.c.reason, callbacks.c.message, sa.func.count(), first, last)
    rows = session.execute(
        grouped.where(_QUARANTINED, _NOT_ACCEPTED).group_by(callbacks.c.reason, callbacks.c.message)
    ).all()
    ends = {id_ for row in rows for id_ in row[3:]}
    times = sa.select(callbacks.c.id, callbacks.c.received_at).where(callbacks.c.id.in_(ends))
    at = {row.id: row.received_at for row in session.execute(times)}
    found = [
        Cause(reason=reason, message=message, count=count, first_received_at=at[oldest], last_received_at=at[newest])
        for reason, message, count, oldest, newest in rows
    ]
    return sorted(found, key=lambda cause: (-cause.count, cause.message))


def delete_callbacks(session: Session, ids: Collection[str]) -> None:
    """Forget callbacks."""
    session.execute(sa.delete(callbacks).where(callbacks.c.id.in_(ids)))


def erase_callbacks(session: Session, task_id: str, *, limit: int) -> int:
    """Delete up to so many callbacks that came to a task's address, or about it to a receiver's; return how many."""
    ids = [
        sa.select(callbacks.c.id).where(callbacks.c.address_id == task_id, each) for each in (_QUARANTINED, _VERIFIED)
    ]
    ids.append(sa.select(callbacks.c.id).where(callbacks.c.task_id == task_id, sa.text("task_id != address_id")))
    some = sa.select(sa.union_all(*ids).limit(limit).subquery().c.id)
    return session.execute(sa.delete(callbacks).where(callbacks.c.id.in_(some))).rowcount


def erase_quarantined(session: Session, *, address_id: str, stated_task_id: str) -> None:
    """Delete the quarantined callbacks of a receiver that say that they are about a task of the platform's."""
    of_task = (callbacks.c.address_id == address_id, callbacks.c.stated_task_id == stated_task_id)
    session.execute(sa.delete(callbacks).where(_QUARANTINED, *of_task))


def drop_contents(session: Session, *, after: str, before: str, limit: int) -> Sequence[str]:
    """Drop the content of the next verified callbacks between two ids, but for tasks that are held.

    What tells them from others stays, so that they are known when they come again.

    Returns:
        The ids of those that were looked at, in order.
    """
    statement = sa.select(callbacks.c.id).where(callbacks.c.id > after, callbacks.c.id < before)
    ids = session.execute(statement.order_by(callbacks.c.id).limit(limit)).scalars().all()
    if not ids:
        return ids
    old = (callbacks.c.id > after, callbacks.c.id <= ids[-1], _VERIFIED, sa.func.length(callbacks.c.content) > 0)
    session.execute(sa.update(callbacks).where(*old, *_NOT_HELD).values(content=b""))
    return ids


def delete_quarantined(session: Session, *, before: str, limit: int) -> int:
    """Delete up to so many quarantined callbacks before an id, but for addresses that are held; return how many."""
    old = (_QUARANTINED, _NOT_ACCEPTED, callbacks.c.id < before, *_NOT_HELD)
    some = sa.select(callbacks.c.id).where(*old).order_by(callbacks.c.id).limit(limit)
    return session.execute(sa.delete(callbacks).where(callbacks.c.id.in_(some))).rowcount


def callback(session: Session, callback_id: str) -> Callback | None:
    """Return one callback."""
    statement = for_update(session, sa.select(callbacks).where(callbacks.c.id == callback_id))
    row = session.execute(statement).first()
    return None if row is None else Callback(**row._mapping)  # noqa: SLF001


def callback_of_content(session: Session, *, address_id: str, digest: bytes) -> Callback | None:
    """Return the authentic callback of an address with this content."""
    statement = sa.select(callbacks).where(
        callbacks.c.address_id == address_id, callbacks.c.digest == digest, _VERIFIED
    )
    row = session.execute(statement).first()
    return None if row is None else Callback(**row._mapping)  # noqa: SLF001


def list_callbacks(
    session: Session, *, state: str | None, task_id: str | None, after: str | None, limit: int
) -> list[Callback]:
    """Return up to `limit` callbacks, newest first, without their content."""
    shown = sa.select(*_SHOWN)
    if state is not None:
        shown = shown.where(callbacks.c.state == sa.literal_column(_STATES[state]))
        if state != "accepted":
            shown = shown.where(_NOT_ACCEPTED)
    if after is not None:
        shown = shown.where(callbacks.c.id < after)
    if task_id is None:
        statement: sa.Select[Any] | sa.CompoundSelect[Any] = shown
    else:
        own = callbacks.c.address_id == task_id
        statement = sa.union_all(
            *[shown.where(own, callbacks.c.task_id == task_id, which) for which in (_QUARANTINED, _VERIFIED)],
            shown.where(callbacks.c.task_id == task_id, sa.text("task_id != address_id")),
        )
    newest = statement.order_by(sa.desc("id")).limit(limit)
    return [Callback(content=b"", **row._mapping) for row in session.execute(newest)]  # noqa: SLF001


# in the words of the indexes that serve them then
_STATES = {state: f"'{state}'" for state in ("accepted", "unreadable", "quarantined")}
_NOT_ACCEPTED = callbacks.c.state != sa.literal_column(_STATES["accepted"])
_QUARANTINED = callbacks.c.state == sa.literal_column(_STATES["quarantined"])
_VERIFIED = callbacks.c.state != sa.literal_column(_STATES["quarantined"])
_HELD = sa.select(holds.c.task_id)
# a quarantined callback's task is its address; others need not have one
_NOT_HELD = (
    callbacks.c.address_id.not_in(_HELD),
    sa.or_(callbacks.c.task_id.is_(None), callbacks.c.task_id.not_in(_HELD)),
)


def trim_quarantine(session: Session, *, rows: int, total_bytes: int, address_id: str | None = None) -> None:
    """Drop the oldest quarantined callbacks beyond these bounds, of one address or of all."""
    alone(session, "trim quarantine")  # or two could delete the same rows in different orders
    running_bytes = sa.func.sum(sa.func.length(callbacks.c.content)).over(order_by=callbacks.c.id.desc())
    newest_first = sa.select(callbacks.c.id).where(_QUARANTINED).order_by(callbacks.c.id.desc())
    running = sa.select(callbacks.c.id, running_bytes.label("bytes")).where(_QUARANTINED)
    if address_id is not None:
        newest_first = newest_first.where(callbacks.c.address_id == address_id)
        running = running.where(callbacks.c.address_id == address_id)
    sizes = running.subquery()
    for surplus in (newest_first.offset(rows), sa.select(sizes.c.id).where(sizes.c.bytes > total_bytes)):
        session.execute(sa.delete(callbacks).where(callbacks.c.id.in_(surplus)))


def count_by_state(session: Session) -> dict[str, int]:
    """Return how many callbacks are kept as unreadable and as quarantined."""
    statement = sa.select(callbacks.c.state, sa.func.count()).where(_NOT_ACCEPTED).group_by(callbacks.c.state)
    return {"unreadable": 0, "quarantined": 0} | {row[0]: row[1] for row in session.execute(statement)}
