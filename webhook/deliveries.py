"""Deliveries: events fanned out to subscriptions, claimed, attempted, settled.

One `turn` is one transaction: it settles the attempts that have ended, expands new events into
deliveries, and claims what is due as far as there is room. Between turns the attempts run, outside any
transaction. A claim is a lease longer than the transport's timeout; a worker that dies leaves it to end.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import backoff, clock, events, grants, signatures, subscriptions
from webhook.audience import Audience
from webhook.clock import rfc3339
from webhook.events import Event
from webhook.grants import Grant
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import turns
from webhook.store.deliveries import Attempt, Delivery, Settled, Subscription
from webhook.store.text import together
from webhook.transports import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from webhook.audience import Member
    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.grants import Places
    from webhook.ingest import Ingest
    from webhook.store.events import EventRow
    from webhook.transports import Outcome, Transports

CURSOR = "fan_out"
ERASED = "erased"  # why a delivery ends whose event says nothing any more
GIVE_UP_AFTER = timedelta(days=5)  # of nothing but failures: the contract, section 6
_EVENTS_A_TURN = 200
_OWED_A_TURN = 1000  # about: more would keep callbacks from the database
_SUBSCRIPTIONS_A_TURN = 32
_WRITTEN_BYTES = 8 * 1024 * 1024
_MARGIN = 0.2  # of the time by which a lease is longer than an attempt
_DEFAULT_SOURCE = "urn:webhook"  # CloudEvents' `source` where no public URL is set


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is ours to attempt.

    Attributes:
        content_type, body: the event as the subscription wants it.
        secrets: what signs it.
        max_in_flight: of the subscription, where it has such a number.
        until: when it is too late to begin: the lease could end before the attempt does.
    """

    delivery: Delivery
    url: str
    content_type: str
    body: bytes
    secrets: list[bytes]
    max_in_flight: int | None
    until: datetime


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
        timeout: how long an attempt can take.
        source: CloudEvents' `source`.
        dice: random numbers from 0 to 1, for jitter.
    """

    def __init__(
        self,
        *,
        keyring: Keyring,
        ingest: Ingest,
        lease: timedelta,
        timeout: timedelta,
        source: str | None,
        now: Callable[[], datetime] = clock.now,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._keyring = keyring
        self._ingest = ingest
        self._lease = lease
        self._patience = lease - timeout - _MARGIN * (lease - timeout)
        self._source = source or _DEFAULT_SOURCE
        self._now = now
        self._dice = dice
        self.written = _Written()
        self._audience = Audience(now=now)
        self._last_swept = ""  # the last subscription of those that the last turn looked at, where there were more

    def turn(
        self, session: Session, *, lease: str, settlements: Sequence[Settlement], places: Places, sweep: bool
    ) -> Turn:
        """Settle, fan out and claim, in one transaction.

        Args:
            lease: names the claims; settlements must have been claimed under it.
            places: room for attempts; those that are in flight are counted in it.
            sweep: look for deliveries that were owed before, too.
        """
        now = self._now()
        there = turns.begin(
            session,
            reader=CURSOR,
            limit=_EVENTS_A_TURN,
            delivery_ids=[one.delivery.id for one in settlements],
            lease=lease,
        )
        audience = self._audience.read(session, version=there.version)
        self._settle(session, settlements, held=there.held, audience=audience)
        grant = Grant(session, places, lease=lease, until=now + self._lease, now=now)
        claimed = self._claim_due(session, now=now, grant=grant, audience=audience) if sweep else []
        fanned = self._fan_out(session, there.events or [], now=now, grant=grant, audience=audience)
        # what keeps an order or a rate is never claimed as it is made: what was there before goes first
        waiting = fanned.waiting | {
            one.delivery.subscription_id for one in settlements if one.delivery.order_key is not None
        }
        queued = [audience[one].subscription for one in sorted(waiting & audience.keys())]
        claimed += self._claim(session, queued, now=now, grant=grant)
        composer = _Composer(self, audience=audience, now=now, until=now + self._patience)
        composer.read(session, claimed, known=fanned.events)
        lost = [delivery for delivery in claimed if composer.lacks(delivery)]
        delivery_store.give_up(session, lost, error=ERASED, now=now)
        gone = {delivery.id for delivery in lost}
        claims = [composer.claim(delivery) for delivery in claimed + fanned.claimed if delivery.id not in gone]
        return Turn(claims=claims, more=grant.refused, behind=fanned.behind)

    def _claim_due(
        self, session: Session, *, now: datetime, grant: Grant, audience: Mapping[str, Member]
    ) -> list[Delivery]:
        """Claim what was owed before; where that is to many subscriptions, to some in each turn."""
        due = [one for one in delivery_store.subscriptions_with_due(session, now=now) if one in audience]
        after = [one for one in due if one > self._last_swept]
        turn = (after + due[: len(due) - len(after)])[:_SUBSCRIPTIONS_A_TURN]
        self._last_swept = turn[-1] if len(turn) < len(due) else ""
        for subscription_id in set(due) - set(turn):
            grant.close(audience[subscription_id].subscription)
        return self._claim(session, [audience[one].subscription for one in turn], now=now, grant=grant)

    def _claim(
        self, session: Session, wanted: Sequence[Subscription], *, now: datetime, grant: Grant
    ) -> list[Delivery]:
        """Claim what these subscriptions are owed, as far as there is room."""
        limits: dict[str, int] = {}
        fair = max(
            1, grant.free(owed_before=True) // max(1, len(wanted))
        )  # or the first would leave the others nothing
        for subscription in wanted:
            limits[subscription.id] = min(fair, grant.left(subscription, owed_before=True))
            grant.take(subscription, limits[subscription.id])
        claimed = delivery_store.claim_deliveries(
            session,
            {subscription_id: limit for subscription_id, limit in limits.items() if limit > 0},
            now=now,
            lease=grant.lease,
            lease_until=grant.until,
        )
        taken = Counter(delivery.subscription_id for delivery in claimed)
        for subscription in wanted:
            unused = limits[subscription.id] - taken[subscription.id]
            if unused:
                grant.take(subscription, -unused)
            else:  # there may be more, and new ones must not overtake them
                grant.close(subscription)
        return claimed

    def has_new_events(self, session: Session) -> bool:
        """Return whether there are events that were not fanned out."""
        return event_store.behind(session, CURSOR) > 0

    async def attempt(self, transports: Transports, claim: Claim) -> Settlement:
        """Send a claimed delivery once."""
        at = self._now()
        timestamp = int(at.timestamp())
        delivery = claim.delivery
        message = Message(
            id=delivery.event_id,
            type=delivery.event_type,
            timestamp=timestamp,
            signature=signatures.sign(
                secrets=claim.secrets, message_id=delivery.event_id, timestamp=timestamp, body=claim.body
            ),
            content_type=claim.content_type,
            body=claim.body,
        )
        outcome = await transports.send(subscription_id=delivery.subscription_id, url=claim.url, message=message)
        return Settlement(delivery=delivery, outcome=outcome, at=at)

    def write_event(self, row: EventRow, *, format: str) -> tuple[str, bytes]:  # noqa: A002 - the contract's word
        """Return the content type and body of an event."""
        return events.encode(self.open_event(row), format=format, source=self._source)

    def secrets_of(self, subscription: Subscription, *, now: datetime) -> list[bytes]:
        """Return what signs for a subscription now."""
        return subscriptions.signing_secrets(self._keyring, subscription, now=now)

    def url_of(self, subscription: Subscription) -> str:
        """Return where a subscription's events go, with what is not shown of it."""
        return subscriptions.full_url(self._keyring, subscription)

    def open_event(self, row: EventRow) -> Event:
        """Return an event as it is published; of one whose task was erased, all that is left to say."""
        data = msgspec.Raw(self._open(row)) if row.data else {"task": {"id": row.task_id}, "erased": True}
        return Event(id=row.id, type=row.type, timestamp=rfc3339(row.created_at), data=data)

    def _open(self, row: EventRow) -> bytes:
        return self._keyring.open(row.data, table="events", column="data", row=row.id)

    def _fan_out(
        self, session: Session, rows: Sequence[EventRow], *, now: datetime, grant: Grant, audience: Mapping[str, Member]
    ) -> _Fanned:
        """Expand new events into what each subscription is owed."""
        owed: list[Delivery] = []
        waiting: set[str] = set()
        done = 0
        for row in rows:
            if len(owed) >= _OWED_A_TURN:
                break
            done += 1
            if not row.data:
                continue
            data: Mapping[str, Any] = msgspec.json.decode(self._open(row)) if audience else {}
            for member in audience.values():
                if not member.wants(type=row.type, data=data):
                    continue
                subscription = member.subscription
                in_order = subscription.ordering is not None and row.task_id is not None
                delivery = subscriptions.new_delivery(
                    event_id=row.id,
                    event_type=row.type,
                    subscription_id=subscription.id,
                    now=now,
                    order_key=row.task_id if in_order else None,
                    event_seq=row.seq if in_order else None,
                )
                if member.is_queued:
                    waiting.add(subscription.id)
                elif grant.left(subscription) > 0:
                    grant.take(subscription, 1)
                    delivery = msgspec.structs.replace(delivery, lease=grant.lease, lease_until=grant.until)
                else:
                    grant.close(subscription)
                owed.append(delivery)
        if done:
            with together(session):
                delivery_store.insert_deliveries(session, owed)
                event_store.move_cursor(session, CURSOR, rows[done - 1].seq)
        return _Fanned(
            events={row.id: row for row in rows[:done]},
            claimed=[delivery for delivery in owed if delivery.lease],
            waiting=waiting,
            behind=done == _EVENTS_A_TURN or done < len(rows),
        )

    def _settle(
        self,
        session: Session,
        settlements: Sequence[Settlement],
        *,
        held: dict[str, int],
        audience: dict[str, Member],
    ) -> None:
        """Note what became of attempts; one whose lease has ended, or that was made twice, changes nothing any more.

        Args:
            held: of their deliveries those still under our lease, and how many attempts each has had.
        """
        if not settlements:
            return
        settled: list[Settled] = []
        attempts: list[Attempt] = []
        # in one order for all workers, or two could wait for each other's subscriptions
        for settlement in sorted(settlements, key=lambda one: one.delivery.subscription_id):
            delivery, outcome = settlement.delivery, settlement.outcome
            if held.get(delivery.id) != delivery.attempt_count:
                continue
            # one that was claimed twice, since the clock leapt past its lease, is settled once
            number = held[delivery.id] = delivery.attempt_count + 1
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
            self._note_health(session, settlement, audience=audience)
        with together(session):
            delivery_store.settle_deliveries(session, settled)
            delivery_store.insert_attempts(session, attempts)

    def _next(self, settlement: Settlement) -> tuple[str, datetime | None]:
        """Return a delivery's state after an attempt, and when the next one is due."""
        if settlement.outcome.delivered:
            return "delivered", None
        if settlement.outcome.permanent:
            return "dead", None
        now = self._now()
        delivery = settlement.delivery
        delay = backoff.next_delivery_delay(
            attempts_made=delivery.attempt_count + 1 - delivery.schedule_from,
            retry_after=backoff.parse_retry_after(settlement.outcome.retry_after, now=now),
            dice=self._dice,
        )
        return ("dead", None) if delay is None else ("pending", now + delay)

    def _note_health(self, session: Session, settlement: Settlement, *, audience: dict[str, Member]) -> None:
        """Keep how a subscription fares; disable it when it is gone, or has failed for days."""
        member = audience.get(settlement.delivery.subscription_id)
        if member is None:
            return
        now, before = self._now(), member.subscription
        after = grants.after_attempt(
            before, delivered=settlement.outcome.delivered, at=settlement.at, now=now, dice=self._dice
        )
        if after != before:
            delivery_store.update_subscription(
                session,
                after.id,
                failing_since=after.failing_since,
                failures=after.failures,
                paused_until=after.paused_until,
            )
            audience[after.id] = msgspec.structs.replace(member, subscription=after)
        reason = None
        if settlement.outcome.gone:
            reason = "gone"
        elif after.failing_since is not None and now - after.failing_since >= GIVE_UP_AFTER:
            reason = "failing"
        if reason is not None:
            subscriptions.disable(session, self._ingest, after, reason=reason)
            del audience[after.id]


class _Fanned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of new events.

    Attributes:
        events: by id.
        claimed: ours to attempt at once.
        waiting: subscriptions whose deliveries were only queued.
        behind: whether there may be more new events.
    """

    events: dict[str, EventRow] = {}
    claimed: list[Delivery] = []
    waiting: set[str] = set()
    behind: bool = False


class _Written:
    """Events as they were written, by id and format: an event is owed to many, and not in one turn to all of them."""

    def __init__(self) -> None:
        self._bodies: OrderedDict[tuple[str, str], tuple[str, bytes]] = OrderedDict()
        self._bytes = 0

    def get(self, event_id: str, format: str) -> tuple[str, bytes] | None:  # noqa: A002 - the contract's word
        """Return an event's content type and body."""
        return self._bodies.get((event_id, format))

    def put(self, event_id: str, format: str, written: tuple[str, bytes]) -> None:  # noqa: A002
        """Keep an event, in place of those that came first."""
        _, before = self._bodies.pop((event_id, format), ("", b""))  # of a turn that came to nothing
        self._bodies[event_id, format] = written
        self._bytes += len(written[1]) - len(before)
        while self._bytes > _WRITTEN_BYTES and len(self._bodies) > 1:
            _, (_, body) = self._bodies.popitem(last=False)
            self._bytes -= len(body)


class _Composer:
    """Makes claims: each event's body is written once a format, each subscription's secrets are opened once."""

    def __init__(
        self, deliveries: Deliveries, *, audience: Mapping[str, Member], now: datetime, until: datetime
    ) -> None:
        self._until = until
        self._deliveries = deliveries
        self._audience = audience
        self._now = now
        self._rows: Mapping[str, EventRow] = {}
        self._bodies: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._senders: dict[str, tuple[str, list[bytes]]] = {}  # URL and signing secrets, by subscription

    def read(self, session: Session, claimed: Sequence[Delivery], *, known: Mapping[str, EventRow]) -> None:
        """Read the events of deliveries, but for those that are known or were written lately."""
        missing: set[str] = set()
        for delivery in claimed:
            place = self._place(delivery)
            # what is tried again may have been erased meanwhile
            written = None if delivery.attempt_count else self._deliveries.written.get(*place)
            if written is not None:
                self._bodies[place] = written
            elif delivery.event_id not in known:
                missing.add(delivery.event_id)
        self._rows = {**known, **event_store.events_by_id(session, missing)} if missing else known

    def lacks(self, delivery: Delivery) -> bool:
        """Whether there is nothing to send: the event's task was erased, or it is no longer kept."""
        if self._place(delivery) in self._bodies:
            return False
        row = self._rows.get(delivery.event_id)
        return row is None or not row.data

    def claim(self, delivery: Delivery) -> Claim:
        """Return a delivery ready to be sent."""
        subscription = self._audience[delivery.subscription_id].subscription
        place = self._place(delivery)
        if place not in self._bodies:
            written = self._deliveries.write_event(self._rows[delivery.event_id], format=subscription.format)
            self._bodies[place] = written
            self._deliveries.written.put(*place, written)
        if subscription.id not in self._senders:
            url = self._deliveries.url_of(subscription)
            self._senders[subscription.id] = url, self._deliveries.secrets_of(subscription, now=self._now)
        url, secrets = self._senders[subscription.id]
        content_type, body = self._bodies[place]
        return Claim(
            delivery=delivery,
            url=url,
            content_type=content_type,
            body=body,
            secrets=secrets,
            max_in_flight=subscription.max_in_flight,
            until=self._until,
        )

    def _place(self, delivery: Delivery) -> tuple[str, str]:
        return delivery.event_id, self._audience[delivery.subscription_id].subscription.format
