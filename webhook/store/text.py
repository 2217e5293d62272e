"""SQL as text for the statements of the hot path, where SQLAlchemy's own execution costs more than SQLite's.

Rows go in and come out as plain tuples, so whoever uses it translates times and JSON as `models` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa


def marks(count: int) -> str:
    """Return so many placeholders."""
    return ", ".join("?" * count)


def insert_text(table: sa.Table, columns: Sequence[str]) -> str:
    """Return the statement that inserts one row of these columns."""
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks(len(columns))})"  # noqa: S608 - our own names


def update_text(table: sa.Table, columns: Sequence[str]) -> str:
    """Return the statement that sets these columns of the row whose `id` comes last."""
    return f"UPDATE {table.name} SET {' = ?, '.join(columns)} = ? WHERE id = ?"  # noqa: S608 - our own names
