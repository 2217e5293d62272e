"""`webhook doctor --security` as a command, and what commands leave for it to be seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.running import ENCRYPTION_KEYS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import RunCommand


@pytest.fixture(autouse=True)
def _no_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at no other process: another test's may show the key of all tests."""
    monkeypatch.setattr("webhook.posture.keys._PROCESSES", tmp_path / "none")


def test_the_command_says_what_it_lacks(webhook: RunCommand, tmp_path: Path) -> None:
    missing = {"WEBHOOK_DATABASE_URL": f"sqlite:///{tmp_path}/no.db"}
    status, _, err = webhook("doctor", "--security", **missing)
    assert (status, "Run `webhook migrate` first" in err) == (1, True)
    assert webhook("migrate")[0] == 0
    status, out, _ = webhook("doctor", "--security", "--json")
    assert (status, json.loads(out)["ok"]) == (0, True)
    status, _, err = webhook("doctor", "--security", WEBHOOK_FLAG_LEVEL="severe")
    assert (status, "WEBHOOK_FLAG_LEVEL" in err) == (1, True)


def test_a_rotation_of_the_master_key_is_in_the_audit_log_once(webhook: RunCommand) -> None:
    assert webhook("migrate")[0] == 0
    both = {"WEBHOOK_ENCRYPTION_KEYS": f"k2:{'A' * 43}=,{ENCRYPTION_KEYS}"}

    def told() -> list[Any]:
        lines = webhook("audit", "list", "--action", "master_key.rotated", "--json", **both)[1].splitlines()
        return [(one["object_id"], one["details"]) for one in map(json.loads, lines)]

    assert webhook("keys", "rotate-master")[0] == 0
    assert told() == [], "there was nothing to rotate"
    for _ in range(2):
        assert webhook("keys", "rotate-master", **both)[0] == 0
    assert told() == [("k2", {"sealed": 0, "wrapped": 1})]


def test_a_verification_of_the_audit_log_is_noted(webhook: RunCommand) -> None:
    assert webhook("keys", "create", "a", "--role", "reader")[0] == 0
    assert webhook("audit", "verify")[0] == 0
    report = json.loads(webhook("doctor", "--security", "--json")[1])
    [log] = [item for item in report["items"] if item["id"] == "audit_log"]
    assert log["evidence"]["last_verified_whole"] | {"at": ""} == {"at": "", "rows": 1, "fault": None}
