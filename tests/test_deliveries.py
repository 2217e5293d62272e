"""Events reach every subscription that wants them: signed, once if all goes well, again if not, and no one else."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks import Webhook

from webhook import subscriptions
from webhook.deliveries import Claim, Deliveries, Settlement, Turn, _Written
from webhook.grants import Places
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.transports import Message, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import Clock
    from webhook.bootstrap import Service
    from webhook.store.deliveries import Attempt, Delivery, Subscription

LEASE = timedelta(seconds=20)
TASK = {"id": "task_1", "kind": "audio", "service": "audio_detection_byllm_global", "data_id": "room-7"}
FLAGGED = {"task": TASK, "slice": {"risk_level": "high", "results": [{"label": "political_entity"}]}}
COMPLETED = {"task": TASK, "verdict": {"risk_level": "none", "labels": [{"label": "nonLabel"}]}}


class Transport:
    """Takes what is sent, and gives the answers it is told to; 204 when it was told nothing."""

    def __init__(self, *answers: int | str, retry_after: str | None = None) -> None:
        self.answers = list(answers)
        self.retry_after = retry_after
        self.sent: list[tuple[str, Mapping[str, str], bytes]] = []

    async def send(self, *, subscription_id: str, url: str, message: Message) -> Outcome:  # noqa: ARG002
        self.sent.append((url, message.headers, message.body))
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, str):
            return Outcome(error=answer, duration_ms=1)
        error = None if answer < 300 else f"http_{answer}"
        return Outcome(status=answer, error=error, retry_after=self.retry_after, duration_ms=1)


class Bench:
    """A service's deliveries with a clock that stands still, and the steps of its worker."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self.service = service
        self.clock = clock
        self.settlements: list[Settlement] = []
        self.in_flight: Counter[str] = Counter()
        self.deliveries = Deliveries(
            keyring=service.keyring,
            ingest=service.ingest,
            lease=LEASE,
            timeout=LEASE / 2,
            source=None,
            now=clock,
            dice=lambda: 0.5,
        )

    def subscribe(self, url: str = "http://127.0.0.1:9/hook", **wishes: Any) -> tuple[Subscription, str]:
        wanted: dict[str, Any] = {"event_types": [], "filter": {}, "format": "standard", "description": None}
        with self.service.database.transaction() as session:
            return subscriptions.create(session, self.service.keyring, url=url, now=self.clock(), **wanted | wishes)

    def publish(self, type_: str = "slice.flagged", data: dict[str, Any] | None = None) -> str:
        event = self.service.ingest.event(type_, FLAGGED if data is None else data)
        with self.service.database.transaction() as session:
            event_store.insert_events(session, [event])
        return event.id

    def turn(self, *, lease: str = "worker", room: int = 16, total: int = 100, sweep: bool = True) -> Turn:
        settlements, self.settlements = self.settlements, []
        with self.service.database.transaction() as session:
            return self.deliveries.turn(
                session,
                lease=lease,
                settlements=settlements,
                places=Places(total=total, share=room, taken=self.in_flight),
                sweep=sweep,
            )

    def attempt(self, claims: list[Claim], transport: Any) -> None:
        for claim in claims:
            self.settlements.append(asyncio.run(self.deliveries.attempt(transport, claim)))

    def deliver(self, transport: Transport) -> int:
        """Take turns until nothing is due; return how many attempts were made."""
        made = 0
        while claims := self.turn().claims:
            self.attempt(claims, transport)
            made += len(claims)
        return made

    def owed(self, subscription: Subscription) -> list[Delivery]:
        with self.service.database.read() as session:
            return delivery_store.deliveries_page(session, subscription.id, state=None, after=None, limit=100)[::-1]

    def attempts(self, delivery: Delivery) -> list[Attempt]:
        with self.service.database.read() as session:
            return delivery_store.attempts(session, [delivery.id])[delivery.id]

    def subscription(self, subscription: Subscription) -> Subscription:
        with self.service.database.read() as session:
            found = delivery_store.subscription(session, subscription.id)
        assert found
        return found

    def feed(self) -> list[str]:
        with self.service.database.read() as session:
            return [row.type for row in event_store.events_after(session, 0, limit=100)]


@pytest.fixture
def bench(service: Service, clock: Clock) -> Bench:
    return Bench(service, clock)


def test_an_event_goes_to_each_subscription_once(bench: Bench) -> None:
    bench.subscribe("http://127.0.0.1:9/a")
    bench.subscribe("http://127.0.0.1:9/b")
    event_id = bench.publish()
    transport = Transport()
    assert bench.deliver(transport) == 2
    assert sorted(url for url, _, _ in transport.sent) == ["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"]
    assert {headers["webhook-id"] for _, headers, _ in transport.sent} == {event_id}
    assert bench.deliver(transport) == 0


def test_the_body_and_signature_are_those_of_standard_webhooks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = bench.subscribe()
    event_id = bench.publish()
    transport = Transport()
    bench.deliver(transport)
    _, headers, body = transport.sent[0]
    assert headers["content-type"] == "application/json"
    monkeypatch.setattr("standardwebhooks.webhooks.Webhook._Webhook__verify_timestamp", _any_timestamp, raising=False)
    event = Webhook(secret).verify(body, dict(headers) | {"webhook-timestamp": headers["webhook-timestamp"]})
    assert event["id"] == event_id
    assert event["type"] == "slice.flagged"
    assert event["data"] == FLAGGED
    assert event["timestamp"].endswith("Z")


def _any_timestamp(_self: Webhook, timestamp: str) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(float(timestamp), UTC)


def test_an_old_secret_signs_beside_the_new_one_for_a_day(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standardwebhooks.webhooks.Webhook._Webhook__verify_timestamp", _any_timestamp, raising=False)
    subscription, old = bench.subscribe()
    with bench.service.database.transaction() as session:
        new = subscriptions.rotate_secret(session, bench.service.keyring, subscription, now=bench.clock())
    bench.publish()
    transport = Transport()
    bench.deliver(transport)
    bench.clock.advance(hours=24)
    bench.publish()
    bench.deliver(transport)
    (_, both, first), (_, alone, second) = transport.sent
    for secret in (old, new):
        assert Webhook(secret).verify(first, dict(both))
    assert Webhook(new).verify(second, dict(alone))
    assert len(alone["webhook-signature"].split()) == 1


def test_a_cloudevent_is_one_to_the_official_sdk(bench: Bench) -> None:
    bench.subscribe(format="cloudevents")
    event_id = bench.publish()
    transport = Transport()
    bench.deliver(transport)
    _, headers, body = transport.sent[0]
    event = from_http_event(HTTPMessage(headers=dict(headers), body=body), JSONFormat())
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert (event.get_id(), event.get_type(), event.get_subject()) == (event_id, "slice.flagged", "task_1")
    assert event.get_data() == FLAGGED


@pytest.mark.parametrize(
    ("wishes", "wanted"),
    [
        ({"event_types": ["slice.*"]}, ["slice.flagged"]),
        ({"event_types": ["task.completed"]}, ["task.completed"]),
        ({"event_types": ["task.*", "slice.flagged"]}, ["slice.flagged", "task.completed"]),
        ({"filter": {"risk_levels": ["high"]}}, ["slice.flagged"]),
        ({"filter": {"labels": ["political_*"]}}, ["slice.flagged"]),
        ({"filter": {"labels": ["nonLabel"]}}, ["task.completed"]),
        ({"filter": {"kinds": ["live"]}}, []),
        ({"filter": {"data_id_prefix": "room-"}}, ["slice.flagged", "task.completed"]),
        ({"filter": {"services": ["audio_detection_byllm_global"], "risk_levels": ["none"]}}, ["task.completed"]),
    ],
)
def test_a_subscription_gets_what_it_wants(bench: Bench, wishes: dict[str, Any], wanted: list[str]) -> None:
    bench.subscribe(**wishes)
    bench.publish("slice.flagged", FLAGGED)
    bench.publish("task.completed", COMPLETED)
    transport = Transport()
    bench.deliver(transport)
    assert sorted(json.loads(body)["type"] for _, _, body in transport.sent) == wanted


def test_a_failed_delivery_is_tried_on_schedule_with_the_same_id_until_it_is_dead(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    transport = Transport(*[500] * 20)
    waits = []
    while True:
        assert bench.deliver(transport) == 1
        bench.turn()
        (delivery,) = bench.owed(subscription)
        if delivery.state == "dead":
            break
        assert delivery.next_attempt_at
        waits.append((delivery.next_attempt_at - bench.clock()).total_seconds())
        bench.clock.time = delivery.next_attempt_at - timedelta(seconds=1)
        assert bench.deliver(transport) == 0, "not before its time"
        bench.clock.time = delivery.next_attempt_at
    assert waits == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert len({headers["webhook-id"] for _, headers, _ in transport.sent}) == 1
    assert [(one.number, one.status, one.error) for one in bench.attempts(delivery)] == [
        (number, 500, "http_500") for number in range(1, 11)
    ]


def test_a_delivery_that_succeeds_later_is_delivered(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    transport = Transport("timeout", 302, 200)
    for _ in range(3):
        bench.deliver(transport)
        bench.turn()
        bench.clock.advance(minutes=6)
    (delivery,) = bench.owed(subscription)
    assert delivery.state == "delivered"
    assert [one.error for one in bench.attempts(delivery)] == ["timeout", "http_302", None]
    assert bench.subscription(subscription).failing_since is None


def test_retry_after_puts_the_next_attempt_off(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    bench.deliver(Transport(503, retry_after="120"))
    bench.turn()
    (delivery,) = bench.owed(subscription)
    assert delivery.next_attempt_at == bench.clock() + timedelta(seconds=120)


def test_gone_disables_the_subscription_and_says_so(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    bench.deliver(Transport(410))
    bench.turn()
    after = bench.subscription(subscription)
    assert (after.state, after.disabled_reason) == ("disabled", "gone")
    assert bench.feed() == ["slice.flagged", "subscription.disabled"]
    bench.clock.advance(days=1)
    assert bench.deliver(Transport()) == 0


def test_five_days_of_failures_disable_the_subscription(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    transport = Transport(*[500] * 100)
    for _ in range(5):
        bench.publish()
        bench.deliver(transport)
        bench.turn()
        assert bench.subscription(subscription).state == "active"
        bench.clock.advance(days=1)
    bench.publish()
    bench.deliver(transport)
    bench.turn()
    assert bench.subscription(subscription).disabled_reason == "failing"
    assert bench.feed()[-1] == "subscription.disabled"


def test_a_disabled_subscription_gets_nothing(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    with bench.service.database.transaction() as session:
        delivery_store.update_subscription(session, subscription.id, state="disabled")
    bench.publish()
    assert bench.deliver(Transport()) == 0
    assert bench.owed(subscription) == []


def test_a_claim_is_nobody_elses_until_its_lease_ends(bench: Bench) -> None:
    bench.subscribe()
    bench.publish()
    (claim,) = bench.turn(lease="the dead one").claims
    assert bench.turn(lease="the next one").claims == []
    bench.clock.advance(seconds=20)
    (again,) = bench.turn(lease="the next one").claims
    assert again.delivery.id == claim.delivery.id


def test_a_settlement_after_the_lease_ended_changes_nothing(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    bench.attempt(bench.turn(lease="the slow one").claims, Transport(500))
    late = bench.settlements
    bench.settlements = []
    bench.clock.advance(seconds=20)
    bench.attempt(bench.turn(lease="the next one").claims, Transport(204))
    bench.turn(lease="the next one")
    bench.settlements = late
    bench.turn(lease="the slow one")
    (delivery,) = bench.owed(subscription)
    assert delivery.state == "delivered"
    assert [one.status for one in bench.attempts(delivery)] == [204]


def test_what_was_claimed_twice_since_the_clock_leapt_is_settled_once(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    first = bench.turn().claims
    bench.clock.advance(seconds=20)
    second = bench.turn().claims
    assert [claim.delivery.id for claim in second] == [claim.delivery.id for claim in first]
    bench.attempt(first + second, Transport(500, 204))
    bench.turn()
    bench.clock.advance(seconds=20)
    bench.attempt(bench.turn().claims, Transport(204))
    bench.attempt(first, Transport(204))  # the last to end is one of the first
    bench.turn()
    (delivery,) = bench.owed(subscription)
    assert delivery.state == "delivered"
    assert [one.status for one in bench.attempts(delivery)] == [500, 204]


def test_a_subscription_has_no_more_in_flight_than_its_share_and_the_others_go_on(bench: Bench) -> None:
    hung, _ = bench.subscribe("http://127.0.0.1:9/hung")
    bench.subscribe("http://127.0.0.1:9/quick")
    for _ in range(5):
        bench.publish()
    claims = bench.turn(room=2).claims
    assert Counter(claim.url for claim in claims) == {"http://127.0.0.1:9/hung": 2, "http://127.0.0.1:9/quick": 2}
    bench.in_flight[hung.id] = 2
    bench.attempt([claim for claim in claims if claim.url.endswith("quick")], Transport())
    rest = bench.turn(room=2)
    assert Counter(claim.url for claim in rest.claims) == {"http://127.0.0.1:9/quick": 2}
    assert rest.more
    bench.attempt(rest.claims, Transport())
    assert Counter(claim.url for claim in bench.turn(room=2).claims) == {"http://127.0.0.1:9/quick": 1}


def test_what_had_no_room_goes_before_what_comes_later(bench: Bench) -> None:
    bench.subscribe()
    ids = []
    for _ in range(4):
        ids.append(bench.publish())
        bench.clock.advance(seconds=1)
    transport = Transport()
    first = bench.turn(room=2).claims
    ids.append(bench.publish())
    bench.attempt(first, transport)
    second = bench.turn(room=2).claims
    bench.attempt(second, transport)
    bench.attempt(bench.turn(room=2).claims, transport)
    sent = [headers["webhook-id"] for _, headers, _ in transport.sent]
    assert sorted(sent) == sorted(ids)
    assert sent[-1] == ids[-1]


def test_no_more_is_in_flight_in_all_than_allowed(bench: Bench) -> None:
    for number in range(4):
        bench.subscribe(f"http://127.0.0.1:9/{number}")
    bench.publish()
    assert len(bench.turn(total=3).claims) == 3
    assert len(bench.turn(total=3).claims) == 1


def test_without_a_sweep_only_new_events_are_looked_at(bench: Bench) -> None:
    bench.subscribe()
    bench.publish()
    bench.turn(total=0)
    assert bench.turn(sweep=False).claims == []
    assert len(bench.turn(sweep=True).claims) == 1


def test_a_test_event_goes_to_its_subscription_alone(bench: Bench) -> None:
    subscription, _ = bench.subscribe("http://127.0.0.1:9/tested")
    bench.subscribe("http://127.0.0.1:9/other")
    with bench.service.database.transaction() as session:
        subscriptions.send_test(session, bench.service.ingest, subscription, now=bench.clock())
    transport = Transport()
    bench.deliver(transport)
    assert [(url, json.loads(body)["type"]) for url, _, body in transport.sent] == [
        ("http://127.0.0.1:9/tested", "subscription.test")
    ]


def test_a_dead_delivery_can_be_retried_and_has_its_whole_schedule_again(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    transport = Transport(*[500] * 11, 204)
    for _ in range(10):
        bench.deliver(transport)
        bench.turn()
        bench.clock.advance(hours=27)
        with bench.service.database.transaction() as session:  # what five days of failures would do is not the matter
            delivery_store.update_subscription(session, subscription.id, state="active", failing_since=None)
    (dead,) = bench.owed(subscription)
    assert dead.state == "dead"
    with bench.service.database.transaction() as session:
        assert delivery_store.make_due(session, dead.id, now=bench.clock())
        subscriptions.resume(session, subscription.id)
    bench.deliver(transport)
    bench.turn()
    (retried,) = bench.owed(subscription)
    assert (retried.state, retried.attempt_count) == ("pending", 11)
    assert retried.next_attempt_at == bench.clock() + timedelta(seconds=5)
    bench.clock.advance(seconds=5)
    bench.deliver(transport)
    bench.turn()
    assert bench.owed(subscription)[0].state == "delivered"


def test_recover_sends_again_what_failed_since_a_time(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    bench.deliver(Transport(204))
    bench.publish()
    bench.deliver(Transport(500))
    bench.turn()
    with bench.service.database.transaction() as session:
        future = bench.service.ingest.event("task.failed", COMPLETED).created_at + timedelta(days=1)
        assert delivery_store.make_failed_due(session, subscription.id, since=future, now=bench.clock()) == 0
        past = future - timedelta(days=2)
        assert delivery_store.make_failed_due(session, subscription.id, since=past, now=bench.clock()) == 1
    assert bench.deliver(Transport()) == 1


def test_events_written_again_and_again_are_kept_once() -> None:
    written = _Written()
    body = b"x" * 3_000_000
    for _ in range(100):
        written.put("evt_1", "standard", ("application/json", body))
    written.put("evt_2", "standard", ("application/json", body))
    assert written.get("evt_1", "standard") == written.get("evt_2", "standard") == ("application/json", body)
    written.put("evt_3", "standard", ("application/json", body))
    assert written.get("evt_1", "standard") is None


def test_more_events_than_a_turn_takes_are_told(bench: Bench) -> None:
    bench.subscribe()
    events = [bench.service.ingest.event("slice.flagged", FLAGGED) for _ in range(201)]
    with bench.service.database.transaction() as session:
        event_store.insert_events(session, events)
    assert bench.turn(room=300, total=1000).behind
    turn = bench.turn(room=300, total=1000)
    assert not turn.behind
    assert len(turn.claims) == 1
