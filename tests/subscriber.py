"""A subscriber that records what it gets, and answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One attempt of a delivery as it came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)


class Subscriber:
    """An HTTP server on a free port of loopback; a context manager.

    Each path is a subscriber of its own: `answer` lines up what it answers before it goes on with 204.
    """

    def __init__(self) -> None:
        self._received: list[Delivered] = []
        self._answers: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
        self._held: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.subscriber = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="subscriber")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        """Return the URL of one of its paths, `/one`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def answer(self, path: str, *answers: int | tuple[int, dict[str, str]]) -> None:
        """Line up answers: a status, or a status with headers."""
        with self._lock:
            self._answers[path] += [(each, {}) if isinstance(each, int) else each for each in answers]

    def hold(self, path: str) -> threading.Event:
        """Let the requests to a path wait for their answer until the event is set."""
        return self._held.setdefault(path, threading.Event())

    def received(self, path: str) -> list[Delivered]:
        """Return what came to a path, in order."""
        with self._lock:
            return [each for each in self._received if each.path == path]

    def types(self, path: str) -> list[str]:
        """Return the types of the events that came to a path, in order."""
        return [each.event["type"] for each in self.received(path)]

    def take(self, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> tuple[int, dict[str, str]]:
        """Record one request and return its answer."""
        with self._lock:
            waiting = self._answers[path]
            status, extra = waiting.pop(0) if waiting else (204, {})
            lower = {name.lower(): value for name, value in headers}
            self._received.append(Delivered(path=path, headers=lower, body=body, status=status))
        if path in self._held:
            self._held[path].wait()
        return status, extra


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # kept connections would hold it
    request_queue_size = 128
    subscriber: Subscriber

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a sender that was killed go."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, headers = self.server.subscriber.take(self.path, self.headers.items(), body)
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""
