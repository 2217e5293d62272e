"""Flask's side of the API: requests in, answers out, and the pages beside it.

Routes run in threads of the hub's pool, since they wait for the database. A long poll holds no thread: it is
asked again when the database changes.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import gevent
import msgspec
import structlog
from flask import Flask, Response, request
from gevent.event import Event
from werkzeug.exceptions import HTTPException

from webhook.api import (
    callbacks,
    erasures,
    events,
    evidence,
    health,
    openapi,
    receivers,
    subscriptions,
    tasks,
    verdicts,
)
from webhook.api.content import Content
from webhook.api.docs import PAGE
from webhook.api.routing import (
    FORM,
    JSON,
    PROBLEM,
    Answer,
    RawRequest,
    Route,
    TooLarge,
    admit,
    authenticate,
    problem,
    respond,
)
from webhook.api.uploads import read_upload
from webhook.bodies import read_body
from webhook.errors import BodyTooLarge, DatabaseError, MalformedBody, RequestError, ServiceError
from webhook.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.api.uploads import Upload
    from webhook.bootstrap import Service
    from webhook.db import Changes
    from webhook.metrics import Metrics

log = structlog.get_logger()

ROUTES: tuple[Route, ...] = (
    *tasks.ROUTES,
    *verdicts.ROUTES,
    *evidence.ROUTES,
    *events.ROUTES,
    *subscriptions.ROUTES,
    *receivers.ROUTES,
    *callbacks.ROUTES,
    *erasures.ROUTES,
)

_LOOK_SECONDS = 0.02
_RETRY_AFTER = {"Retry-After": "5"}


class Api:
    """The API of one web process. Make it after the fork.

    Args:
        service: the parts it works with.
        metrics: where requests are counted, and what `/metrics` shows.
    """

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._news = News(service)
        self._description = b""

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
        for path, view in (
            ("/openapi.json", lambda: Response(in_thread(self._openapi), content_type=JSON)),
            ("/docs", lambda: Response(PAGE, content_type="text/html; charset=utf-8")),
            ("/livez", lambda: _json(200, {"status": "ok"})),
            ("/readyz", self._readiness),
            ("/metrics", self._exposition),
        ):
            app.add_url_rule(path, path, view, methods=["GET"], provide_automatic_options=False)
        app.register_error_handler(HTTPException, self._http_problem)
        app.register_error_handler(Exception, _fault)

    def _view(self, route: Route) -> Callable[..., Response]:
        def view(**path: str) -> Response:
            upload: Upload | None = None
            try:
                upload = self._upload(route)
                answer = self._answer(route, self._raw(path, upload))
                response = _response(answer)
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
            finally:
                if upload is not None and upload.path is not None:
                    upload.path.unlink(missing_ok=True)  # unless it has become a task's
            self._metrics.requests.labels(f"{route.method} {route.path}", str(response.status_code)).inc()
            return response

        return view

    def _upload(self, route: Route) -> Upload | None:
        """Read a form with a file, of a client that may send one; None where the body is something else."""
        if route.form is None or request.mimetype != FORM:
            return None
        in_thread(admit, self._service, route, request.headers.get("Authorization", ""))
        return read_upload(request, uploads=self._service.uploads, limit=self._service.settings.upload_limit)

    def _raw(self, path: dict[str, str], upload: Upload | None) -> RawRequest:
        limit = self._service.settings.request_body_limit
        return RawRequest(
            path=path,
            arguments=tuple(request.args.items(multi=True)),
            authorization=request.headers.get("Authorization", ""),
            content_type=request.headers.get("Content-Type", ""),
            body=b"" if upload else read_body(request, limit=limit),
            upload=upload,
            idempotency_key=request.headers.get("Idempotency-Key"),
            prefer=",".join(request.headers.getlist("Prefer")),
            base_url=request.host_url.rstrip("/"),
        )

    def _answer(self, route: Route, raw: RawRequest) -> Answer:
        """Answer a request; one that waits is asked again at each change, up to its time."""
        answer: Answer = in_thread(respond, self._service, route, raw)
        deadline = time.monotonic() + answer.wait_seconds
        while answer.again is not None and (left := deadline - time.monotonic()) > 0:
            self._news.wait(left)
            answer = in_thread(self._ask_again, answer)
        return answer

    def _ask_again(self, answer: Answer) -> Answer:
        if answer.again is None:
            return answer
        with self._service.database.read() as session:
            return answer.again(session)

    def _http_problem(self, error: HTTPException) -> Response:
        """Say what Flask itself refuses in the same shape; what is under /v1 is nobody's business without a key."""
        if request.path.startswith("/v1/"):
            try:
                in_thread(authenticate, self._service, request.headers.get("Authorization", ""))
            except RequestError as refusal:
                return _problem(refusal)
            except ServiceError as trouble:
                return _unavailable(trouble)
        status = error.code or 500
        body = {"type": "about:blank", "title": error.name, "status": status, "detail": error.description}
        headers = {name: value for name, value in error.get_headers() if name.lower() in {"allow", "location"}}
        return Response(msgspec.json.encode(body), status, headers=headers, content_type=PROBLEM)

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


def _unavailable(error: ServiceError) -> Response:
    log.warning("A request could not be answered.", error=str(error))
    body = {
        "type": "about:blank",
        "title": "Service unavailable",
        "status": 503,
        "detail": "The service cannot do this now; try again later.",
    }
    return Response(msgspec.json.encode(body), 503, headers=_RETRY_AFTER, content_type=PROBLEM)


def _fault(error: Exception) -> Response:
    """Answer a fault of our own; the log has it, the client does not."""
    log.error("A request failed.", exc_info=error)
    body = {
        "type": "about:blank",
        "title": "Internal server error",
        "status": 500,
        "detail": "The service has a fault; it is in its log.",
    }
    return Response(msgspec.json.encode(body), 500, content_type=PROBLEM)
