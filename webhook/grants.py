"""How much of what is owed one turn may claim: shares, pauses, rates, and room kept for first attempts.

No subscriber takes room that the others need: each has its share of the places for attempts in flight, and never more
of them than are still free (a dynamic threshold, after Choudhury and Hahne). So one that answers nobody can hold half
of them, two a third each, and fewer than there are places leave one for the next. One that fails again and again is
paused, for longer each time, and then tried by one attempt; waiting for that uses up no attempt of what it is owed.
"""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from webhook import backoff
from webhook.store import deliveries as delivery_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from webhook.db import Session
    from webhook.store.deliveries import Subscription

AHEAD = 2
"""Times a share that is claimed: as one attempt ends the next is at hand, while the database is asked for more."""
FIRST_ATTEMPTS = 4
"""The part of all places, one in so many, that only events that were just fanned out may take."""
PAUSED_AFTER = 5
"""Failures in a row."""
_BURST = timedelta(seconds=1)  # of a rate: what was not used meanwhile


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Room for what is claimed: attempts in flight, and those at hand.

    Attributes:
        total: of one worker.
        share: of one subscription where it has no number of its own.
        taken: by subscription.
    """

    total: int
    share: int
    taken: Mapping[str, int]


def claimable(share: int) -> int:
    """Return how many may be claimed where so many may be in flight."""
    return share * AHEAD


class Grant:
    """How much one turn may claim, and how much of it is left.

    Args:
        lease, until: of what is claimed.

    Attributes:
        refused: whether something due had to be left.
    """

    def __init__(self, session: Session, places: Places, *, lease: str, until: datetime, now: datetime) -> None:
        self.lease = lease
        self.until = until
        self.refused = False
        self._session = session
        self._places = places
        self._now = now
        self._taken = Counter(places.taken)
        self._free = max(0, places.total - self._taken.total())
        self._closed: set[str] = set()
        self._spent: dict[str, datetime] = {}

    def left(self, subscription: Subscription, *, owed_before: bool = False) -> int:
        """Return how many more deliveries of a subscription may be claimed.

        Args:
            owed_before: they are not of events that this turn fans out.
        """
        if subscription.id in self._closed or is_paused(subscription, now=self._now):
            return 0
        own = subscription.max_in_flight
        share = self._places.share if own is None else claimable(own)
        if subscription.failures >= PAUSED_AFTER:
            share = 1
        taken = self._taken[subscription.id]
        left = math.ceil((self.free(owed_before=owed_before) - taken) / 2)
        if not taken and self._free > 0:
            left = max(left, 1)  # whatever the others hold, each comes forward
        left = min(left, share - taken)
        if left > 0 and subscription.max_per_second is not None:
            left = min(left, self._left_of_rate(subscription, subscription.max_per_second))
        return max(0, left)

    def free(self, *, owed_before: bool = False) -> int:
        """Return how many places nobody has."""
        return self._free - (self._places.total // FIRST_ATTEMPTS if owed_before else 0)

    def take(self, subscription: Subscription, count: int) -> None:
        """Use some of it."""
        self._taken[subscription.id] += count
        self._free -= count
        if count and subscription.max_per_second is not None:
            spent = self._spent[subscription.id] + count * _BURST / subscription.max_per_second
            self._spent[subscription.id] = spent
            delivery_store.spend(self._session, subscription.id, until=spent)

    def close(self, subscription: Subscription) -> None:
        """Leave the rest of a subscription to a later turn."""
        self._closed.add(subscription.id)
        self.refused = True

    def _left_of_rate(self, subscription: Subscription, per_second: int) -> int:
        """Return how many attempts the rate lets through now: GCRA, as `limits` has it for the platform's."""
        if subscription.id not in self._spent:
            spent = delivery_store.spent_until(self._session, subscription.id)
            if spent is None:
                return 0
            self._spent[subscription.id] = max(spent, self._now)
        unused = (self._now + _BURST - self._spent[subscription.id]) / (_BURST / per_second)
        return math.floor(unused + 1e-6)  # a fraction of a microsecond is lost in each division


def is_paused(subscription: Subscription, *, now: datetime) -> bool:
    """Return whether nothing is sent to a subscription for now."""
    return subscription.paused_until is not None and now < subscription.paused_until


def after_attempt(
    subscription: Subscription, *, delivered: bool, at: datetime, now: datetime, dice: Callable[[], float]
) -> Subscription:
    """Return a subscription's health after an attempt has ended.

    Args:
        at: when the attempt began; one from before a pause says nothing that the pause does not.
    """
    replace = msgspec.structs.replace
    if delivered:
        return replace(subscription, failing_since=None, failures=0, paused_until=None)
    subscription = replace(subscription, failing_since=subscription.failing_since or at)
    if subscription.paused_until is not None and at < subscription.paused_until:
        return subscription
    failures = subscription.failures + 1
    if failures < PAUSED_AFTER:
        return replace(subscription, failures=failures)
    pause = backoff.pause_delay(times=failures - PAUSED_AFTER, dice=dice)
    return replace(subscription, failures=failures, paused_until=now + pause)
