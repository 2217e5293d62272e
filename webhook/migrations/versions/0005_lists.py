"""Lists that stay as fast as they are while the tables grow: one index range each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import TEXT, only

if TYPE_CHECKING:
    from collections.abc import Iterable

revision = "0005"
down_revision = "0004"

_BATCH = 1000  # tasks whose labels are noted at once

_DATA_ID, _LIVE_ID = only("data_id IS NOT NULL"), only("live_id IS NOT NULL")
_PENDING = only("state = 'pending'")
_NEW: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "tasks_waiting": ("tasks", ["next_attempt_at"], only("state = 'queued'")),
    "tasks_uploads": ("tasks", ["created_at", "id"], only("state = 'queued' AND upload_size IS NOT NULL")),
    "tasks_due": ("tasks", ["next_attempt_at", "id"], only("next_attempt_at IS NOT NULL AND state != 'queued'")),
    "tasks_listed": ("tasks", ["kind", "state", "created_at", "id"], {}),
    "tasks_verdicts": ("tasks", ["kind", "service", "risk_level", "updated_at", "id"], {}),
    "tasks_data_id": ("tasks", ["data_id", "created_at", "id"], _DATA_ID),
    "tasks_data_id_verdicts": ("tasks", ["data_id", "updated_at", "id"], _DATA_ID),
    "tasks_live_id": ("tasks", ["live_id", "created_at", "id"], _LIVE_ID),
    "tasks_live_id_verdicts": ("tasks", ["live_id", "updated_at", "id"], _LIVE_ID),
    "callbacks_of_external": ("callbacks", ["task_id", "id"], only("task_id != address_id")),
    "deliveries_due": ("deliveries", ["subscription_id", "next_attempt_at", "id"], _PENDING),
    "deliveries_of_subscription": ("deliveries", ["subscription_id", "state", "id"], {}),
}
_OLD: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "tasks_due": ("tasks", ["next_attempt_at"], only("next_attempt_at IS NOT NULL")),
    "tasks_updated_at": ("tasks", ["updated_at", "id"], {}),
    "tasks_data_id": ("tasks", ["data_id"], _DATA_ID),
    "tasks_live_id": ("tasks", ["live_id"], _LIVE_ID),
    "tasks_risk_level": ("tasks", ["risk_level", "updated_at", "id"], {}),
    "tasks_state": ("tasks", ["state", "id"], {}),
    "deliveries_due": ("deliveries", ["subscription_id", "next_attempt_at"], _PENDING),
    "deliveries_of_subscription": ("deliveries", ["subscription_id", "id"], {}),
}


def upgrade() -> None:
    """Change the indexes, and note with each label what its task is listed by."""
    _drop(_OLD)
    op.drop_table("task_labels")
    key = ("label", "kind", "service", "risk_level", "updated_at", "task_id")
    op.create_table(
        "task_labels",
        *[sa.Column(name, sa.BigInteger() if name == "updated_at" else TEXT, nullable=False) for name in key],
        sa.PrimaryKeyConstraint(*key),
        sqlite_with_rowid=False,
    )
    _note_labels()
    _create(_NEW)


def downgrade() -> None:
    """Change them back."""
    _drop(_NEW)
    pairs = sa.select(sa.column("label", TEXT), sa.column("task_id", TEXT)).select_from(sa.table("task_labels"))
    rows = [tuple(row) for row in op.get_bind().execute(pairs)]
    op.drop_table("task_labels")
    task_labels = op.create_table(
        "task_labels",
        sa.Column("label", TEXT, nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("label", "task_id"),
        sqlite_with_rowid=False,
    )
    if rows:
        op.bulk_insert(task_labels, [{"label": label, "task_id": task_id} for label, task_id in rows])
    _create(_OLD)


def _create(indexes: dict[str, tuple[str, list[str], dict[str, Any]]]) -> None:
    for name, (table, columns, options) in indexes.items():
        op.create_index(name, table, columns, unique=False, **options)


def _drop(indexes: dict[str, tuple[str, list[str], dict[str, Any]]]) -> None:
    for name, (table, _columns, _options) in indexes.items():
        op.drop_index(name, table_name=table)


def _note_labels() -> None:
    """Note the labels of all tasks; some that were noted before went with a better version of their slice."""
    names = ("id", "kind", "service", "risk_level", "updated_at", "labels")
    tasks = sa.table("tasks", *[sa.column(name) for name in names])
    noted = sa.table("task_labels", *[sa.column(name) for name in ("label", "task_id", *names[1:5])])
    bind, last = op.get_bind(), ""
    some = sa.select(tasks).where(tasks.c.labels != "[]").order_by(tasks.c.id).limit(_BATCH)
    while found := list(bind.execute(some.where(tasks.c.id > last))):
        rows = [row for task in found for row in _rows(task)]
        if rows:
            bind.execute(sa.insert(noted), rows)
        last = found[-1].id


def _rows(task: Any) -> Iterable[dict[str, Any]]:
    # PostgreSQL takes no NUL, and where one was it is written as this
    labels = {entry["label"].replace("\0", "\N{REPLACEMENT CHARACTER}") for entry in json.loads(task.labels)}
    for label in labels:
        yield {
            "label": label,
            "kind": task.kind,
            "service": task.service,
            "risk_level": task.risk_level or "",
            "updated_at": task.updated_at,
            "task_id": task.id,
        }
