"""A server that goes wrong on purpose, as no service of ours does when it is asked to."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

PROBLEM = "application/problem+json"


@dataclass(frozen=True, kw_only=True)
class Got:
    """A request as it came."""

    method: str
    path: str
    headers: Message
    body: bytes


def answers(status: int, body: Any, *, kind: str = "application/json", **headers: str) -> Callable[..., None]:
    """Return what answers with a status and a body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def act(handler: BaseHTTPRequestHandler, _: Got) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(raw)

    return act


def refuses(status: int, detail: str, **headers: str) -> Callable[..., None]:
    """Return what answers with a problem document."""
    problem = {"type": "about:blank", "title": "No", "status": status, "detail": detail}
    return answers(status, problem, kind=PROBLEM, **headers)


def cuts(before: Callable[[Got], None] = lambda _: None) -> Callable[..., None]:
    """Return what does something with the whole request, and then cuts the connection instead of answering."""

    def act(handler: BaseHTTPRequestHandler, got: Got) -> None:
        before(got)
        handler.close_connection = True

    return act


class Stub:
    """Answers each request by the next act it was given, and the last one for ever; a context manager.

    Attributes:
        got: the requests so far.
    """

    def __init__(self) -> None:
        self.got: list[Got] = []
        self._acts: deque[Callable[..., None]] = deque()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                got = Got(method=self.command, path=self.path, headers=self.headers, body=body)
                stub.got.append(got)
                act = stub._acts.popleft() if len(stub._acts) > 1 else stub._acts[0]
                act(self, got)

            do_GET = do_POST = _answer  # noqa: N815 - the library's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def will(self, *acts: Callable[..., None]) -> None:
        """Say what it does from now on."""
        self._acts = deque(acts)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
