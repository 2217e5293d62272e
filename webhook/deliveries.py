"""Deliveries: events fanned out to subscriptions, claimed, attempted, settled.

One `turn` is one transaction: it settles the attempts that have ended, expands new events into
deliveries, and claims what is due as far as there is room. Between turns the attempts run, outside any
transaction. A claim is a lease longer than the transport's timeout; a worker that dies leaves it to end.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import backoff, clock, events, signatures, subscriptions
from webhook.clock import rfc3339
from webhook.events import Event, Filter
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store.deliveries import Attempt, Delivery, Settled, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.ingest import Ingest
    from webhook.store.events import EventRow
    from webhook.transport import HttpTransport, Outcome

CURSOR = "fan_out"
GIVE_UP_AFTER = timedelta(days=5)  # of nothing but failures: the contract, section 6
_EVENTS_A_TURN = 200
_DEFAULT_SOURCE = "urn:webhook"  # CloudEvents' `source` where no public URL is set


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is ours to attempt.

    Attributes:
        content_type, body: the event as the subscription wants it.
        secrets: what signs it.
    """

    delivery: Delivery
    url: str
    content_type: str
    body: bytes
    secrets: list[bytes]


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has ended."""

    delivery: Delivery
    outcome: Outcome
    at: datetime


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn leaves to do.

    Attributes:
        claims: to be attempted now.
        more: whether something due was left for want of room.
        behind: whether there may be more new events.
    """

    claims: list[Claim]
    more: bool
    behind: bool


class Deliveries:
    """Fans out and sends.

    Args:
        lease: how long a claim holds; longer than an attempt can take.
        source: CloudEvents' `source`.
        dice: random numbers from 0 to 1, for jitter.
    """

    def __init__(
        self,
        *,
        keyring: Keyring,
        ingest: Ingest,
        lease: timedelta,
        source: str | None,
        now: Callable[[], datetime] = clock.now,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._keyring = keyring
        self._ingest = ingest
        self._lease = lease
        self._source = source or _DEFAULT_SOURCE
        self._now = now
        self._dice = dice

    def turn(
        self,
        session: Session,
        *,
        lease: str,
        settlements: Sequence[Settlement],
        room: Callable[[str], int],
        total_room: int,
        sweep: bool,
    ) -> Turn:
        """Settle, fan out and claim, in one transaction.

        Args:
            lease: names the claims; settlements must have been claimed under it.
            room: how many more attempts a subscription may have in flight.
            total_room: how many more there may be in all.
            sweep: look for deliveries that were owed before, too.
        """
        now = self._now()
        active = delivery_store.active_subscriptions(session)
        self._settle(session, settlements, lease=lease, active=active)
        grant = _Grant(lease=lease, until=now + self._lease, room=room, total_room=total_room)
        claimed: list[Delivery] = []
        rows: dict[str, EventRow] = {}
        if sweep:
            claimed = self._claim_due(session, now=now, grant=grant, active=active)
            rows = event_store.events_by_id(session, [delivery.event_id for delivery in claimed])
        new, new_rows = self._fan_out(session, now=now, grant=grant, active=active)
        composer = _Composer(self, active=active, now=now)
        claims = [composer.claim(delivery, rows[delivery.event_id]) for delivery in claimed]
        claims += [composer.claim(delivery, new_rows[delivery.event_id]) for delivery in new]
        return Turn(claims=claims, more=grant.refused, behind=len(new_rows) == _EVENTS_A_TURN)

    def _claim_due(
        self, session: Session, *, now: datetime, grant: _Grant, active: Mapping[str, Subscription]
    ) -> list[Delivery]:
        claimed: list[Delivery] = []
        for subscription_id in delivery_store.subscriptions_with_due(session, now=now):
            limit = grant.left(subscription_id)
            if limit > 0 and subscription_id in active:
                found = delivery_store.claim_deliveries(
                    session, subscription_id, now=now, lease=grant.lease, lease_until=grant.until, limit=limit
                )
                grant.take(subscription_id, len(found))
                claimed += found
            # as many as there was room for: there may be more, and new ones must not overtake them
            if grant.left(subscription_id) <= 0:
                grant.close(subscription_id)
        return claimed

    def has_new_events(self, session: Session) -> bool:
        """Return whether there are events that were not fanned out."""
        return event_store.behind(session, CURSOR) > 0

    async def attempt(self, transport: HttpTransport, claim: Claim) -> Settlement:
        """Send a claimed delivery once."""
        at = self._now()
        timestamp = int(at.timestamp())
        headers = {
            "content-type": claim.content_type,
            "webhook-id": claim.delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures.sign(
                secrets=claim.secrets, message_id=claim.delivery.event_id, timestamp=timestamp, body=claim.body
            ),
        }
        outcome = await transport.send(url=claim.url, headers=headers, body=claim.body)
        return Settlement(delivery=claim.delivery, outcome=outcome, at=at)

    def write_event(self, row: EventRow, *, format: str) -> tuple[str, bytes]:  # noqa: A002 - the contract's word
        """Return the content type and body of an event."""
        return events.encode(self.open_event(row), format=format, source=self._source)

    def secrets_of(self, subscription: Subscription, *, now: datetime) -> list[bytes]:
        """Return what signs for a subscription now."""
        return subscriptions.signing_secrets(self._keyring, subscription, now=now)

    def open_event(self, row: EventRow) -> Event:
        """Return an event as it is published."""
        return Event(id=row.id, type=row.type, timestamp=rfc3339(row.created_at), data=msgspec.Raw(self._open(row)))

    def _open(self, row: EventRow) -> bytes:
        return self._keyring.open(row.data, table="events", column="data", row=row.id)

    def _fan_out(
        self, session: Session, *, now: datetime, grant: _Grant, active: Mapping[str, Subscription]
    ) -> tuple[list[Delivery], dict[str, EventRow]]:
        """Expand the events since the last turn into what each subscription is owed.

        Returns:
            The deliveries that are ours to attempt at once, and their events by id.
        """
        rows = event_store.events_after(session, event_store.cursor(session, CURSOR), limit=_EVENTS_A_TURN)
        if not rows:
            return [], {}
        wanting = [(subscription, msgspec.convert(subscription.filter, Filter)) for subscription in active.values()]
        owed: list[Delivery] = []
        for row in rows if wanting else ():
            data: Mapping[str, Any] = msgspec.json.decode(self._open(row))
            for subscription, wanted in wanting:
                if not events.wants(event_types=subscription.event_types, filter=wanted, type=row.type, data=data):
                    continue
                delivery = subscriptions.new_delivery(
                    event_id=row.id, event_type=row.type, subscription_id=subscription.id, now=now
                )
                if grant.left(subscription.id) > 0:
                    grant.take(subscription.id, 1)
                    delivery = msgspec.structs.replace(delivery, lease=grant.lease, lease_until=grant.until)
                else:
                    grant.close(subscription.id)
                owed.append(delivery)
        delivery_store.insert_deliveries(session, owed)
        event_store.move_cursor(session, CURSOR, rows[-1].seq)
        return [delivery for delivery in owed if delivery.lease], {row.id: row for row in rows}

    def _settle(
        self,
        session: Session,
        settlements: Sequence[Settlement],
        *,
        lease: str,
        active: dict[str, Subscription],
    ) -> None:
        """Note what became of attempts; one whose lease has ended meanwhile is somebody else's now."""
        if not settlements:
            return
        held = delivery_store.held(session, [one.delivery.id for one in settlements], lease=lease)
        settled: list[Settled] = []
        attempts: list[Attempt] = []
        for settlement in settlements:
            delivery, outcome = settlement.delivery, settlement.outcome
            if delivery.id not in held:
                continue
            number = delivery.attempt_count + 1
            state, due = self._next(settlement)
            settled.append(Settled(delivery_id=delivery.id, state=state, attempt_count=number, next_attempt_at=due))
            attempts.append(
                Attempt(
                    delivery_id=delivery.id,
                    number=number,
                    at=settlement.at,
                    status=outcome.status,
                    error=outcome.error,
                    duration_ms=outcome.duration_ms,
                )
            )
            self._note_health(session, settlement, active=active)
        delivery_store.settle_deliveries(session, settled)
        delivery_store.insert_attempts(session, attempts)

    def _next(self, settlement: Settlement) -> tuple[str, datetime | None]:
        """Return a delivery's state after an attempt, and when the next one is due."""
        if settlement.outcome.delivered:
            return "delivered", None
        now = self._now()
        delivery = settlement.delivery
        delay = backoff.next_delivery_delay(
            attempts_made=delivery.attempt_count + 1 - delivery.schedule_from,
            retry_after=backoff.parse_retry_after(settlement.outcome.retry_after, now=now),
            dice=self._dice,
        )
        return ("dead", None) if delay is None else ("pending", now + delay)

    def _note_health(self, session: Session, settlement: Settlement, *, active: dict[str, Subscription]) -> None:
        """Keep since when a subscription fails; disable it when it is gone, or has failed for days."""
        subscription = active.get(settlement.delivery.subscription_id)
        if subscription is None:
            return
        failing_since = None if settlement.outcome.delivered else subscription.failing_since or settlement.at
        if failing_since != subscription.failing_since:
            delivery_store.update_subscription(session, subscription.id, failing_since=failing_since)
            subscription = msgspec.structs.replace(subscription, failing_since=failing_since)
            active[subscription.id] = subscription
        reason = None
        if settlement.outcome.gone:
            reason = "gone"
        elif failing_since is not None and self._now() - failing_since >= GIVE_UP_AFTER:
            reason = "failing"
        if reason is not None:
            subscriptions.disable(session, self._ingest, subscription, reason=reason)
            del active[subscription.id]


class _Grant:
    """How much one turn may claim, and how much of it is left.

    Attributes:
        refused: whether something due had to be left for want of room.
    """

    def __init__(self, *, lease: str, until: datetime, room: Callable[[str], int], total_room: int) -> None:
        self.lease = lease
        self.until = until
        self.refused = False
        self._room = room
        self._total = total_room
        self._taken: Counter[str] = Counter()
        self._closed: set[str] = set()

    def left(self, subscription_id: str) -> int:
        """Return how many more deliveries of a subscription may be claimed."""
        if subscription_id in self._closed:
            return 0
        return min(self._room(subscription_id) - self._taken[subscription_id], self._total)

    def take(self, subscription_id: str, count: int) -> None:
        """Use some of it."""
        self._taken[subscription_id] += count
        self._total -= count

    def close(self, subscription_id: str) -> None:
        """Leave the rest of a subscription to a later turn."""
        self._closed.add(subscription_id)
        self.refused = True


class _Composer:
    """Makes claims: each event's body is written once a format, each subscription's secrets are opened once."""

    def __init__(self, deliveries: Deliveries, *, active: Mapping[str, Subscription], now: datetime) -> None:
        self._deliveries = deliveries
        self._active = active
        self._now = now
        self._bodies: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._secrets: dict[str, list[bytes]] = {}

    def claim(self, delivery: Delivery, row: EventRow) -> Claim:
        """Return a delivery ready to be sent."""
        subscription = self._active[delivery.subscription_id]
        written = (row.id, subscription.format)
        if written not in self._bodies:
            self._bodies[written] = self._deliveries.write_event(row, format=subscription.format)
        if subscription.id not in self._secrets:
            self._secrets[subscription.id] = self._deliveries.secrets_of(subscription, now=self._now)
        content_type, body = self._bodies[written]
        return Claim(
            delivery=delivery,
            url=subscription.url,
            content_type=content_type,
            body=body,
            secrets=self._secrets[subscription.id],
        )
