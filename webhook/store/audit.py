"""The audit log: appended to, listed, and read from its beginning."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import clock
from webhook.db import is_postgresql, is_writing, sqlite
from webhook.models import audit_log
from webhook.store.text import fetch, insert_rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.db import Session

_PAGE = 1000  # rows
ROTATED = "master_key.rotated"  # an action, whose object is the master key that is active since


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a row says, but for its place and time.

    Attributes:
        actor: id of the API key, `bootstrap` for that of the settings, `cli:USER` for a command, `service`.
        action: a stable word, such as `callback.read`.
        object_id: of what it was done to, where that is one thing.
        status: of the answer; None for a command.
        details: a JSON object, as text; never with a secret or a transcript.
    """

    actor: str
    actor_name: str | None = None
    role: str | None = None
    address: str | None = None
    request_id: str | None = None
    action: str
    object_id: str | None = None
    status: int | None = None
    details: str = "{}"


class AuditRow(Entry, frozen=True, kw_only=True):
    """One row of `audit_log`."""

    number: int
    at: datetime
    hash: bytes


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to list; None is any.

    Attributes:
        since, until: of `at`; until is exclusive.
        after: time and number of the last one shown.
    """

    actor: str | None = None
    action: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[datetime, int] | None = None
    limit: int


Values = tuple[Any, ...]  # a row as the database has it, its columns in this order
COLUMNS = ("number", "at", *Entry.__struct_fields__, "hash")

_FROM = f"SELECT {', '.join(COLUMNS)} FROM audit_log"  # noqa: S608 - our own names
_IN_ORDER = f"{_FROM} WHERE number > ? ORDER BY number LIMIT {_PAGE}"
_LAST = f"{_FROM} ORDER BY number DESC LIMIT 1"
_NOTE = "SELECT value FROM meta WHERE name = ?"
_SET_NOTE = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_BY_STATUS = """
    SELECT status, count(*) FROM (SELECT status, at FROM audit_log ORDER BY number DESC LIMIT ?) AS newest
    WHERE at >= ? GROUP BY status
"""
_HEAD = "audit_head"
_BEFORE_ALL = -(2**63)


def insert(session: Session, rows: Sequence[Values]) -> None:
    """Append rows."""
    insert_rows(session, audit_log, COLUMNS, rows)


def last(session: Session) -> Values | None:
    """Return the row of the highest number."""
    found = _rows(session, _LAST)
    return found[0] if found else None


def head(session: Session) -> bytes | None:
    """Return the sealed note of the newest row; who may write has it alone, until its transaction ends."""
    found = fetch(session, f"{_NOTE} FOR UPDATE" if is_postgresql(session) and is_writing(session) else _NOTE, (_HEAD,))
    return bytes(found[0][0]) if found else None


def set_head(session: Session, sealed: bytes) -> None:
    """Note the newest row."""
    run(session, _SET_NOTE, (_HEAD, sealed))


def in_order(session: Session, *, after: int = _BEFORE_ALL) -> Iterator[Values]:
    """Yield all rows after a number, in the order of their numbers, reading some at a time."""
    number = after
    while page := _rows(session, _IN_ORDER, (number,)):
        yield from page
        number = page[-1][0]


def count_by_status(session: Session, *, since: datetime, among: int) -> dict[int | None, int]:
    """Return how many rows there are since a time, among so many newest ones, by the status of the answer."""
    return dict(fetch(session, _BY_STATUS, (among, clock.to_microseconds(since))))


def newest(session: Session, query: AuditQuery) -> list[AuditRow]:
    """Return up to `limit` rows, newest first: a range of one index."""
    wanted = {"actor": query.actor, "action": query.action, "object_id": query.object_id}
    where = [f"{name} = ?" for name, value in wanted.items() if value is not None]
    values: list[Any] = [value for value in wanted.values() if value is not None]
    if query.since is not None:
        where.append("at >= ?")
        values.append(clock.to_microseconds(query.since))
    if query.until is not None:
        where.append("at < ?")
        values.append(clock.to_microseconds(query.until))
    if query.after is not None:
        where.append("(at, number) < (?, ?)")
        values += [clock.to_microseconds(query.after[0]), query.after[1]]
    index = "object_id" if query.object_id is not None else "_".join(n for n in ("actor", "action") if wanted[n])
    # PostgreSQL chooses by what it knows of the rows; SQLite knows nothing, unless somebody has it ANALYZE them
    by_index = "" if is_postgresql(session) else f" INDEXED BY audit_log_{index}{'_' if index else ''}at"
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    statement = f"{_FROM}{by_index}{condition} ORDER BY at DESC, number DESC LIMIT ?"
    return [row_of(values) for values in _rows(session, statement, (*values, query.limit))]


def _rows(session: Session, statement: str, values: Sequence[Any] = ()) -> Sequence[Values]:
    """Return rows as they are, altered ones among them: SQLite takes any bytes for a text."""
    with nullcontext() if is_postgresql(session) else sqlite.undecodable(session):
        return fetch(session, statement, values)


def row_of(values: Values) -> AuditRow:
    """Return a row as what it means, with U+FFFD for what is no text."""
    shown = map(_shown, values)
    return AuditRow(**dict(zip(COLUMNS, shown, strict=True)) | {"at": clock.from_microseconds(values[1])})


def _shown(value: Any) -> Any:
    return value.encode(errors="surrogateescape").decode(errors="replace") if isinstance(value, str) else value
