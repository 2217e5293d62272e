"""Events: the outbox that fan-out reads, and the feed that clients pull."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.db import is_postgresql
from webhook.models import events, holds
from webhook.store.text import fetch, fetch_all, insert_rows, merged, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.db import Session


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `events`.

    Attributes:
        seq: place in the feed; 0 before it was inserted.
        data: sealed JSON; empty once its task is erased.
    """

    seq: int = 0
    id: str
    type: str
    task_id: str | None
    created_at: datetime
    data: bytes


_COLUMNS = ("id", "type", "task_id", "created_at", "data")


def insert_events(session: Session, rows: Iterable[EventRow]) -> None:
    """Append events, in order.

    SQLite's one writer makes the numbers those of the commits. On PostgreSQL a later number may be committed first,
    and readers must not pass over the earlier one: so whoever is about to take numbers says first, by a shared lock
    whose key is the last number so far, that those after it may still come (`settled`).
    """
    values = [(row.id, row.type, row.task_id, clock.to_microseconds(row.created_at), row.data) for row in rows]
    if values and is_postgresql(session):
        run(session, _ANNOUNCE)
    insert_rows(session, events, _COLUMNS, values)


def events_by_id(session: Session, ids: Iterable[str]) -> dict[str, EventRow]:
    """Return the events of these ids."""
    rows = session.execute(sa.select(events).where(events.c.id.in_(sorted(set(ids)))))
    return {row.id: EventRow(**row._mapping) for row in rows}  # noqa: SLF001


def newest_event(session: Session) -> EventRow | None:
    """Return the event that was made last, of those that still say something."""
    told = sa.select(events).where(sa.func.length(events.c.data) > 0)
    row = session.execute(told.order_by(events.c.seq.desc()).limit(1)).first()
    return None if row is None else EventRow(**row._mapping)  # noqa: SLF001


def erase_events(session: Session, task_id: str, *, limit: int) -> list[str]:
    """Take away what up to so many events of a task say; return their ids. They keep their place in the feed."""
    told = sa.and_(events.c.task_id == task_id, sa.func.length(events.c.data) > 0)
    some = sa.select(events.c.seq).where(told).limit(limit)
    statement = sa.update(events).where(events.c.seq.in_(some)).values(data=b"").returning(events.c.id)
    return list(session.execute(statement).scalars())


def delete_events(session: Session, *, after: int, upto: int, before: datetime, limit: int) -> Sequence[int]:
    """Delete the next events of a stretch of the feed that were made before a time, but for tasks that are held.

    Returns:
        The places of those that were looked at, in order.
    """
    statement = sa.select(events.c.seq, events.c.created_at).where(events.c.seq > after, events.c.seq <= upto)
    found = session.execute(statement.order_by(events.c.seq).limit(limit)).all()
    # events that were made at the same time need not have their places in its order: none is passed over
    old = [row.seq for row in takewhile(lambda row: row.created_at < before, found)]
    if old:
        not_held = sa.or_(events.c.task_id.is_(None), events.c.task_id.not_in(sa.select(holds.c.task_id)))
        session.execute(sa.delete(events).where(events.c.seq.in_(old), not_held))
    return old


_FIELDS = ", ".join(EventRow.__struct_fields__)
_AFTER = f"SELECT {_FIELDS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - our own names
_OF_TYPE = f"SELECT {_FIELDS} FROM events WHERE type = ? AND seq > ?"  # noqa: S608 - our own names
_NEW = f"""
    SELECT {_FIELDS} FROM events WHERE seq > coalesce((SELECT seq FROM cursors WHERE name = ?), 0) ORDER BY seq LIMIT ?
"""  # noqa: S608 - our own names
_BEHIND = """
    SELECT coalesce((SELECT max(seq) FROM events), 0) - coalesce((SELECT seq FROM cursors WHERE name = ?), 0)
"""
_CURSOR = "SELECT seq FROM cursors WHERE name = ?"
_MOVE = "INSERT INTO cursors (name, seq) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq"


def events_after(session: Session, seq: int, *, types: Sequence[str] | None = None, limit: int) -> list[EventRow]:
    """Return up to `limit` events after this place, oldest first, and none that an earlier one may still precede."""
    if types is None:
        return settled(fetch_all(session, _asked(session, _AFTER, (seq, limit))))
    statement = merged(session, [_OF_TYPE] * len(types), order="seq", limit=limit)
    values = tuple(chain.from_iterable((type_, seq) for type_ in types))
    return settled(fetch_all(session, _asked(session, statement, values)))


def ask_new(session: Session, reader: str, *, limit: int) -> list[tuple[str, Sequence[Any]]]:
    """Return what to ask, in this order, for events after a reader's place; `settled` reads the answers."""
    return _asked(session, _NEW, (reader, limit))


def _asked(session: Session, statement: str, values: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    """Return what to ask for a statement's events: on PostgreSQL first for those that are not committed yet.

    Both looks come before the events are read, each in a snapshot of its own. Whoever took a number up to the first
    look's had locked before it: in the second look it is either still there, or has ended and can be read.
    """
    looks = [(_NUMBERED, ()), (_UNDER_WAY, ())] if is_postgresql(session) else []
    return [*looks, (statement, values)]


def settled(answers: Sequence[Sequence[tuple[Any, ...]]]) -> list[EventRow]:
    """Return the events up to which all that will ever be there are committed."""
    *looks, rows = answers
    last = min((number for [(number,)] in looks if number is not None), default=_LAST)
    return [
        EventRow(seq=place, id=id_, type=type_, task_id=task_id, created_at=clock.from_microseconds(created), data=data)
        for place, id_, type_, task_id, created, data in rows
        if place <= last
    ]


_LAST = 2**63 - 1
_NUMBERED = "SELECT last_value FROM events_seq_seq"
# advisory locks by one number show its halves (https://www.postgresql.org/docs/current/view-pg-locks.html)
_KEYS = 0x7765 << 48
_ANNOUNCE = f"SELECT pg_advisory_xact_lock_shared({_KEYS} + last_value) FROM events_seq_seq"  # noqa: S608
_UNDER_WAY = f"""
    SELECT min(((classid::bigint << 32) | objid::bigint) - {_KEYS})
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = {_KEYS >> 48}
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608


def behind(session: Session, reader: str) -> int:
    """Return how many places a reader is behind the newest event."""
    [(places,)] = fetch(session, _BEHIND, (reader,))
    return int(places)


def cursor(session: Session, reader: str) -> int:
    """Return up to which place a reader has come."""
    found = fetch(session, _CURSOR, (reader,))
    return int(found[0][0]) if found else 0


def move_cursor(session: Session, reader: str, seq: int) -> None:
    """Note up to which place a reader has come."""
    run(session, _MOVE, (reader, seq))
