"""Deliveries: events fanned out to subscriptions, claimed, attempted, settled.

One `turn` is one transaction: it settles the attempts that have ended, expands new events into
deliveries, and claims what is due as far as there is room. Between turns the attempts run, outside any
transaction. A claim is a lease longer than the transport's timeout; a worker that dies leaves it to end.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import backoff, clock, events, signatures, subscriptions
from webhook.clock import rfc3339
from webhook.events import Event, Filter
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store.deliveries import Attempt, Delivery, Subscription

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
    ) -> list[Claim]:
        """Settle, fan out and claim, in one transaction.

        Args:
            lease: names the claims; settlements must have been claimed under it.
            room: how many more attempts a subscription may have in flight.
            total_room: how many more there may be in all.
        """
        self._settle(session, settlements, lease=lease)
        self._fan_out(session)
        now = self._now()
        active = {subscription.id: subscription for subscription in delivery_store.active_subscriptions(session)}
        claimed: list[Delivery] = []
        for subscription_id in delivery_store.subscriptions_with_due(session, now=now):
            limit = min(room(subscription_id), total_room - len(claimed))
            if limit > 0:
                claimed += delivery_store.claim_deliveries(
                    session, subscription_id, now=now, lease=lease, lease_until=now + self._lease, limit=limit
                )
        rows = event_store.events_by_id(session, [delivery.event_id for delivery in claimed])
        secrets = {
            subscription_id: subscriptions.signing_secrets(self._keyring, active[subscription_id], now=now)
            for subscription_id in {delivery.subscription_id for delivery in claimed}
        }
        return [
            self._compose(
                delivery,
                subscription=active[delivery.subscription_id],
                row=rows[delivery.event_id],
                secrets=secrets[delivery.subscription_id],
            )
            for delivery in claimed
        ]

    def has_new_events(self, session: Session) -> bool:
        """Return whether there are events that were not fanned out."""
        return event_store.newest_seq(session) > event_store.cursor(session, CURSOR)

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

    def open_event(self, row: EventRow) -> Event:
        """Return an event as it is published."""
        data = self._keyring.open(row.data, table="events", column="data", row=row.id)
        return Event(id=row.id, type=row.type, timestamp=rfc3339(row.created_at), data=msgspec.Raw(data))

    def _compose(self, delivery: Delivery, *, subscription: Subscription, row: EventRow, secrets: list[bytes]) -> Claim:
        content_type, body = events.encode(self.open_event(row), format=subscription.format, source=self._source)
        return Claim(delivery=delivery, url=subscription.url, content_type=content_type, body=body, secrets=secrets)

    def _fan_out(self, session: Session) -> None:
        """Expand the events since the last turn into what each subscription is owed."""
        rows = event_store.events_after(session, event_store.cursor(session, CURSOR), limit=_EVENTS_A_TURN)
        if not rows:
            return
        now = self._now()
        wanting = [
            (subscription, msgspec.convert(subscription.filter, Filter))
            for subscription in delivery_store.active_subscriptions(session)
        ]
        owed: list[Delivery] = []
        for row in rows if wanting else ():
            data: Mapping[str, Any] = msgspec.json.decode(
                self._keyring.open(row.data, table="events", column="data", row=row.id)
            )
            owed += [
                subscriptions.new_delivery(
                    event_id=row.id, event_type=row.type, subscription_id=subscription.id, now=now
                )
                for subscription, wanted in wanting
                if events.wants(event_types=subscription.event_types, filter=wanted, type=row.type, data=data)
            ]
        delivery_store.insert_deliveries(session, owed)
        event_store.move_cursor(session, CURSOR, rows[-1].seq)

    def _settle(self, session: Session, settlements: Sequence[Settlement], *, lease: str) -> None:
        """Note what became of attempts; one whose lease has ended meanwhile is somebody else's now."""
        attempts: list[Attempt] = []
        for settlement in settlements:
            delivery, outcome = settlement.delivery, settlement.outcome
            number = delivery.attempt_count + 1
            state, due = self._next(settlement)
            if not delivery_store.settle_delivery(
                session, delivery.id, lease=lease, state=state, attempt_count=number, next_attempt_at=due
            ):
                continue
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
            self._note_health(session, settlement)
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

    def _note_health(self, session: Session, settlement: Settlement) -> None:
        """Keep since when a subscription fails; disable it when it is gone, or has failed for days."""
        subscription = delivery_store.subscription(session, settlement.delivery.subscription_id)
        if subscription is None or subscription.state != "active":
            return
        if settlement.outcome.delivered:
            if subscription.failing_since is not None:
                delivery_store.update_subscription(session, subscription.id, failing_since=None)
            return
        since = subscription.failing_since or settlement.at
        if subscription.failing_since is None:
            delivery_store.update_subscription(session, subscription.id, failing_since=since)
        if settlement.outcome.gone:
            subscriptions.disable(session, self._ingest, subscription, reason="gone")
        elif self._now() - since >= GIVE_UP_AFTER:
            subscriptions.disable(session, self._ingest, subscription, reason="failing")
