"""The web process: gunicorn with cooperative workers.

gevent's workers here patch nothing: sockets are gevent's, because gunicorn hands them over as such, and
whatever blocks (database, large bodies) runs in real threads. So a request that waits, be it for the
disk or a long poll, costs a greenlet, and no lock of a library changes its meaning.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from gevent import socket
from gunicorn.app.base import BaseApplication
from gunicorn.workers.ggevent import GeventWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from webhook.settings import Settings

_KEEPALIVE_SECONDS = 75
_GRACEFUL_SECONDS = 5  # idle connections use it up; a callback cut off is sent again
_OBJECTS_BEFORE_COLLECTION = 20_000  # a callback makes hundreds that are no garbage, and the default is 700


class CooperativeWorker(GeventWorker):
    """gunicorn's gevent worker without monkey patching."""

    def init_process(self) -> None:
        """Serve, from here to the end of the process."""
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        super().init_process()  # type: ignore[no-untyped-call] # gunicorn has no types

    def patch(self) -> None:
        """Make the listening sockets gevent's, which is all that the server needs."""
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in self.sockets
        ]


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
