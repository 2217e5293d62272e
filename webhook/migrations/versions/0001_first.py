"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import SERIAL, TEXT, only

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "callbacks",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("address_id", TEXT, nullable=False),
        sa.Column("task_id", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.Column("stated_task_id", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("message", TEXT, nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "callbacks_not_accepted",
        "callbacks",
        ["state", "id"],
        unique=False,
        **only("state != 'accepted'"),
    )
    op.create_index(
        "callbacks_once",
        "callbacks",
        ["address_id", "digest"],
        unique=True,
        **only("state != 'quarantined'"),
    )
    op.create_index(
        "callbacks_quarantined_once",
        "callbacks",
        ["address_id", "digest", "checksum"],
        unique=True,
        **only("state = 'quarantined'"),
    )
    op.create_table(
        "cursors",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("event_type", TEXT, nullable=False),
        sa.Column("subscription_id", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("schedule_from", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("lease", TEXT, nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subscription_id", "event_id"),
    )
    op.create_index(
        "deliveries_due",
        "deliveries",
        ["subscription_id", "next_attempt_at"],
        unique=False,
        **only("state = 'pending'"),
    )
    op.create_index("deliveries_of_subscription", "deliveries", ["subscription_id", "id"], unique=False)
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("seq", SERIAL, autoincrement=True, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("task_id", TEXT, nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_type", "events", ["type", "seq"], unique=False)
    op.create_table(
        "heartbeats",
        sa.Column("process", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("process"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("client", TEXT, nullable=False),
        sa.Column("route", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client", "route", "key"),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "meta",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "receivers",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("crypt_type", TEXT, nullable=False),
        sa.Column("uid", TEXT, nullable=True),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_digest"),
    )
    op.create_table(
        "slice_pages",
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("first_key", sa.LargeBinary(), nullable=False),
        sa.Column("last_key", sa.LargeBinary(), nullable=False),
        sa.Column("slice_count", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "first_key"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("event_types", TEXT, nullable=False),
        sa.Column("filter", TEXT, nullable=False),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("disabled_reason", TEXT, nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_secret_until", sa.BigInteger(), nullable=True),
        sa.Column("failing_since", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "task_labels",
        sa.Column("label", TEXT, nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("label", "task_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tasks",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("service", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("data_id", TEXT, nullable=True),
        sa.Column("live_id", TEXT, nullable=True),
        sa.Column("referer", TEXT, nullable=True),
        sa.Column("crypt_type", TEXT, nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("secrets", sa.LargeBinary(), nullable=True),
        sa.Column("receiver_id", TEXT, nullable=True),
        sa.Column("platform_task_id", TEXT, nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("risk_level", TEXT, nullable=True),
        sa.Column("stated_risk_level", TEXT, nullable=True),
        sa.Column("labels", TEXT, nullable=False),
        sa.Column("slice_count", sa.Integer(), nullable=False),
        sa.Column("flagged_slice_count", sa.Integer(), nullable=False),
        sa.Column("last_slice_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("submitted_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("cancel_requested_at", sa.BigInteger(), nullable=True),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("lease", TEXT, nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_digest"),
    )
    op.create_index(
        "tasks_active_live_id",
        "tasks",
        ["service", "live_id"],
        unique=True,
        **only("origin = 'submitted' AND kind = 'live' AND state IN ('queued', 'processing')"),
    )
    op.create_index("tasks_data_id", "tasks", ["data_id"], unique=False, **only("data_id IS NOT NULL"))
    op.create_index("tasks_due", "tasks", ["next_attempt_at"], unique=False, **only("next_attempt_at IS NOT NULL"))
    op.create_index("tasks_live_id", "tasks", ["live_id"], unique=False, **only("live_id IS NOT NULL"))
    op.create_index("tasks_risk_level", "tasks", ["risk_level", "updated_at", "id"], unique=False)
    op.create_index("tasks_state", "tasks", ["state", "id"], unique=False)
    op.create_index("tasks_updated_at", "tasks", ["updated_at", "id"], unique=False)


def downgrade() -> None:
    """Drop the tables."""
    for table in (
        "tasks",
        "task_labels",
        "subscriptions",
        "slice_pages",
        "receivers",
        "meta",
        "idempotency_keys",
        "heartbeats",
        "events",
        "delivery_attempts",
        "deliveries",
        "cursors",
        "callbacks",
        "api_keys",
    ):
        op.drop_table(table)
