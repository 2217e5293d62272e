"""From a request to an answer: who asks, is it well-formed, is it a repetition, what comes back.

A route is a row: method, path, permission, schemas, function. The table is the single source of Flask's routing,
of who may do what, and of the OpenAPI document.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import BaseModel, ValidationError

from webhook import clock
from webhook.db import alone
from webhook.errors import Forbidden, Invalid, RequestError
from webhook.forms import media_type
from webhook.roles import roles_with
from webhook.store import keys as key_store
from webhook.store.keys import StoredAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.api.access import Client
    from webhook.api.content import Content
    from webhook.api.uploads import Upload
    from webhook.bootstrap import Service
    from webhook.db import Session
    from webhook.roles import Permission, Role

KEEP_ANSWERS = timedelta(hours=24)
LONGEST_KEY = 255  # characters of an Idempotency-Key
JSON = "application/json"
FORM = "multipart/form-data"
PROBLEM = "application/problem+json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a route's function sees of a request.

    Attributes:
        address: the client's; empty where it has none.
        base_url: where the client reached us.
    """

    service: Service
    client: Client
    path: Mapping[str, str]
    query: Any
    body: Any
    upload: Upload | None
    prefer_wait_seconds: float
    address: str
    base_url: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a route's function returns.

    Attributes:
        body: plain values for JSON, or `content.Content`; None is an empty answer.
        wait_seconds: how long a better answer may be waited for, while the database changes.
        again: gives the better answer; a wait ends when it no longer asks for one.
        load: gives the body of a GET's answer, once its transaction has ended.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = 0
    again: Callable[[Session], Answer] | None = None
    load: Callable[[], Content] | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """One row of the table.

    Attributes:
        path: with `{names}`.
        permission: what it takes.
        part: a permission that is enough for a part of it; the function knows which.
        query, body: schemas of what comes in; None takes nothing.
        form: schema of a multipart form with a file, which is taken in place of the body.
        call: runs inside one transaction; a GET's only reads.
        answers: status to the schema of its body, or to its media types; None for an empty one.
        errors: statuses of problem documents, beside those that follow from the rest of the row.
        creates: honours `Idempotency-Key`.
        waits: honours `Prefer: wait`.
    """

    method: str
    path: str
    permission: Permission
    part: Permission | None = None
    summary: str
    call: Callable[[Request, Session], Answer]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    answers: Mapping[int, type[BaseModel] | tuple[str, ...] | None]
    errors: tuple[int, ...] = ()
    creates: bool = False
    waits: bool = False
    tag: str

    def roles(self) -> tuple[tuple[Role, ...], tuple[Role, ...]]:
        """Return the roles that may do it, and those that may do a part of it."""
        whole = roles_with(self.permission)
        return whole, tuple(role for role in roles_with(self.part or self.permission) if role not in whole)

    def check(self, client: Client) -> None:
        """Refuse a client that may do no part of it.

        Raises:
            Forbidden: the role has not the permission.
        """
        if not client.may(self.permission) and not client.may(self.part or self.permission):
            whole, part = self.roles()
            raise Forbidden(f"This needs the role {' or '.join((*part, *whole))}.")


@dataclass(frozen=True, kw_only=True)
class RawRequest:
    """A request as it came, read by the web server's side.

    Attributes:
        body: what was read of it, empty where it is a form with a file.
    """

    client: Client
    path: Mapping[str, str]
    arguments: tuple[tuple[str, str], ...]
    content_type: str
    body: bytes
    upload: Upload | None
    idempotency_key: str | None
    prefer: str
    address: str
    base_url: str

    def digest(self) -> bytes:
        """Return what tells whether another request asks for the same."""
        return hashlib.sha256(self.body).digest() if self.upload is None else self.upload.digest


def respond(service: Service, route: Route, raw: RawRequest) -> Answer:
    """Answer a request that the route is open to; blocks on the database, so call it in a thread.

    Raises:
        RequestError: the request cannot be met.
        DatabaseError: our own trouble.
    """
    request = Request(
        service=service,
        client=raw.client,
        path=raw.path,
        query=_query(route, raw.arguments),
        body=_body(route, raw),
        upload=raw.upload,
        prefer_wait_seconds=_prefer_wait(raw.prefer) if route.waits else 0,
        address=raw.address,
        base_url=raw.base_url,
    )
    if route.method == "GET":
        with service.database.read() as session:
            answer = route.call(request, session)
        return answer if answer.load is None else replace(answer, body=answer.load(), load=None)
    with service.database.transaction() as session:
        if route.creates and raw.idempotency_key is not None:
            return _once(session, route, request=request, raw=raw)
        return route.call(request, session)


def _query(route: Route, arguments: tuple[tuple[str, str], ...]) -> Any:
    known = set(route.query.model_fields) if route.query else set()
    values: dict[str, str] = {}
    for name, value in arguments:
        if name not in known:
            raise Invalid((name, "is not a parameter of this route"))
        if name in values:
            raise Invalid((name, "is given twice"))
        values[name] = value
    return None if route.query is None else _validated(route.query, values)


def _body(route: Route, raw: RawRequest) -> Any:
    if raw.upload is not None and route.form is not None:
        fields: dict[str, Any] = dict(raw.upload.fields)
        return _validated(route.form, fields | ({"file": raw.upload.name} if raw.upload.path else {}))
    if route.body is None:
        return None
    if media_type(raw.content_type) != JSON:
        raise UnsupportedMedia("Send the body as application/json, in UTF-8.")
    try:
        document = msgspec.json.decode(raw.body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise RequestError("The body is not JSON in UTF-8.") from None
    return _validated(route.body, document)


class TooLarge(RequestError):
    """The body is over the limit."""

    status = 413
    title = "Content too large"


class UnsupportedMedia(RequestError):
    """The body is not JSON, or not in UTF-8."""

    status = 415
    title = "Unsupported media type"


def _validated(model: type[BaseModel], value: object) -> BaseModel:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Invalid(*(_complaint(part) for part in error.errors(include_url=False, include_input=False))) from None


def _complaint(part: Any) -> tuple[str, str]:
    """Return a field and what is wrong with it, without repeating its value."""
    where = ".".join(str(name) for name in part["loc"]) or "body"
    if part["type"] == "string_pattern_mismatch":
        return where, "has not the form that /openapi.json gives for it"
    if part["type"] == "too_long" and part["ctx"]["field_type"] == "Value":  # pydantic's word for a checked text
        return where, f"must have at most {part['ctx']['max_length']} characters"
    return where, str(part["msg"]).removeprefix("Value error, ")


def _prefer_wait(header: str) -> float:
    """Read `Prefer: wait=N` (RFC 7240); anything else asks for nothing."""
    for preference in header.split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait" and value.strip().isdecimal():
            return min(float(value.strip()), LONGEST_WAIT_SECONDS)
    return 0


LONGEST_WAIT_SECONDS = 60.0


def _once(session: Session, route: Route, *, request: Request, raw: RawRequest) -> Answer:
    """Answer a request with an idempotency key: the first time by doing it, then by the same answer.

    What is done and the note of its answer are one transaction.
    """
    key = raw.idempotency_key or ""
    if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        raise Invalid(("Idempotency-Key", f"must be 1 to {LONGEST_KEY} printable characters"))
    keyring = request.service.keyring
    route_name = f"{route.method} {route.path}"
    place = {"table": "idempotency_keys", "column": "body", "row": f"{request.client.id}|{route_name}|{key}"}
    digest = raw.digest()
    now = clock.now()
    alone(session, f"idempotency {place['row']}")
    stored = key_store.stored_answer(
        session, client=request.client.id, route=route_name, key=key, since=now - KEEP_ANSWERS
    )
    if stored is not None:
        if stored.request_digest != digest:
            raise Invalid(("Idempotency-Key", "was used before with another body"))
        kept = msgspec.json.decode(keyring.open(stored.body, **place))
        return Answer(status=stored.status, body=kept["body"], headers=kept["headers"])
    answer = route.call(request, session)
    kept = msgspec.json.encode({"body": answer.body, "headers": dict(answer.headers)})
    key_store.store_answer(
        session,
        StoredAnswer(
            client=request.client.id,
            route=route_name,
            key=key,
            request_digest=digest,
            status=answer.status,
            body=keyring.seal(kept, **place),
            created_at=now,
        ),
    )
    return answer


def problem(error: RequestError) -> dict[str, Any]:
    """Return an error as RFC 9457 has it."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": str(error),
    }
    if isinstance(error, Invalid):
        document["errors"] = [{"field": name, "message": message} for name, message in error.errors]
    return document
