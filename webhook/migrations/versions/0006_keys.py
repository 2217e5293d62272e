"""API keys that end, tell when they were last used, and may be bound to networks.

Their digests become keyed ones when a process first starts, since a migration has no key. That is not undone: the
version before does not know them, and needs new keys.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import TEXT

revision = "0006"
down_revision = "0005"

_COLUMNS = {"expires_at": sa.BigInteger(), "last_used_at": sa.BigInteger(), "networks": TEXT}


def upgrade() -> None:
    """Add the columns."""
    for name, kind in _COLUMNS.items():
        op.add_column("api_keys", sa.Column(name, kind, nullable=True))


def downgrade() -> None:
    """Take them away again."""
    for name in _COLUMNS:
        op.drop_column("api_keys", name)
