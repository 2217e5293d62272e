"""One connection: which requests come through, how each ends, and what ends the connection.

The forms of smuggled requests are those of RFC 9112, 11.2, and of the public lists of its attacks (PortSwigger, "HTTP
request smuggling").
"""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING

import gevent
import pytest
from gevent import socket
from hypothesis import given
from hypothesis import strategies as st

from webhook.http1 import BrokenBodyError, Connection, common_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = b"Host: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PATIENCE_SECONDS = 10


class Echo:
    """An application that notes what it is asked, and answers with the body."""

    def __init__(self, *, reads: bool = True) -> None:
        self.asked: list[tuple[str, str, bytes | None]] = []
        self.environ: WSGIEnvironment = {}
        self._reads = reads

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.environ = environ
        body: bytes | None = b""
        try:
            while self._reads and (piece := environ["wsgi.input"].read(1000)):
                body = (body or b"") + piece
        except BrokenBodyError:
            body = None
        self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], body))
        start("200 OK", [("Content-Length", str(len(body or b"")))])
        return [body or b""]


def answering(status: str, headers: list[tuple[str, str]], body: Sequence[bytes]) -> WSGIApplication:
    """Return an application that always answers so."""

    def application(_environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        start(status, headers)
        return body

    return application


class Peer:
    """The client's end of a connection that is being served."""

    def __init__(self, application: WSGIApplication, *, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_SECONDS)
        environ = common_environ(("127.0.0.1", 8000), ("127.0.0.2", 1), multiprocess=False)
        connection = Connection(theirs, environ=environ, waiting=lambda _: nullcontext())

        def serve() -> None:
            try:
                connection.serve(application, is_stopping=is_stopping)
            finally:
                theirs.close()

        self.served = gevent.spawn(serve)

    def rest(self) -> bytes:
        """Return all that still comes."""
        answers = b""
        with self.socket:
            while piece := self.socket.recv(65536):
                answers += piece
        return answers


def exchange(application: WSGIApplication, *pieces: bytes) -> bytes:
    """Send pieces, each by itself, and nothing more; return all that comes."""
    peer = Peer(application)
    for piece in pieces:
        peer.socket.sendall(piece)
        gevent.sleep()
    peer.socket.shutdown(socket.SHUT_WR)
    return peer.rest()


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30, 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked", 400),
        (b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX: y\r\n Transfer-Encoding: chunked", 400),
        (b"GET / HTTP/1.1\nHost: x\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y", 400),
        (b"GET / HTTP/1.1\r\nX: y", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Type: a\r\nContent-Type: b", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon", 400),
        (b"GET / HTTP/2.0\r\nHost: x", 400),
        (b"GET /", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: x", 400),
        (b"GET /\xe9 HTTP/1.1\r\nHost: x", 400),
        (b"get / HTTP/1.1\r\nHost: x", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: more", 417),
        (b"GET /" + b"x" * 8190 + b" HTTP/1.1\r\nHost: x", 414),
        (b"GET /" + b"x" * 300_000, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 8190, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 300_000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100, 431),
    ],
)
def test_what_is_no_single_request_is_refused_and_ends_the_connection(head: bytes, status: int) -> None:
    application = Echo()
    answers = exchange(application, head + b"\r\n\r\n", b"0\r\n\r\n" + NEXT)
    assert statuses(answers) == [status]
    problem = json.loads(answers.partition(b"\r\n\r\n")[2])
    assert problem["status"] == status
    assert application.asked == [], "what follows a head in doubt is nobody's request"


@pytest.mark.parametrize(
    "chunks",
    [
        b"3\nabc\n0\n\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcdef\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nTrailer without colon\r\n\r\n",
    ],
)
def test_chunks_that_are_none_break_the_body_and_end_the_connection(chunks: bytes) -> None:
    application = Echo()
    assert statuses(exchange(application, CHUNKED, chunks, NEXT)) == [200]
    assert [body for _, _, body in application.asked] == [None]


def test_a_body_in_chunks_is_put_together_and_its_trailers_are_nobody_s() -> None:
    application = Echo()
    answers = exchange(application, CHUNKED + b"3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nHost: other\r\nX: y\r\n\r\n" + NEXT)
    assert statuses(answers) == [200, 200]
    assert application.asked == [("POST", "/", b"abcdefg"), ("GET", "/next", b"")]
    assert application.environ["HTTP_HOST"] == "x"


@pytest.mark.parametrize("endless", [b"X: y\r\n", b"x" * 1000])
def test_trailers_without_end_break_the_body(endless: bytes) -> None:
    application = Echo()
    exchange(application, CHUNKED + b"3\r\nabc\r\n0\r\nX: ", *[endless * (200_000 // len(endless))] * 2)
    assert [body for _, _, body in application.asked] == [None]


def test_a_body_of_chunks_of_one_byte_comes_through() -> None:
    application = Echo()
    exchange(application, CHUNKED, b"1\r\nx\r\n" * 100_000, b"0\r\n\r\n")
    assert application.asked == [("POST", "/", b"x" * 100_000)]


def test_requests_sent_at_once_are_answered_in_their_order() -> None:
    application = Echo()
    posts = [b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % (n, n) for n in range(5)]
    answers = exchange(application, b"\r\n".join(posts) + NEXT)
    assert statuses(answers) == [200] * 6
    assert [path for _, path, _ in application.asked] == ["/0", "/1", "/2", "/3", "/4", "/next"]


@given(st.lists(st.integers(1, 400), max_size=8))
def test_however_a_request_is_cut_it_is_the_same(cuts: list[int]) -> None:
    whole = (
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nX-A: 2\r\nX_A: 3\r\nContent-Length: 300\r\n\r\n" + b"y" * 300
    )
    places = sorted({0, *[cut for cut in cuts if cut < len(whole)], len(whole)})
    application = Echo()
    exchange(application, *[whole[start:end] for start, end in pairwise(places)])
    assert application.asked == [("POST", "/a b", b"y" * 300)]
    environ = application.environ
    assert (environ["QUERY_STRING"], environ["HTTP_X_A"]) == ("c=d", "1,2"), "an underscore passes for no dash"
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"], environ["CONTENT_LENGTH"]) == ("127.0.0.2", "8000", "300")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://h:1/x%2Fy?z=1", "/x/y", "z=1"),
        (b"*", "*", ""),
        (b"/%E6%97%A5?%E6", "/æ\x97¥", "%E6"),
        (b"//x/..", "//x/..", ""),
    ],
)
def test_a_target_is_read_as_pep_3333_has_it(target: bytes, path: str, query: str) -> None:
    application = Echo()
    exchange(application, b"OPTIONS " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert (application.environ["PATH_INFO"], application.environ["QUERY_STRING"]) == (path, query)


@pytest.mark.parametrize(
    ("version", "field", "goes_on"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", False),
    ],
)
def test_a_connection_goes_on_as_its_client_wants_and_says_so(version: bytes, field: bytes, *, goes_on: bool) -> None:
    peer = Peer(Echo())
    peer.socket.sendall(b"GET / HTTP/" + version + b"\r\n" + HOST + field + b"\r\n")
    gevent.sleep()
    if goes_on:
        peer.socket.sendall(NEXT)
    first, _, rest = peer.rest().partition(b"\r\n\r\n")
    assert (b"Connection: close" not in first) == goes_on
    assert (b"Connection: keep-alive" in first) == (goes_on and version == b"1.0")
    assert len(statuses(rest)) == goes_on


def test_a_process_that_stops_ends_the_connection_with_its_answer() -> None:
    peer = Peer(Echo(), is_stopping=lambda: True)
    peer.socket.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"Connection: close" in peer.rest()


def test_a_client_that_waits_for_a_word_gets_it_when_its_body_is_wanted() -> None:
    application = Echo()
    peer = Peer(application)
    peer.socket.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert peer.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.socket.sendall(b"ab" + NEXT)
    assert statuses(peer.rest()) == [200, 200]
    assert application.asked[0] == ("POST", "/", b"ab")


def test_a_client_whose_body_nobody_wants_is_not_told_to_send_it() -> None:
    peer = Peer(Echo(reads=False))
    peer.socket.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    peer.socket.shutdown(socket.SHUT_WR)
    answer = peer.rest()
    assert statuses(answer) == [200]
    assert b"Connection: close" in answer


def test_a_short_body_that_nobody_read_is_passed_over() -> None:
    application = Echo(reads=False)
    answers = exchange(application, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", b"x" * 5000 + NEXT)
    assert statuses(answers) == [200, 200]
    assert [path for _, path, _ in application.asked] == ["/", "/next"]


def test_a_long_body_that_nobody_read_ends_the_connection_and_its_answer_is_seen() -> None:
    application = Echo(reads=False)
    peer = Peer(application)
    peer.socket.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
    peer.socket.sendall(b"x" * 2_000_000)
    assert b"Connection: close" in peer.socket.recv(1000)
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.rest() == b""
    assert len(application.asked) == 1


def test_a_body_that_is_cut_off_is_broken() -> None:
    application = Echo()
    exchange(application, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", b"half")
    assert [body for _, _, body in application.asked] == [None]


@pytest.mark.parametrize(
    ("method", "status", "headers", "body"),
    [
        (b"HEAD", "200 OK", [("Content-Length", "3")], b""),
        (b"GET", "204 No Content", [], b""),
        (b"GET", "200 OK", [("Content-Length", "6")], b"abcdef"),
    ],
)
def test_an_answer_has_a_body_where_it_may(
    method: bytes, status: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    answers = exchange(answering(status, headers, [b"abc", b"def"]), method + b" / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answers.partition(b"\r\n\r\n")[2] == body


def test_an_answer_of_unknown_length_ends_with_the_connection() -> None:
    peer = Peer(answering("200 OK", [], [b"abc", b"def"]))
    peer.socket.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    head, _, body = peer.rest().partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert body == b"abcdef"


def test_an_application_that_fails_is_a_500_without_a_word_of_it() -> None:
    def fails(_environ: WSGIEnvironment, _start: StartResponse) -> Iterable[bytes]:
        raise ValueError("CANARY")

    answers = exchange(fails, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n" + NEXT)
    assert statuses(answers) == [500]
    assert b"CANARY" not in answers


def test_a_client_that_is_gone_ends_its_connection_alone() -> None:
    peer = Peer(answering("200 OK", [("Content-Length", "50000000")], [b"x" * 50_000_000]))
    peer.socket.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    gevent.sleep()
    peer.socket.close()
    peer.served.join(PATIENCE_SECONDS)
    assert isinstance(peer.served.exception, OSError)
