"""The database: SQLite for one machine, PostgreSQL for many; engine, transactions, and waking when it changes.

A `Session` is one open transaction. Functions that take one never commit; whoever opened it does, by
leaving `Database.transaction()`. What a transaction that writes reads in order to change it, it locks
(`for_update`), and what must not be done twice at once it does `alone`: both are needed on PostgreSQL only,
since SQLite has one writer at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import make_url

from webhook.db.base import (
    Changes,
    Database,
    Link,
    Session,
    alone,
    ask_alone,
    for_update,
    is_postgresql,
    is_writing,
    try_alone,
    without_nul,
)
from webhook.db.sqlite import SqliteDatabase, claim_web

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Changes",
    "Database",
    "Link",
    "Session",
    "alone",
    "ask_alone",
    "claim_web",
    "for_update",
    "is_postgresql",
    "is_writing",
    "open_database",
    "path_of",
    "try_alone",
    "without_nul",
]


def path_of(url: str) -> Path | None:
    """Return the file of an SQLite database, None of a server's."""
    return None if _is_postgresql(url) else SqliteDatabase.path_of(url)


def open_database(url: str) -> Database:
    """Return the database of an SQLAlchemy URL. Open it after a fork, never before: no connection survives one."""
    if _is_postgresql(url):
        from webhook.db.postgres import PostgresDatabase  # it needs the extra `postgres`

        return PostgresDatabase(url)
    return SqliteDatabase(url)


def _is_postgresql(url: str) -> bool:
    return make_url(url).get_backend_name() == "postgresql"
