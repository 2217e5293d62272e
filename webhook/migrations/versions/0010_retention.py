"""Retention and erasure: tombstones, holds, and by what old rows and an erased task's are found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import TEXT, only

revision = "0010"
down_revision = "0008"

_INDEXES = {
    "slice_pages_text": ("slice_pages", ["written_at"], only("written_at IS NOT NULL")),
    "evidence_kept": ("evidence", ["created_at"], only("state != 'erased'")),
    "events_task": ("events", ["task_id"], only("task_id IS NOT NULL")),
    "tombstones_unfinished": ("tombstones", ["erased_at"], only("finished_at IS NULL")),
}
_WRITTEN = "UPDATE slice_pages SET written_at = (SELECT updated_at FROM tasks WHERE tasks.id = slice_pages.task_id)"


def upgrade() -> None:
    """Add the tables, and let the slices that are there count from their task's last change on."""
    op.create_table(
        "tombstones",
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=True),
        sa.Column("erased_at", sa.BigInteger(), nullable=False),
        sa.Column("erased_by", TEXT, nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("task_id"),
        sa.UniqueConstraint("token_digest"),
    )
    op.create_table(
        "holds",
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.Column("placed_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.add_column("slice_pages", sa.Column("written_at", sa.BigInteger(), nullable=True))
    op.execute(_WRITTEN)
    for name, (table, columns, options) in _INDEXES.items():
        op.create_index(name, table, columns, unique=False, **options)


def downgrade() -> None:
    """Take them away again."""
    for name, (table, _columns, _options) in _INDEXES.items():
        op.drop_index(name, table_name=table)
    op.drop_column("slice_pages", "written_at")
    op.drop_table("holds")
    op.drop_table("tombstones")
