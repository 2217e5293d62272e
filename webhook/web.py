"""The web process: gunicorn with cooperative workers.

gevent's workers here patch nothing: sockets are gevent's, because gunicorn hands them over as such, and
whatever blocks (database, large bodies) runs in real threads. So a request that waits, be it for the
disk or a long poll, costs a greenlet, and no lock of a library changes its meaning.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager, suppress
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
    from collections.abc import Callable, Iterator

    from flask import Flask
    from greenlet import greenlet

    from webhook.settings import Settings

log = structlog.get_logger()

_KEEPALIVE_SECONDS = 75
_LONGEST_REQUEST_LINE = 8190  # gunicorn's own highest bound
_GRACEFUL_SECONDS = 5  # for requests in the middle; a callback cut off is sent again
_OBJECTS_BEFORE_COLLECTION = 20_000  # a callback makes hundreds that are no garbage, and the default is 700


class CooperativeWorker(GeventWorker):
    """gunicorn's gevent worker without monkey patching, and without waiting for idle connections when it stops."""

    def init_process(self) -> None:
        """Serve, from here to the end of the process."""
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        self._idle: dict[gevent.Timeout, greenlet] = {}
        super().init_process()  # type: ignore[no-untyped-call] # gunicorn has no types

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Bound a connection's wait for its next request."""
        with gevent.Timeout(self.cfg.keepalive, False) as timeout:  # type: ignore[arg-type] # gevent's word for silently
            self._idle[timeout] = gevent.getcurrent()
            try:
                yield
            finally:
                del self._idle[timeout]

    def notify(self) -> None:
        """Tell gunicorn every second that we live; when stopping, end the connections that wait for a request."""
        super().notify()  # type: ignore[no-untyped-call] # gunicorn has no types
        if not self.alive:
            for timeout, connection in self._idle.items():
                gevent.get_hub().loop.run_callback(connection.throw, timeout)

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
