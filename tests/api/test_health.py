"""What machines ask of the service's health; nothing in it is secret."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests import databases
from tests.clients import NO_KEY, AppClient
from tests.signed import content, form, piece
from webhook import clock, limits
from webhook.app import create_app
from webhook.store import keys as key_store

if TYPE_CHECKING:
    from datetime import datetime

    import pytest

    from tests.conftest import MakeService
    from webhook.bootstrap import Service


def beat(service: Service, at: datetime) -> None:
    with service.database.transaction() as session:
        key_store.beat(session, key_store.WORKER, now=at)


def test_readiness_names_each_dependency(client: AppClient, service: Service) -> None:
    beat(service, clock.now())
    reply = client.get("/readyz", key=NO_KEY)
    assert reply.status == 200
    assert reply.json == {
        "status": "ready",
        "dependencies": {
            "database": "ok",
            "worker": "ok",
            "platform": "no credentials",
            "verification": "ok",
        },
    }


def test_submissions_that_wait_are_named_and_callbacks_are_taken_all_the_same(
    client: AppClient, service: Service
) -> None:
    with service.database.transaction() as session:
        for name, reason in ((limits.SUBMITS, "not_authorized"), (limits.QUERIES, "rate_limited")):
            now = clock.now()
            limits.close(session, name, reason=reason, called_at=now, now=now, dice=lambda: 0.5)
    reply = client.get("/readyz", key=NO_KEY)
    waits = "submissions wait: not_authorized, queries wait: rate_limited"
    assert (reply.status, reply.json["dependencies"]["platform"]) == (200, waits)
    assert b'webhook_limit_closed{limit="submits"} 1.0' in client.get("/metrics", key=NO_KEY).body


def test_a_worker_that_is_not_heard_of_is_named_and_callbacks_are_taken_all_the_same(
    client: AppClient, service: Service
) -> None:
    beat(service, clock.now() - timedelta(hours=1))
    reply = client.get("/readyz", key=NO_KEY)
    assert (reply.status, reply.json["dependencies"]["worker"]) == (200, "no sign of life")


@databases.needs_sqlite
def test_a_database_that_cannot_be_written_is_named_until_it_can(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook.db.sqlite._BUSY_SECONDS", 0.01)
    service = make_service()
    client = AppClient(create_app(service))
    receiver = client.receiver()
    body = form(content(piece(0)), seed=receiver["seed"])
    assert service.database.path
    with closing(sqlite3.connect(service.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert client.callback(receiver["callback_url"], body) == 503
        reply = client.get("/readyz", key=NO_KEY)
        assert (reply.status, reply.json["status"]) == (503, "not ready")
        assert reply.json["dependencies"]["database"] == "unavailable"
        assert client.get("/livez", key=NO_KEY).status == 200
        assert client.items("/v1/tasks") == [], "what was stored can still be read"
    reply = client.get("/readyz", key=NO_KEY)
    assert (reply.status, reply.json["status"], reply.json["dependencies"]["database"]) == (200, "ready", "ok")
    assert client.callback(receiver["callback_url"], body) == 200


def test_missing_settings_are_named(make_service: MakeService) -> None:
    client = AppClient(create_app(make_service(WEBHOOK_PLATFORM_UID="")))
    assert "WEBHOOK_PLATFORM_UID" in client.get("/readyz", key=NO_KEY).json["dependencies"]["verification"]


def test_the_metrics_are_prometheus_text_and_say_how_things_stand(client: AppClient) -> None:
    receiver = client.receiver()
    client.made("/v1/tasks", {"url": "https://example.com/a.mp3"})
    client.made("/v1/subscriptions", {"url": "https://example.com/"})
    assert client.callback(receiver["callback_url"], form(content(piece(0)), seed=receiver["seed"])) == 200
    assert client.callback(receiver["callback_url"], form("?", seed=receiver["seed"])) == 200
    text = client.get("/metrics", key=NO_KEY).body.decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["webhook_database_up",] == 1
    assert samples["webhook_tasks", "queued"] == 1
    assert samples["webhook_callbacks_kept", "unreadable"] == 1
    assert samples["webhook_events_behind",] == 2
    assert samples["webhook_callbacks_total", "accepted"] == 1
    assert samples["webhook_callback_seconds_count",] == 2
    assert samples["webhook_api_requests_total", "POST /v1/tasks", "201"] == 1
    assert receiver["seed"] not in text
    assert receiver["callback_url"].rpartition("/")[2] not in text


def test_the_docs_fetch_nothing_from_elsewhere(client: AppClient) -> None:
    page = client.get("/docs", key=NO_KEY)
    assert page.headers["Content-Type"].startswith("text/html")
    assert b"http://" not in page.body
    assert b"https://" not in page.body
