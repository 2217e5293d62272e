"""The body of a request, read within bounds: of size, whether announced or in chunks, and of time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent

from webhook.errors import BodyTooLarge, MalformedBody

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug import Request

_PIECE_BYTES = 256 * 1024
LONGEST_SECONDS = 60.0  # of one body on its way: 64 MiB come through at 9 Mbit/s


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
    except OSError:  # what reading raises: of a connection that breaks, and of chunks that are none
        raise MalformedBody("The body was cut off, or its chunks are broken.") from None
    if expected is None and left <= 0:
        raise BodyTooLarge
    if expected is not None and left > 0:
        raise MalformedBody("The body was cut off.")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
