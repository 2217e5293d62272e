"""Subscriptions and their deliveries as an admin sees them; nothing is delivered here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from tests.clients import AppClient
from webhook import clock
from webhook.app import create_app
from webhook.events import EVENT_TYPES
from webhook.models import deliveries

if TYPE_CHECKING:
    from tests.conftest import MakeService
    from webhook.bootstrap import Service

HOOK = {"url": "https://example.com/hook"}
WISHES = {
    "event_types": ["task.*"],
    "filter": {"risk_levels": ["high"], "labels": ["political_*"], "services": ["s"], "kinds": ["live"]},
    "format": "cloudevents",
    "description": "the moderators",
    "ordering": "task",
    "max_in_flight": 1,
    "max_per_second": 10,
}
DEFAULTS: dict[str, Any] = {
    "event_types": [],
    "filter": {},
    "format": "standard",
    "description": None,
    "ordering": None,
    "max_in_flight": None,
    "max_per_second": None,
}
DEAD = {"state": "dead", "attempt_count": 10, "next_attempt_at": None}


def set_delivery(service: Service, delivery_id: str, **values: Any) -> None:
    """Bring a delivery into a state that only a worker brings it into."""
    with service.database.transaction() as session:
        session.execute(sa.update(deliveries).where(deliveries.c.id == delivery_id).values(values))


@pytest.fixture
def made(client: AppClient) -> Any:
    return client.made("/v1/subscriptions", HOOK)


def test_a_subscription_is_shown_without_its_secret(client: AppClient) -> None:
    reply = client.post(
        "/v1/subscriptions",
        {
            **HOOK,
            "event_types": ["slice.*", "task.completed"],
            "filter": {"risk_levels": ["high"], "labels": ["political_*"], "kinds": ["live"], "data_id_prefix": "a"},
            "format": "cloudevents",
            "description": "the moderators",
        },
    )
    assert reply.status == 201
    shown = reply.json
    assert shown.pop("secret").startswith("whsec_")
    assert reply.headers["Location"] == f"/v1/subscriptions/{shown['id']}"
    assert client.shown(reply.headers["Location"]) == shown
    assert client.items("/v1/subscriptions") == [shown]
    assert (shown["state"], shown["disabled_reason"], shown["format"]) == ("active", None, "cloudevents")
    assert shown["filter"]["labels"] == ["political_*"]


def test_without_more_it_is_about_everything(made: Any) -> None:
    assert made.items() >= DEFAULTS.items()


@pytest.mark.parametrize("field", WISHES)
def test_null_is_the_default(client: AppClient, field: str) -> None:
    made = client.made("/v1/subscriptions", {**HOOK, **WISHES, field: None})
    assert {name: made[name] for name in WISHES} == {**WISHES, field: DEFAULTS[field]}


def test_a_filter_of_nulls_asks_for_nothing(client: AppClient) -> None:
    members = ("risk_levels", "labels", "services", "kinds", "data_id_prefix")
    assert client.made("/v1/subscriptions", {**HOOK, "filter": dict.fromkeys(members)})["filter"] == {}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "ftp://example.com/hook",
        "https://user:word@example.com/hook",
        "https://example.com/#part",
        "https://10.0.0.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]/hook",
        "https://2130706434.1/",
        "https://0xa000001/hook",
        "http://8.8.8.8/hook",
        "http://169.254.169.254/latest/meta-data",
        "https://100.100.100.200/",
        "https://[64:ff9b::a9fe:a9fe]/",
    ],
)
def test_a_url_that_is_never_delivered_to_is_refused(client: AppClient, made: Any, url: str) -> None:
    assert client.post("/v1/subscriptions", {"url": url}).fields == ["url"]
    assert client.patch(f"/v1/subscriptions/{made['id']}", {"url": url}).fields == ["url"]


def test_private_addresses_and_plain_http_need_leave(make_service: MakeService) -> None:
    strict = AppClient(create_app(make_service(WEBHOOK_ALLOWED_PRIVATE_NETWORKS="")))
    for url in ("http://127.0.0.1:9/hook", "https://127.0.0.1/hook", "http://example.com/hook"):
        assert strict.post("/v1/subscriptions", {"url": url}).fields == ["url"]
    lenient = AppClient(create_app(make_service()))
    for url in ("http://127.0.0.1:9/hook", "http://localhost/hook"):
        assert lenient.post("/v1/subscriptions", {"url": url}).status == 201
    assert lenient.post("/v1/subscriptions", {"url": "http://10.0.0.1/hook"}).fields == ["url"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"event_types": ["slice.*", "slice.exploded"]}, "event_types.1"),
        ({"event_types": ["*", "task"]}, "event_types.1"),
        ({"event_types": ["task.C*"]}, "event_types.0"),
        ({"event_types": ["slice.*,task.*"]}, "event_types.0"),
        ({"event_types": ["*" * 65]}, "event_types.0"),
        ({"event_types": [""]}, "event_types.0"),
        ({"event_types": "slice.*"}, "event_types"),
        ({"format": "xml"}, "format"),
        ({"ordering": "time"}, "ordering"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"max_in_flight": True}, "max_in_flight"),
        ({"max_per_second": "5"}, "max_per_second"),
        ({"max_per_second": 0.5}, "max_per_second"),
        ({"filter": {"kinds": ["video"]}}, "filter.kinds.0"),
        ({"filter": {"color": "red"}}, "filter.color"),
        ({"secret": "mine"}, "secret"),
        ({"url": None}, "url"),
    ],
)
def test_a_wrong_field_is_named(client: AppClient, made: Any, body: Any, field: str) -> None:
    assert client.post("/v1/subscriptions", HOOK | body).fields == [field]
    assert client.patch(f"/v1/subscriptions/{made['id']}", body).fields == [field]


def test_event_types_are_named_in_full_or_with_stars_anywhere(client: AppClient) -> None:
    to_come = ["review.*"]
    for named in ([*EVENT_TYPES], ["*"], ["task.*", "slice.*"], ["*.flagged"], ["task.c*", "*ed", "s*.*d*"], to_come):
        assert client.made("/v1/subscriptions", {**HOOK, "event_types": named})["event_types"] == named


def test_a_patch_changes_what_it_names_and_nothing_else(client: AppClient, made: Any) -> None:
    path = f"/v1/subscriptions/{made['id']}"
    before = client.shown(path)
    assert client.patch(path, {}).json == before
    changed = client.patch(path, {"event_types": ["task.*"], "description": "new"}).json
    assert changed == {**before, "event_types": ["task.*"], "description": "new"}
    assert client.patch(path, {"description": None}).json == {**before, "event_types": ["task.*"]}


def test_a_patch_with_null_brings_the_default_back(client: AppClient) -> None:
    made = client.made("/v1/subscriptions", HOOK | WISHES)
    path = f"/v1/subscriptions/{made['id']}"
    before = client.shown(path)
    for field, wish in WISHES.items():
        assert client.patch(path, {field: None}).json == {**before, field: DEFAULTS[field]}
        assert client.patch(path, {field: wish}).json == before
    assert client.patch(path, dict.fromkeys(WISHES)).json == client.shown(path) == before | DEFAULTS
    for field in ("url", "state"):
        assert client.patch(path, {field: None}).fields == [field]


@pytest.mark.parametrize("shape", ["SubscriptionIn", "SubscriptionPatch"])
def test_the_document_tells_where_null_is_taken(client: AppClient, shape: str) -> None:
    described = client.shown("/openapi.json")["components"]["schemas"][shape]["properties"]
    nullable = {name for name, field in described.items() if {"type": "null"} in field.get("anyOf", ())}
    assert nullable == WISHES.keys()


def test_a_subscription_is_switched_off_and_on_by_its_owner(client: AppClient, made: Any) -> None:
    path = f"/v1/subscriptions/{made['id']}"
    off = client.patch(path, {"state": "disabled"}).json
    assert (off["state"], off["disabled_reason"]) == ("disabled", "by_client")
    assert client.post(f"{path}/test").status == 409
    on = client.patch(path, {"state": "active"}).json
    assert (on["state"], on["disabled_reason"]) == ("active", None)
    assert client.post(f"{path}/test").status == 202


def test_a_secret_is_rotated_to_a_new_one(client: AppClient, made: Any) -> None:
    new = client.made(f"/v1/subscriptions/{made['id']}/rotate-secret", None)
    assert new["secret"].startswith("whsec_")
    assert new["secret"] != made["secret"]


def test_a_test_is_one_delivery_to_one_subscription(client: AppClient, made: Any) -> None:
    other = client.made("/v1/subscriptions", HOOK)
    reply = client.post(f"/v1/subscriptions/{made['id']}/test")
    assert reply.status == 202
    owed = reply.json
    assert (owed["event_type"], owed["subscription_id"]) == ("subscription.test", made["id"])
    assert (owed["state"], owed["attempts"]) == ("pending", [])
    assert client.items(f"/v1/subscriptions/{made['id']}/deliveries") == [owed]
    assert client.items(f"/v1/subscriptions/{other['id']}/deliveries") == []
    [event] = client.feed(types="subscription.test")
    assert event["id"] == owed["event_id"]


def test_deliveries_are_listed_newest_first_by_state_and_page(client: AppClient, made: Any, service: Service) -> None:
    path = f"/v1/subscriptions/{made['id']}"
    ids = [client.made(f"{path}/test", None)["id"] for _ in range(5)]
    set_delivery(service, ids[0], **DEAD)
    assert [each["id"] for each in client.items(f"{path}/deliveries", limit=2)] == ids[::-1]
    assert [each["id"] for each in client.items(f"{path}/deliveries", state="dead")] == ids[:1]
    assert len(client.items(f"{path}/deliveries", state="pending")) == 4
    assert client.items(f"{path}/deliveries", state="delivered") == []


def test_a_dead_delivery_is_owed_again_by_retry_and_by_recover(client: AppClient, made: Any, service: Service) -> None:
    path = f"/v1/subscriptions/{made['id']}"
    owed = client.made(f"{path}/test", None)
    set_delivery(service, owed["id"], **DEAD)
    [dead] = client.items(f"{path}/deliveries")
    assert (dead["state"], dead["next_attempt_at"]) == ("dead", None)
    again = client.post(f"/v1/deliveries/{owed['id']}/retry")
    assert (again.status, again.json["state"]) == (202, "pending")
    set_delivery(service, owed["id"], **DEAD)
    [event] = client.feed()
    assert client.post(f"{path}/recover", {"since": "2999-01-01T00:00:00Z"}).json == {"recovered": 0}
    recovered = client.post(f"{path}/recover", {"since": event["timestamp"]})
    assert (recovered.status, recovered.json) == (202, {"recovered": 1})
    [owed_again] = client.items(f"{path}/deliveries")
    assert owed_again["state"] == "pending"


def test_a_delivery_that_is_being_attempted_is_not_retried(client: AppClient, made: Any, service: Service) -> None:
    owed = client.made(f"/v1/subscriptions/{made['id']}/test", None)
    set_delivery(service, owed["id"], lease="a worker's", lease_until=clock.from_microseconds(2**52))
    assert client.post(f"/v1/deliveries/{owed['id']}/retry").status == 409


def test_a_deleted_subscription_is_gone_with_its_deliveries(client: AppClient, made: Any) -> None:
    path = f"/v1/subscriptions/{made['id']}"
    owed = client.made(f"{path}/test", None)
    assert client.delete(path).status == 204
    assert client.get(path).status == client.delete(path).status == client.get(f"{path}/deliveries").status == 404
    assert client.post(f"/v1/deliveries/{owed['id']}/retry").status == 404
    assert client.items("/v1/subscriptions") == []


def test_lists_are_cut_into_pages(client: AppClient) -> None:
    ids = [client.made("/v1/subscriptions", HOOK)["id"] for _ in range(5)]
    assert [one["id"] for one in client.items("/v1/subscriptions", limit=2)] == ids[::-1]
    ids = [client.receiver()["id"] for _ in range(5)]
    assert [one["id"] for one in client.items("/v1/receivers", limit=2)] == ids[::-1]
