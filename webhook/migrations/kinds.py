"""Column types and index options that the revisions have in common, for both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.types import TypeEngine

TEXT: TypeEngine[Any] = sa.String().with_variant(sa.String(collation="C"), "postgresql")
SERIAL: TypeEngine[Any] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def only(where: str) -> dict[str, Any]:
    """Return what limits an index to some rows."""
    return {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
