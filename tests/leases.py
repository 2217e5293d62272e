"""Leases of calls of the platform, as the database has them: a dead worker's are over when a test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from tests import databases

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def held(directory: Path) -> list[str]:
    """Return the leases that tasks are held by; one lease may hold several."""
    with databases.connected(directory) as database:
        return list(database.execute(sa.text("SELECT DISTINCT lease FROM tasks WHERE lease_until > 0")).scalars())


def end(directory: Path, leases: Iterable[str]) -> None:
    """Let leases be over, as they are a minute after their worker died."""
    with databases.connected(directory) as database:
        for lease in leases:
            database.execute(sa.text("UPDATE tasks SET lease_until = 0 WHERE lease = :lease"), {"lease": lease})
