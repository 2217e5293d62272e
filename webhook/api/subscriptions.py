"""Subscriptions and their deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook import clock, destinations, subscriptions
from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import subscriptions as schemas
from webhook.api.schemas.lists import ListQuery
from webhook.errors import AddressRefused, Conflict, Forbidden, Gone, Invalid, NotFound
from webhook.roles import Permission
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.subscriptions import delivery_shape, subscription_shape

if TYPE_CHECKING:
    from webhook.db import Session
    from webhook.store.deliveries import Subscription


_OPERATORS = {"state", "max_in_flight", "max_per_second"}  # what changes nothing of who gets what


def _found(session: Session, subscription_id: str, *, lock: bool = False) -> Subscription:
    subscription = delivery_store.subscription(session, subscription_id, lock=lock)
    if subscription is None:
        raise NotFound("There is no such subscription.")
    return subscription


def _check_url(request: Request, url: str) -> str:
    try:
        destinations.check_url(request.service.address_policy, url)
    except (AddressRefused, ValueError) as error:
        raise Invalid(("url", str(error))) from None
    return url


def _shape(session: Session, subscription: Subscription) -> dict[str, Any]:
    """Return a subscription with how many deliveries it is still owed."""
    pending = delivery_store.count_pending(session, of=[subscription.id])
    return subscription_shape(subscription) | {"pending": pending.get(subscription.id, 0)}


def _filter(body: schemas.FilterIn) -> dict[str, Any]:
    return body.model_dump(exclude_none=True)


def _create(request: Request, session: Session) -> Answer:
    body: schemas.SubscriptionIn = request.body
    subscription, secret = subscriptions.create(
        session,
        request.service.keyring,
        url=_check_url(request, body.url),
        event_types=body.event_types,
        filter=_filter(body.filter),
        format=body.format,
        description=body.description,
        ordering=body.ordering,
        max_in_flight=body.max_in_flight,
        max_per_second=body.max_per_second,
        now=clock.now(),
    )
    return Answer(
        status=201,
        body=_shape(session, subscription) | {"secret": secret},
        headers={"Location": f"/v1/subscriptions/{subscription.id}"},
    )


def _list(request: Request, session: Session) -> Answer:
    query: ListQuery = request.query
    found = delivery_store.subscriptions_page(session, after=query.cursor, limit=query.limit)
    cursor = found[-1].id if len(found) == query.limit else None
    pending = delivery_store.count_pending(session, of=[one.id for one in found])
    items = [subscription_shape(one) | {"pending": pending.get(one.id, 0)} for one in found]
    return Answer(body={"items": items, "next_cursor": cursor})


def _show(request: Request, session: Session) -> Answer:
    return Answer(body=_shape(session, _found(session, request.path["subscription_id"])))


def _patch(request: Request, session: Session) -> Answer:
    body: schemas.SubscriptionPatch = request.body
    if not body.model_fields_set <= _OPERATORS and not request.client.may(Permission.MANAGE):
        raise Forbidden(f"An operator may change {', '.join(sorted(_OPERATORS))}; this needs the role admin.")
    subscription = _found(session, request.path["subscription_id"], lock=True)
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if changes.get("url") == subscription.url:
        del changes["url"]  # as it was shown, which may not be all of it
    if "url" in changes:
        url = _check_url(request, changes["url"])
        changes |= subscriptions.kept_url(request.service.keyring, subscription.id, url)
        changes |= {"failures": 0, "paused_until": None}  # it was another that failed
    if "filter" in changes:
        changes["filter"] = _filter(changes["filter"])
    if "state" in changes and changes["state"] != subscription.state:
        changes |= {"failing_since": None, "failures": 0, "paused_until": None}
        changes["disabled_reason"] = None if changes["state"] == "active" else "by_client"
    if changes:
        delivery_store.update_subscription(session, subscription.id, **changes)
    return Answer(body=_shape(session, _found(session, subscription.id)))


def _delete(request: Request, session: Session) -> Answer:
    if not delivery_store.delete_subscription(session, request.path["subscription_id"]):
        raise NotFound("There is no such subscription.")
    return Answer(status=204)


def _rotate_secret(request: Request, session: Session) -> Answer:
    subscription = _found(session, request.path["subscription_id"], lock=True)
    secret = subscriptions.rotate_secret(session, request.service.keyring, subscription, now=clock.now())
    return Answer(body={"secret": secret})


def _test(request: Request, session: Session) -> Answer:
    subscription = _found(session, request.path["subscription_id"])
    if subscription.state != "active":
        raise Conflict("The subscription is disabled; set its state to active first.")
    subscriptions.resume(session, subscription.id)
    owed = subscriptions.send_test(session, request.service.ingest, subscription, now=clock.now())
    return Answer(status=202, body=delivery_shape(owed, []))


def _recover(request: Request, session: Session) -> Answer:
    body: schemas.RecoverIn = request.body
    subscription = _found(session, request.path["subscription_id"])
    recovered = delivery_store.make_failed_due(session, subscription.id, since=body.since, now=clock.now())
    subscriptions.resume(session, subscription.id)
    return Answer(status=202, body={"recovered": recovered})


def _list_deliveries(request: Request, session: Session) -> Answer:
    query: schemas.DeliveryQuery = request.query
    subscription = _found(session, request.path["subscription_id"])
    found = delivery_store.deliveries_page(
        session,
        subscription.id,
        state=query.state,
        after=query.cursor,
        limit=query.limit,
    )
    attempts = delivery_store.attempts(session, [delivery.id for delivery in found])
    cursor = found[-1].id if len(found) == query.limit else None
    items = [delivery_shape(delivery, attempts.get(delivery.id, [])) for delivery in found]
    return Answer(body={"items": items, "next_cursor": cursor})


def _retry(request: Request, session: Session) -> Answer:
    delivery_id = request.path["delivery_id"]
    delivery = delivery_store.delivery(session, delivery_id)
    if delivery is None:
        raise NotFound("There is no such delivery.")
    event = event_store.events_by_id(session, [delivery.event_id]).get(delivery.event_id)
    if event is None or not event.data:
        raise Gone("The event was erased, or is no longer kept, so it cannot be sent again.")
    if not delivery_store.make_due(session, delivery_id, now=clock.now()):
        raise Conflict("The delivery is being attempted right now.")
    delivery = delivery_store.delivery(session, delivery_id)
    if delivery is None:
        raise NotFound("There is no such delivery.")
    subscriptions.resume(session, delivery.subscription_id)
    attempts = delivery_store.attempts(session, [delivery_id])
    return Answer(status=202, body=delivery_shape(delivery, attempts.get(delivery_id, [])))


ROUTES = (
    Route(
        method="POST",
        path="/v1/subscriptions",
        tag="Subscriptions",
        permission=Permission.MANAGE,
        summary="Subscribe to events",
        call=_create,
        body=schemas.SubscriptionIn,
        answers={201: schemas.SubscriptionMadeOut},
        creates=True,
        audit="subscription.created",
    ),
    Route(
        method="GET",
        path="/v1/subscriptions",
        tag="Subscriptions",
        permission=Permission.SEE_STATES,
        summary="List subscriptions, newest first",
        call=_list,
        query=ListQuery,
        answers={200: schemas.SubscriptionPage},
    ),
    Route(
        method="GET",
        path="/v1/subscriptions/{subscription_id}",
        tag="Subscriptions",
        permission=Permission.SEE_STATES,
        summary="Show a subscription",
        call=_show,
        answers={200: schemas.SubscriptionOut},
    ),
    Route(
        method="PATCH",
        path="/v1/subscriptions/{subscription_id}",
        tag="Subscriptions",
        permission=Permission.MANAGE,
        part=Permission.OPERATE,
        summary="Change a subscription; an operator its state and its pace only",
        call=_patch,
        body=schemas.SubscriptionPatch,
        answers={200: schemas.SubscriptionOut},
        audit="subscription.changed",
    ),
    Route(
        method="DELETE",
        path="/v1/subscriptions/{subscription_id}",
        tag="Subscriptions",
        permission=Permission.MANAGE,
        summary="End a subscription, and forget its deliveries",
        call=_delete,
        answers={204: None},
        audit="subscription.deleted",
    ),
    Route(
        method="POST",
        path="/v1/subscriptions/{subscription_id}/rotate-secret",
        tag="Subscriptions",
        permission=Permission.MANAGE,
        summary="Replace the signing secret; the old one signs beside it for 24 hours",
        call=_rotate_secret,
        answers={200: schemas.SecretOut},
        audit="subscription.secret_rotated",
    ),
    Route(
        method="POST",
        path="/v1/subscriptions/{subscription_id}/test",
        tag="Subscriptions",
        permission=Permission.OPERATE,
        summary="Send a subscription.test event",
        call=_test,
        answers={202: schemas.DeliveryOut},
        errors=(409,),
        audit="subscription.tested",
    ),
    Route(
        method="POST",
        path="/v1/subscriptions/{subscription_id}/recover",
        tag="Subscriptions",
        permission=Permission.OPERATE,
        summary="Send again what failed since a time",
        call=_recover,
        body=schemas.RecoverIn,
        answers={202: schemas.RecoveredOut},
        audit="subscription.recovered",
    ),
    Route(
        method="GET",
        path="/v1/subscriptions/{subscription_id}/deliveries",
        tag="Subscriptions",
        permission=Permission.SEE_STATES,
        summary="List a subscription's deliveries with their attempts, newest first",
        call=_list_deliveries,
        query=schemas.DeliveryQuery,
        answers={200: schemas.DeliveryPage},
    ),
    Route(
        method="POST",
        path="/v1/deliveries/{delivery_id}/retry",
        tag="Subscriptions",
        permission=Permission.OPERATE,
        summary="Send a delivery again now",
        call=_retry,
        answers={202: schemas.DeliveryOut},
        errors=(409, 410),
        audit="delivery.retried",
    ),
)
