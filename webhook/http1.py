"""HTTP/1.1 over one connection: requests in, parsed by llhttp, and the answers of a WSGI application out.

gunicorn keeps the processes and the listening sockets; its own parser and answers are Python that serves every server
there may be, and cost two fifths of a callback's processor time. Where a request ends is for llhttp to say, in its
strict mode (RFC 9112): lengths in conflict, bare line feeds and folded fields end the connection.
"""

from __future__ import annotations

import socket
import sys
import time
from collections import deque
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec
import structlog
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
    parse_url,
)

from webhook.api.headers import SECURITY
from webhook.api.routing import PROBLEM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from wsgiref.types import WSGIApplication

log = structlog.get_logger()

_PIECE_BYTES = 64 * 1024  # read at once of heads and short bodies
_LARGE_PIECE_BYTES = 256 * 1024  # and of long bodies
_LONGEST_TARGET = 8190  # bytes of a URL; and of a field, its name and value
_LONGEST_FIELD = 8190
_LONGEST_HEAD = 64 * 1024
_MOST_FIELDS = 100
_LONGEST_FRAMING = 64 * 1024  # around a body in chunks, beside what each byte of it may take
_MOST_FRAMING = 8  # bytes for one of the body: chunks of one byte take six
_DRAINED_BYTES = 256 * 1024  # a body that nobody read is waited for up to this; a longer one ends the connection
_FIRST_SECONDS = 20.0  # within which a connection's first request has come, all but its body
_NEXT_SECONDS = 75.0  # and each that follows
_LINGER_SECONDS = 10.0  # for a client that sends its whole body before it looks for an answer: a reset would hide that
_BODILESS = frozenset((204, 304))
_SINGLE = frozenset(("HTTP_HOST", "CONTENT_TYPE"))  # a second one would make the request mean two things


class BrokenBodyError(OSError):
    """A body does not go on: the connection has ended, or the chunks are none."""


class _Request:
    """A request whose head has come, and its body as it comes."""

    __slots__ = ("complete", "environ", "expects", "keep_alive", "length", "pieces")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.pieces: deque[bytes] = deque()
        self.complete = False
        self.expects = False  # to be told to go on before it sends its body
        self.keep_alive = True
        self.length: int | None = 0  # of its body in bytes; None where it comes in chunks


class _Body:
    """A request's body for WSGI (`wsgi.input`)."""

    __slots__ = ("_connection", "_request")

    def __init__(self, connection: Connection, request: _Request) -> None:
        self._connection = connection
        self._request = request

    def read(self, size: int) -> bytes:
        """Wait for some of the body, and return up to `size` bytes of it; none when it is over.

        Raises:
            BrokenBodyError: it does not go on.
        """
        pieces = self._request.pieces
        if not pieces and not self._request.complete:
            self._connection.receive_body(self._request, size)
        if not pieces:
            return b""
        if len(pieces[0]) > size:
            pieces.appendleft(pieces[0][:size])
            pieces[1] = pieces[1][size:]
        return pieces.popleft()


class Connection:
    """One client's connection; what `on_` begins is llhttp's to call.

    Args:
        client: its socket, which is gevent's.
        environ: what the WSGI environments of its requests have in common.
        waiting: bounds a block, in which the connection waits for its client, to so many seconds; it just ends then.
    """

    def __init__(
        self, client: Any, *, environ: Mapping[str, Any], waiting: Callable[[float], AbstractContextManager[object]]
    ) -> None:
        self._client = client
        self._common = environ
        self._waiting = waiting
        self._patience_seconds = _FIRST_SECONDS
        self._parser = HttpRequestParser(self)
        self._requests: deque[_Request] = deque()  # a client may send the next ones before the answer
        self._arriving: _Request | None = None  # whose head has come and whose body has not
        self._environ: dict[str, Any] | None = None  # of the head that is coming
        self._target = b""
        self._field_count = 0
        self._head_bytes = 0
        self._framing_bytes = 0
        self._over = False  # nothing more is to be read
        self._refusal: HTTPStatus | None = None

    def serve(self, application: WSGIApplication, *, is_stopping: Callable[[], bool]) -> None:
        """Answer the connection's requests, one after the other, to its end.

        Raises:
            OSError: it broke.
        """
        while (request := self._next()) is not None:
            if not self._answer(request, application, is_stopping):
                break
        if self._refusal is not None and request is None:
            log.info("A request was not HTTP, or too long.", status=self._refusal.value)
            self._client.sendall(_refusal(self._refusal))
        if self._arriving is not None or self._refusal is not None:
            self._linger()

    def receive_body(self, request: _Request, size: int) -> None:
        """Read on until some of a request's body has come, or its end.

        Raises:
            BrokenBodyError: neither comes.
        """
        if request.expects:
            request.expects = False
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not request.pieces and not request.complete:
            if self._over:
                raise BrokenBodyError
            self._receive(min(max(size, _PIECE_BYTES), _LARGE_PIECE_BYTES))

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._environ = {**self._common}
        self._target = b""
        self._field_count = self._head_bytes = 0

    def on_url(self, part: bytes) -> None:
        """Take (a part of) the head's target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those behind a body in chunks are nobody's."""
        environ = self._environ
        if environ is None:
            return
        self._field_count += 1
        if self._field_count > _MOST_FIELDS or len(name) + len(value) > _LONGEST_FIELD:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        key = _key(name)
        if key is None:
            return
        text = value.decode("latin-1").strip(" \t")
        if key in environ:
            if key in _SINGLE:
                self._refuse(HTTPStatus.BAD_REQUEST)
            text = f"{environ[key]},{text}"
        environ[key] = text

    def on_headers_complete(self) -> None:
        """Make a request of the head."""
        environ, self._environ = self._environ, None
        assert environ is not None  # noqa: S101 - it was begun
        version = self._parser.get_http_version()
        environ["REQUEST_METHOD"] = self._parser.get_method().decode()
        environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        request = _Request(environ)
        environ["wsgi.input"] = _Body(self, request)
        request.keep_alive = self._parser.should_keep_alive()
        self._read_target(environ)
        self._read_framing(request, version)
        self._arriving = request
        self._framing_bytes = 0
        if self._refusal is None:
            self._requests.append(request)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        assert self._arriving is not None  # noqa: S101 - its head has come
        self._arriving.pieces.append(piece)
        self._framing_bytes -= _MOST_FRAMING * len(piece)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._arriving is not None:
            self._arriving.complete = True
            self._arriving = None

    def _read_target(self, environ: dict[str, Any]) -> None:
        target = self._target
        if len(target) > _LONGEST_TARGET:
            self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
        path, _, query = target.partition(b"?")
        if not target.startswith(b"/"):  # RFC 9112, 3.2.2: what is asked of a proxy is taken, too
            with suppress(HttpParserInvalidURLError):
                url = parse_url(target)
                path, query = url.path or path, url.query or b""
        if b"#" in target:
            self._refuse(HTTPStatus.BAD_REQUEST)
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")

    def _read_framing(self, request: _Request, version: str) -> None:
        """Take what a request says of its own form, where that goes beyond what llhttp knows."""
        environ = request.environ
        coding, expectation = environ.get("HTTP_TRANSFER_ENCODING"), environ.get("HTTP_EXPECT")
        if version not in {"1.0", "1.1"} or (version == "1.1" and "HTTP_HOST" not in environ):
            self._refuse(HTTPStatus.BAD_REQUEST)
        if coding is not None:
            request.length = None
            if version == "1.0":
                self._refuse(HTTPStatus.BAD_REQUEST)
            elif coding.lower() != "chunked":
                self._refuse(HTTPStatus.NOT_IMPLEMENTED)
        elif length := environ.get("CONTENT_LENGTH"):
            request.length = int(length)
        if expectation is not None and version == "1.1":
            request.expects = expectation.lower() == "100-continue"
            if not request.expects:
                self._refuse(HTTPStatus.EXPECTATION_FAILED)

    def _refuse(self, status: HTTPStatus) -> None:
        """Have the request that is coming be the last, and refused."""
        self._refusal = self._refusal or status
        self._over = True

    def _next(self) -> _Request | None:
        """Wait for a request; None comes when there will be no more."""
        if not self._requests:
            with self._waiting(self._patience_seconds):
                while not self._requests and not self._over:
                    self._receive(_PIECE_BYTES)
            self._patience_seconds = _NEXT_SECONDS
        return self._requests.popleft() if self._requests else None

    def _receive(self, size: int) -> None:
        """Read a piece of whatever comes."""
        data = self._client.recv(size)
        if not data:
            self._over = True
            return
        head = self._environ
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._over = True  # no other protocol is spoken here: what asked for one is the last request
        except HttpParserCallbackError:
            raise  # a fault of ours
        except HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST)
        self._bound(len(data), head)

    def _bound(self, received: int, head: object) -> None:
        """Refuse what comes without end: a target, a head, or what stands around the chunks of a body.

        Args:
            received: bytes, just now.
            head: the one that was coming before them.
        """
        if self._environ is not None:
            if head is self._environ:
                self._head_bytes += received
            if len(self._target) > _LONGEST_TARGET:
                self._refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
            elif self._head_bytes > _LONGEST_HEAD:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._arriving is not None and self._arriving.length is None:
            self._framing_bytes += received
            if self._framing_bytes > _LONGEST_FRAMING:
                self._refuse(HTTPStatus.BAD_REQUEST)

    def _answer(self, request: _Request, application: WSGIApplication, is_stopping: Callable[[], bool]) -> bool:
        """Answer a request; return whether the next one may come."""
        status, headers = "", [("", "")]
        written: list[bytes] = []

        def start(given: str, fields: list[tuple[str, str]], _error: object = None) -> Callable[[bytes], object]:
            nonlocal status, headers
            status, headers = given, fields
            return written.append

        try:
            body = application(request.environ, start)
        except Exception:
            log.exception("A request failed.")
            self._client.sendall(_refusal(HTTPStatus.INTERNAL_SERVER_ERROR))
            return False
        try:
            pieces = iter(body)
            first = b"".join(written) + next(pieces, b"")
            has_body = request.environ["REQUEST_METHOD"] != "HEAD" and int(status[:3]) not in _BODILESS
            is_sized = not has_body or any(name.lower() == "content-length" for name, _ in headers)
            is_last = self._over and not self._requests and self._refusal is None
            keep = request.keep_alive and is_sized and self._ends_soon(request) and not is_last and not is_stopping()
            head = f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\n"
            for name, value in headers:
                head += f"{name}: {value}\r\n"
            if not keep:
                head += "Connection: close\r\n"
            elif request.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
                head += "Connection: keep-alive\r\n"
            self._send(head.encode("latin-1") + b"\r\n" + (first if has_body else b""))
            for piece in pieces if has_body else ():
                self._send(piece)
        finally:
            if close := getattr(body, "close", None):
                close()
        return keep and self._drain(request)

    def _ends_soon(self, request: _Request) -> bool:
        """Return whether the rest of a body, which nobody has read, is worth waiting for."""
        if request.complete:
            return True
        is_short = request.length is not None and request.length <= _DRAINED_BYTES
        return is_short and not self._over and not request.expects

    def _drain(self, request: _Request) -> bool:
        """Read what nobody has read of a body; return whether its end has come."""
        request.pieces.clear()
        if not request.complete:
            with self._waiting(_LINGER_SECONDS), suppress(BrokenBodyError):
                while request.environ["wsgi.input"].read(_PIECE_BYTES):
                    pass
        return request.complete

    def _send(self, data: bytes) -> None:
        sent = self._client.send(data)  # `sendall` asks for the buffer's size first
        if sent < len(data):
            self._client.sendall(memoryview(data)[sent:])

    def _linger(self) -> None:
        """Let a client that still sends read its answer before the connection is gone."""
        self._client.shutdown(socket.SHUT_WR)
        with self._waiting(_LINGER_SECONDS):
            while self._client.recv(_LARGE_PIECE_BYTES):
                pass


def common_environ(listener: Any, address: Any, *, multiprocess: bool) -> dict[str, Any]:
    """Return what the WSGI environments of a connection's requests have in common (PEP 3333).

    Args:
        listener: host and port that the connection was made to.
        address: host and port that it comes from.
    """
    return {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "SCRIPT_NAME": "",
        "SERVER_NAME": listener[0],
        "SERVER_PORT": str(listener[1]),
        "REMOTE_ADDR": address[0],
        "REMOTE_PORT": str(address[1]),
    }


@lru_cache(maxsize=256)
def _key(name: bytes) -> str | None:
    """Return a field's key in WSGI's environment; none where it would pass for another's: `X_A` for `X-A`."""
    if b"_" in name:
        return None
    key = name.decode("ascii").upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


def _refusal(status: HTTPStatus) -> bytes:
    """Return the answer to what cannot be read, without a word of it: it may hold a key, a token or a transcript."""
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
    detail = "The request is not HTTP/1.1 within this server's limits."
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = "The service has a fault; it is in its log."
    body = msgspec.json.encode(problem | {"detail": detail})
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: {_date(int(time.time()))}\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in SECURITY.items())
    return f"{head}Content-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
