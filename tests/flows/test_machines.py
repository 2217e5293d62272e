"""A short run of several machines; `python -m tests.flows.machines` goes on for longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import databases
from tests.flows import machines

if TYPE_CHECKING:
    from pathlib import Path


@databases.needs_postgresql
def test_machines_that_are_killed_lose_and_double_nothing(tmp_path: Path) -> None:
    tally = machines.run_for(tmp_path, seconds=10, seed=20261121)
    assert tally.violations == [], str(tally)
    assert tally.killed > 5
    assert len(tally.acknowledged) > 50
