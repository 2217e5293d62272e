"""Events: the outbox that fan-out reads, and the feed that clients pull."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from webhook import clock
from webhook.models import cursors, events
from webhook.store.text import insert_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.db import Session


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `events`.

    Attributes:
        seq: place in the feed; 0 before it was inserted.
        data: sealed JSON.
    """

    seq: int = 0
    id: str
    type: str
    task_id: str | None
    created_at: datetime
    data: bytes


_INSERT = insert_text(events, ("id", "type", "task_id", "created_at", "data"))


def insert_events(session: Session, rows: Iterable[EventRow]) -> None:
    """Append events, in order. SQLite's one writer makes the numbers those of the commits."""
    values = [(row.id, row.type, row.task_id, clock.to_microseconds(row.created_at), row.data) for row in rows]
    if values:
        session.exec_driver_sql(_INSERT, values)


def event(session: Session, event_id: str) -> EventRow | None:
    """Return one event."""
    row = session.execute(sa.select(events).where(events.c.id == event_id)).first()
    return None if row is None else EventRow(**row._mapping)  # noqa: SLF001


def events_by_id(session: Session, ids: Iterable[str]) -> dict[str, EventRow]:
    """Return the events of these ids."""
    rows = session.execute(sa.select(events).where(events.c.id.in_(sorted(set(ids)))))
    return {row.id: EventRow(**row._mapping) for row in rows}  # noqa: SLF001


_AFTER = (
    sa.select(events).where(events.c.seq > sa.bindparam("place")).order_by(events.c.seq).limit(sa.bindparam("most"))
)
_AFTER_OF_TYPES = _AFTER.where(events.c.type.in_(sa.bindparam("types", expanding=True)))


def events_after(session: Session, seq: int, *, types: Sequence[str] | None = None, limit: int) -> list[EventRow]:
    """Return up to `limit` events after this place, oldest first."""
    place = {"place": seq, "most": limit}
    rows = (
        session.execute(_AFTER, place) if types is None else session.execute(_AFTER_OF_TYPES, place | {"types": types})
    )
    return [EventRow(**row._mapping) for row in rows]  # noqa: SLF001


_BEHIND = sa.select(
    sa.func.coalesce(sa.select(sa.func.max(events.c.seq)).scalar_subquery(), 0)
    - sa.func.coalesce(sa.select(cursors.c.seq).where(cursors.c.name == sa.bindparam("reader")).scalar_subquery(), 0)
)
_CURSOR = sa.select(cursors.c.seq).where(cursors.c.name == sa.bindparam("reader"))
_MOVE = insert(cursors).values(name=sa.bindparam("reader"), seq=sa.bindparam("place"))
_MOVE = _MOVE.on_conflict_do_update(index_elements=[cursors.c.name], set_={"seq": _MOVE.excluded.seq})


def behind(session: Session, reader: str) -> int:
    """Return how many places a reader is behind the newest event."""
    return session.execute(_BEHIND, {"reader": reader}).scalar() or 0


def cursor(session: Session, reader: str) -> int:
    """Return up to which place a reader has come."""
    return session.execute(_CURSOR, {"reader": reader}).scalar() or 0


def move_cursor(session: Session, reader: str, seq: int) -> None:
    """Note up to which place a reader has come."""
    session.execute(_MOVE, {"reader": reader, "place": seq})
