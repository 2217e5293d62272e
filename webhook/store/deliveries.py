"""Subscriptions, the deliveries owed to them, and the attempts made."""

from __future__ import annotations

import secrets
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.db import for_update, is_postgresql
from webhook.models import deliveries, delivery_attempts, events, holds, subscriptions
from webhook.store.text import fetch, insert_rows, one_of, room_for, run, update_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from webhook.db import Session


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `subscriptions`.

    Attributes:
        url: as it is shown.
        sealed_url: sealed, with what is not shown; None where that is all of it.
        event_types: patterns such as `slice.*`; empty means all.
        filter: JSON of `events.Filter`.
        secret, previous_secret: sealed; the previous one signs beside it until `previous_secret_until`.
        failing_since: first failure after the last success.
        ordering: "task" where a task's events are sent one after the other.
        max_in_flight: attempts at once, by each worker; None for the setting.
        max_per_second: attempts, by all workers together; None for no limit.
        failures: in a row; those that were under way when a pause began are not counted.
        paused_until: nothing is sent before.
    """

    id: str
    url: str
    sealed_url: bytes | None
    event_types: list[str]
    filter: dict[str, Any]
    format: str
    description: str | None
    state: str
    disabled_reason: str | None
    secret: bytes
    previous_secret: bytes | None
    previous_secret_until: datetime | None
    failing_since: datetime | None
    ordering: str | None
    max_in_flight: int | None
    max_per_second: int | None
    failures: int = 0
    paused_until: datetime | None = None
    created_at: datetime


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `deliveries`: an event owed to a subscription.

    Attributes:
        schedule_from: how many attempts were made before it was last owed anew, where the schedule begins.
        order_key: it waits for the earlier ones of the same key; None where it need not.
        event_seq: the event's place in the feed, where there is an order.
    """

    id: str
    event_id: str
    event_type: str
    subscription_id: str
    state: str
    attempt_count: int
    schedule_from: int
    next_attempt_at: datetime | None
    lease: str | None
    lease_until: datetime | None
    created_at: datetime
    order_key: str | None = None
    event_seq: int | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a delivery.

    Attributes:
        status: HTTP status, None where no answer came.
        error: a stable word, None where it was delivered.
    """

    delivery_id: str
    number: int
    at: datetime
    status: int | None
    error: str | None
    duration_ms: int


_SUBSCRIPTION = [subscriptions.c[name] for name in Subscription.__struct_fields__]


def _subscription(row: sa.Row[Any]) -> Subscription:
    return Subscription(**row._mapping)  # noqa: SLF001


def _delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(**row._mapping)  # noqa: SLF001


def insert_subscription(session: Session, subscription: Subscription) -> None:
    """Insert a subscription."""
    session.execute(sa.insert(subscriptions).values(msgspec.structs.asdict(subscription) | {"stamp": _stamp()}))


def subscription(session: Session, subscription_id: str, *, lock: bool = False) -> Subscription | None:
    """Return one subscription.

    Args:
        lock: it is about to be changed by what it is now. Never before its deliveries are touched: who settles
            attempts locks those first.
    """
    statement = sa.select(*_SUBSCRIPTION).where(subscriptions.c.id == subscription_id)
    row = session.execute(for_update(session, statement) if lock else statement).first()
    return None if row is None else _subscription(row)


def subscriptions_page(session: Session, *, after: str | None, limit: int) -> list[Subscription]:
    """Return up to `limit` subscriptions, newest first."""
    statement = sa.select(*_SUBSCRIPTION).order_by(subscriptions.c.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(subscriptions.c.id < after)
    return [_subscription(row) for row in session.execute(statement)]


_ACTIVE = sa.select(*_SUBSCRIPTION).where(subscriptions.c.state == "active").order_by(subscriptions.c.id)


def active_subscriptions(session: Session) -> dict[str, Subscription]:
    """Return all subscriptions that get events, by id."""
    return {row.id: _subscription(row) for row in session.execute(_ACTIVE)}


def _stamp() -> int:
    """Return a number by which a row differs from what it was, and their sum from what it was."""
    return secrets.randbits(_STAMP_BITS)


_STAMP_BITS = 40  # so that the sum of any number of them is one of 64
VERSION = "SELECT count(*), sum(stamp) FROM subscriptions"
"""What differs when any subscription was made, changed or deleted."""


def subscription_links(session: Session) -> list[tuple[str, str | None, str]]:
    """Return the state of each subscription, why it was disabled, and where its events go, without passwords."""
    found = session.execute(sa.select(subscriptions.c.state, subscriptions.c.disabled_reason, subscriptions.c.url))
    return [(state, reason, url) for state, reason, url in found]


def update_subscription(session: Session, subscription_id: str, **values: Any) -> bool:
    """Write some columns of a subscription; return whether there is one."""
    statement = (
        sa.update(subscriptions).where(subscriptions.c.id == subscription_id).values(values | {"stamp": _stamp()})
    )
    return session.execute(statement).rowcount == 1


def delete_subscription(session: Session, subscription_id: str) -> bool:
    """Forget a subscription with its deliveries and attempts; return whether there was one."""
    of_subscription = sa.select(deliveries.c.id).where(deliveries.c.subscription_id == subscription_id)
    session.execute(sa.delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(of_subscription)))
    session.execute(sa.delete(deliveries).where(deliveries.c.subscription_id == subscription_id))
    return session.execute(sa.delete(subscriptions).where(subscriptions.c.id == subscription_id)).rowcount == 1


def insert_deliveries(session: Session, rows: Iterable[Delivery]) -> None:
    """Owe events to subscriptions; what is owed already stays as it is."""
    values = [tuple(_written(value) for value in msgspec.structs.astuple(row)) for row in rows]
    insert_rows(session, deliveries, Delivery.__struct_fields__, values, known=True)


def _written(value: Any) -> Any:
    """Return a value as the database keeps it."""
    return clock.to_microseconds(value) if isinstance(value, datetime) else value


def delivery(session: Session, delivery_id: str) -> Delivery | None:
    """Return one delivery."""
    row = session.execute(for_update(session, sa.select(deliveries).where(deliveries.c.id == delivery_id))).first()
    return None if row is None else _delivery(row)


def deliveries_page(
    session: Session, subscription_id: str, *, state: str | None, after: str | None, limit: int
) -> list[Delivery]:
    """Return up to `limit` deliveries of a subscription, newest first."""
    of_subscription = sa.select(deliveries).where(deliveries.c.subscription_id == subscription_id)
    if after is not None:
        of_subscription = of_subscription.where(deliveries.c.id < after)
    of_subscription = of_subscription.order_by(deliveries.c.id.desc()).limit(limit)
    if state is not None:
        return [_delivery(row) for row in session.execute(of_subscription.where(deliveries.c.state == state))]
    # of each state a range of the index, which has them in this order
    ranges = [sa.select(of_subscription.where(deliveries.c.state == each).subquery()) for each in _STATES]
    newest = sa.union_all(*ranges).order_by(sa.desc("id")).limit(limit)
    return [_delivery(row) for row in session.execute(newest)]


_STATES = ("pending", "delivered", "dead")

_DUE = "state = 'pending' AND next_attempt_at <= ? AND (lease_until IS NULL OR lease_until <= ?)"
_WITH_DUE = f"""
    SELECT id FROM subscriptions
    WHERE state = 'active' AND (paused_until IS NULL OR paused_until <= ?)
      AND EXISTS (SELECT 1 FROM deliveries WHERE subscription_id = subscriptions.id AND {_DUE})
    ORDER BY id
"""  # noqa: S608 - our own words
_TAKEN = f"""
    SELECT id FROM (
        SELECT id FROM deliveries
        WHERE subscription_id = ? AND {_DUE} AND (order_key IS NULL OR NOT EXISTS (
            SELECT 1 FROM deliveries AS earlier
            WHERE earlier.subscription_id = deliveries.subscription_id AND earlier.order_key = deliveries.order_key
              AND earlier.order_key IS NOT NULL AND earlier.event_seq < deliveries.event_seq
              AND earlier.state = 'pending'
        ))
        ORDER BY next_attempt_at, id LIMIT ? {{lock}}
    ) AS taken_{{number}}
"""  # noqa: S608
_DELIVERY = Delivery.__struct_fields__
_DELIVERY_TIMES = [number for number, name in enumerate(_DELIVERY) if name.endswith(("_at", "_until"))]
_HELD = "SELECT id, attempt_count FROM deliveries WHERE lease = ? AND {among} ORDER BY id"
_RELEASE = "UPDATE deliveries SET lease = NULL, lease_until = NULL WHERE lease = ? AND {among}"
_SETTLED = ("state", "attempt_count", "next_attempt_at", "lease", "lease_until")


def subscriptions_with_due(session: Session, *, now: datetime) -> list[str]:
    """Return the ids of active subscriptions that are owed a delivery now, in order."""
    return [subscription_id for (subscription_id,) in fetch(session, _WITH_DUE, (clock.to_microseconds(now),) * 3)]


def claim_deliveries(
    session: Session, limits: Mapping[str, int], *, now: datetime, lease: str, lease_until: datetime
) -> list[Delivery]:
    """Take due deliveries, the longest due first; nobody else gets them until the lease ends.

    Args:
        limits: how many of each subscription.

    Returns:
        What was taken, in the order of its making.
    """
    if not limits:
        return []
    at = clock.to_microseconds(now)
    wanted = [*limits.items()]
    wanted += [(wanted[-1][0], 0)] * (room_for(len(wanted)) - len(wanted))
    values: list[Any] = []
    for subscription_id, limit in wanted:
        values += (subscription_id, at, at, limit)
    values += (lease, clock.to_microseconds(lease_until))
    rows = fetch(session, _claim(len(wanted), lock=is_postgresql(session)), tuple(values))
    return sorted(map(_delivery_of, rows), key=lambda delivery: delivery.id)


@lru_cache
def _claim(count: int, *, lock: bool) -> str:
    """Return the statement that claims of so many subscriptions."""
    locking = "FOR UPDATE SKIP LOCKED" if lock else ""
    taken = " UNION ALL ".join(_TAKEN.format(lock=locking, number=number) for number in range(count))
    return f"""
        WITH taken AS ({taken})
        UPDATE deliveries SET lease = ?, lease_until = ? WHERE id IN (SELECT id FROM taken)
        RETURNING {", ".join(_DELIVERY)}
    """  # noqa: S608 - our own words


def _delivery_of(row: Sequence[Any]) -> Delivery:
    """Return a delivery of a row as the database keeps it."""
    values = list(row)
    for number in _DELIVERY_TIMES:
        if values[number] is not None:
            values[number] = clock.from_microseconds(values[number])
    return Delivery(**dict(zip(_DELIVERY, values, strict=True)))


def spent_until(session: Session, subscription_id: str) -> datetime | None:
    """Return up to when a subscription's rate is used, and keep it for us; None where another worker is at it."""
    statement = sa.select(subscriptions.c.id, subscriptions.c.spent_until).where(subscriptions.c.id == subscription_id)
    if is_postgresql(session):
        statement = statement.with_for_update(skip_locked=True)
    row = session.execute(statement).first()
    return None if row is None else row.spent_until or clock.from_microseconds(0)


def spend(session: Session, subscription_id: str, *, until: datetime) -> None:
    """Note up to when a subscription's rate is used."""
    statement = sa.update(subscriptions).where(subscriptions.c.id == subscription_id)
    session.execute(statement.values(spent_until=until))


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt made of a delivery."""

    delivery_id: str
    state: str
    attempt_count: int
    next_attempt_at: datetime | None


def ask_held(session: Session, delivery_ids: Sequence[str], *, lease: str) -> tuple[str, Sequence[Any]]:
    """Return what to ask for those of these deliveries that are still under this lease: id, and attempts made."""
    lock = " FOR UPDATE" if is_postgresql(session) else ""
    among, values = one_of("id", delivery_ids)
    return _HELD.format(among=among) + lock, (lease, *values)


def release(session: Session, delivery_ids: Sequence[str], *, lease: str) -> None:
    """End leases without an attempt."""
    if delivery_ids:
        among, values = one_of("id", delivery_ids)
        run(session, _RELEASE.format(among=among), (lease, *values))


def settle_deliveries(session: Session, settled: Iterable[Settled]) -> None:
    """Write the outcomes of attempts, and end their leases."""
    values = [
        (one.state, one.attempt_count, _written(one.next_attempt_at), None, None, one.delivery_id) for one in settled
    ]
    update_rows(session, deliveries, _SETTLED, values)


def insert_attempts(session: Session, rows: Sequence[Attempt]) -> None:
    """Note attempts."""
    values = [tuple(_written(value) for value in msgspec.structs.astuple(row)) for row in rows]
    insert_rows(session, delivery_attempts, Attempt.__struct_fields__, values)


def attempts(session: Session, delivery_ids: Iterable[str]) -> dict[str, list[Attempt]]:
    """Return the attempts of each of these deliveries, in order."""
    statement = (
        sa.select(delivery_attempts)
        .where(delivery_attempts.c.delivery_id.in_(sorted(set(delivery_ids))))
        .order_by(delivery_attempts.c.delivery_id, delivery_attempts.c.number)
    )
    found: dict[str, list[Attempt]] = {}
    for row in session.execute(statement):
        found.setdefault(row.delivery_id, []).append(Attempt(**row._mapping))  # noqa: SLF001
    return found


def owed_of(session: Session, event_ids: Collection[str]) -> list[Delivery]:
    """Return what is still owed of these events."""
    statement = sa.select(deliveries).where(
        deliveries.c.subscription_id.in_(sa.select(subscriptions.c.id)),  # or there would be no index for it
        deliveries.c.event_id.in_(event_ids),
        deliveries.c.state == "pending",
    )
    return [_delivery(row) for row in session.execute(for_update(session, statement.order_by(deliveries.c.id)))]


def give_up(session: Session, owed: Sequence[Delivery], *, error: str, now: datetime) -> None:
    """End deliveries without sending them; a last attempt says why."""
    ended = [(one, one.attempt_count + 1) for one in owed]
    settle_deliveries(
        session,
        [
            Settled(delivery_id=one.id, state="dead", attempt_count=number, next_attempt_at=None)
            for one, number in ended
        ],
    )
    said = [
        Attempt(delivery_id=one.id, number=number, at=now, status=None, error=error, duration_ms=0)
        for one, number in ended
    ]
    insert_attempts(session, said)


def delete_deliveries(session: Session, *, after: str, before: str, limit: int) -> Sequence[str]:
    """Delete the next deliveries between two ids, with their attempts, but for tasks that are held.

    Returns:
        The ids of those that were looked at, in order.
    """
    statement = sa.select(deliveries.c.id, deliveries.c.event_id).where(
        deliveries.c.id > after, deliveries.c.id < before
    )
    found = session.execute(statement.order_by(deliveries.c.id).limit(limit)).all()
    if not found:
        return []
    last = found[-1].id
    of_held = sa.select(events.c.id).where(
        events.c.id.in_({row.event_id for row in found}), events.c.task_id.in_(sa.select(holds.c.task_id))
    )
    held = set(session.execute(of_held).scalars())
    kept = [row.id for row in found if row.event_id in held]
    for column in (delivery_attempts.c.delivery_id, deliveries.c.id):
        session.execute(sa.delete(column.table).where(column > after, column <= last, column.not_in(kept)))
    return [row.id for row in found]


def make_due(session: Session, delivery_id: str, *, now: datetime) -> bool:
    """Owe a delivery again, from now; return whether there is one that is not just being attempted."""
    statement = (
        sa.update(deliveries)
        .where(
            deliveries.c.id == delivery_id, sa.or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now)
        )
        .values(state="pending", next_attempt_at=now, schedule_from=deliveries.c.attempt_count)
    )
    return session.execute(statement).rowcount == 1


def make_failed_due(session: Session, subscription_id: str, *, since: datetime, now: datetime) -> int:
    """Owe again, from now, what failed of the events since a time; return how many."""
    failed = sa.or_(
        deliveries.c.state == "dead",
        sa.and_(deliveries.c.state == "pending", deliveries.c.attempt_count > 0, deliveries.c.lease.is_(None)),
    )
    told = sa.func.length(events.c.data) > 0
    of_event = sa.and_(events.c.id == deliveries.c.event_id, events.c.created_at >= since, told)
    statement = (
        sa.update(deliveries)
        .where(deliveries.c.subscription_id == subscription_id, failed, sa.exists().where(of_event))
        .values(state="pending", next_attempt_at=now, schedule_from=deliveries.c.attempt_count)
    )
    return session.execute(statement).rowcount


def count_pending(session: Session, *, of: Sequence[str] | None = None) -> dict[str, int]:
    """Return how many deliveries each subscription is still owed, or each of these.

    Only those that are owed some are in it.
    """
    statement = (
        sa.select(deliveries.c.subscription_id, sa.func.count())
        .where(deliveries.c.state == sa.literal_column("'pending'"))
        .group_by(deliveries.c.subscription_id)
    )
    if of is not None:
        statement = statement.where(deliveries.c.subscription_id.in_(of))
    return {row[0]: row[1] for row in session.execute(statement)}
