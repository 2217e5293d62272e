"""The web process: gunicorn with cooperative workers.

gevent's workers here patch nothing: sockets are gevent's, because gunicorn hands them over as such, and
whatever blocks (database, large bodies) runs in real threads. So a request that waits, be it for the
disk or a long poll, costs a greenlet, and no lock of a library changes its meaning.
"""

from __future__ import annotations

import errno
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

from webhook.api.headers import SECURITY
from webhook.api.routing import PROBLEM
from webhook.settings import authority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask
    from greenlet import greenlet

    from webhook.settings import Settings

log = structlog.get_logger()

_KEEPALIVE_SECONDS = 75
_FIRST_SECONDS = 20  # within which a connection's first request has come, all but its body
_UNTAKEN_SECONDS = 60  # after which a connection is ended whose other side takes nothing of an answer
_LONGEST_REQUEST_LINE = 8190  # gunicorn's own highest bound
_GRACEFUL_SECONDS = 5  # for requests in the middle; a callback cut off is sent again
_OBJECTS_BEFORE_COLLECTION = 20_000  # a callback makes hundreds that are no garbage, and the default is 700


class _Over(BaseException):
    """Thrown where a connection waits for its next request, and is to wait no longer."""


class _Wait:
    """A connection's wait for its next request; a context manager.

    Args:
        waiting: until when each connection waits, on the clock of `time.monotonic`.
        seconds: how long this one does, unless it is its first wait, which `handle` has begun.
    """

    __slots__ = ("_seconds", "_waiting")

    def __init__(self, waiting: dict[greenlet, float], seconds: float) -> None:
        self._waiting = waiting
        self._seconds = seconds

    def __enter__(self) -> None:
        self._waiting.setdefault(gevent.getcurrent(), time.monotonic() + self._seconds)

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

    def load_wsgi(self) -> None:
        """Load the application of each address; gunicorn keeps the addresses in the order of the settings."""
        super().load_wsgi()  # type: ignore[no-untyped-call] # gunicorn has no types
        apps: Sequence[WSGIApplication] = self.wsgi
        names = [listener.getsockname() for listener in self.sockets]
        by_name = {(name[0], str(name[1])): app for name, app in zip(names, apps, strict=True)}
        self.wsgi = apps[0] if len(apps) == 1 else _ByAddress(by_name)

    def timeout_ctx(self) -> _Wait:
        """Bound a connection's wait for its next request: by `notify`, since a timer of its own costs more."""
        return _Wait(self._waiting, self.cfg.keepalive)

    def notify(self) -> None:
        """Tell gunicorn every second that we live; end connections that waited long, or all that wait when stopping."""
        super().notify()  # type: ignore[no-untyped-call] # gunicorn has no types
        now = time.monotonic()
        for connection, until in self._waiting.items():
            if until <= now or not self.alive:
                gevent.get_hub().loop.run_callback(self._end, connection, until)

    def _end(self, connection: greenlet, until: float) -> None:
        if self._waiting.get(connection) == until:  # or its request has come meanwhile
            connection.throw(_Over)

    def handle(self, listener: object, client: Any, address: object) -> None:
        """Serve a connection, which has not as long for its first request as for those that follow."""
        connection = gevent.getcurrent()
        self._waiting[connection] = time.monotonic() + _FIRST_SECONDS
        try:
            super().handle(listener, client, address)  # type: ignore[no-untyped-call] # gunicorn has no types
        finally:
            self._waiting.pop(connection, None)

    def handle_request(self, listener_name: object, request: object, client: object, address: object) -> None:
        """Answer a request; who takes nothing of the answer counts as gone."""
        try:
            super().handle_request(listener_name, request, client, address)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise BrokenPipeError(errno.EPIPE, "the answer was not taken") from error

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
        head += "".join(f"{name}: {value}\r\n" for name, value in SECURITY.items())
        head += f"Content-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n\r\n"
        with suppress(OSError):  # who sends such may be gone
            client.sendall(head.encode() + body)

    def patch(self) -> None:
        """Make the listening sockets gevent's, which is all that the server needs; connections have their options."""
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in self.sockets
        ]
        for listener in self.sockets:  # Linux minds it while the other side's window is shut, too
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNTAKEN_SECONDS * 1000)


_PARSE_STATUSES = {
    errors.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    errors.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    errors.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
}


class _ByAddress:
    """Hands each request to the application of the address that it came in at, whatever its Host says."""

    def __init__(self, apps: Mapping[tuple[str, str], WSGIApplication]) -> None:
        self._apps = apps

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._apps[environ["SERVER_NAME"], environ["SERVER_PORT"]](environ, start_response)


class Web(BaseApplication):
    """gunicorn, configured by our settings alone.

    Args:
        make_apps: called in each worker, after the fork; one for each address, in the order of `load_config`.
    """

    def __init__(self, settings: Settings, make_apps: Callable[[], Sequence[Flask]]) -> None:
        self._settings = settings
        self._make_apps = make_apps
        super().__init__()  # type: ignore[no-untyped-call] # gunicorn has no types

    def load_config(self) -> None:
        """Set what gunicorn would read from its command line and files."""
        binds = [bind for bind in (self._settings.bind, self._settings.callback_bind) if bind is not None]
        options: dict[str, Any] = {
            "bind": [authority(*bind) for bind in binds],
            "workers": self._settings.web_concurrency,
            "worker_class": "webhook.web.CooperativeWorker",
            "limit_request_line": _LONGEST_REQUEST_LINE,
            "forwarder_headers": "",  # a header may not say which path is asked for: a proxy lets some through only
            "keepalive": _KEEPALIVE_SECONDS,
            "graceful_timeout": _GRACEFUL_SECONDS,
            "accesslog": None,
            "loglevel": "warning",
            "proc_name": "webhook-web",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)  # type: ignore[union-attr] # set by then

    def load(self) -> Sequence[Flask]:
        """Return the applications."""
        return self._make_apps()
