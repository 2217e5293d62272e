"""The posture over the API: the same items as on the command line, and bounded in what it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.test_access import make_key
from tests.test_audit import append, attack, update
from webhook import posture
from webhook.roles import Role

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients import AppClient
    from webhook.bootstrap import Service


@pytest.fixture(autouse=True)
def _no_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at no other process: another test's may show the key of all tests."""
    monkeypatch.setattr("webhook.posture.keys._PROCESSES", tmp_path / "none")


def test_each_item_is_shown_with_what_shows_it(client: AppClient) -> None:
    shown = client.shown("/v1/posture")
    assert shown.keys() == {"ok", "items"}
    assert [item["id"] for item in shown["items"]] == [row.id for row in posture._ROWS]
    assert {tuple(item) for item in shown["items"]} == {("id", "ask", "source", "state", "finding", "mend", "evidence")}
    assert shown["ok"] is True


def test_what_is_wrong_is_told(client: AppClient, service: Service) -> None:
    append(service, 1, 2)
    attack(service, update("status = 1", 1))
    shown = client.shown("/v1/posture")
    assert shown["ok"] is False
    assert [item["id"] for item in shown["items"] if item["state"] == "wrong"] == ["audit_log"]


def test_a_long_log_is_verified_at_its_end_alone(
    client: AppClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook.posture.subject._ROWS", 2)
    append(service, *range(6))
    attack(service, update("status = 1", 3))
    [item] = [item for item in client.shown("/v1/posture")["items"] if item["id"] == "audit_log"]
    assert (item["state"], item["evidence"]["verified_now"]) == ("warning", "the last 2")


def test_it_is_for_who_may_mend_it_and_reading_it_is_not_written_down(client: AppClient, service: Service) -> None:
    for role in Role:
        expected = 200 if role in {Role.ADMIN, Role.OPERATOR} else 403
        assert client.get("/v1/posture", key=make_key(service, role)).status == expected
    assert client.get("/v1/posture", unknown=1).fields == ["unknown"]
    assert client.items("/v1/audit") == []
