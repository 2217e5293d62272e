"""Subscriptions, the deliveries owed to them, and the attempts made."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.models import deliveries, delivery_attempts, events, subscriptions
from webhook.store.text import insert_text, marks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.db import Session


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `subscriptions`.

    Attributes:
        event_types: patterns such as `slice.*`; empty means all.
        filter: JSON of `events.Filter`.
        secret, previous_secret: sealed; the previous one signs beside it until `previous_secret_until`.
        failing_since: first failure after the last success.
    """

    id: str
    url: str
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
    created_at: datetime


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `deliveries`: an event owed to a subscription.

    Attributes:
        schedule_from: how many attempts were made before it was last owed anew, where the schedule begins.
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


def _subscription(row: sa.Row[Any]) -> Subscription:
    return Subscription(**row._mapping)  # noqa: SLF001


def _delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(**row._mapping)  # noqa: SLF001


def insert_subscription(session: Session, subscription: Subscription) -> None:
    """Insert a subscription."""
    session.execute(sa.insert(subscriptions).values(msgspec.structs.asdict(subscription)))


def subscription(session: Session, subscription_id: str) -> Subscription | None:
    """Return one subscription."""
    row = session.execute(sa.select(subscriptions).where(subscriptions.c.id == subscription_id)).first()
    return None if row is None else _subscription(row)


def subscriptions_page(session: Session, *, after: str | None, limit: int) -> list[Subscription]:
    """Return up to `limit` subscriptions, newest first."""
    statement = sa.select(subscriptions).order_by(subscriptions.c.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(subscriptions.c.id < after)
    return [_subscription(row) for row in session.execute(statement)]


_ACTIVE = sa.select(subscriptions).where(subscriptions.c.state == "active").order_by(subscriptions.c.id)


def active_subscriptions(session: Session) -> dict[str, Subscription]:
    """Return all subscriptions that get events, by id."""
    return {row.id: _subscription(row) for row in session.execute(_ACTIVE)}


def update_subscription(session: Session, subscription_id: str, **values: Any) -> bool:
    """Write some columns of a subscription; return whether there is one."""
    statement = sa.update(subscriptions).where(subscriptions.c.id == subscription_id).values(values)
    return session.execute(statement).rowcount == 1


def delete_subscription(session: Session, subscription_id: str) -> bool:
    """Forget a subscription with its deliveries and attempts; return whether there was one."""
    of_subscription = sa.select(deliveries.c.id).where(deliveries.c.subscription_id == subscription_id)
    session.execute(sa.delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(of_subscription)))
    session.execute(sa.delete(deliveries).where(deliveries.c.subscription_id == subscription_id))
    return session.execute(sa.delete(subscriptions).where(subscriptions.c.id == subscription_id)).rowcount == 1


_INSERT = f"{insert_text(deliveries, Delivery.__struct_fields__)} ON CONFLICT DO NOTHING"


def insert_deliveries(session: Session, rows: Iterable[Delivery]) -> None:
    """Owe events to subscriptions; what is owed already stays as it is."""
    values = [tuple(_written(value) for value in msgspec.structs.astuple(row)) for row in rows]
    if values:
        session.exec_driver_sql(_INSERT, values)


def _written(value: Any) -> Any:
    """Return a value as the database keeps it."""
    return clock.to_microseconds(value) if isinstance(value, datetime) else value


def delivery(session: Session, delivery_id: str) -> Delivery | None:
    """Return one delivery."""
    row = session.execute(sa.select(deliveries).where(deliveries.c.id == delivery_id)).first()
    return None if row is None else _delivery(row)


def deliveries_page(
    session: Session, subscription_id: str, *, state: str | None, after: str | None, limit: int
) -> list[Delivery]:
    """Return up to `limit` deliveries of a subscription, newest first."""
    statement = (
        sa.select(deliveries)
        .where(deliveries.c.subscription_id == subscription_id)
        .order_by(deliveries.c.id.desc())
        .limit(limit)
    )
    if state is not None:
        statement = statement.where(deliveries.c.state == state)
    if after is not None:
        statement = statement.where(deliveries.c.id < after)
    return [_delivery(row) for row in session.execute(statement)]


# Statements of the loop that never rests are made once: building one costs more than running it.
_NOW = sa.bindparam("now", type_=deliveries.c.next_attempt_at.type)
_DUE = (
    deliveries.c.state == sa.literal_column("'pending'"),
    deliveries.c.next_attempt_at <= _NOW,
    sa.or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= _NOW),
)
_WITH_DUE = sa.select(subscriptions.c.id).where(
    subscriptions.c.state == "active",
    sa.exists().where(deliveries.c.subscription_id == subscriptions.c.id, *_DUE).correlate(subscriptions),
)
_CLAIM = (
    sa.update(deliveries)
    .where(
        deliveries.c.id.in_(
            sa.select(deliveries.c.id)
            .where(deliveries.c.subscription_id == sa.bindparam("of_subscription"), *_DUE)
            .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
            .limit(sa.bindparam("most"))
        )
    )
    .values(lease=sa.bindparam("new_lease"), lease_until=sa.bindparam("until", type_=deliveries.c.lease_until.type))
    .returning(*deliveries.c)
)
_HELD = "SELECT id FROM deliveries WHERE lease = ? AND id IN ({marks})"
_SETTLE = (
    "UPDATE deliveries SET state = ?, attempt_count = ?, next_attempt_at = ?, lease = NULL, lease_until = NULL"
    " WHERE id = ?"
)
_INSERT_ATTEMPT = insert_text(delivery_attempts, Attempt.__struct_fields__)


def subscriptions_with_due(session: Session, *, now: datetime) -> list[str]:
    """Return the ids of active subscriptions that are owed a delivery now."""
    return list(session.execute(_WITH_DUE, {"now": now}).scalars())


def claim_deliveries(
    session: Session, subscription_id: str, *, now: datetime, lease: str, lease_until: datetime, limit: int
) -> list[Delivery]:
    """Take due deliveries of a subscription, the longest due first; nobody else gets them until the lease ends."""
    claim = {
        "of_subscription": subscription_id,
        "now": now,
        "new_lease": lease,
        "until": lease_until,
        "most": limit,
    }
    return sorted((_delivery(row) for row in session.execute(_CLAIM, claim)), key=lambda delivery: delivery.id)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt made of a delivery."""

    delivery_id: str
    state: str
    attempt_count: int
    next_attempt_at: datetime | None


def held(session: Session, delivery_ids: Iterable[str], *, lease: str) -> set[str]:
    """Return which of these deliveries are still under this lease."""
    ids = list(delivery_ids)
    rows = session.exec_driver_sql(_HELD.format(marks=marks(len(ids))), (lease, *ids))
    return set(rows.scalars())


def settle_deliveries(session: Session, settled: Iterable[Settled]) -> None:
    """Write the outcomes of attempts, and end their leases."""
    values = [(one.state, one.attempt_count, _written(one.next_attempt_at), one.delivery_id) for one in settled]
    if values:
        session.exec_driver_sql(_SETTLE, values)


def insert_attempts(session: Session, rows: Sequence[Attempt]) -> None:
    """Note attempts."""
    if rows:
        values = [tuple(_written(value) for value in msgspec.structs.astuple(row)) for row in rows]
        session.exec_driver_sql(_INSERT_ATTEMPT, values)


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
    newer = sa.select(events.c.id).where(events.c.created_at >= since)
    statement = (
        sa.update(deliveries)
        .where(deliveries.c.subscription_id == subscription_id, failed, deliveries.c.event_id.in_(newer))
        .values(state="pending", next_attempt_at=now, schedule_from=deliveries.c.attempt_count)
    )
    return session.execute(statement).rowcount


def count_pending(session: Session) -> dict[str, int]:
    """Return how many deliveries each subscription is still owed."""
    statement = (
        sa.select(deliveries.c.subscription_id, sa.func.count())
        .where(deliveries.c.state == sa.literal_column("'pending'"))
        .group_by(deliveries.c.subscription_id)
    )
    return {row[0]: row[1] for row in session.execute(statement)}
