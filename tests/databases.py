"""The database that the tests work with: SQLite, or the PostgreSQL server that `TEST_POSTGRESQL_URL` names.

The URL's user must be allowed to make databases: there is one for each directory that a service runs in, and one
for all services of this process, which is emptied for each test.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from webhook import migrations, models

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = os.environ.get("TEST_POSTGRESQL_URL")
_PATIENCE_SECONDS = 30

needs_sqlite = pytest.mark.skipif(SERVER is not None, reason="this is about SQLite's file")
once = pytest.mark.skipif(SERVER is not None, reason="TEST_POSTGRESQL_URL changes nothing: run it without")
needs_postgresql = pytest.mark.skipif(SERVER is None, reason="TEST_POSTGRESQL_URL names no server")


def url_of(directory: Path) -> str:
    """Return the URL of a directory's own database; it need not exist yet on SQLite, and is empty on PostgreSQL."""
    if SERVER is None:
        return f"sqlite:///{directory}/webhook.db"
    return _made(f"webhook_test_{hashlib.sha256(str(directory).encode()).hexdigest()[:16]}")


def fresh_url(directory: Path) -> str:
    """Return the URL of a migrated and empty database for services in this process."""
    if SERVER is None:
        shutil.copyfile(_migrated_file(), directory / "webhook.db")
        return url_of(directory)
    shared = _made(f"webhook_test_{os.getpid()}")
    _migrate(shared)
    engine = sa.create_engine(shared)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_log DISABLE TRIGGER USER")
        for table in models.metadata.sorted_tables:
            connection.execute(sa.delete(table))
        connection.exec_driver_sql("ALTER TABLE audit_log ENABLE TRIGGER USER")
        connection.exec_driver_sql("ALTER SEQUENCE events_seq_seq RESTART")
    engine.dispose()
    return shared


def directories(directory: Path) -> dict[str, str]:
    """Return the settings by which files lie where they do with SQLite."""
    if SERVER is None:
        return {}
    return {
        "WEBHOOK_UPLOAD_DIRECTORY": f"{directory}/webhook.db.uploads",
        "WEBHOOK_EVIDENCE_STORE": f"file://{directory}/webhook.db.evidence",
    }


@contextmanager
def connected(directory: Path, *, url: str | None = None) -> Iterator[sa.Connection]:
    """Look into a directory's database, or that of a URL, or change it; each statement is a transaction."""
    database = sa.make_url(url or url_of(directory))
    options = {"timeout": _PATIENCE_SECONDS} if database.get_backend_name() == "sqlite" else {}
    engine = sa.create_engine(database, isolation_level="AUTOCOMMIT", connect_args=options)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@cache
def _migrated_file() -> Path:
    """Return a migrated SQLite file, to be copied: migrating takes much longer than most tests."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory)
    _migrate(f"sqlite:///{directory}/webhook.db")
    return directory / "webhook.db"


@cache
def _migrate(database: str) -> None:
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    engine.dispose()


@cache
def _made(name: str) -> str:
    """Make a database on the server, which goes when we do; return its URL."""
    _on_server(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
    atexit.register(_on_server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    return sa.make_url(SERVER or "").set(database=name).render_as_string(hide_password=False)


def _on_server(*statements: str) -> None:
    engine = sa.create_engine(SERVER or "", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
