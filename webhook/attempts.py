"""The attempts of one worker: those in flight, and claimed ones at hand for when one of them ends."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING

import structlog

from webhook import clock
from webhook.grants import Places, claimable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from webhook.deliveries import Claim, Deliveries, Settlement
    from webhook.transports import Transports

log = structlog.get_logger()


class Attempts:
    """Sends what was claimed, as many at once as there may be.

    Args:
        total: attempts in flight.
        share: of one subscription where it has no number of its own.
        ended: called when an attempt has ended.
        now: the time.

    Attributes:
        settlements: of attempts that have ended, to be written down.
        under_way: attempts in flight.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        *,
        total: int,
        share: int,
        ended: Callable[[], None],
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self.settlements: list[Settlement] = []
        self.under_way: set[asyncio.Task[None]] = set()
        self._deliveries = deliveries
        self._total = total
        self._share = share
        self._ended = ended
        self._now = now
        self._in_flight: Counter[str] = Counter()
        self._crowded = False  # some that are at hand wait until others have ended
        self._at_hand: dict[str, deque[Claim]] = {}
        self._dropped: list[str] = []

    def places(self) -> Places:
        """Return the room for more claims."""
        taken = self._in_flight + Counter({one: len(claims) for one, claims in self._at_hand.items()})
        return Places(total=claimable(self._total), share=claimable(self._share), taken=taken)

    def add(self, transports: Transports, claims: Sequence[Claim]) -> None:
        """Make these attempts, at once or when others have ended."""
        for claim in claims:
            self._at_hand.setdefault(claim.delivery.subscription_id, deque()).append(claim)
        self._start(transports, self._at_hand)

    def drop(self) -> None:
        """Make none of the attempts that are at hand."""
        for claims in self._at_hand.values():
            self._dropped += [claim.delivery.id for claim in claims]
        self._at_hand.clear()

    def take_dropped(self) -> list[str]:
        """Return the deliveries whose claims are given back."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def _start(self, transports: Transports, subscription_ids: Iterable[str]) -> None:
        """Start what is at hand for some subscriptions as far as there is room, one of each in turn."""
        able = list(subscription_ids)
        while able:
            able = [one for one in able if self._start_one(transports, one)]

    def _start_one(self, transports: Transports, subscription_id: str) -> bool:
        claims = self._at_hand.get(subscription_id)
        while claims and self._now() > claims[0].until:
            self._dropped.append(claims.popleft().delivery.id)
        if not claims:
            self._at_hand.pop(subscription_id, None)
            return False
        in_flight = self._in_flight[subscription_id]
        if in_flight >= (claims[0].max_in_flight or self._share):
            return False
        if in_flight >= self._total - len(self.under_way):  # as for claims: nobody has more than there are for others
            self._crowded = True
            return False
        self._in_flight[subscription_id] += 1
        task = asyncio.create_task(self._attempt(transports, claims.popleft()))
        self.under_way.add(task)
        task.add_done_callback(partial(self._follow, transports, subscription_id))
        return True

    async def _attempt(self, transports: Transports, claim: Claim) -> None:
        self.settlements.append(await self._deliveries.attempt(transports, claim))

    def _follow(self, transports: Transports, subscription_id: str, task: asyncio.Task[None]) -> None:
        """Start what there is room for now that an attempt has ended."""
        self.under_way.discard(task)
        self._in_flight[subscription_id] -= 1
        crowded, self._crowded = self._crowded, False
        self._start(transports, self._at_hand if crowded else (subscription_id,))
        self._ended()
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("An attempt failed by a fault of the service; it is made again.", exc_info=fault)
