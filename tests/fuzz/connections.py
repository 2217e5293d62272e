"""A connection's bytes: requests that are none, and how each connection ends."""

from __future__ import annotations

import re
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import gevent
from gevent import socket
from msgspec import Struct
from typing_extensions import override

from tests.fuzz import values
from tests.fuzz.runs import Target, Violation
from webhook.http1 import BrokenBodyError, Connection, common_environ

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

_REQUESTS: Final = (
    b"GET /v1/tasks?limit=2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n",
    b'POST /callbacks/t HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"a":"b c"}',
    b"PUT /t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\n123\r\n0\r\nX: y\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"DELETE http://x/v1/tasks/t?a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /%2e%2e/%00%ff?q=%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
)
_LINES: Final = (
    *(b"Host: y", b"Content-Length: 5", b"Content-Length: 05", b"Content-Length: 5, 5", b"Content-Length: -1"),
    *(b"Content-Length: 18446744073709551616", b"Content-Length: 1000000", b"Content-Length:", b"Content_Length: 3"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: \x0bchunked"),
    *(b"Transfer-Encoding : chunked", b" folded: yes", b"\tfolded", b"No colon", b": no name", b"X: \x00", b"X: a\rb"),
    *(b"X: " + b"a" * 9000, b"A" * 9000 + b": x", b"Connection: close", b"Connection: keep-alive, Upgrade"),
    *(
        b"Expect: 100-continue",
        b"Expect: 200-ok",
        b"SCRIPT_NAME: /a",
        b"Path-Info: /b",
        b"X-Forwarded-For: \xff",
        b"X: \xe9",
    ),
    *(
        b"Content-Type: a/b",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
        b"Trailer: X",
        b"\x80: a",
        b"X:" + b" " * 500,
    ),
)
_CHUNKS: Final = (
    *(
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"05\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b'5;x="y"\r\nhello\r\n',
        b"-5\r\n",
        b"0x5\r\n",
    ),
    *(
        b"FFFFFFFFFFFFFFFF\r\n",
        b"10000000000000000\r\n",
        b"5\nhello\n",
        b"1\r\na\r\n" * 200,
        b"1;" + b"e" * 3000 + b"\r\na\r\n",
    ),
    *(b"0\r\nX: y\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"5\r\nhelloX\r\n", b"\r\n"),
)
_ANSWERS: Final = frozenset((100, 200, 400, 414, 417, 431, 501))
_PATIENCE_SECONDS: Final = 30.0
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n")


class Stream(Struct, kw_only=True):
    """Bytes that a client sends.

    Attributes:
        cuts: where they are cut, each piece being sent by itself.
        reads: whether the application reads bodies.
    """

    data: bytes
    cuts: list[int]
    reads: bool


class Seen:
    """An application that notes what it is asked."""

    def __init__(self, *, reads: bool) -> None:
        self.asked: list[tuple[str, str, bytes | None]] = []
        self._reads = reads

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        body: bytes | None = b""
        try:
            while self._reads and (piece := environ["wsgi.input"].read(1000)):
                body = (body or b"") + piece
        except BrokenBodyError:
            body = None
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], body))
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]


class Connections(Target[Stream]):
    """Bytes that are served as a connection."""

    name = "connections"
    share = 0.2
    case = Stream

    @override
    def draw(self, dice: random.Random) -> Stream:
        data = b"".join(_request(dice) for _ in range(1 + values.number(dice, 4)))
        if dice.random() < 0.35:
            data = values.broken_bytes(dice, data)
        cuts = sorted({dice.randrange(len(data) + 1) for _ in range(values.number(dice, 6))})
        return Stream(data=data, cuts=cuts, reads=dice.random() < 0.8)

    @override
    def ask(self, case: Stream) -> str:
        at_once, answers = exchange([case.data], reads=case.reads)
        statuses = check_answers(answers, at_once)
        if case.cuts:
            cuts = [0, *case.cuts, len(case.data)]
            pieces = [case.data[a:b] for a, b in pairwise(cuts)]
            in_pieces, others = exchange([piece for piece in pieces if piece], reads=case.reads)
            check_answers(others, in_pieces)
            if (
                whole(at_once) != whole(in_pieces)[: len(whole(at_once))]
                and whole(in_pieces) != whole(at_once)[: len(whole(in_pieces))]
            ):
                raise Violation("requests differ by how they are cut on their way")
        return " ".join(map(str, statuses)) if len(statuses) < 3 else f"{statuses[0]} … {statuses[-1]}"


def whole(asked: list[tuple[str, str, bytes | None]]) -> list[tuple[str, str, bytes | None]]:
    """Return the requests whose bodies came to their end."""
    return [each for each in asked if each[2] is not None]


def _request(dice: random.Random) -> bytes:
    """Make a request, often with lines that do not belong there."""
    request = dice.choice(_REQUESTS)
    if dice.random() < 0.3:
        return request
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    for _ in range(1 + values.number(dice, 3)):
        lines.insert(dice.randrange(1, len(lines) + 1), dice.choice(_LINES))
    if dice.random() < 0.02:
        lines += [b"X-%d: y" % n for n in range(dice.choice((90, 101, 3000)))]
    if dice.random() < 0.05:
        lines[0] = lines[0].replace(b"/", b"/" + b"a" * dice.choice((100, 8190, 9000, 70_000)), 1)
    if dice.random() < 0.2:
        body = b"".join(dice.choice(_CHUNKS) for _ in range(values.number(dice, 8)))
    end = b"\r\n" if dice.random() < 0.95 else b"\n"
    return end.join(lines) + end + end + body


def exchange(pieces: list[bytes], *, reads: bool) -> tuple[list[tuple[str, str, bytes | None]], bytes]:
    """Send pieces to a connection, then nothing more; return what was asked, and all that was answered."""
    application = Seen(reads=reads)
    ours, theirs = socket.socketpair()
    environ = common_environ(("127.0.0.1", 8000), ("127.0.0.2", 1), multiprocess=False)
    connection = Connection(theirs, environ=environ, waiting=lambda _: nullcontext())

    def send() -> None:
        try:
            for piece in pieces:
                ours.sendall(piece)
                gevent.sleep()
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was closed before all was sent

    def serve() -> None:
        try:
            connection.serve(application, is_stopping=lambda: False)
        finally:
            theirs.close()

    with gevent.Timeout(_PATIENCE_SECONDS, Violation("a connection does not end")), ours:
        served, sent = gevent.spawn(serve), gevent.spawn(send)
        answers = b""
        try:
            while piece := ours.recv(65536):
                answers += piece
        except ConnectionResetError:
            pass  # it was closed before it had read all
        gevent.joinall((served, sent))
        if isinstance(served.exception, OSError):
            return application.asked, answers
        served.get()
    return application.asked, answers


def check_answers(answers: bytes, asked: list[tuple[str, str, bytes | None]]) -> list[int]:
    """Return the statuses of what came back; all of it must be answers, of known statuses, one for each request."""
    statuses: list[int] = []
    at = 0
    for method, _, _ in [*asked, ("", "", None)]:
        while (found := _STATUS.match(answers, at)) and found[1] == b"100":
            at = answers.index(b"\r\n\r\n", at) + 4
        if found is None:
            break
        end = answers.index(b"\r\n\r\n", at) + 4
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", answers[at:end])
        statuses.append(int(found[1]))
        at = end + (0 if method == "HEAD" or length is None else int(length[1]))
    if at != len(answers):
        raise Violation("an answer is not HTTP, or too many of them")
    if not _ANSWERS.issuperset(statuses):
        raise Violation(f"an answer of {max(statuses)}")
    if statuses.count(200) > len(asked):
        raise Violation("more answers than requests")
    return statuses or [0]
