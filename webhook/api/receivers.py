"""Receivers: callback addresses for tasks submitted elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook import clock
from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import receivers as schemas
from webhook.api.schemas.lists import ListQuery
from webhook.errors import NotFound
from webhook.receivers import open_receiver
from webhook.roles import Permission
from webhook.store import receivers as receiver_store

if TYPE_CHECKING:
    from webhook.db import Session
    from webhook.store.receivers import Receiver


def _shape(receiver: Receiver) -> dict[str, Any]:
    return {
        "id": receiver.id,
        "name": receiver.name,
        "crypt_type": receiver.crypt_type,
        "uid": receiver.uid,
        "created_at": clock.rfc3339(receiver.created_at),
    }


def _create(request: Request, session: Session) -> Answer:
    body: schemas.ReceiverIn = request.body
    receiver, own = open_receiver(
        session,
        request.service.keyring,
        name=body.name,
        crypt_type=body.crypt_type,
        seed=body.seed,
        uid=body.uid,
        now=clock.now(),
    )
    base_url = request.service.settings.public_url or request.base_url
    shown_once = {"callback_url": f"{base_url}/callbacks/{own.token}", "seed": own.seed}
    return Answer(status=201, body=_shape(receiver) | shown_once, headers={"Location": f"/v1/receivers/{receiver.id}"})


def _list(request: Request, session: Session) -> Answer:
    query: ListQuery = request.query
    found = receiver_store.list_receivers(session, after=query.cursor, limit=query.limit)
    cursor = found[-1].id if len(found) == query.limit else None
    return Answer(body={"items": [_shape(receiver) for receiver in found], "next_cursor": cursor})


def _show(request: Request, session: Session) -> Answer:
    receiver = receiver_store.receiver(session, request.path["receiver_id"])
    if receiver is None:
        raise NotFound("There is no such receiver.")
    return Answer(body=_shape(receiver))


def _delete(request: Request, session: Session) -> Answer:
    if not receiver_store.delete_receiver(session, request.path["receiver_id"], now=clock.now()):
        raise NotFound("There is no such receiver.")
    return Answer(status=204)


ROUTES = (
    Route(
        method="POST",
        path="/v1/receivers",
        tag="Receivers",
        permission=Permission.MANAGE,
        summary="Open a callback address for tasks submitted elsewhere",
        call=_create,
        body=schemas.ReceiverIn,
        answers={201: schemas.ReceiverMadeOut},
        creates=True,
        audit="receiver.created",
    ),
    Route(
        method="GET",
        path="/v1/receivers",
        tag="Receivers",
        permission=Permission.SEE_STATES,
        summary="List receivers, newest first",
        call=_list,
        query=ListQuery,
        answers={200: schemas.ReceiverPage},
    ),
    Route(
        method="GET",
        path="/v1/receivers/{receiver_id}",
        tag="Receivers",
        permission=Permission.SEE_STATES,
        summary="Show a receiver",
        call=_show,
        answers={200: schemas.ReceiverOut},
    ),
    Route(
        method="DELETE",
        path="/v1/receivers/{receiver_id}",
        tag="Receivers",
        permission=Permission.MANAGE,
        summary="Close a receiver's address",
        call=_delete,
        answers={204: None},
        audit="receiver.deleted",
    ),
)
