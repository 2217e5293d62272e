"""Subscriptions: who wants which events, where, and signed with what."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import clock, destinations, signatures
from webhook.clock import rfc3339, rfc3339_or_none
from webhook.events import TEST_TYPE
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store.deliveries import Attempt, Delivery, Subscription

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.ingest import Ingest

_SECRET_BYTES = 32  # Standard Webhooks 1.0: 24 to 64
OLD_SECRET_SIGNS_FOR = timedelta(hours=24)


def create(
    session: Session,
    keyring: Keyring,
    *,
    url: str,
    event_types: list[str],
    filter: dict[str, Any],  # noqa: A002 - the contract's word
    format: str,  # noqa: A002 - the contract's word
    description: str | None,
    ordering: str | None = None,
    max_in_flight: int | None = None,
    max_per_second: int | None = None,
    now: datetime,
) -> tuple[Subscription, str]:
    """Make a subscription; return it with its signing secret, which is shown this once."""
    subscription_id = clock.new_id("sub", now)
    secret = secrets.token_bytes(_SECRET_BYTES)
    subscription = Subscription(
        id=subscription_id,
        **kept_url(keyring, subscription_id, url),
        event_types=event_types,
        filter=filter,
        format=format,
        description=description,
        state="active",
        disabled_reason=None,
        secret=_seal(keyring, "secret", subscription_id, secret),
        previous_secret=None,
        previous_secret_until=None,
        failing_since=None,
        ordering=ordering,
        max_in_flight=max_in_flight,
        max_per_second=max_per_second,
        created_at=now,
    )
    delivery_store.insert_subscription(session, subscription)
    return subscription, signatures.encode_secret(secret)


def kept_url(keyring: Keyring, subscription_id: str, url: str) -> dict[str, Any]:
    """Return the columns that keep a URL: as it is shown, and sealed where something of it is not."""
    shown = destinations.shown(url)
    sealed = None if shown == url else _seal(keyring, "sealed_url", subscription_id, url.encode())
    return {"url": shown, "sealed_url": sealed}


def full_url(keyring: Keyring, subscription: Subscription) -> str:
    """Return where its events are sent, with what is not shown of it."""
    if subscription.sealed_url is None:
        return subscription.url
    return keyring.open(
        subscription.sealed_url, table="subscriptions", column="sealed_url", row=subscription.id
    ).decode()


def rotate_secret(session: Session, keyring: Keyring, subscription: Subscription, *, now: datetime) -> str:
    """Replace the signing secret and return the new one; the old one signs beside it for 24 h."""
    old = keyring.open(subscription.secret, table="subscriptions", column="secret", row=subscription.id)
    new = secrets.token_bytes(_SECRET_BYTES)
    delivery_store.update_subscription(
        session,
        subscription.id,
        secret=_seal(keyring, "secret", subscription.id, new),
        previous_secret=_seal(keyring, "previous_secret", subscription.id, old),
        previous_secret_until=now + OLD_SECRET_SIGNS_FOR,
    )
    return signatures.encode_secret(new)


def signing_secrets(keyring: Keyring, subscription: Subscription, *, now: datetime) -> list[bytes]:
    """Return the secrets that sign now, the newest first."""
    found = [keyring.open(subscription.secret, table="subscriptions", column="secret", row=subscription.id)]
    until = subscription.previous_secret_until
    if subscription.previous_secret is not None and until is not None and now < until:
        found.append(
            keyring.open(
                subscription.previous_secret, table="subscriptions", column="previous_secret", row=subscription.id
            )
        )
    return found


def send_test(session: Session, ingest: Ingest, subscription: Subscription, *, now: datetime) -> Delivery:
    """Raise a `subscription.test` event for this subscription alone."""
    event = ingest.event(TEST_TYPE, {"subscription": subscription_shape(subscription)})
    event_store.insert_events(session, [event])
    owed = new_delivery(event_id=event.id, event_type=event.type, subscription_id=subscription.id, now=now)
    delivery_store.insert_deliveries(session, [owed])
    return owed


def new_delivery(
    *,
    event_id: str,
    event_type: str,
    subscription_id: str,
    now: datetime,
    order_key: str | None = None,
    event_seq: int | None = None,
) -> Delivery:
    """Return an event owed to a subscription from now on.

    Args:
        order_key: it waits for those of the same key that come before it in the feed.
        event_seq: the event's place there.
    """
    return Delivery(
        id=clock.new_id("dlv", now),
        event_id=event_id,
        event_type=event_type,
        subscription_id=subscription_id,
        state="pending",
        attempt_count=0,
        schedule_from=0,
        next_attempt_at=now,
        lease=None,
        lease_until=None,
        created_at=now,
        order_key=order_key,
        event_seq=event_seq,
    )


def resume(session: Session, subscription_id: str) -> None:
    """Try a subscription again at once, where it was paused for its failures."""
    delivery_store.update_subscription(session, subscription_id, failures=0, paused_until=None)


def disable(session: Session, ingest: Ingest, subscription: Subscription, *, reason: str) -> None:
    """Stop sending to a subscription, and say so by event."""
    delivery_store.update_subscription(session, subscription.id, state="disabled", disabled_reason=reason)
    disabled = msgspec.structs.replace(subscription, state="disabled", disabled_reason=reason)
    event_store.insert_events(
        session, [ingest.event("subscription.disabled", {"subscription": subscription_shape(disabled)})]
    )


def subscription_shape(subscription: Subscription) -> dict[str, Any]:
    """Return the contract's subscription; the secret is not in it."""
    return {
        "id": subscription.id,
        "url": subscription.url,
        "event_types": subscription.event_types,
        "filter": subscription.filter,
        "format": subscription.format,
        "description": subscription.description,
        "ordering": subscription.ordering,
        "max_in_flight": subscription.max_in_flight,
        "max_per_second": subscription.max_per_second,
        "state": subscription.state,
        "disabled_reason": subscription.disabled_reason,
        "failing_since": rfc3339_or_none(subscription.failing_since),
        "paused_until": rfc3339_or_none(subscription.paused_until),
        "created_at": rfc3339(subscription.created_at),
    }


def delivery_shape(delivery: Delivery, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return the contract's delivery with its attempts."""
    due = delivery.next_attempt_at if delivery.state == "pending" else None
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "subscription_id": delivery.subscription_id,
        "state": delivery.state,
        "next_attempt_at": rfc3339_or_none(due),
        "attempts": [
            {
                "number": attempt.number,
                "at": rfc3339(attempt.at),
                "status": attempt.status,
                "error": attempt.error,
                "duration_ms": attempt.duration_ms,
            }
            for attempt in attempts
        ],
    }


def _seal(keyring: Keyring, column: str, subscription_id: str, secret: bytes) -> bytes:
    return keyring.seal(secret, table="subscriptions", column=column, row=subscription_id)
