"""Data keys; saved audio tells which of them it is sealed under."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import TEXT

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the table and the column; what was sealed directly under a master key stays as it is."""
    op.create_table(
        "data_keys",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("suite", TEXT, nullable=False),
        sa.Column("master_key_id", TEXT, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("destroyed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("evidence", sa.Column("data_key_id", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Take them away again: what was sealed under a data key is lost with them."""
    op.drop_column("evidence", "data_key_id")
    op.drop_table("data_keys")
