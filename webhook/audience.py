"""Who gets events: the active subscriptions, read again when one was made, changed or deleted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import events
from webhook.events import Filter
from webhook.store import deliveries as delivery_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from webhook.db import Session
    from webhook.store.deliveries import Subscription

_LONGEST = timedelta(seconds=5)  # between readings, should two changes ever look like none


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription, ready to be asked."""

    subscription: Subscription
    filter: Filter

    @property
    def is_queued(self) -> bool:
        """Whether its deliveries have an order or a rate to keep, so that none may be sent as it is made."""
        return self.subscription.ordering is not None or self.subscription.max_per_second is not None

    def wants(self, *, type: str, data: Mapping[str, Any]) -> bool:  # noqa: A002 - the contract's word
        """Return whether it gets an event."""
        return events.wants(event_types=self.subscription.event_types, filter=self.filter, type=type, data=data)


class Audience:
    """The active subscriptions by id; with a thousand of them, reading all in each turn would cost more than the rest.

    Args:
        now: the time.
    """

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._members: dict[str, Member] = {}
        self._version: tuple[Any, ...] | None = None
        self._read_at: datetime | None = None

    def read(self, session: Session, *, version: tuple[Any, ...]) -> dict[str, Member]:
        """Return them, in a dictionary of the caller's own.

        Args:
            version: theirs, as it is now.
        """
        now = self._now()
        if version != self._version or self._read_at is None or now - self._read_at > _LONGEST:
            self._members = {
                subscription.id: Member(subscription=subscription, filter=msgspec.convert(subscription.filter, Filter))
                for subscription in delivery_store.active_subscriptions(session).values()
            }
            self._version, self._read_at = version, now
        return dict(self._members)
