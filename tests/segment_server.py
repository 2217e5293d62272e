"""A server of slices' audio in a thread of its own; each path answers as the test says, and requests are noted."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AUDIO = b"RIFF\x24\x00\x00\x00WAVE" + bytes(range(256)) * 40
WAV = "audio/wav"


class Answer(NamedTuple):
    """What a path answers.

    Attributes:
        held: only half of the body goes out, until `release`.
    """

    status: int = 200
    body: bytes = AUDIO
    content_type: str | None = WAV
    headers: Mapping[str, str] = {}
    held: bool = False


class SegmentServer:
    """A running server; a context manager."""

    def __init__(self) -> None:
        self._answers: dict[str, list[Answer]] = {}
        self._requests: list[str] = []
        self._released = threading.Event()
        self._busy_lock = threading.Lock()
        self.headers: dict[str, Mapping[str, str]] = {}
        self.busy = self.most_busy = 0  # answers under way now, and at the most

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _handler(self._answer))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="segments")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def answer(self, path: str, *answers: Answer) -> str:
        """Answer a path so; one request after the other, the last answer for all that follow. Return its URL."""
        self._answers[path] = list(answers)
        return self.url(path)

    def requests(self, path: str) -> int:
        """Return how often a path was asked for."""
        return self._requests.count(path)

    def asked(self, path: str, times: int = 1) -> None:
        """Wait until a path was asked for so often."""
        until(lambda: self.requests(path) >= times)

    def release(self) -> None:
        """Let the rest of what is held go out."""
        self._released.set()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self._count(1)
        try:
            self._send(request)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._busy_lock:
            self.busy += change
            self.most_busy = max(self.busy, self.most_busy)

    def _send(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.headers[path] = dict(request.headers.items())
        answers = self._answers.get(path, [Answer(404, b"", None)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        request.send_response(answer.status)
        fields = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in fields.items():
            if value is not None:
                request.send_header(name, value)
        request.end_headers()
        half = len(answer.body) // 2 if answer.held else 0
        request.wfile.write(answer.body[:half])
        request.wfile.flush()
        self._requests.append(path)
        if answer.held:
            self._released.wait(60)
        with suppress(OSError):
            request.wfile.write(answer.body[half:])


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone."""


def _handler(answer: Callable[[BaseHTTPRequestHandler], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            answer(self)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Be silent."""

    return Handler
