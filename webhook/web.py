"""The web process: gunicorn with cooperative workers.

gevent's workers here patch nothing: sockets are gevent's, because gunicorn hands them over as such, and
whatever blocks (database, large bodies) runs in real threads. So a request that waits, be it for the
disk or a long poll, costs a greenlet, and no lock of a library changes its meaning.
"""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import gevent
import msgspec
import structlog
from gevent import socket
from gunicorn.app.base import BaseApplication
from gunicorn.http import errors
from gunicorn.workers.ggevent import GeventWorker

from webhook.api.routing import PROBLEM

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask
    from greenlet import greenlet

    from webhook.settings import Settings

log = structlog.get_logger()

_KEEPALIVE_SECONDS = 75
_LONGEST_REQUEST_LINE = 8190  # gunicorn's own highest bound
_GRACEFUL_SECONDS = 5  # for requests in the middle; a callback cut off is sent again
_OBJECTS_BEFORE_COLLECTION = 20_000  # a callback makes hundreds that are no garbage, and the default is 700


class _Over(BaseException):
    """Thrown where a connection waits for its next request, and is to wait no longer."""


class _Wait:
    """A connection's wait for its next request; a context manager.

    Args:
        waiting: since when each connection waits, on the clock of `time.monotonic`.
    """

    __slots__ = ("_waiting",)

    def __init__(self, waiting: dict[greenlet, float]) -> None:
        self._waiting = waiting

    def __enter__(self) -> None:
        self._waiting[gevent.getcurrent()] = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> bool:
        del self._waiting[gevent.getcurrent()]
        return kind is _Over


class CooperativeWorker(GeventWorker):
    """gunicorn's gevent worker without monkey patching, and without waiting for idle connections when it stops."""

    def init_process(self) -> None:
        """Serve, from here to the end of the process."""
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        self._waiting: dict[greenlet, float] = {}
        super().init_process()  # type: ignore[no-untyped-call] # gunicorn has no types

    def timeout_ctx(self) -> _Wait:
        """Bound a connection's wait for its next request: by `notify`, since a timer of its own costs more."""
        return _Wait(self._waiting)

    def notify(self) -> None:
        """Tell gunicorn every second that we live; end connections that waited long, or all that wait when stopping."""
        super().notify()  # type: ignore[no-untyped-call] # gunicorn has no types
        latest = time.monotonic() - (self.cfg.keepalive if self.alive else 0)
        for connection, since in self._waiting.items():
            if since <= latest:
                gevent.get_hub().loop.run_callback(self._end, connection, since)

    def _end(self, connection: greenlet, since: float) -> None:
        if self._waiting.get(connection) == since:  # or its request has come meanwhile
            connection.throw(_Over)

    def handle_error(self, _request: object, client: Any, _address: object, error: Exception) -> None:
        """Answer what cannot be parsed, without a word of it: it may hold a key, a token or a transcript."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(error, errors.ParseException):
            status = _PARSE_STATUSES.get(type(error), HTTPStatus.BAD_REQUEST)
            log.info("A request was not HTTP, or too long.", fault=type(error).__name__, status=status.value)
        else:
            log.error("A request failed.", exc_info=error)
        problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
        body = msgspec.json.encode(problem | {"detail": "The request is not HTTP/1.1 within this server's limits."})
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\n"
        head += f"Content-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n\r\n"
        with suppress(OSError):  # who sends such may be gone
            client.sendall(head.encode() + body)

    def patch(self) -> None:
        """Make the listening sockets gevent's, which is all that the server needs."""
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in self.sockets
        ]


_PARSE_STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class Web(BaseApplication):
    """gunicorn, configured by our settings alone.

    Args:
        make_app: called in each worker, after the fork.
    """

    def __init__(self, settings: Settings, make_app: Callable[[], Flask]) -> None:
        self._settings = settings
        self._make_app = make_app
        super().__init__()  # type: ignore[no-untyped-call] # gunicorn has no types

    def load_config(self) -> None:
        """Set what gunicorn would read from its command line and files."""
        host, port = self._settings.bind
        options: dict[str, Any] = {
            "bind": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"],
            "workers": self._settings.web_concurrency,
            "worker_class": "webhook.web.CooperativeWorker",
            "limit_request_line": _LONGEST_REQUEST_LINE,
            "keepalive": _KEEPALIVE_SECONDS,
            "graceful_timeout": _GRACEFUL_SECONDS,
            "forwarded_allow_ips": "",  # what proxies say is for `proxies` to believe; gunicorn would believe loopback
            "accesslog": None,
            "loglevel": "warning",
            "proc_name": "webhook-web",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)  # type: ignore[union-attr] # set by then

    def load(self) -> Flask:
        """Return the application."""
        return self._make_app()
