"""A short soak; `python -m tests.flows.soak` does it for hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.flows import soak

if TYPE_CHECKING:
    from pathlib import Path


def test_under_faults_and_kills_all_is_charged_once_and_ends_with_every_slice_or_a_reason(tmp_path: Path) -> None:
    tally = soak.run(tmp_path, seconds=15, seed=20261121, hurried_leases=True)
    assert tally.violations == []
    assert tally.killed
    assert tally.agreement.faults
    assert {one.kind for one in tally.submissions.values()} == {"file", "upload", "stream"}
    assert tally.agreement.ends["completed"] > len(tally.submissions) / 3
