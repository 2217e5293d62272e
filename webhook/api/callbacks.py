"""Callbacks as they were kept: accepted, unreadable, quarantined; and verified again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook import clock
from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import callbacks as schemas
from webhook.errors import NotFound
from webhook.roles import Permission
from webhook.store import callbacks as callback_store

if TYPE_CHECKING:
    from webhook.db import Session
    from webhook.store.callbacks import Callback


def _shape(callback: Callback) -> dict[str, Any]:
    return {
        "id": callback.id,
        "address_id": callback.address_id,
        "task_id": callback.task_id,
        "state": callback.state,
        "reason": callback.reason,
        "message": callback.message,
        "size": callback.size,
        "received_at": clock.rfc3339(callback.received_at),
    }


def _found(session: Session, callback_id: str) -> Callback:
    callback = callback_store.callback(session, callback_id)
    if callback is None:
        raise NotFound("There is no such callback.")
    return callback


def _list(request: Request, session: Session) -> Answer:
    query: schemas.CallbackQuery = request.query
    found = callback_store.list_callbacks(
        session,
        state=query.state,
        task_id=query.task_id,
        after=query.cursor,
        limit=query.limit,
    )
    cursor = found[-1].id if len(found) == query.limit else None
    return Answer(body={"items": [_shape(callback) for callback in found], "next_cursor": cursor})


def _show(request: Request, session: Session) -> Answer:
    callback = _found(session, request.path["callback_id"])
    content: str | None = None
    if callback.content:
        opened = request.service.keyring.open(callback.content, table="callbacks", column="content", row=callback.id)
        content = opened.decode()
    return Answer(
        body=_shape(callback)
        | {
            "checksum": callback.checksum,
            "stated_task_id": callback.stated_task_id,
            "content": content,
        }
    )


def _list_causes(_request: Request, session: Session) -> Answer:
    items = [
        {
            "reason": cause.reason,
            "message": cause.message,
            "count": cause.count,
            "first_received_at": clock.rfc3339(cause.first_received_at),
            "last_received_at": clock.rfc3339(cause.last_received_at),
        }
        for cause in callback_store.causes(session)
    ]
    return Answer(body={"items": items, "next_cursor": None})


def _verify(request: Request, session: Session) -> Answer:
    service, callback = request.service, _found(session, request.path["callback_id"])
    return Answer(load=lambda: _shape(service.quarantine.verify_again(service.database, callback.id)))


def _verify_all(request: Request, _session: Session) -> Answer:
    service, wanted = request.service, request.body

    def load() -> dict[str, Any]:
        after = wanted.cursor or ""
        verified = service.quarantine.verify_all(service.database, reason=wanted.reason, after=after)
        return {
            "accepted": verified.accepted,
            "unreadable": verified.unreadable,
            "quarantined": verified.quarantined,
            "next_cursor": verified.next_after,
        }

    return Answer(load=load)


ROUTES = (
    Route(
        method="GET",
        path="/v1/callbacks",
        tag="Callbacks",
        permission=Permission.SEE_STATES,
        summary="List kept callbacks, newest first, without their content",
        call=_list,
        query=schemas.CallbackQuery,
        answers={200: schemas.CallbackPage},
    ),
    Route(
        method="GET",
        path="/v1/callbacks/causes",
        tag="Callbacks",
        permission=Permission.SEE_STATES,
        summary="List why callbacks are quarantined, the most frequent cause first",
        call=_list_causes,
        answers={200: schemas.CausePage},
    ),
    Route(
        method="POST",
        path="/v1/callbacks/verify",
        tag="Callbacks",
        permission=Permission.OPERATE,
        summary="Verify quarantined callbacks again, after the configuration was mended",
        call=_verify_all,
        body=schemas.VerifyIn,
        answers={200: schemas.VerifiedOut},
        audit="callbacks.verified",
    ),
    Route(
        method="GET",
        path="/v1/callbacks/{callback_id}",
        tag="Callbacks",
        permission=Permission.SEE_RAW,
        summary="Show a callback with its content",
        call=_show,
        answers={200: schemas.CallbackContentOut},
        audit="callback.read",
    ),
    Route(
        method="POST",
        path="/v1/callbacks/{callback_id}/verify",
        tag="Callbacks",
        permission=Permission.OPERATE,
        summary="Verify a quarantined callback again, after the configuration was mended",
        call=_verify,
        answers={200: schemas.CallbackOut},
        errors=(409,),
        audit="callback.verified",
    ),
)
