"""The audit log: a chain of rows that refuse to be changed or removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from webhook.migrations.kinds import SERIAL, TEXT, only

revision = "0008"
down_revision = "0007"

_INDEXES = (("at",), ("actor", "at"), ("action", "at"), ("actor", "action", "at"))
_REFUSAL = "audit_log is append-only"
_APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER {name} BEFORE {verb} ON audit_log BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for name, verb in (("audit_log_no_update", "UPDATE"), ("audit_log_no_delete", "DELETE"))
    ],
    "postgresql": [
        f"""
            CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$
        """,
        """
            CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
            FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
        """,
    ],
}


def upgrade() -> None:
    """Make the table, its indexes, and what refuses all but inserts."""
    op.create_table(
        "audit_log",
        sa.Column("number", SERIAL, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("actor_name", TEXT, nullable=True),
        sa.Column("role", TEXT, nullable=True),
        sa.Column("address", TEXT, nullable=True),
        sa.Column("request_id", TEXT, nullable=True),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("object_id", TEXT, nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("details", TEXT, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    for names in _INDEXES:
        op.create_index(f"audit_log_{'_'.join(names)}", "audit_log", [*names, "number"], unique=False)
    op.create_index(
        "audit_log_object_id_at",
        "audit_log",
        ["object_id", "at", "number"],
        unique=False,
        **only("object_id IS NOT NULL"),
    )
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    """Remove it with all that it says."""
    op.drop_table("audit_log")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_log_is_append_only()")
