"""What is claimed is sent as soon as there is room, and never once its lease could end before the attempt."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from webhook.attempts import Attempts
from webhook.deliveries import Claim, Settlement
from webhook.store.deliveries import Delivery
from webhook.transports import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Clock
    from webhook.deliveries import Deliveries


class Held:
    """Attempts that wait until they are told to end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.begun: list[Claim] = []
        self._ends: list[asyncio.Event] = []

    async def attempt(self, _: object, claim: Claim) -> Settlement:
        self.begun.append(claim)
        self._ends.append(end := asyncio.Event())
        await end.wait()
        return Settlement(delivery=claim.delivery, outcome=Outcome(status=204, duration_ms=1), at=self._clock())

    async def end(self, *numbers: int) -> None:
        """End these attempts, and let what follows happen."""
        for number in numbers:
            self._ends[number].set()
        await settle()

    def counts(self) -> Counter[str]:
        return Counter(claim.delivery.subscription_id for claim in self.begun)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def held(clock: Clock) -> Held:
    return Held(clock)


@pytest.fixture
def make(held: Held, clock: Clock) -> Callable[..., Attempts]:
    def make(*, total: int = 8, share: int = 4) -> Attempts:
        return Attempts(cast("Deliveries", held), total=total, share=share, ended=lambda: None, now=clock)

    return make


@pytest.fixture
def claims(clock: Clock) -> Callable[..., list[Claim]]:
    def claims(subscription: str, count: int, *, max_in_flight: int | None = None) -> list[Claim]:
        return [
            Claim(
                delivery=Delivery(
                    id=f"dlv_{subscription}_{number}",
                    event_id=f"evt_{number}",
                    event_type="slice.flagged",
                    subscription_id=subscription,
                    state="pending",
                    attempt_count=0,
                    schedule_from=0,
                    next_attempt_at=None,
                    lease="lease",
                    lease_until=None,
                    created_at=clock(),
                ),
                url="",
                content_type="",
                body=b"",
                secrets=[],
                max_in_flight=max_in_flight,
                until=clock() + timedelta(seconds=4),
            )
            for number in range(count)
        ]

    return claims


NOWHERE: Any = None


def test_the_next_one_is_sent_as_one_ends(
    held: Held, make: Callable[..., Attempts], claims: Callable[..., list[Claim]]
) -> None:
    async def scenario() -> None:
        attempts = make(total=20)
        attempts.add(NOWHERE, [*claims("a", 6), *claims("b", 1, max_in_flight=1), *claims("c", 3, max_in_flight=1)])
        await settle()
        assert held.counts() == {"a": 4, "b": 1, "c": 1}
        assert attempts.places().taken == {"a": 6, "b": 1, "c": 3}
        await held.end(0)
        assert held.counts() == {"a": 5, "b": 1, "c": 1}
        await held.end(*range(len(held.begun)))
        await held.end(*range(len(held.begun)))
        await held.end(*range(len(held.begun)))
        assert held.counts() == {"a": 6, "b": 1, "c": 3}
        assert len(attempts.settlements) == 10
        assert (attempts.under_way, attempts.places().taken) == (set(), {})

    asyncio.run(scenario())


def test_no_more_are_in_flight_in_all_than_allowed_and_room_goes_to_anybody(
    held: Held, make: Callable[..., Attempts], claims: Callable[..., list[Claim]]
) -> None:
    async def scenario() -> None:
        attempts = make(total=2)
        attempts.add(NOWHERE, [*claims("a", 2), *claims("b", 2)])
        await settle()
        assert held.counts() == {"a": 1, "b": 1}
        await held.end(0)
        await held.end(1)
        assert held.counts() == {"a": 2, "b": 2}
        await held.end(2, 3)

    asyncio.run(scenario())


def test_what_waited_too_long_is_given_back(
    held: Held, make: Callable[..., Attempts], claims: Callable[..., list[Claim]], clock: Clock
) -> None:
    async def scenario() -> None:
        attempts = make(share=1)
        attempts.add(NOWHERE, claims("a", 3))
        await settle()
        clock.advance(seconds=5)
        await held.end(0)
        assert held.counts() == {"a": 1}
        assert attempts.take_dropped() == ["dlv_a_1", "dlv_a_2"]
        assert (attempts.take_dropped(), attempts.places().taken) == ([], {})

    asyncio.run(scenario())


def test_what_is_dropped_is_given_back_and_not_sent(
    held: Held, make: Callable[..., Attempts], claims: Callable[..., list[Claim]]
) -> None:
    async def scenario() -> None:
        attempts = make(share=1)
        attempts.add(NOWHERE, claims("a", 2))
        await settle()
        attempts.drop()
        await held.end(0)
        assert held.counts() == {"a": 1}
        assert attempts.take_dropped() == ["dlv_a_1"]
        assert [one.delivery.id for one in attempts.settlements] == ["dlv_a_0"]

    asyncio.run(scenario())


def test_nobody_has_more_in_flight_than_there_is_room_for_others(
    held: Held, make: Callable[..., Attempts], claims: Callable[..., list[Claim]]
) -> None:
    async def scenario() -> None:
        attempts = make(total=8)
        attempts.add(NOWHERE, claims("many", 16, max_in_flight=1000))
        await settle()
        assert held.counts() == {"many": 4}
        attempts.add(NOWHERE, [*claims("a", 4), *claims("b", 4), *claims("c", 4)])
        await settle()
        assert held.counts() == {"many": 4, "a": 1, "b": 1, "c": 1}, "and one is free for the next"
        attempts.add(NOWHERE, claims("d", 4))
        await settle()
        assert held.counts()["d"] == 1
        while attempts.under_way:
            await held.end(*range(len(held.begun)))

    asyncio.run(scenario())
