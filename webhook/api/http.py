"""Flask's side of the API: requests in, answers out, and the pages beside it.

Routes run in threads of the hub's pool, since they wait for the database. A long poll holds no thread: it is
asked again when the database changes.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gevent
import msgspec
import structlog
from flask import Flask, Response, g, request
from gevent.event import Event
from werkzeug.exceptions import HTTPException

from webhook import audit, clock
from webhook.api import audit as audit_routes
from webhook.api import (
    callbacks,
    erasures,
    events,
    evidence,
    health,
    keys,
    openapi,
    posture,
    receivers,
    subscriptions,
    tasks,
    verdicts,
)
from webhook.api.access import Access
from webhook.api.content import Content
from webhook.api.docs import PAGE, page_headers
from webhook.api.headers import secure
from webhook.api.routing import (
    FORM,
    JSON,
    PROBLEM,
    Answer,
    RawRequest,
    Route,
    TooLarge,
    entry_of,
    problem,
    refuse_compressed,
    respond,
)
from webhook.api.uploads import read_upload
from webhook.batching import Batcher
from webhook.bodies import read_body
from webhook.errors import BodyTooLarge, DatabaseError, Forbidden, MalformedBody, RequestError, ServiceError
from webhook.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from webhook.api.access import Client
    from webhook.bootstrap import Service
    from webhook.db import Changes
    from webhook.metrics import Metrics
    from webhook.store.audit import Entry

log = structlog.get_logger()

ROUTES: tuple[Route, ...] = (
    *tasks.ROUTES,
    *verdicts.ROUTES,
    *evidence.ROUTES,
    *events.ROUTES,
    *subscriptions.ROUTES,
    *receivers.ROUTES,
    *callbacks.ROUTES,
    *audit_routes.ROUTES,
    *keys.ROUTES,
    *posture.ROUTES,
    *erasures.ROUTES,
)

_LOOK_SECONDS = 0.02
_RETRY_AFTER = {"Retry-After": "5"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_WAITING_ENTRIES = 10_000  # more than there can be connections


class Api:
    """The API of one web process. Make it after the fork.

    Args:
        service: the parts it works with.
        metrics: where requests are counted, and what `/metrics` shows.
    """

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._access = Access(service)
        self._news = News(service)
        self._description = b""
        self._entries: Batcher[Entry, None] = Batcher(self._append, name="audit", capacity=_WAITING_ENTRIES)

    def register(self, app: Flask) -> None:
        """Put all routes on an application."""
        for route in ROUTES:
            app.add_url_rule(
                re.sub(r"{(\w+)}", r"<\1>", route.path),
                f"{route.method} {route.path}",
                self._view(route),
                methods=[route.method],
                provide_automatic_options=False,
            )
        register_liveness(app)
        for path, view in (
            ("/openapi.json", lambda: Response(in_thread(self._openapi), content_type=JSON)),
            ("/docs", lambda: Response(PAGE, content_type="text/html; charset=utf-8", headers=page_headers())),
            ("/readyz", self._readiness),
            ("/metrics", self._exposition),
        ):
            app.add_url_rule(path, path, view, methods=["GET"], provide_automatic_options=False)
        app.after_request(_with_request_id)
        app.register_error_handler(HTTPException, self._http_problem)

    def _view(self, route: Route) -> Callable[..., Response]:
        def view(**path: str) -> Response:
            limits: dict[str, str] = {}
            try:
                client, limits = self._enter()
                response = self._respond(route, client, path)
            except BodyTooLarge:
                response = _problem(TooLarge("The body is too large."))
            except MalformedBody as error:
                response = _problem(RequestError(str(error)))
            except RequestError as error:
                response = _problem(error)
            except UnicodeDecodeError:
                response = _problem(RequestError("The URL is not UTF-8."))
            except ServiceError as error:
                response = _unavailable(error)
            response.headers.update(limits)
            self._metrics.requests.labels(f"{route.method} {route.path}", str(response.status_code)).inc()
            return response

        return view

    def _enter(self) -> tuple[Client, dict[str, str]]:
        return self._access.enter(**_shown())

    def _respond(self, route: Route, client: Client, path: dict[str, str]) -> Response:
        """Answer a request; what is refused or read stands in the audit log before anybody learns of it."""
        raw = self._raw(client, path)
        try:
            route.check(client)
            raw = self._with_body(route, raw)
            answer = self._answer(route, raw)
            response = _response(answer)
        except Forbidden as refusal:
            self._note(entry_of(route, raw, status=refusal.status))
            raise
        finally:
            if raw.upload is not None and raw.upload.path is not None:
                raw.upload.path.unlink(missing_ok=True)  # unless it has become a task's
        if answer.entry is not None and not _is_empty(answer):
            self._note(msgspec.structs.replace(answer.entry, status=response.status_code))
        return response

    def _note(self, entry: Entry | None) -> None:
        """Write an entry into the audit log, together with those of other requests."""
        if entry is not None:
            self._entries.submit(entry)

    def _append(self, entries: Sequence[Entry], _computed: Callable[[], None]) -> list[Exception | None]:
        with self._service.database.transaction() as session:
            audit.append(session, self._service.keyring, entries, now=clock.now())
        return [None] * len(entries)

    def _with_body(self, route: Route, raw: RawRequest) -> RawRequest:
        """Read the body, be it a form with a file."""
        settings = self._service.settings
        if route.form is None or request.mimetype != FORM:
            return replace(raw, body=read_body(request, limit=settings.request_body_limit))
        refuse_compressed(raw.content_coding)
        return replace(raw, upload=read_upload(request, uploads=self._service.uploads, limit=settings.upload_limit))

    def _raw(self, client: Client, path: dict[str, str]) -> RawRequest:
        return RawRequest(
            client=client,
            address=request.remote_addr or "",
            id=_request_id(),
            path=path,
            arguments=tuple(request.args.items(multi=True)),
            content_type=request.headers.get("Content-Type", ""),
            content_coding=request.headers.get("Content-Encoding", ""),
            body=b"",
            upload=None,
            idempotency_key=request.headers.get("Idempotency-Key"),
            prefer=",".join(request.headers.getlist("Prefer")),
            base_url=request.host_url.rstrip("/"),
        )

    def _answer(self, route: Route, raw: RawRequest) -> Answer:
        """Answer a request; one that waits is asked again at each change, up to its time."""
        answer: Answer = in_thread(respond, self._service, route, raw)
        deadline = time.monotonic() + answer.wait_seconds
        waits = answer.again is not None
        while answer.again is not None and (left := deadline - time.monotonic()) > 0:
            self._news.wait(left)
            answer = in_thread(self._ask_again, answer)
        if waits and answer.entry is not None:
            self._access.confirm(**_shown())
        return answer

    def _ask_again(self, answer: Answer) -> Answer:
        if answer.again is None:
            return answer
        with self._service.database.read() as session:
            return replace(answer.again(session), entry=answer.entry)

    def _http_problem(self, error: HTTPException) -> Response:
        """Say what Flask itself refuses in the same shape; what is under /v1 is nobody's business without a key."""
        limits: dict[str, str] = {}
        if request.path.startswith("/v1/"):
            try:
                _, limits = self._enter()
            except RequestError as refusal:
                return _problem(refusal)
            except ServiceError as trouble:
                return _unavailable(trouble)
        response = _http_problem(error)
        response.headers.update(limits)
        return response

    def _openapi(self) -> bytes:
        """Return the description, made when it is first asked for: it takes a tenth of a second."""
        if not self._description:
            self._description = msgspec.json.encode(openapi.document(ROUTES, services=self._service.services))
        return self._description

    def _readiness(self) -> Response:
        ready, body = in_thread(health.readiness, self._service)
        return _json(200 if ready else 503, body)

    def _exposition(self) -> Response:
        text = in_thread(health.exposition, self._service, self._metrics)
        return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")


def _shown() -> dict[str, str]:
    """Return what a request shows of who sent it."""
    return {"authorization": request.headers.get("Authorization", ""), "address": request.remote_addr or ""}


def register_liveness(app: Flask) -> None:
    """Put on an application what each address answers alike: `/livez`, and errors."""
    app.add_url_rule(
        "/livez", "/livez", lambda: _json(200, {"status": "ok"}), methods=["GET"], provide_automatic_options=False
    )
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _fault)
    app.after_request(secure)


class News:
    """Wakes the greenlets that wait for the database to change; looks at it only while some wait."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._changed = Event()
        self._waiting = 0
        self._looking = False

    def wait(self, seconds: float) -> None:
        """Wait for a change, or for some seconds."""
        self._waiting += 1
        if not self._looking:
            self._looking = True
            gevent.spawn(self._look)
        try:
            self._changed.wait(seconds)
        finally:
            self._waiting -= 1

    def _look(self) -> None:
        changes: Changes | None = None
        try:
            changes = self._service.database.watch()
            while self._waiting:
                if changes.seen():
                    self._changed.set()
                    self._changed.clear()
                gevent.sleep(_LOOK_SECONDS)
        except DatabaseError as error:
            log.warning("The database cannot be watched for changes.", error=str(error))
        finally:
            self._looking = False
            if changes is not None:
                changes.close()


def _request_id() -> str:
    """Return what tells this request from others: the client's word for it, where that is fit for logs, or ours."""
    if "request_id" not in g:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    found: str = g.request_id
    return found


def _with_request_id(response: Response) -> Response:
    response.headers["X-Request-Id"] = _request_id()
    return response


def _is_empty(answer: Answer) -> bool:
    """Whether an answer is a page of nothing: the feed's, for who follows it while nothing happens."""
    return isinstance(answer.body, dict) and answer.body.get("items") == []


def _response(answer: Answer) -> Response:
    if isinstance(answer.body, Content):
        return answer.body.response(request.environ)
    return _json(answer.status, answer.body, answer.headers)


def _json(status: int, body: Any, headers: Any = None) -> Response:
    return Response(
        b"" if body is None else msgspec.json.encode(body),
        status,
        headers=dict(headers or {}),
        content_type=None if body is None else JSON,
    )


def _problem(error: RequestError) -> Response:
    return Response(msgspec.json.encode(problem(error)), error.status, headers=error.headers, content_type=PROBLEM)


def _http_problem(error: HTTPException) -> Response:
    status = error.code or 500
    body = {"type": "about:blank", "title": error.name, "status": status, "detail": error.description}
    headers = {name: value for name, value in error.get_headers() if name.lower() in {"allow", "location"}}
    return Response(msgspec.json.encode(body), status, headers=headers, content_type=PROBLEM)


def _unavailable(error: ServiceError) -> Response:
    log.warning("A request could not be answered.", error=str(error), request_id=_request_id())
    body = {
        "type": "about:blank",
        "title": "Service unavailable",
        "status": 503,
        "detail": "The service cannot do this now; try again later.",
    }
    return Response(msgspec.json.encode(body), 503, headers=_RETRY_AFTER, content_type=PROBLEM)


def _fault(error: Exception) -> Response:
    """Answer a fault of our own; the log has it, the client does not."""
    log.error("A request failed.", exc_info=error, request_id=_request_id())
    body = {
        "type": "about:blank",
        "title": "Internal server error",
        "status": 500,
        "detail": "The service has a fault; it is in its log.",
    }
    return Response(msgspec.json.encode(body), 500, content_type=PROBLEM)
