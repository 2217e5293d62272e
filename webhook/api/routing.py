"""From a request to an answer: who asks, is it well-formed, is it a repetition, what comes back.

A route is a row: method, path, permission, schemas, function. The table is the single source of Flask's routing,
of who may do what, of what stands in the audit log, and of the OpenAPI document.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import BaseModel, ValidationError

from webhook import audit, clock
from webhook.db import alone
from webhook.errors import Forbidden, Invalid, RequestError
from webhook.forms import media_type
from webhook.roles import roles_with
from webhook.store import keys as key_store
from webhook.store.audit import Entry
from webhook.store.keys import StoredAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.api.access import Client
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
        id: what tells it from others in logs.
        base_url: where the client reached us.
    """

    service: Service
    client: Client
    address: str
    id: str
    path: Mapping[str, str]
    query: Any
    body: Any
    upload: Upload | None
    prefer_wait_seconds: float
    base_url: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a route's function returns.

    Attributes:
        body: plain values for JSON, or `content.Content`; None is an empty answer.
        wait_seconds: how long a better answer may be waited for, while the database changes.
        again: gives the better answer; a wait ends when it no longer asks for one.
        load: gives the body of an answer once its transaction has ended; may open others.
        replayed: whether it was given before, under the same idempotency key.
        entry: what the audit log must have before the answer is given.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = 0
    again: Callable[[Session], Answer] | None = None
    load: Callable[[], Any] | None = None
    replayed: bool = False
    entry: Entry | None = None


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
        audit: the word by which the audit log knows it: of every change, and of reading what was said or who read it.
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
    audit: str | None = None
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
        address: where it came from.
        id: what tells it from others in logs.
        content_coding: `Content-Encoding`, which must be none.
        body: what was read of it, empty where it is a form with a file.
    """

    client: Client
    address: str
    id: str
    path: Mapping[str, str]
    arguments: tuple[tuple[str, str], ...]
    content_type: str
    content_coding: str
    body: bytes
    upload: Upload | None
    idempotency_key: str | None
    prefer: str
    base_url: str

    def digest(self) -> bytes:
        """Return what tells whether another request asks for the same."""
        return hashlib.sha256(self.body).digest() if self.upload is None else self.upload.digest


def respond(service: Service, route: Route, raw: RawRequest) -> Answer:
    """Answer a request that the route is open to; blocks on the database, so call it in a thread.

    What a change says of itself to the audit log is in its transaction; for a GET, it is the caller's to write.

    Raises:
        RequestError: the request cannot be met.
        DatabaseError: our own trouble.
    """
    request = Request(
        service=service,
        client=raw.client,
        address=raw.address,
        id=raw.id,
        path=raw.path,
        query=_query(route, raw.arguments),
        body=_body(route, raw),
        upload=raw.upload,
        prefer_wait_seconds=_prefer_wait(raw.prefer) if route.waits else 0,
        base_url=raw.base_url,
    )
    if route.method == "GET":
        with service.database.read() as session:
            answer = route.call(request, session)
        answer = replace(answer, entry=entry_of(route, raw, query=_asked(request.query)))
    else:
        with service.database.transaction() as session:
            answer = _changed(session, route, request=request, raw=raw)
    return answer if answer.load is None else replace(answer, body=answer.load(), load=None)


def _changed(session: Session, route: Route, *, request: Request, raw: RawRequest) -> Answer:
    """Answer a request that changes something; the audit log has it in the same transaction."""
    if route.creates and raw.idempotency_key is not None:
        answer = _once(session, route, request=request, raw=raw)
    else:
        answer = route.call(request, session)
    entry = entry_of(
        route,
        raw,
        made=answer.body.get("id") if isinstance(answer.body, dict) else None,
        status=answer.status if answer.load is None else None,  # it is written down before it is done
        fields=_fields(request.body),
        replayed=answer.replayed,
    )
    if entry is not None:
        audit.append(session, request.service.keyring, [entry], now=clock.now())
    return answer


def entry_of(
    route: Route, raw: RawRequest, *, made: str | None = None, status: int | None = None, **more: Any
) -> Entry | None:
    """Return what the audit log is to have of a request; None where it is to have nothing.

    Args:
        made: id of what it was about, where the path names nothing.
        more: details, of which those are left out that say nothing.
    """
    if route.audit is None:
        return None
    named = {name: value for name, value in raw.path.items() if _is_id(value)}
    object_name = next(iter(raw.path), None)
    object_id = made if object_name is None else named.pop(object_name, None)
    return Entry(
        actor=raw.client.id,
        actor_name=raw.client.name,
        role=raw.client.role,
        address=raw.address,
        request_id=raw.id,
        action=route.audit,
        object_id=object_id,
        status=status,
        details=audit.details({name: value for name, value in (named | more).items() if value}),
    )


def _asked(query: BaseModel | None) -> dict[str, Any]:
    return {} if query is None else query.model_dump(mode="json", exclude_unset=True)


def _fields(body: BaseModel | None) -> list[str]:
    """Return which fields a body had, and none of their values: those may be secrets."""
    return [] if body is None else sorted(body.model_fields_set)


def _is_id(value: str) -> bool:
    """Whether a part of a path may be an id of ours: what else a client makes up is not kept."""
    return re.fullmatch(r"[0-9a-z_]{1,160}", value) is not None


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
    refuse_compressed(raw.content_coding)
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
    """The body is not JSON, not in UTF-8, or compressed."""

    status = 415
    title = "Unsupported media type"


def refuse_compressed(content_coding: str) -> None:
    """Refuse a body in any `Content-Encoding`: a small one could become a very large one.

    Raises:
        UnsupportedMedia: it has one.
    """
    if content_coding:
        raise UnsupportedMedia("Send the body as it is, without Content-Encoding.")


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
    place = {"table": "idempotency_keys", "column": "body", "row": f"{request.client.party}|{route_name}|{key}"}
    digest = raw.digest()
    now = clock.now()
    alone(session, f"idempotency {place['row']}")
    stored = key_store.stored_answer(
        session, client=request.client.party, route=route_name, key=key, since=now - KEEP_ANSWERS
    )
    if stored is not None:
        if stored.request_digest != digest:
            raise Invalid(("Idempotency-Key", "was used before with another body"))
        kept = msgspec.json.decode(keyring.open(stored.body, **place))
        return Answer(status=stored.status, body=kept["body"], headers=kept["headers"], replayed=True)
    answer = route.call(request, session)
    kept = msgspec.json.encode({"body": answer.body, "headers": dict(answer.headers)})
    key_store.store_answer(
        session,
        StoredAnswer(
            client=request.client.party,
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
