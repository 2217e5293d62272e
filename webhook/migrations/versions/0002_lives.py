"""A task's whole life: uploads, streams watched, shared limits, evidence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import TEXT, only

revision = "0002"
down_revision = "0001"

_TASK_COLUMNS = {
    "upload_size": sa.BigInteger(),
    "uploaded": TEXT,
    "uploaded_at": sa.BigInteger(),
    "started_at": sa.BigInteger(),
    "answered_at": sa.BigInteger(),
    "silent_since": sa.BigInteger(),
}


def upgrade() -> None:
    """Add the columns and tables."""
    for name, kind in _TASK_COLUMNS.items():
        op.add_column("tasks", sa.Column(name, kind, nullable=True))
    op.create_table(
        "evidence",
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("slice_key", sa.LargeBinary(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("url", sa.LargeBinary(), nullable=False),
        sa.Column("content_type", TEXT, nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("object", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("lease", TEXT, nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "slice_key"),
    )
    op.create_index(
        "evidence_due",
        "evidence",
        ["next_attempt_at"],
        unique=False,
        **only("next_attempt_at IS NOT NULL"),
    )
    op.create_table(
        "limits",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("spent_until", sa.BigInteger(), nullable=True),
        sa.Column("closed_until", sa.BigInteger(), nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("closed_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("limits")
    op.drop_index("evidence_due", table_name="evidence")
    op.drop_table("evidence")
    for name in _TASK_COLUMNS:
        op.drop_column("tasks", name)
