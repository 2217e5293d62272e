"""Tasks, and the verdict that each carries."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from webhook import clock
from webhook.models import receivers, task_labels, tasks, to_json
from webhook.store.text import insert_text, marks, update_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from webhook.db import Session

ACTIVE_STATES = ("queued", "processing")


class LabelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One label over all slices of a task.

    Attributes:
        risk_level: the highest of the label's findings.
        confidence: the highest, 0 to 100, or None where no finding has one.
        slices: how many slices carry the label.
    """

    label: str
    risk_level: str | None
    confidence: float | None
    slices: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `tasks`: a file or stream, its state, and its verdict. What has a default is empty in a new one."""

    id: str
    origin: str
    kind: str
    service: str
    state: str
    source: dict[str, Any]
    data_id: str | None = None
    live_id: str | None = None
    referer: str | None = None
    crypt_type: str
    token_digest: bytes | None = None
    secrets: bytes | None = None
    receiver_id: str | None = None
    platform_task_id: str | None = None
    error: dict[str, Any] | None = None
    risk_level: str | None = None
    stated_risk_level: str | None = None
    labels: tuple[LabelSummary, ...] = ()
    slice_count: int = 0
    flagged_slice_count: int = 0
    last_slice_at: datetime | None = None
    created_at: datetime
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime
    cancel_requested_at: datetime | None = None
    attempt_count: int = 0
    next_attempt_at: datetime | None = None
    lease: str | None = None
    lease_until: datetime | None = None
    upload_size: int | None = None
    uploaded: dict[str, str] | None = None
    uploaded_at: datetime | None = None
    started_at: datetime | None = None
    answered_at: datetime | None = None
    silent_since: datetime | None = None


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """What a callback's token leads to: a task of ours, or a receiver.

    Attributes:
        id: the task's or receiver's id.
        receiver: whether it is a receiver.
        uid: account UID of the receiver, None for the configured one.
        secrets: sealed JSON {token, seed}.
    """

    id: str
    receiver: bool
    crypt_type: str
    uid: str | None
    secrets: bytes


# The columns that are not what they seem: how they are read from the database, and how they are written.
_LABELS = msgspec.json.Decoder(tuple[LabelSummary, ...])
_READ: dict[str, Callable[[Any], Any]] = {
    "source": msgspec.json.decode,
    "error": msgspec.json.decode,
    "uploaded": msgspec.json.decode,
    "labels": _LABELS.decode,
    **{name: clock.from_microseconds for name in Task.__struct_fields__ if name.endswith(("_at", "_until", "_since"))},
}
_WRITTEN: dict[str, Callable[[Any], Any]] = {
    name: clock.to_microseconds if read is clock.from_microseconds else to_json for name, read in _READ.items()
}

_RESULT_COLUMNS = (
    "state",
    "error",
    "platform_task_id",
    "risk_level",
    "stated_risk_level",
    "labels",
    "slice_count",
    "flagged_slice_count",
    "last_slice_at",
    "submitted_at",
    "finished_at",
    "updated_at",
    "next_attempt_at",
    "started_at",
    "answered_at",
    "silent_since",
)
_SELECT = f"SELECT {', '.join(Task.__struct_fields__)} FROM tasks"  # noqa: S608 - our own names
_INSERT = insert_text(tasks, Task.__struct_fields__)
_UPDATE_RESULTS = update_text(tasks, _RESULT_COLUMNS)
_INSERT_LABEL = f"{insert_text(task_labels, ('label', 'task_id'))} ON CONFLICT DO NOTHING"
_ADDRESSES = """
    SELECT token_digest, id, 0, crypt_type, NULL, secrets FROM tasks WHERE token_digest IN ({marks})
    UNION ALL
    SELECT token_digest, id, 1, crypt_type, uid, secrets FROM receivers
    WHERE token_digest IN ({marks}) AND deleted_at IS NULL
"""


def _task_of(row: Iterable[Any]) -> Task:
    values = dict(zip(Task.__struct_fields__, row, strict=True))
    for name, read in _READ.items():
        if values[name] is not None:
            values[name] = read(values[name])
    return Task(**values)


def _values(task: Task, columns: Iterable[str]) -> tuple[Any, ...]:
    values = msgspec.structs.asdict(task)
    for name, write in _WRITTEN.items():
        if values[name] is not None:
            values[name] = write(values[name])
    return tuple([values[name] for name in columns])


def _task(row: sa.Row[Any]) -> Task:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["labels"] = tuple(LabelSummary(**label) for label in values["labels"])
    return Task(**values)


def insert_task(session: Session, task: Task) -> bool:
    """Insert a task; False where one is active with the same service and `live_id`, or the same external id."""
    statement = insert(tasks).values(msgspec.structs.asdict(task)).on_conflict_do_nothing()
    return session.execute(statement).rowcount == 1


def insert_tasks(session: Session, rows: Iterable[Task]) -> None:
    """Insert tasks that are known not to be there."""
    values = [_values(row, Task.__struct_fields__) for row in rows]
    if values:
        session.exec_driver_sql(_INSERT, values)


def task(session: Session, task_id: str) -> Task | None:
    """Return one task."""
    row = session.execute(sa.select(tasks).where(tasks.c.id == task_id)).first()
    return None if row is None else _task(row)


def tasks_by_id(session: Session, ids: Iterable[str]) -> dict[str, Task]:
    """Return the tasks of these ids that exist."""
    wanted = tuple(set(ids))
    if not wanted:
        return {}
    found = [_task_of(row) for row in session.exec_driver_sql(f"{_SELECT} WHERE id IN ({marks(len(wanted))})", wanted)]
    return {task.id: task for task in found}


def active_stream(session: Session, *, service: str, live_id: str) -> Task | None:
    """Return the stream that is queued or running under this `live_id`."""
    statement = sa.select(tasks).where(
        tasks.c.service == service,
        tasks.c.live_id == live_id,
        tasks.c.origin == "submitted",
        tasks.c.kind == "live",
        tasks.c.state.in_(ACTIVE_STATES),
    )
    row = session.execute(statement).first()
    return None if row is None else _task(row)


def addresses(session: Session, token_digests: Sequence[bytes]) -> dict[bytes, Address]:
    """Return what these tokens lead to; unknown ones are left out."""
    wanted = tuple(token_digests)
    statement = _ADDRESSES.format(marks=marks(len(wanted)))
    return {
        digest: Address(id=id_, receiver=bool(receiver), crypt_type=crypt_type, uid=uid, secrets=secrets)
        for digest, id_, receiver, crypt_type, uid, secrets in session.exec_driver_sql(statement, wanted * 2)
    }


def address_of(session: Session, address_id: str) -> Address | None:
    """Return the address with this task's or receiver's id, also of a receiver that was deleted."""
    row = session.execute(sa.select(tasks).where(tasks.c.id == address_id)).first()
    receiver = row is None
    if receiver:
        row = session.execute(sa.select(receivers).where(receivers.c.id == address_id)).first()
    if row is None or row.secrets is None:
        return None
    return Address(
        id=row.id,
        receiver=receiver,
        crypt_type=row.crypt_type,
        uid=row.uid if receiver else None,
        secrets=row.secrets,
    )


def update_results(session: Session, changed: Iterable[Task]) -> None:
    """Write what results may change in tasks."""
    rows = [_values(task, (*_RESULT_COLUMNS, "id")) for task in changed]
    if rows:
        session.exec_driver_sql(_UPDATE_RESULTS, rows)


def update_task(session: Session, task_id: str, /, *, held: str | None = None, **values: Any) -> bool:
    """Write some columns of a task; with `held`, only while that lease holds. Return whether it was written."""
    statement = sa.update(tasks).where(tasks.c.id == task_id)
    if held is not None:
        statement = statement.where(tasks.c.lease == held)
    return session.execute(statement.values(values)).rowcount == 1


def add_labels(session: Session, labels: Iterable[tuple[str, str]]) -> None:
    """Note (label, task id) pairs for finding tasks by label."""
    rows = list(labels)
    if rows:
        session.exec_driver_sql(_INSERT_LABEL, rows)


def lease_tasks(session: Session, found: Iterable[Task], *, lease: str, lease_until: datetime, **values: Any) -> None:
    """Take tasks for a call of the platform; nobody else gets them until the lease ends."""
    ids = [task.id for task in found]
    if ids:
        session.execute(
            sa.update(tasks).where(tasks.c.id.in_(ids)).values(lease=lease, lease_until=lease_until, **values)
        )


def due_streams(session: Session, *, now: datetime, limit: int) -> list[Task]:
    """Return streams to be registered, in the order they came; one with a lease was left in the middle of a call."""
    return _due(session, _ACTIVE_STREAM, tasks.c.state == "queued", now=now, order=(tasks.c.id,), limit=limit)


def due_files(
    session: Session, *, now: datetime, handed_over_since: datetime, to_hand_over: bool, limit: int
) -> list[Task]:
    """Return files to be submitted, in the order they came; one with a lease was left in the middle of a call.

    Args:
        handed_over_since: the platform has forgotten what was uploaded before.
        to_hand_over: those whose upload must go to the platform's storage first, or those that can be submitted.
    """
    lies_there = sa.func.coalesce(tasks.c.uploaded_at >= handed_over_since, sa.false())
    # whoever died in the middle of the submit of an upload leaves it to be settled, not to be uploaded again
    missing = sa.and_(
        tasks.c.upload_size.is_not(None),
        sa.not_(lies_there),
        sa.or_(tasks.c.lease.is_(None), tasks.c.uploaded_at.is_(None)),
    )
    which = missing if to_hand_over else sa.not_(missing)
    queued = (tasks.c.state == "queued", tasks.c.kind == "audio")
    return _due(session, *queued, which, now=now, order=(tasks.c.id,), limit=limit)


def due_later(session: Session, *, now: datetime, limit: int) -> list[Task]:
    """Return tasks that the platform has: to be asked for, or given up."""
    which = (tasks.c.state != "queued", sa.or_(tasks.c.state != "processing", tasks.c.cancel_requested_at.is_(None)))
    return _due(session, *which, now=now, order=(tasks.c.next_attempt_at, tasks.c.id), limit=limit)


def due_cancels(session: Session, *, now: datetime, limit: int) -> list[Task]:
    """Return running streams that are to be canceled."""
    which = (_ACTIVE_STREAM, tasks.c.state == "processing", tasks.c.cancel_requested_at.is_not(None))
    return _due(session, *which, now=now, order=(tasks.c.next_attempt_at, tasks.c.id), limit=limit)


def has_due(session: Session, *, now: datetime) -> bool:
    """Return whether a call of the platform is due."""
    return session.execute(sa.select(tasks.c.id).where(*_is_due(now)).limit(1)).first() is not None


def running_streams(session: Session, *, now: datetime) -> int:
    """Return how many streams run, those included that are just being registered."""
    statement = (
        sa.select(sa.func.count())
        .select_from(tasks)
        .where(_ACTIVE_STREAM, sa.or_(tasks.c.state == "processing", tasks.c.lease_until > now))
    )
    return int(session.execute(statement).scalar_one())


def quiet_streams(session: Session, *, since: datetime) -> list[Task]:
    """Return running streams that have brought nothing since then, and are not yet known to be silent."""
    statement = sa.select(tasks).where(
        _ACTIVE_STREAM,
        tasks.c.state == "processing",
        tasks.c.silent_since.is_(None),
        sa.func.coalesce(tasks.c.last_slice_at, tasks.c.started_at) <= since,
    )
    return [_task(row) for row in session.execute(statement)]


def queue(session: Session) -> list[str]:
    """Return the ids of the tasks that wait to be submitted, the next one first."""
    statement = sa.select(tasks.c.id).where(tasks.c.state == "queued").order_by(tasks.c.kind.desc(), tasks.c.id)
    return list(session.execute(statement).scalars())


def with_uploads(session: Session, ids: Iterable[str]) -> set[str]:
    """Return which of these tasks have a file on our disk."""
    statement = sa.select(tasks.c.id).where(tasks.c.id.in_(list(ids)), tasks.c.upload_size.is_not(None))
    return set(session.execute(statement).scalars())


# in the words of the index tasks_active_live_id, which serves it then
_ACTIVE_STREAM = sa.text("origin = 'submitted' AND kind = 'live' AND state IN ('queued', 'processing')")


def _due(
    session: Session,
    *which: sa.ColumnElement[bool] | sa.TextClause,
    now: datetime,
    order: tuple[sa.ColumnElement[Any], ...],
    limit: int,
) -> list[Task]:
    if limit <= 0:
        return []
    statement = sa.select(tasks).where(*which, *_is_due(now)).order_by(*order).limit(limit)
    return [_task(row) for row in session.execute(statement)]


def _is_due(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (tasks.c.next_attempt_at <= now, sa.or_(tasks.c.lease_until.is_(None), tasks.c.lease_until <= now))


class TaskQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks or verdicts to list; None is any.

    Attributes:
        label: exact, or with `*` at its end.
        since, until: of `created_at`, or of `updated_at` for verdicts; until is exclusive.
        order_by_update: newest verdict first, instead of newest task.
        after: `sort key, id` of the last one shown.
    """

    states: tuple[str, ...] | None = None
    kind: str | None = None
    service: str | None = None
    data_id: str | None = None
    live_id: str | None = None
    risk_levels: tuple[str, ...] | None = None
    label: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    order_by_update: bool = False
    after: tuple[datetime, str] | None = None
    limit: int


def list_tasks(session: Session, query: TaskQuery) -> list[Task]:
    """Return up to `limit` tasks, newest first."""
    by = tasks.c.updated_at if query.order_by_update else tasks.c.created_at
    statement = sa.select(tasks).order_by(by.desc(), tasks.c.id.desc()).limit(query.limit)
    for column, value in (
        (tasks.c.kind, query.kind),
        (tasks.c.service, query.service),
        (tasks.c.data_id, query.data_id),
        (tasks.c.live_id, query.live_id),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if query.states is not None:
        statement = statement.where(tasks.c.state.in_(query.states))
    if query.risk_levels is not None:
        statement = statement.where(tasks.c.risk_level.in_(query.risk_levels))
    if query.label is not None:
        statement = statement.where(tasks.c.id.in_(sa.select(task_labels.c.task_id).where(_label_is(query.label))))
    if query.since is not None:
        statement = statement.where(by >= query.since)
    if query.until is not None:
        statement = statement.where(by < query.until)
    if query.after is not None:
        statement = statement.where(
            sa.tuple_(by, tasks.c.id) < sa.tuple_(*query.after, types=[by.type, tasks.c.id.type])
        )
    return [_task(row) for row in session.execute(statement)]


def _label_is(pattern: str) -> sa.ColumnElement[bool]:
    """Match a label exactly, or as a prefix: a range, so that the index serves it."""
    if not pattern.endswith("*"):
        return task_labels.c.label == pattern
    prefix = pattern[:-1]
    return sa.and_(task_labels.c.label >= prefix, task_labels.c.label < prefix + "\U0010ffff")


def count_by_state(session: Session, states: Sequence[str]) -> dict[str, int]:
    """Return how many tasks are in each of these states."""
    statement = sa.select(tasks.c.state, sa.func.count()).where(tasks.c.state.in_(states)).group_by(tasks.c.state)
    return dict.fromkeys(states, 0) | {row[0]: row[1] for row in session.execute(statement)}
