"""The worker's captures: a few at once, none ended by another's fault, and nothing lost by a stop."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from tests.clients import AppClient
from tests.segment_server import AUDIO, Answer, SegmentServer
from tests.signed import content, form, piece
from tests.test_workers import working
from tests.waiting import until
from webhook import clock
from webhook.app import create_app
from webhook.data_keys import DataKeys
from webhook.errors import DatabaseError
from webhook.evidence import Evidence
from webhook.evidence_stores import Directory
from webhook.store import evidence as evidence_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeService
    from webhook.bootstrap import Service
    from webhook.db import Session
    from webhook.evidence import Settlement
    from webhook.segments import Segments
    from webhook.store.evidence import EvidenceRow


@pytest.fixture
def server() -> Iterator[SegmentServer]:
    with SegmentServer() as one:
        yield one


def tell(client: AppClient, *urls: str) -> None:
    """Flag a stream's slices, one for each link."""
    receiver = client.receiver()
    slices = [piece(at * 10, risk="high") | {"Url": url} for at, url in enumerate(urls)]
    told = form(content(*slices, TaskId="p-1", LiveId="room-1"), seed=receiver["seed"])
    assert client.callback(receiver["callback_url"], told) == 200


def shown(client: AppClient) -> list[Any]:
    [task] = client.items("/v1/tasks")
    return client.items(f"/v1/verdicts/{task['id']}/slices")


def states(client: AppClient) -> list[str]:
    return [each["evidence"] for each in shown(client)]


def test_no_more_are_fetched_at_once_than_the_settings_say(make_service: MakeService, server: SegmentServer) -> None:
    service = make_service(WEBHOOK_EVIDENCE_CONCURRENCY="2")
    client = AppClient(create_app(service))
    tell(client, *[server.answer(f"/{number}", Answer(held=True)) for number in range(5)])
    with working(service):
        until(lambda: server.busy == 2)
        server.release()
        until(lambda: states(client) == ["saved"] * 5)
    assert server.most_busy == 2


class Faulty(Evidence):
    """Evidence whose first capture fails in a way that nobody foresaw, and whose second cannot be settled."""

    def __init__(self, service: Service, directory: Path) -> None:
        super().__init__(keyring=service.keyring, store=Directory(directory), timeout=timedelta(seconds=1))
        self.faults: list[Exception] = [RuntimeError("nobody foresaw it")]
        self.troubles: list[Exception] = [DatabaseError("the disk is full")]

    async def capture(self, segments: Segments, row: EvidenceRow) -> Settlement:
        if self.faults:
            raise self.faults.pop()
        return await super().capture(segments, row)

    def settle(self, session: Session, settlement: Settlement) -> None:
        if self.troubles:
            raise self.troubles.pop()
        super().settle(session, settlement)


def test_a_capture_that_fails_is_made_again_after_its_lease(
    service: Service, server: SegmentServer, tmp_path: Path
) -> None:
    client = AppClient(create_app(service))
    tell(client, *[server.answer(f"/{number}", Answer()) for number in range(3)])
    faulty = Faulty(service, tmp_path / "webhook.db.evidence")
    with capture_logs() as logged, working(dataclasses.replace(service, evidence=faulty)):
        until(lambda: states(client) == ["saved"] * 3)
    assert {entry["event"] for entry in logged} >= {
        "A capture failed; it is made again.",
        "A capture could not be settled; it is made again.",
    }


def test_what_is_on_its_way_when_told_to_stop_is_finished(
    client: AppClient, service: Service, server: SegmentServer
) -> None:
    tell(client, server.answer("/held", Answer(held=True)))
    with working(service) as stop:
        server.asked("/held")
        stop()
        server.release()
    assert states(client) == ["saved"]


def test_what_takes_longer_than_a_stop_is_left_to_another_worker(
    client: AppClient, service: Service, server: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook.workers._LET_FINISH_SECONDS", 0.05)
    tell(client, server.answer("/held", Answer(held=True), Answer()))
    with working(service):
        server.asked("/held")
    assert states(client) == ["pending"]
    with service.database.read() as session:
        assert not evidence_store.has_due(session, now=clock.now())
        assert evidence_store.has_due(session, now=clock.now() + 3 * service.settings.evidence_timeout)


def test_two_workers_fetch_everything_once(make_service: MakeService, server: SegmentServer) -> None:
    service = make_service()
    client = AppClient(create_app(service))
    tell(client, *[server.answer(f"/{number}", Answer()) for number in range(12)])
    with working(service), working(make_service()):
        until(lambda: states(client) == ["saved"] * 12)
    assert [server.requests(f"/{number}") for number in range(12)] == [1] * 12


def test_audio_that_was_saved_under_an_older_key_is_still_given_back(
    client: AppClient, service: Service, server: SegmentServer, tmp_path: Path
) -> None:
    tell(client, server.answer("/old", Answer()))
    with working(service):
        until(lambda: states(client) == ["saved"])
    with service.database.read() as session:
        [task] = client.items("/v1/tasks")
        row = evidence_store.find_evidence(session, task["id"], bytes.fromhex(shown(client)[0]["id"]))
    assert row is not None
    masters = {"k2": b"2" * 32, "k1": bytes(range(32))}
    rotated = DataKeys(service.database, masters, suite="aes-256-gcm", period=timedelta(days=30)).keyring
    store = Directory(tmp_path / "webhook.db.evidence")
    assert Evidence(keyring=rotated, store=store, timeout=timedelta(seconds=1)).load(row) == AUDIO
