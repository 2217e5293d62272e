"""The power goes, again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.flows import kill

if TYPE_CHECKING:
    from pathlib import Path


def test_what_was_answered_200_survives_kill_9_once_and_reaches_the_subscriber_under_one_id(tmp_path: Path) -> None:
    tally = kill.run(tmp_path, rounds=10, seed=20260131)
    assert tally.violations == [], str(tally)
    assert tally.rounds == 10
    assert len(tally.acknowledged) > 100
    assert tally.submitted
