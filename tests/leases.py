"""Leases of calls of the platform, as the database has them: a dead worker's are over when a test says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PATIENCE_SECONDS = 30


def held(directory: Path) -> list[str]:
    """Return the leases that tasks are held by; one lease may hold several."""
    with closing(_connected(directory)) as database:
        return [row[0] for row in database.execute("SELECT DISTINCT lease FROM tasks WHERE lease_until > 0")]


def end(directory: Path, leases: Iterable[str]) -> None:
    """Let leases be over, as they are a minute after their worker died."""
    with closing(_connected(directory)) as database:
        database.executemany("UPDATE tasks SET lease_until = 0 WHERE lease = ?", [(lease,) for lease in leases])


def _connected(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / "webhook.db", timeout=_PATIENCE_SECONDS, isolation_level=None)
