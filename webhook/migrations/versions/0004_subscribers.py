"""Brokers, limits, circuits and order: a URL with a password is sealed beside the one that is shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import TEXT, only

revision = "0004"
down_revision = "0003"

_SUBSCRIPTION_COLUMNS = {
    "sealed_url": sa.LargeBinary(),
    "ordering": TEXT,
    "max_in_flight": sa.Integer(),
    "max_per_second": sa.Integer(),
    "spent_until": sa.BigInteger(),
    "paused_until": sa.BigInteger(),
}
_DELIVERY_COLUMNS = {"order_key": TEXT, "event_seq": sa.BigInteger()}


def upgrade() -> None:
    """Add the columns, and the index by which a task's deliveries keep their order."""
    for name, kind in _SUBSCRIPTION_COLUMNS.items():
        op.add_column("subscriptions", sa.Column(name, kind, nullable=True))
    op.add_column("subscriptions", sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("subscriptions", sa.Column("stamp", sa.BigInteger(), nullable=False, server_default="0"))
    for name, kind in _DELIVERY_COLUMNS.items():
        op.add_column("deliveries", sa.Column(name, kind, nullable=True))
    op.create_index(
        "deliveries_in_order",
        "deliveries",
        ["subscription_id", "order_key", "event_seq"],
        unique=False,
        **only("order_key IS NOT NULL AND state = 'pending'"),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_index("deliveries_in_order", table_name="deliveries")
    for name in _DELIVERY_COLUMNS:
        op.drop_column("deliveries", name)
    for name in (*_SUBSCRIPTION_COLUMNS, "failures", "stamp"):
        op.drop_column("subscriptions", name)
