"""`/v1/keys`: keys made, shown once, listed with their state, revoked; and how often each may be used."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from structlog.testing import capture_logs

from tests.clients import ADMIN_KEY, NO_KEY, AppClient, Hub
from tests.signed import content, form, piece
from tests.waiting import until
from webhook.api.access import Access, Client
from webhook.app import create_app
from webhook.clock import to_microseconds
from webhook.errors import DatabaseError, Forbidden, TooManyRequests, Unauthorized
from webhook.roles import Role

if TYPE_CHECKING:
    from tests.clients import Reply
    from tests.conftest import Clock, MakeService
    from webhook.bootstrap import Service


def test_a_key_is_shown_once_and_does_what_its_role_may(client: AppClient) -> None:
    made = client.made("/v1/keys", {"name": "the dashboard", "role": "reader"})
    assert re.fullmatch(r"wk_[A-Za-z0-9_-]{43}", made["key"])
    shown = client.shown(f"/v1/keys/{made['id']}")
    assert shown == {name: made[name] for name in made if name != "key"}
    assert client.items("/v1/keys", limit=1) == [shown]
    assert client.get("/v1/tasks", key=made["key"]).status == 200
    assert client.get("/v1/keys", key=made["key"]).status == 403


def test_a_revoked_key_opens_nothing_and_is_still_listed(client: AppClient) -> None:
    made = client.made("/v1/keys", {"name": "a", "role": "reader"})
    assert client.delete(f"/v1/keys/{made['id']}").status == 204
    assert client.get("/v1/tasks", key=made["key"]).status == 401
    [listed] = client.items("/v1/keys")
    assert listed["state"] == "revoked"
    assert listed["revoked_at"]
    assert client.delete(f"/v1/keys/{made['id']}").status == 404
    assert client.get("/v1/keys/key_nobody").status == 404


def test_a_key_that_is_revoked_while_its_request_waits_is_given_nothing(client: AppClient, service: Service) -> None:
    made = client.made("/v1/keys", {"name": "a", "role": "reader"})
    waiting = gevent.spawn(AppClient(create_app(service)).get, "/v1/events", key=made["key"], wait=20)
    gevent.sleep(0.2)
    assert client.delete(f"/v1/keys/{made['id']}").status == 204
    stream = client.made("/v1/streams", {"url": "rtmp://example.com/1", "live_id": "1"})
    client.delete(f"/v1/streams/{stream['id']}")
    reply: Reply = waiting.get(timeout=30)
    assert (reply.status, b"items" in reply.body) == (401, False)


def test_both_keys_of_a_client_make_a_repeated_request_one(client: AppClient) -> None:
    body = {"name": "a", "role": "submitter"}
    old, new = (client.made("/v1/keys", body)["key"] for _ in range(2))
    other = client.made("/v1/keys", {**body, "name": "b"})["key"]
    tasks = [
        client.post("/v1/tasks", {"url": "https://example.com/a.mp3"}, key=key, headers={"Idempotency-Key": "k"}).json
        for key in (old, new, other)
    ]
    assert [task["id"] == tasks[0]["id"] for task in tasks] == [True, True, False]


def test_a_third_live_key_of_a_client_is_a_conflict(client: AppClient) -> None:
    body = {"name": "a", "role": "reader"}
    made = [client.made("/v1/keys", body) for _ in range(2)]
    assert client.post("/v1/keys", body).status == 409
    assert client.delete(f"/v1/keys/{made[0]['id']}").status == 204
    assert client.post("/v1/keys", body).status == 201


def test_a_repeated_request_makes_one_key(client: AppClient) -> None:
    body, once = {"name": "a", "role": "reader"}, {"Idempotency-Key": "k"}
    made = [client.made("/v1/keys", body, headers=once) for _ in range(3)]
    assert len({each["key"] for each in made}) == 1
    assert len(client.items("/v1/keys")) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "", "role": "reader"}, "name"),
        ({"name": "a\0", "role": "reader"}, "name"),
        ({"name": "a", "role": "owner"}, "role"),
        ({"name": "a", "role": "reader", "expires_in_seconds": 0}, "expires_in_seconds"),
        ({"name": "a", "role": "reader", "expires_in_seconds": "60"}, "expires_in_seconds"),
        ({"name": "a", "role": "reader", "networks": []}, "networks"),
        ({"name": "a", "role": "reader", "networks": ["10.0.0.0/33"]}, "networks.0"),
        ({"name": "a", "role": "reader", "networks": ["example.com"]}, "networks.0"),
    ],
)
def test_a_wrong_field_is_named(client: AppClient, body: dict[str, Any], field: str) -> None:
    assert client.post("/v1/keys", body).fields == [field]


def test_a_network_is_shown_in_its_one_spelling(client: AppClient) -> None:
    networks = ["10.1.2.3/8", "2001:DB8:0::/32", "192.0.2.1"]
    made = client.made("/v1/keys", {"name": "a", "role": "reader", "networks": networks})
    assert made["networks"] == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]


@pytest.mark.parametrize(("networks", "status"), [(["127.0.0.0/8"], 200), (["10.0.0.0/8", "2001:db8::/32"], 403)])
def test_a_key_works_from_its_networks_only(client: AppClient, networks: list[str], status: int) -> None:
    made = client.made("/v1/keys", {"name": "a", "role": "reader", "networks": networks})
    reply = client.get("/v1/tasks", key=made["key"])
    assert reply.status == status
    assert reply.headers["Content-Type"] == ("application/json" if status == 200 else "application/problem+json")


def test_a_client_behind_a_trusted_proxy_has_the_address_that_the_proxy_says(make_service: MakeService) -> None:
    client = AppClient(create_app(make_service(WEBHOOK_TRUSTED_PROXIES="127.0.0.1/32")))
    key = client.made("/v1/keys", {"name": "a", "role": "reader", "networks": ["192.0.2.0/24"]})["key"]
    for told, status in (("192.0.2.9", 200), ("192.0.2.9, 6.6.6.6", 403), ("", 403)):
        assert client.get("/v1/tasks", key=key, headers={"X-Forwarded-For": told}).status == status


def test_when_a_key_was_last_used_is_shown_soon(client: AppClient) -> None:
    made = client.made("/v1/keys", {"name": "a", "role": "reader"})
    assert made["last_used_at"] is None
    assert client.get("/v1/tasks", key=made["key"]).status == 200
    until(lambda: client.shown(f"/v1/keys/{made['id']}")["last_used_at"])
    used = client.shown(f"/v1/keys/{made['id']}")["last_used_at"]
    for _ in range(3):
        assert client.get("/v1/tasks", key=made["key"]).status == 200
    assert client.shown(f"/v1/keys/{made['id']}")["last_used_at"] == used


def test_a_use_that_cannot_be_noted_is_no_concern_of_the_request(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("The disk is full.")

    made = client.made("/v1/keys", {"name": "a", "role": "reader"})
    monkeypatch.setattr("webhook.store.keys.note_use", fail)
    with capture_logs() as logged:
        assert [client.get("/v1/tasks", key=made["key"]).status for _ in range(3)] == [200] * 3
    assert [(entry["log_level"], entry["key"]) for entry in logged] == [("warning", made["id"])]


def test_an_operator_changes_the_pace_of_a_subscription_and_not_where_it_leads(client: AppClient) -> None:
    path = f"/v1/subscriptions/{client.made('/v1/subscriptions', {'url': 'https://example.com/'})['id']}"
    key = client.made("/v1/keys", {"name": "on call", "role": "operator"})["key"]
    pace = {"state": "disabled", "max_in_flight": 1, "max_per_second": 2}
    assert client.patch(path, pace, key=key).status == 200
    assert pace.items() <= client.shown(path).items()
    for change in ({"url": "https://elsewhere.example/"}, {"event_types": ["*"]}, pace | {"filter": {}}):
        assert client.patch(path, change, key=key).status == 403
    assert client.patch("/v1/subscriptions/nobody", {"url": "https://a.example/"}, key=key).status == 403
    assert client.patch("/v1/subscriptions/nobody", pace, key=key).status == 404


class Entrance:
    """`Access` under a clock of its own, so that rates and ends can be waited for."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self._access = Access(service, now=clock, ticks=lambda: to_microseconds(clock()) * 1000)
        self._hub = Hub()

    def enter(self, key: str, address: str = "192.0.2.1") -> tuple[Client, dict[str, str]]:
        with self._hub:
            return self._access.enter(authorization=f"Bearer {key}", address=address)


def create(service: Service, clock: Clock, **options: Any) -> str:
    with service.database.transaction() as session:
        return service.api_keys.create(session, name="a", role=Role.READER, now=clock(), **options)[1]


def test_a_key_ends_with_its_lifetime(service: Service, clock: Clock) -> None:
    key = create(service, clock, lifetime=timedelta(days=1))
    entrance = Entrance(service, clock)
    clock.advance(seconds=86_399)
    client, _ = entrance.enter(key)
    assert (client.name, client.role) == ("a", Role.READER)
    clock.advance(seconds=1)
    with pytest.raises(Unauthorized, match="has expired"):
        entrance.enter(key)


def test_a_use_is_noted_once_a_minute(service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[datetime] = []
    monkeypatch.setattr("webhook.api.access.gevent.spawn", lambda _note, _id, now: spawned.append(now))
    key = create(service, clock)
    entrance = Entrance(service, clock)
    for _ in range(180):
        entrance.enter(key)
        clock.advance(seconds=1)
    assert spawned == [datetime(2026, 1, 31, 12, minute, tzinfo=UTC) for minute in range(3)]


@pytest.fixture
def _standing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes between requests, however slow the machine."""
    monkeypatch.setattr("webhook.api.http.Access", partial(Access, ticks=lambda: 0))


@pytest.mark.usefixtures("_standing_still")
def test_each_answer_says_what_is_left_and_then_it_is_429(make_service: MakeService) -> None:
    service = make_service(WEBHOOK_REQUESTS_PER_SECOND="1", WEBHOOK_REQUESTS_AT_ONCE="3")
    client = AppClient(create_app(service))
    replies = [
        client.get(path) for path in ("/v1/tasks", "/v1/tasks/nobody", "/v1/nothing", "/v1/tasks", "/v1/nothing")
    ]
    assert [reply.status for reply in replies] == [200, 404, 404, 429, 429]
    assert {reply.headers["RateLimit-Policy"] for reply in replies} == {'"key";q=3;w=3'}
    assert [reply.headers["RateLimit"] for reply in replies[:3]] == [f'"key";r={3 - n};t={n}' for n in (1, 2, 3)]
    for refused in replies[3:]:
        assert refused.headers["RateLimit"] == '"key";r=0;t=1'
        assert refused.headers["Retry-After"] == "1"
        assert refused.json["title"] == "Too many requests"


@pytest.mark.usefixtures("_standing_still")
def test_what_needs_no_key_and_callbacks_are_never_counted(make_service: MakeService) -> None:
    service = make_service(WEBHOOK_REQUESTS_PER_SECOND="1", WEBHOOK_REQUESTS_AT_ONCE="1")
    client = AppClient(create_app(service))
    receiver = client.receiver()
    assert client.get("/v1/tasks").status == 429
    for number in range(5):
        body = form(content(piece(number)), seed=receiver["seed"])
        assert client.callback(receiver["callback_url"], body) == 200
        assert client.get("/readyz", key=NO_KEY).status == 200


def test_a_key_s_rate_is_its_own_and_comes_back(make_service: MakeService, clock: Clock) -> None:
    service = make_service(WEBHOOK_REQUESTS_PER_SECOND="2", WEBHOOK_REQUESTS_AT_ONCE="4")
    key, entrance = create(service, clock), Entrance(service, clock)
    for _ in range(4):
        entrance.enter(key)
    with pytest.raises(TooManyRequests) as refusal:
        entrance.enter(key)
    assert refusal.value.headers["Retry-After"] == "1"
    assert entrance.enter(ADMIN_KEY)
    clock.advance(seconds=0.5)
    assert entrance.enter(key)
    with pytest.raises(TooManyRequests):
        entrance.enter(key)


def test_an_address_may_not_guess_for_long_and_locks_nobody_out_who_was_right_before(
    service: Service, clock: Clock
) -> None:
    key, other = create(service, clock), create(service, clock)
    entrance = Entrance(service, clock)
    entrance.enter(key, "2001:db8::1")
    for number in range(300):
        with pytest.raises(Unauthorized, match="not known"):
            entrance.enter(f"wk_{number}", f"2001:db8::{number:x}")  # all of one customer's network
    for wrong in ("wk_300", other):
        with pytest.raises(TooManyRequests) as refusal:
            entrance.enter(wrong, "2001:db8::1")
        assert refusal.value.headers == {"Retry-After": "1"}
    assert entrance.enter(key, "2001:db8::1")
    assert entrance.enter(other, "2001:db8:0:1::1")
    with pytest.raises(Unauthorized):
        entrance.enter("wk_300", "192.0.2.1")
    clock.advance(seconds=0.1)
    with pytest.raises(Unauthorized):
        entrance.enter("wk_300", "2001:db8::1")


def test_a_key_that_was_right_before_counts_as_wrong_when_it_is_not_any_more(service: Service, clock: Clock) -> None:
    key = create(service, clock, networks=["192.0.2.0/24"])
    entrance = Entrance(service, clock)
    entrance.enter(key)
    for _ in range(300):
        with pytest.raises(Forbidden):
            entrance.enter(key, "198.51.100.1")
    with pytest.raises(TooManyRequests):
        entrance.enter(key, "198.51.100.1")
    assert entrance.enter(key)


def test_only_so_many_keys_are_remembered_as_right(
    service: Service, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook.api.access._MOST_KNOWN", 1)
    first, second = create(service, clock), create(service, clock)
    entrance = Entrance(service, clock)
    for key in (first, second):
        entrance.enter(key)
    for number in range(300):
        with pytest.raises(Unauthorized):
            entrance.enter(f"wk_{number}")
    with pytest.raises(TooManyRequests):
        entrance.enter(first)
    assert entrance.enter(second)
