"""The body of a request, read within bounds: of size, whether announced or in chunks, and of time.

What nobody wants of a body is read away before the connection is used again; where that takes long, it is ended.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import gevent
from gunicorn.http.errors import ParseException
from werkzeug.wsgi import ClosingIterator

from webhook.errors import BodyTooLarge, MalformedBody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from werkzeug import Request

_PIECE_BYTES = 256 * 1024
LONGEST_SECONDS = 60.0  # of one body on its way: 64 MiB come through at 9 Mbit/s
UNWANTED_SECONDS = 10.0  # of what is left of one: many a sender hears its answer only once all is sent


BROKEN = (OSError, ParseException)  # what reading raises: of a connection that breaks, and of chunks that are none


def read_body(request: Request, *, limit: int, account: Callable[[int], None] = lambda _: None) -> bytes:
    """Read a body.

    Args:
        limit: bytes it may have.
        account: told of each piece's bytes as they arrive; may raise to refuse more.

    Raises:
        BodyTooLarge: it is larger.
        MalformedBody: it was cut off, came too slowly, or its chunks are broken.
    """
    expected = request.content_length
    if expected is not None and expected > limit:
        raise BodyTooLarge
    stream = request.environ["wsgi.input"]
    left = limit + 1 if expected is None else expected
    pieces: list[bytes] = []
    try:
        with gevent.Timeout(LONGEST_SECONDS, MalformedBody("The body came too slowly.")):
            while left > 0 and (piece := stream.read(min(left, _PIECE_BYTES))):
                pieces.append(piece)
                left -= len(piece)
                account(len(piece))
    except BROKEN:
        raise MalformedBody("The body was cut off, or its chunks are broken.") from None
    if expected is None and left <= 0:
        raise BodyTooLarge
    if expected is not None and left > 0:
        raise MalformedBody("The body was cut off.")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def without_rest(wsgi_app: WSGIApplication) -> WSGIApplication:
    """Return an application whose answers are followed by what it left of the request's body, which is thrown away.

    gunicorn would do so too, but in pieces of a kilobyte, which takes a core's whole time.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return then_discarded(wsgi_app(environ, start_response), environ)

    return answer


def then_discarded(answer: Iterable[bytes], environ: WSGIEnvironment) -> Iterable[bytes]:
    """Return an answer that, once it is sent, reads away what is left of its request's body.

    Where that takes longer than `UNWANTED_SECONDS`, it ends the connection.
    """

    def discard() -> None:
        try:
            with gevent.Timeout(UNWANTED_SECONDS):
                while environ["wsgi.input"].read(_PIECE_BYTES):
                    pass
        except (gevent.Timeout, *BROKEN):
            with suppress(OSError):  # the other side may have gone
                environ["gunicorn.socket"].shutdown(socket.SHUT_RDWR)

    return ClosingIterator(answer, discard)
