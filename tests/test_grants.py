"""What one subscriber gets never costs the others their delay: pauses, shares, rates, order, a thousand at once."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.test_deliveries import FLAGGED, Bench, Transport
from webhook.grants import claimable
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store

if TYPE_CHECKING:
    from tests.conftest import Clock
    from webhook.bootstrap import Service
    from webhook.store.deliveries import Subscription


@pytest.fixture
def bench(service: Service, clock: Clock) -> Bench:
    return Bench(service, clock)


def about(task: str) -> dict[str, Any]:
    return FLAGGED | {"task": {"id": task, "kind": "audio"}}


def publish(bench: Bench, *tasks: str) -> list[str]:
    """Publish an event of each of these tasks."""
    made = [bench.service.ingest.event("slice.flagged", about(task), task_id=task) for task in tasks]
    with bench.service.database.transaction() as session:
        event_store.insert_events(session, made)
    return [event.id for event in made]


def fail(bench: Bench, times: int) -> None:
    """Let the attempts of so many turns fail, whatever is due."""
    for _ in range(times):
        bench.attempt(bench.turn().claims, Transport(*[500] * 100))
        bench.turn(total=0)


def pending(bench: Bench, subscription: Subscription) -> list[int]:
    return [one.attempt_count for one in bench.owed(subscription) if one.state == "pending"]


class TestPause:
    def test_who_fails_again_and_again_is_paused_and_nothing_owed_uses_up_attempts(self, bench: Bench) -> None:
        dead, _ = bench.subscribe()
        publish(bench, *["task_1"] * 20)
        bench.attempt(bench.turn(room=16).claims, Transport(*[500] * 16))
        bench.turn(total=0)
        paused = bench.subscription(dead)
        assert paused.failures == 5  # the others of the burst had begun before the pause
        assert paused.paused_until == bench.clock() + timedelta(seconds=1.5)
        publish(bench, "task_2")
        assert bench.turn().claims == []
        assert sorted(pending(bench, dead)) == [0] * 5 + [1] * 16

    def test_the_pause_ends_with_one_attempt_and_grows_to_a_minute(self, bench: Bench) -> None:
        dead, _ = bench.subscribe()
        publish(bench, *["task_1"] * 5)
        fail(bench, 1)
        pauses = []
        publish(bench, *["task_1"] * 40)
        for _ in range(8):
            until = bench.subscription(dead).paused_until
            assert until
            pauses.append((until - bench.clock()).total_seconds())
            bench.clock.advance(seconds=pauses[-1] - 0.001)
            assert bench.turn().claims == []
            bench.clock.advance(seconds=0.001)
            claims = bench.turn().claims
            assert len(claims) == 1
            bench.attempt(claims, Transport(500))
            bench.turn(total=0)
        assert pauses == [1.5, 3, 6, 12, 24, 45, 45, 45]

    def test_one_success_ends_it_for_all(self, bench: Bench) -> None:
        back, _ = bench.subscribe()
        publish(bench, *["task_1"] * 5)
        fail(bench, 1)
        publish(bench, *["task_1"] * 10)
        bench.clock.advance(seconds=2)
        bench.attempt(bench.turn().claims, Transport(204))
        assert len(bench.turn().claims) == 9
        assert (bench.subscription(back).failures, bench.subscription(back).paused_until) == (0, None)

    def test_a_success_between_failures_starts_the_count_again(self, bench: Bench) -> None:
        subscription, _ = bench.subscribe()
        for answers in ([500] * 4, [204], [500] * 4):
            publish(bench, *["task_1"] * len(answers))
            bench.attempt(bench.turn().claims, Transport(*answers))
            bench.turn(total=0)
        assert (bench.subscription(subscription).failures, bench.subscription(subscription).paused_until) == (4, None)

    def test_the_schedule_of_one_delivery_is_not_touched(self, bench: Bench) -> None:
        subscription, _ = bench.subscribe()
        publish(bench, "task_1")
        for delay in (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400):
            fail(bench, 1)
            (delivery,) = bench.owed(subscription)
            assert delivery.next_attempt_at == bench.clock() + timedelta(seconds=delay)
            bench.clock.advance(seconds=delay)


class TestShares:
    def test_half_of_the_places_are_not_for_who_has_many(self, bench: Bench) -> None:
        for number in range(8):
            bench.subscribe(f"http://127.0.0.1:9/{number}")
        publish(bench, *["task_1"] * 16)
        claims = bench.turn(room=16, total=64).claims
        taken = Counter(claim.url for claim in claims)
        assert len(taken) == 8
        assert min(taken.values()) >= 4

    def test_first_attempts_have_places_that_retries_leave_free(self, bench: Bench) -> None:
        for number in range(4):
            bench.subscribe(f"http://127.0.0.1:9/old/{number}")
        publish(bench, *["task_1"] * 4)
        bench.turn(total=0)  # owed, with no room to send any
        old = 0
        while claims := bench.turn(room=4, total=8).claims:
            bench.in_flight.update(claim.delivery.subscription_id for claim in claims)
            old += len(claims)
        assert 4 <= old <= 6, "each has one, and a quarter stays free"
        quick, _ = bench.subscribe("http://127.0.0.1:9/quick")
        publish(bench, "task_2")
        assert [claim.url for claim in bench.turn(room=4, total=8).claims].count(quick.url) == 1

    def test_however_many_answer_nobody_there_is_room_for_another(self, bench: Bench) -> None:
        for number in range(20):
            bench.subscribe(f"http://127.0.0.1:9/hung/{number}", max_in_flight=1000 if number < 3 else None)
        for _ in range(30):
            publish(bench, *["task_1"] * 10)
            claims = bench.turn(room=16, total=100).claims
            bench.in_flight.update(claim.delivery.subscription_id for claim in claims)  # and none of them ever ends
        assert bench.in_flight.total() < 100
        quick, _ = bench.subscribe("http://127.0.0.1:9/quick")
        publish(bench, "task_2")
        assert [claim.url for claim in bench.turn(room=16, total=100).claims].count(quick.url) == 1

    def test_one_that_may_have_many_leaves_the_others_their_part_of_what_was_owed_before(self, bench: Bench) -> None:
        bench.subscribe("http://127.0.0.1:9/many", max_in_flight=1000)
        bench.subscribe("http://127.0.0.1:9/one", max_in_flight=1)
        bench.subscribe("http://127.0.0.1:9/rate", max_per_second=10)
        for _ in range(5):
            publish(bench, *["task_1"] * 40)
            bench.turn(total=0)
        taken = Counter(claim.url.rpartition("/")[2] for claim in bench.turn(room=16, total=256).claims)
        assert min(taken["one"], taken["rate"]) > 0, taken
        assert taken["many"] > 50, taken

    def test_a_subscription_may_have_a_share_of_its_own(self, bench: Bench) -> None:
        bench.subscribe("http://127.0.0.1:9/one", max_in_flight=1)
        bench.subscribe("http://127.0.0.1:9/many")
        publish(bench, *["task_1"] * 10)
        taken = Counter(claim.url for claim in bench.turn(room=8).claims)
        assert taken == {"http://127.0.0.1:9/one": claimable(1), "http://127.0.0.1:9/many": 8}


class TestRate:
    def test_no_second_has_more_attempts_than_the_rate(self, bench: Bench) -> None:
        bench.subscribe(max_per_second=10)
        publish(bench, *["task_1"] * 60)
        made: list[tuple[float, int]] = []
        start = bench.clock()
        for _ in range(40):
            claims = bench.turn(room=100).claims
            made.append(((bench.clock() - start).total_seconds(), len(claims)))
            bench.attempt(claims, Transport())
            bench.clock.advance(seconds=0.1)
        assert sum(count for _, count in made) in range(45, 51)
        assert made[0][1] == 10
        for begin, _ in made[10:]:
            assert sum(count for at, count in made if begin <= at < begin + 1) <= 11

    def test_two_workers_share_it(self, bench: Bench) -> None:
        bench.subscribe(max_per_second=10)
        publish(bench, *["task_1"] * 60)
        assert len(bench.turn(lease="one", room=100).claims) == 10
        assert bench.turn(lease="two", room=100).claims == []


class TestOrder:
    def test_a_tasks_events_go_out_one_after_the_other_and_other_tasks_beside_them(self, bench: Bench) -> None:
        bench.subscribe(ordering="task")
        ids = publish(bench, "a", "b", "a", "c", "a", "b")
        waves = []
        while claims := bench.turn().claims:
            waves.append([claim.delivery.event_id for claim in claims])
            bench.attempt(claims, Transport())
        assert [sorted(wave) for wave in waves] == [
            sorted([ids[0], ids[1], ids[3]]),
            sorted([ids[2], ids[5]]),
            [ids[4]],
        ]

    def test_what_fails_holds_back_what_comes_after_it_in_its_task_alone(self, bench: Bench) -> None:
        subscription, _ = bench.subscribe(ordering="task")
        first, other = publish(bench, "a", "b")
        claims = {claim.delivery.event_id: claim for claim in bench.turn().claims}
        bench.attempt([claims[first]], Transport(500))
        bench.attempt([claims[other]], Transport(204))
        later, more = publish(bench, "a", "b")
        assert [claim.delivery.event_id for claim in bench.turn().claims] == [more]
        bench.clock.advance(seconds=5)
        (again,) = bench.turn().claims
        assert again.delivery.event_id == first
        bench.attempt([again], Transport(204))
        assert [claim.delivery.event_id for claim in bench.turn().claims] == [later]
        assert bench.subscription(subscription).failing_since is None

    def test_one_that_is_dead_holds_nothing_back(self, bench: Bench) -> None:
        subscription, _ = bench.subscribe(ordering="task")
        first, second = publish(bench, "a", "a")
        with bench.service.database.transaction() as session:
            audience = delivery_store.active_subscriptions(session)
        assert audience[subscription.id].ordering == "task"
        (claim,) = bench.turn().claims
        assert claim.delivery.event_id == first
        with bench.service.database.transaction() as session:
            dead = delivery_store.Settled(
                delivery_id=claim.delivery.id, state="dead", attempt_count=10, next_attempt_at=None
            )
            delivery_store.settle_deliveries(session, [dead])
        assert [claim.delivery.event_id for claim in bench.turn().claims] == [second]

    def test_a_worker_that_dies_is_waited_for(self, bench: Bench) -> None:
        bench.subscribe(ordering="task")
        first, _ = publish(bench, "a", "a")
        assert len(bench.turn(lease="the dead one").claims) == 1
        assert bench.turn(lease="another").claims == []
        bench.clock.advance(seconds=21)
        assert [claim.delivery.event_id for claim in bench.turn(lease="another").claims] == [first]

    def test_what_concerns_no_task_waits_for_nothing(self, bench: Bench) -> None:
        bench.subscribe(ordering="task")
        for _ in range(3):
            bench.publish("callback.rejected", {})
        assert len(bench.turn().claims) == 3


class TestAThousand:
    def test_an_event_reaches_each_of_a_thousand_subscriptions_in_bounded_turns(self, bench: Bench) -> None:
        for number in range(1000):
            bench.subscribe(f"http://127.0.0.1:9/{number}")
        publish(bench, "task_1", "task_2", "task_3")
        transport = Transport()
        largest = 0
        for _ in range(1000):
            turn = bench.turn(total=256)
            if not (turn.claims or turn.behind or turn.more):
                break
            largest = max(largest, len(turn.claims))
            bench.attempt(turn.claims, transport)
        assert Counter(url for url, _, _ in transport.sent) == {f"http://127.0.0.1:9/{n}": 3 for n in range(1000)}
        assert largest <= 256

    def test_a_subscription_that_was_just_made_changed_or_deleted_counts_at_once(self, bench: Bench) -> None:
        one, _ = bench.subscribe("http://127.0.0.1:9/one")
        transport = Transport()

        def told() -> list[str]:
            publish(bench, "task_1")
            bench.deliver(transport)
            urls = [url for url, _, _ in transport.sent]
            transport.sent.clear()
            return urls

        assert told() == [one.url]
        two, _ = bench.subscribe("http://127.0.0.1:9/two")
        assert sorted(told()) == [one.url, two.url]
        with bench.service.database.transaction() as session:
            delivery_store.update_subscription(session, one.id, event_types=["task.*"])
        assert told() == [two.url]
        with bench.service.database.transaction() as session:
            assert delivery_store.delete_subscription(session, two.id)
        three, _ = bench.subscribe("http://127.0.0.1:9/three")
        assert told() == [three.url]
