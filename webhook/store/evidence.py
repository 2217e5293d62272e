"""Evidence: the audio of flagged slices, and how far each is on its way into the store."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.models import UtcTime, evidence, holds
from webhook.store.text import insert_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from webhook.db import Session


PENDING, SAVED, EXPIRED, FAILED = "pending", "saved", "expired", "failed"
ERASED = "erased"  # to be deleted in the store, and then here; no longer shown


class EvidenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `evidence`.

    Attributes:
        slice_key: `payloads.slice_key` of the slice.
        state: `pending`, `saved`, `expired` (its link ended first), `failed` or `erased`.
        url: sealed link, which lives half an hour from `created_at` at the most.
        size: bytes of the audio.
        object: its name in the store.
        data_key_id: what it is sealed under there, None where that is a master key.
        reason: a stable word for why the last attempt did not save it.
    """

    task_id: str
    slice_key: bytes
    state: str = PENDING
    url: bytes
    content_type: str | None = None
    size: int | None = None
    object: str | None = None
    data_key_id: int | None = None
    reason: str | None = None
    attempt_count: int = 0
    next_attempt_at: datetime | None
    lease: str | None = None
    lease_until: datetime | None = None
    created_at: datetime


_RELEASED = {"next_attempt_at": None, "lease": None, "lease_until": None}


def insert_evidence(session: Session, rows: Iterable[EvidenceRow]) -> None:
    """Want the audio of slices; what is wanted already stays as it is."""
    values = [tuple(_written(value) for value in msgspec.structs.astuple(row)) for row in rows]
    insert_rows(session, evidence, EvidenceRow.__struct_fields__, values, known=True)


def _written(value: Any) -> Any:
    """Return a value as the database keeps it."""
    return clock.to_microseconds(value) if isinstance(value, datetime) else value


def find_evidence(session: Session, task_id: str, slice_key: bytes) -> EvidenceRow | None:
    """Return one row that was not erased."""
    statement = sa.select(evidence).where(*_is(task_id, slice_key), evidence.c.state != ERASED)
    row = session.execute(statement).first()
    return None if row is None else EvidenceRow(**row._mapping)  # noqa: SLF001


def states(session: Session, task_id: str, slice_keys: Collection[bytes]) -> dict[bytes, str]:
    """Return the states of those of a task's slices whose audio is wanted."""
    if not slice_keys:
        return {}
    statement = sa.select(evidence.c.slice_key, evidence.c.state).where(
        evidence.c.task_id == task_id, evidence.c.slice_key.in_(slice_keys), evidence.c.state != ERASED
    )
    return {row.slice_key: row.state for row in session.execute(statement)}


def has_due(session: Session, *, now: datetime) -> bool:
    """Return whether there is audio to be fetched now."""
    return session.execute(sa.select(sa.literal(1)).where(*_due(now)).limit(1)).first() is not None


def claim_evidence(
    session: Session, *, now: datetime, lease: str, lease_until: datetime, limit: int
) -> list[EvidenceRow]:
    """Take what is due, the longest due first; nobody else gets it until the lease ends."""
    due = (
        sa.select(evidence.c.task_id, evidence.c.slice_key)
        .where(*_due(now))
        .order_by(evidence.c.next_attempt_at, evidence.c.task_id, evidence.c.slice_key)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    statement = (
        sa.update(evidence)
        .where(sa.tuple_(evidence.c.task_id, evidence.c.slice_key).in_(sa.select(due.c.task_id, due.c.slice_key)))
        .values(lease=lease, lease_until=lease_until)
        .returning(*evidence.c)
    )
    return [EvidenceRow(**row._mapping) for row in session.execute(statement)]  # noqa: SLF001


def settle_evidence(session: Session, row: EvidenceRow, **values: Any) -> bool:
    """Write the outcome of an attempt and end its lease; return False where somebody else has taken it up."""
    statement = (
        sa.update(evidence)
        .where(*_is(row.task_id, row.slice_key), evidence.c.lease == row.lease)
        .values(**_RELEASED | values)
    )
    return session.execute(statement).rowcount == 1


def expire_evidence(session: Session, *, due_before: datetime, now: datetime) -> int:
    """Give up what was due before a time and that nobody has taken up since; return how many."""
    statement = (
        sa.update(evidence).where(*_due(due_before, unleased_at=now)).values(state=EXPIRED, reason="late", **_RELEASED)
    )
    return session.execute(statement).rowcount


def saved_directly(session: Session, *, after: tuple[str, bytes], limit: int) -> list[EvidenceRow]:
    """Return some rows whose audio a master key sealed directly, in the order of their keys."""
    statement = sa.select(evidence).where(
        *_SAVED_DIRECTLY, sa.tuple_(evidence.c.task_id, evidence.c.slice_key) > sa.tuple_(*map(sa.literal, after))
    )
    rows = session.execute(statement.order_by(evidence.c.task_id, evidence.c.slice_key).limit(limit))
    return [EvidenceRow(**row._mapping) for row in rows]  # noqa: SLF001


def count_saved_directly(session: Session) -> int:
    """Return how many slices' audio a master key sealed directly."""
    return session.execute(sa.select(sa.func.count()).select_from(evidence).where(*_SAVED_DIRECTLY)).scalar_one()


def note_data_key(session: Session, row: EvidenceRow, data_key_id: int) -> None:
    """Note what saved audio is sealed under now."""
    session.execute(sa.update(evidence).where(*_is(row.task_id, row.slice_key)).values(data_key_id=data_key_id))


def has_saved(session: Session) -> bool:
    """Return whether the audio of any slice is saved."""
    return session.execute(sa.select(evidence.c.state).where(evidence.c.state == SAVED).limit(1)).first() is not None


def audio_keys(
    session: Session, *, after: tuple[str, bytes] | None, limit: int
) -> list[tuple[tuple[str, bytes], int | None]]:
    """Return some rows' keys, in their order, and which data key the audio in the store is sealed under."""
    statement = sa.select(*_KEY, evidence.c.data_key_id)
    if after is not None:
        statement = statement.where(sa.tuple_(*_KEY) > sa.tuple_(*map(sa.literal, after)))
    rows = session.execute(statement.order_by(*_KEY).limit(limit))
    return [((task_id, slice_key), data_key_id) for task_id, slice_key, data_key_id in rows]


_SAVED_DIRECTLY = (evidence.c.state == SAVED, evidence.c.data_key_id.is_(None))


def count_pending(session: Session) -> int:
    """Return how many slices' audio is still to be saved."""
    statement = sa.select(sa.func.count()).where(evidence.c.next_attempt_at.is_not(None), evidence.c.state == PENDING)
    return session.execute(statement).scalar_one()


def erase_evidence(session: Session, task_id: str, *, now: datetime, limit: int) -> int:
    """Have up to so many of a task's audio deleted; return how many."""
    some = sa.select(*_KEY).where(evidence.c.task_id == task_id, _KEPT).limit(limit)
    return _erase(session, some, now=now)


def erase_old(session: Session, *, before: datetime, now: datetime, limit: int) -> int:
    """Have up to so many audio deleted that was wanted before a time, but for tasks that are held; return how many."""
    old = (_KEPT, evidence.c.created_at < before, evidence.c.task_id.not_in(sa.select(holds.c.task_id)))
    return _erase(session, sa.select(*_KEY).where(*old).order_by(evidence.c.created_at).limit(limit), now=now)


def _erase(session: Session, some: sa.Select[tuple[str, bytes]], *, now: datetime) -> int:
    """Mark rows as erased. Who captures one may write into the store until its lease ends, so it lies due till then."""
    due = sa.case((evidence.c.lease_until > now, evidence.c.lease_until), else_=sa.literal(now, UtcTime))
    told = dict.fromkeys(("content_type", "size", "reason", "lease", "lease_until"))
    statement = sa.update(evidence).where(sa.tuple_(*_KEY).in_(some))
    return session.execute(statement.values(state=ERASED, url=b"", next_attempt_at=due, **told)).rowcount


def erased_evidence(session: Session, *, now: datetime, limit: int) -> list[EvidenceRow]:
    """Return what is to be deleted in the store now."""
    due = sa.select(evidence).where(evidence.c.state == ERASED, evidence.c.next_attempt_at <= now)
    rows = session.execute(due.order_by(evidence.c.next_attempt_at).limit(limit))
    return [EvidenceRow(**row._mapping) for row in rows]  # noqa: SLF001


def delete_erased(session: Session, rows: Iterable[EvidenceRow]) -> None:
    """Forget audio that was deleted in the store."""
    for row in rows:
        session.execute(sa.delete(evidence).where(*_is(row.task_id, row.slice_key), evidence.c.state == ERASED))


def put_off_erased(session: Session, row: EvidenceRow, *, until: datetime) -> None:
    """Try to delete audio in the store again later."""
    which = (*_is(row.task_id, row.slice_key), evidence.c.state == ERASED)
    session.execute(sa.update(evidence).where(*which).values(next_attempt_at=until))


def has_evidence(session: Session, task_id: str) -> bool:
    """Return whether there is audio of a task, be it only to be deleted."""
    return (
        session.execute(sa.select(evidence.c.state).where(evidence.c.task_id == task_id).limit(1)).first() is not None
    )


_KEY = (evidence.c.task_id, evidence.c.slice_key)
_KEPT = evidence.c.state != sa.literal_column(f"'{ERASED}'")  # in the words of the index


def _is(task_id: str, slice_key: bytes) -> tuple[sa.ColumnElement[bool], ...]:
    return evidence.c.task_id == task_id, evidence.c.slice_key == slice_key


def _due(now: datetime, *, unleased_at: datetime | None = None) -> tuple[sa.ColumnElement[bool], ...]:
    free_at = unleased_at or now
    return (
        evidence.c.state == PENDING,
        evidence.c.next_attempt_at <= now,
        sa.or_(evidence.c.lease_until.is_(None), evidence.c.lease_until <= free_at),
    )
