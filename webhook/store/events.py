"""Events: the outbox that fan-out reads, and the feed that clients pull."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.models import events
from webhook.store.text import insert_text, marks

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


def events_by_id(session: Session, ids: Iterable[str]) -> dict[str, EventRow]:
    """Return the events of these ids."""
    rows = session.execute(sa.select(events).where(events.c.id.in_(sorted(set(ids)))))
    return {row.id: EventRow(**row._mapping) for row in rows}  # noqa: SLF001


_FIELDS = ", ".join(EventRow.__struct_fields__)
_AFTER = f"SELECT {_FIELDS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - our own names
_AFTER_OF_TYPES = f"SELECT {_FIELDS} FROM events WHERE seq > ? AND type IN ({{marks}}) ORDER BY seq LIMIT ?"  # noqa: S608
_NEWEST = "SELECT coalesce(max(seq), 0) FROM events"
_CURSOR = "SELECT seq FROM cursors WHERE name = ?"
_MOVE = "INSERT INTO cursors (name, seq) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq"


def events_after(session: Session, seq: int, *, types: Sequence[str] | None = None, limit: int) -> list[EventRow]:
    """Return up to `limit` events after this place, oldest first."""
    if types is None:
        rows = session.exec_driver_sql(_AFTER, (seq, limit))
    else:
        rows = session.exec_driver_sql(_AFTER_OF_TYPES.format(marks=marks(len(types))), (seq, *types, limit))
    return [
        EventRow(seq=place, id=id_, type=type_, task_id=task_id, created_at=clock.from_microseconds(created), data=data)
        for place, id_, type_, task_id, created, data in rows
    ]


def behind(session: Session, reader: str) -> int:
    """Return how many places a reader is behind the newest event."""
    newest: int = session.exec_driver_sql(_NEWEST).scalar_one()
    return newest - cursor(session, reader)


def cursor(session: Session, reader: str) -> int:
    """Return up to which place a reader has come."""
    return session.exec_driver_sql(_CURSOR, (reader,)).scalar() or 0


def move_cursor(session: Session, reader: str, seq: int) -> None:
    """Note up to which place a reader has come."""
    session.exec_driver_sql(_MOVE, (reader, seq))
