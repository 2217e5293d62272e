"""API keys: made, listed, revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from webhook import clock
from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import keys as schemas
from webhook.api.schemas.lists import ListQuery
from webhook.errors import NotFound
from webhook.roles import Permission
from webhook.store import keys as key_store

if TYPE_CHECKING:
    from webhook.db import Session
    from webhook.store.keys import ApiKey


def _shape(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "state": key.state(clock.now()),
        "networks": key.networks,
        "created_at": clock.rfc3339(key.created_at),
        "expires_at": clock.rfc3339_or_none(key.expires_at),
        "last_used_at": clock.rfc3339_or_none(key.last_used_at),
        "revoked_at": clock.rfc3339_or_none(key.revoked_at),
    }


def _create(request: Request, session: Session) -> Answer:
    body: schemas.KeyIn = request.body
    lifetime = None if body.expires_in_seconds is None else timedelta(seconds=body.expires_in_seconds)
    key, text = request.service.api_keys.create(
        session, name=body.name, role=body.role, lifetime=lifetime, networks=body.networks, now=clock.now()
    )
    return Answer(status=201, body=_shape(key) | {"key": text}, headers={"Location": f"/v1/keys/{key.id}"})


def _list(request: Request, session: Session) -> Answer:
    query: ListQuery = request.query
    found = key_store.api_keys_page(session, after=query.cursor, limit=query.limit)
    cursor = found[-1].id if len(found) == query.limit else None
    return Answer(body={"items": [_shape(key) for key in found], "next_cursor": cursor})


def _show(request: Request, session: Session) -> Answer:
    key = key_store.api_key_of(session, request.path["key_id"])
    if key is None:
        raise NotFound("There is no such API key.")
    return Answer(body=_shape(key))


def _revoke(request: Request, session: Session) -> Answer:
    if not key_store.revoke_api_key(session, request.path["key_id"], now=clock.now()):
        raise NotFound("There is no such API key, or it was revoked before.")
    return Answer(status=204)


ROUTES = (
    Route(
        method="POST",
        path="/v1/keys",
        tag="Keys",
        permission=Permission.MANAGE_KEYS,
        summary="Make an API key",
        call=_create,
        body=schemas.KeyIn,
        answers={201: schemas.KeyMadeOut},
        errors=(409,),
        creates=True,
        audit="key.created",
    ),
    Route(
        method="GET",
        path="/v1/keys",
        tag="Keys",
        permission=Permission.MANAGE_KEYS,
        summary="List API keys, newest first",
        call=_list,
        query=ListQuery,
        answers={200: schemas.KeyPage},
    ),
    Route(
        method="GET",
        path="/v1/keys/{key_id}",
        tag="Keys",
        permission=Permission.MANAGE_KEYS,
        summary="Show an API key, without the key itself",
        call=_show,
        answers={200: schemas.KeyOut},
    ),
    Route(
        method="DELETE",
        path="/v1/keys/{key_id}",
        tag="Keys",
        permission=Permission.MANAGE_KEYS,
        summary="Revoke an API key",
        call=_revoke,
        answers={204: None},
        audit="key.revoked",
    ),
)
