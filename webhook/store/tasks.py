"""Tasks, and the verdict that each carries."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.db import for_update, is_postgresql, is_writing
from webhook.models import holds, receivers, task_labels, tasks, to_json
from webhook.store.text import fetch, insert_rows, one_of, run, update_rows, upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from webhook.db import Session

KINDS = ("audio", "live")
ACTIVE_STATES = ("queued", "processing")
FINAL_STATES = ("completed", "failed", "canceled", "expired")


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
COLUMNS = ", ".join(Task.__struct_fields__)
_SELECT = f"SELECT {COLUMNS} FROM tasks"  # noqa: S608 - our own names
_ADDRESSES = """
    SELECT token_digest, id, 0, crypt_type, NULL, secrets FROM tasks WHERE {among}
    UNION ALL
    SELECT token_digest, id, 1, crypt_type, uid, secrets FROM receivers
    WHERE {among} AND deleted_at IS NULL
"""


def task_of(row: Iterable[Any]) -> Task:
    """Return the task of a row of `COLUMNS`, as the database keeps them."""
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
    return upsert(session, tasks, msgspec.structs.asdict(task), keep=True)


def insert_tasks(session: Session, rows: Iterable[Task]) -> None:
    """Insert tasks."""
    insert_rows(session, tasks, Task.__struct_fields__, [_values(row, Task.__struct_fields__) for row in rows])


def task(session: Session, task_id: str) -> Task | None:
    """Return one task."""
    row = session.execute(for_update(session, sa.select(tasks).where(tasks.c.id == task_id))).first()
    return None if row is None else _task(row)


def tasks_by_id(session: Session, ids: Iterable[str]) -> dict[str, Task]:
    """Return the tasks of these ids that exist."""
    wanted = tuple(set(ids))
    return tasks_of(fetch(session, *ask_tasks(session, wanted))) if wanted else {}


def ask_tasks(session: Session, ids: Collection[str]) -> tuple[str, Sequence[Any]]:
    """Return what to ask for tasks; `tasks_of` reads the answer."""
    lock = " ORDER BY id FOR UPDATE" if is_postgresql(session) and is_writing(session) else ""
    among, values = one_of("id", tuple(ids))
    return f"{_SELECT} WHERE {among}{lock}", values


def tasks_of(rows: Iterable[Iterable[Any]]) -> dict[str, Task]:
    """Return the tasks of rows of `COLUMNS`, by id."""
    found = [task_of(row) for row in rows]
    return {task.id: task for task in found}


def active_stream(session: Session, *, service: str, live_id: str) -> Task | None:
    """Return the stream that is queued or running under this `live_id`."""
    statement = sa.select(tasks).where(
        tasks.c.service == service,
        tasks.c.live_id == live_id,
        _ACTIVE_STREAM,
    )
    row = session.execute(statement).first()
    return None if row is None else _task(row)


def addresses(session: Session, token_digests: Sequence[bytes]) -> dict[bytes, Address]:
    """Return what these tokens lead to; unknown ones are left out."""
    among, values = one_of("token_digest", token_digests)
    return {
        digest: Address(id=id_, receiver=bool(receiver), crypt_type=crypt_type, uid=uid, secrets=secrets)
        for digest, id_, receiver, crypt_type, uid, secrets in fetch(
            session, _ADDRESSES.format(among=among), values * 2
        )
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
    update_rows(session, tasks, _RESULT_COLUMNS, rows)


def update_task(session: Session, task_id: str, /, *, held: str | None = None, **values: Any) -> bool:
    """Write some columns of a task; with `held`, only while that lease holds. Return whether it was written."""
    statement = sa.update(tasks).where(tasks.c.id == task_id)
    if held is not None:
        statement = statement.where(tasks.c.lease == held)
    return session.execute(statement.values(values)).rowcount == 1


def move_labels(session: Session, changed: Iterable[tuple[Task | None, Task]]) -> None:
    """Note the labels of tasks, with what the tasks are listed by, in place of what was noted.

    Args:
        changed: each as it was, None where it is new, and as it is now.
    """
    gone: set[tuple[Any, ...]] = set()
    come: set[tuple[Any, ...]] = set()
    for before, after in changed:
        old, new = set(_label_rows(before) if before else ()), set(_label_rows(after))
        gone |= old - new
        come |= new - old
    if gone:
        run(session, _FORGET_LABEL, sorted(gone))
    insert_rows(session, task_labels, _LABEL_COLUMNS, sorted(come), known=True)


def _label_rows(task: Task) -> Iterable[tuple[Any, ...]]:
    if not task.labels:
        return ()
    listed_by = (task.kind, task.service, task.risk_level or NO_LEVEL, clock.to_microseconds(task.updated_at), task.id)
    return ((label.label, *listed_by) for label in task.labels)


def delete_task(session: Session, gone: Task) -> None:
    """Delete a task, and what its labels note; what it has brought is in tables of its own."""
    move = sorted(_label_rows(gone))
    if move:
        run(session, _FORGET_LABEL, move)
    session.execute(sa.delete(tasks).where(tasks.c.id == gone.id))


def erasable_tasks(session: Session, data_id: str, *, limit: int) -> list[Task]:
    """Return up to so many tasks of this `data_id` that are over and not held, the first made first."""
    over = sa.or_(tasks.c.origin != "submitted", tasks.c.state.not_in(ACTIVE_STATES))
    held = tasks.c.id.in_(sa.select(holds.c.task_id))
    statement = sa.select(tasks).where(tasks.c.data_id == data_id, over, ~held)
    statement = statement.order_by(tasks.c.created_at, tasks.c.id).limit(limit)
    return [_task(row) for row in session.execute(for_update(session, statement))]


def count_of_data(session: Session, data_id: str) -> tuple[int, int]:
    """Return how many tasks of this `data_id` are held, and how many others are not over."""
    held = sa.select(holds.c.task_id)
    of_data = sa.select(sa.func.count()).where(tasks.c.data_id == data_id)
    running = of_data.where(tasks.c.origin == "submitted", tasks.c.state.in_(ACTIVE_STATES), tasks.c.id.not_in(held))
    return session.execute(of_data.where(tasks.c.id.in_(held))).scalar_one(), session.execute(running).scalar_one()


NO_LEVEL = ""  # in `task_labels`, whose columns cannot be NULL
_LABEL_COLUMNS = tuple(column.name for column in task_labels.c)
_FORGET_LABEL = f"DELETE FROM task_labels WHERE {' AND '.join(f'{name} = ?' for name in _LABEL_COLUMNS)}"  # noqa: S608


def lease_tasks(session: Session, found: Iterable[Task], *, lease: str, lease_until: datetime, **values: Any) -> None:
    """Take tasks for a call of the platform; nobody else gets them until the lease ends."""
    ids = [task.id for task in found]
    if ids:
        session.execute(
            sa.update(tasks).where(tasks.c.id.in_(ids)).values(lease=lease, lease_until=lease_until, **values)
        )


def due_streams(session: Session, *, now: datetime, limit: int) -> list[Task]:
    """Return streams to be registered, in the order they came; one with a lease was left in the middle of a call."""
    return _next_queued(session, _ACTIVE_STREAM, tasks.c.kind == "live", now=now, limit=limit)


def due_files(
    session: Session, *, now: datetime, handed_over_since: datetime, to_hand_over: bool, limit: int
) -> list[Task]:
    """Return files to be submitted, in the order they came; one with a lease was left in the middle of a call.

    Args:
        handed_over_since: the platform has forgotten what was uploaded before.
        to_hand_over: those whose upload must go to the platform's storage first, or those that can be submitted.
    """
    lies_there = sa.func.coalesce(tasks.c.uploaded_at >= handed_over_since, sa.false())
    is_upload = tasks.c.upload_size.is_not(None)
    # whoever died in the middle of the submit of an upload leaves it to be settled, not to be uploaded again
    missing = sa.and_(is_upload, sa.not_(lies_there), sa.or_(tasks.c.lease.is_(None), tasks.c.uploaded_at.is_(None)))
    # only files are uploaded, and of their own index there is no kind
    which = (is_upload, missing) if to_hand_over else (tasks.c.kind == "audio", sa.not_(missing))
    return _next_queued(session, *which, now=now, limit=limit)


def due_later(session: Session, *, now: datetime, limit: int) -> list[Task]:
    """Return tasks that the platform has, to be asked for or given up: the longest due first."""
    which = sa.or_(tasks.c.state != "processing", tasks.c.cancel_requested_at.is_(None))
    due = (_NOT_QUEUED, which, tasks.c.next_attempt_at <= now, _is_free(now))
    return _claimable(session, *due, order=(tasks.c.next_attempt_at, tasks.c.id), limit=limit)


def due_cancels(session: Session, *, now: datetime, limit: int) -> list[Task]:
    """Return running streams that are to be canceled."""
    which = "state = 'processing' AND cancel_requested_at IS NOT NULL AND next_attempt_at <= ?"
    due = f"{which} AND (lease_until IS NULL OR lease_until <= ?) ORDER BY next_attempt_at, id LIMIT ?"
    return _active_streams(session, due, clock.to_microseconds(now), clock.to_microseconds(now), max(limit, 0))


def has_due(session: Session, *, now: datetime) -> bool:
    """Return whether a call of the platform is due."""
    return bool(fetch(session, _HAS_DUE, (clock.to_microseconds(now),) * 4))


_DUE = "FROM tasks WHERE state {} 'queued' AND next_attempt_at <= ? AND (lease_until IS NULL OR lease_until <= ?)"
_HAS_DUE = f"SELECT 1 WHERE EXISTS (SELECT 1 {_DUE.format('=')}) OR EXISTS (SELECT 1 {_DUE.format('!=')})"


def running_streams(session: Session, *, now: datetime) -> int:
    """Return how many streams run, those included that are just being registered."""
    statement = f"SELECT count(*) FROM {_from_active(session)} AND (state = 'processing' OR lease_until > ?)"  # noqa: S608
    [(count,)] = fetch(session, statement, (clock.to_microseconds(now),))
    return int(count)


def quiet_streams(session: Session, *, since: datetime) -> list[Task]:
    """Return running streams that have brought nothing since then, and are not yet known to be silent."""
    quiet = "state = 'processing' AND silent_since IS NULL AND coalesce(last_slice_at, started_at) <= ?"
    return _active_streams(session, quiet, clock.to_microseconds(since))


def with_uploads(session: Session, ids: Iterable[str]) -> set[str]:
    """Return which of these tasks have a file on our disk."""
    statement = sa.select(tasks.c.id).where(tasks.c.id.in_(list(ids)), tasks.c.upload_size.is_not(None))
    return set(session.execute(statement).scalars())


# in the words of the indexes that serve them then
_ACTIVE = "origin = 'submitted' AND kind = 'live' AND state IN ('queued', 'processing')"
_ACTIVE_STREAM = sa.text(_ACTIVE)
_QUEUED = tasks.c.state == sa.literal_column("'queued'")
_NOT_QUEUED = tasks.c.state != sa.literal_column("'queued'")


def _active_streams(session: Session, which: str, *values: Any) -> list[Task]:
    lock = " FOR UPDATE SKIP LOCKED" if is_postgresql(session) and is_writing(session) else ""
    statement = f"SELECT {COLUMNS} FROM {_from_active(session)} AND {which}{lock}"  # noqa: S608 - our own words
    return [task_of(row) for row in fetch(session, statement, values)]


def _from_active(session: Session) -> str:
    """Return the streams that the platform's limit keeps few; other systems' are under way for ever."""
    by_index = "" if is_postgresql(session) else " INDEXED BY tasks_active_live_id"
    return f"tasks{by_index} WHERE {_ACTIVE}"


def _next_queued(
    session: Session, *which: sa.ColumnElement[bool] | sa.TextClause, now: datetime, limit: int
) -> list[Task]:
    # as a sum, since an index of the times would bring all that is due, to be sorted
    is_due = sa.text("next_attempt_at + 0 <= :due").bindparams(due=clock.to_microseconds(now))
    order = (tasks.c.created_at, tasks.c.id)
    return _claimable(session, *which, _QUEUED, is_due, _is_free(now), order=order, limit=limit)


def _claimable(
    session: Session,
    *which: sa.ColumnElement[bool] | sa.TextClause,
    order: tuple[sa.ColumnElement[Any], ...],
    limit: int,
) -> list[Task]:
    if limit <= 0:
        return []
    statement = sa.select(tasks).where(*which).order_by(*order).limit(limit)
    return [_task(row) for row in session.execute(for_update(session, statement, skip_locked=True))]


def _is_free(now: datetime) -> sa.ColumnElement[bool]:
    return sa.or_(tasks.c.lease_until.is_(None), tasks.c.lease_until <= now)


def count_by_state(session: Session, states: Sequence[str]) -> dict[str, int]:
    """Return how many tasks are in each of these states."""
    in_states = (tasks.c.kind.in_(KINDS), tasks.c.state.in_(states))
    statement = sa.select(tasks.c.state, sa.func.count()).where(*in_states).group_by(tasks.c.state)
    return dict.fromkeys(states, 0) | {row[0]: row[1] for row in session.execute(statement)}
