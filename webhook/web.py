"""The web process: gunicorn with cooperative workers.

gevent's workers here patch nothing: sockets are gevent's, because gunicorn hands them over as such, and
whatever blocks (database, large bodies) runs in real threads. So a request that waits, be it for the
disk or a long poll, costs a greenlet, and no lock of a library changes its meaning.
"""

from __future__ import annotations

import gc
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from gevent import socket
from gunicorn.app.base import BaseApplication
from gunicorn.workers.ggevent import GeventWorker

from webhook.arbiter import Arbiter, Lifeline, Logger, heed, name_process
from webhook.http1 import Connection, common_environ
from webhook.settings import authority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from wsgiref.types import WSGIApplication

    from flask import Flask
    from greenlet import greenlet

    from webhook.arbiter import RunWorker
    from webhook.settings import Settings

log = structlog.get_logger()

_UNTAKEN_SECONDS = 60  # after which a connection is ended whose other side takes nothing of an answer
_GRACEFUL_SECONDS = 8  # for requests in the middle, as a callback cut off is sent again, and the worker's five
_OBJECTS_BEFORE_COLLECTION = 20_000  # a callback makes hundreds that are no garbage, and the default is 700
_MEMORY = "/dev/shm"  # noqa: S108 - gunicorn makes files of no name there


class _Over(BaseException):
    """Thrown where a connection waits, and is to wait no longer."""


class _Wait:
    """A connection's wait for its other side; a context manager.

    Args:
        waiting: until when each connection waits, on the clock of `time.monotonic`.
        seconds: how long this one does.
    """

    __slots__ = ("_until", "_waiting")

    def __init__(self, waiting: dict[greenlet, float], seconds: float) -> None:
        self._waiting = waiting
        self._until = time.monotonic() + seconds

    def __enter__(self) -> None:
        self._waiting[gevent.getcurrent()] = self._until

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> bool:
        del self._waiting[gevent.getcurrent()]
        return kind is _Over


class CooperativeWorker(GeventWorker):
    """gunicorn's gevent worker without monkey patching, and without waiting for idle connections when it stops."""

    def init_process(self) -> None:
        """Serve, from here to the end of the process."""
        name_process("webhook-web")
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        self._waiting: dict[greenlet, float] = {}
        hub: Any = gevent.get_hub()
        hub.print_exception = _note_failure  # gevent's own would show a greenlet's arguments
        super().init_process()  # type: ignore[no-untyped-call] # gunicorn has no types

    def init_signals(self) -> None:
        """Heed the parent: it stops its children itself when it gets the SIGINT of a terminal, which they get too."""
        super().init_signals()  # type: ignore[no-untyped-call] # gunicorn has no types
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        heed()
        self.app.lifeline.hold()

    def load_wsgi(self) -> None:
        """Load the application of each address; gunicorn keeps the addresses in the order of the settings."""
        super().load_wsgi()  # type: ignore[no-untyped-call] # gunicorn has no types
        apps: Sequence[WSGIApplication] = self.wsgi
        self._apps = dict(zip([listener.getsockname() for listener in self.sockets], apps, strict=True))

    def handle(self, listener: Any, client: Any, address: Any) -> None:
        """Serve one connection by the application of the address that it was made to, whatever its requests say."""
        place = listener.getsockname()
        environ = common_environ(place, address, multiprocess=self.cfg.workers > 1)
        connection = Connection(client, environ=environ, waiting=lambda seconds: _Wait(self._waiting, seconds))
        with suppress(OSError):  # who is gone is gone
            connection.serve(self._apps[place], is_stopping=lambda: not self.alive)

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

    def patch(self) -> None:
        """Make the listening sockets gevent's, which is all that the server needs; connections have their options."""
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in self.sockets
        ]
        for listener in self.sockets:  # Linux minds it while the other side's window is shut, too
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNTAKEN_SECONDS * 1000)


def _note_failure(_context: object, _kind: type[BaseException], error: BaseException, _trace: object) -> None:
    log.error("A greenlet failed.", exc_info=error)


class Web(BaseApplication):
    """gunicorn, configured by our settings alone.

    Args:
        make_apps: called in each worker, after the fork; one for each address, in the order of `load_config`.
        run_worker: what is run beside them, in a process of its own (`arbiter.WorkerProcess`); None for nothing.
    """

    def __init__(
        self,
        settings: Settings,
        make_apps: Callable[[], Sequence[Flask]],
        run_worker: RunWorker | None = None,
    ) -> None:
        self._settings = settings
        self._make_apps = make_apps
        self._run_worker = run_worker
        self.lifeline = Lifeline()
        super().__init__()  # type: ignore[no-untyped-call] # gunicorn has no types

    def load_config(self) -> None:
        """Set what gunicorn would read from its command line and files."""
        binds = [bind for bind in (self._settings.bind, self._settings.callback_bind) if bind is not None]
        options: dict[str, Any] = {
            "bind": [authority(*bind) for bind in binds],
            "workers": self._settings.web_concurrency,
            "worker_class": "webhook.web.CooperativeWorker",
            "graceful_timeout": _GRACEFUL_SECONDS,
            "forwarded_allow_ips": "",  # what proxies say is for `proxies` to believe; gunicorn would believe loopback
            "accesslog": None,
            "logger_class": Logger,
            "loglevel": "warning",
            "proc_name": "webhook-web",
            "control_socket_disable": True,
            "worker_tmp_dir": _MEMORY if Path(_MEMORY).is_dir() else None,  # a slow disk makes nobody look hung
        }
        for name, value in options.items():
            self.cfg.set(name, value)  # type: ignore[union-attr] # set by then

    def load(self) -> Sequence[Flask]:
        """Return the applications."""
        return self._make_apps()

    def run(self) -> None:
        """Keep the processes until SIGTERM or SIGINT.

        Raises:
            SystemExit: in the end, with a status other than 0 where one of them cannot start.
        """
        Arbiter(self, self._run_worker).run()  # type: ignore[no-untyped-call] # gunicorn has no types
