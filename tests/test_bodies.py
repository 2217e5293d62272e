"""Bodies are read whole or refused, whether their length is announced or they come in chunks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from typing_extensions import override
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from webhook.bodies import read_body
from webhook.errors import BodyTooLarge, MalformedBody, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable


class Broken(io.BytesIO):
    """A stream that breaks."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        raise self._error


def request(stream: io.BytesIO, *, length: int | None) -> Request:
    environ: dict[str, Any] = EnvironBuilder(method="POST").get_environ()
    environ["wsgi.input"] = stream
    environ.pop("CONTENT_LENGTH", None)
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    return Request(environ)


@pytest.mark.parametrize("length", [None, 10])
def test_a_body_within_the_limit_is_read_whole(length: int | None) -> None:
    assert read_body(request(io.BytesIO(b"0123456789"), length=length), limit=10) == b"0123456789"


@pytest.mark.parametrize("length", [None, 11])
def test_a_body_over_the_limit_is_refused_and_not_cut(length: int | None) -> None:
    with pytest.raises(BodyTooLarge):
        read_body(request(io.BytesIO(b"0123456789!"), length=length), limit=10)


def test_a_large_body_in_pieces_is_put_together() -> None:
    body = bytes(range(256)) * 4096
    assert read_body(request(io.BytesIO(body), length=None), limit=len(body)) == body


@pytest.mark.parametrize("stream", [Broken(OSError()), io.BytesIO(b"short")])
def test_a_body_that_is_cut_off_or_broken_is_malformed(stream: io.BytesIO) -> None:
    with pytest.raises(MalformedBody):
        read_body(request(stream, length=10), limit=10)


def test_a_body_that_comes_too_slowly_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.bodies.LONGEST_SECONDS", 0.01)

    class Slow(io.BytesIO):
        @override
        def read(self, size: int | None = -1, /) -> bytes:
            gevent.sleep(0.002)
            return b"x"

    with pytest.raises(MalformedBody, match="too slowly"):
        read_body(request(Slow(), length=None), limit=1_000_000)


def test_bytes_are_accounted_for_as_they_arrive() -> None:
    counted: list[int] = []

    def account(count: int) -> None:
        counted.append(count)
        if sum(counted) > 300_000:
            raise Overloaded

    take: Callable[[int], bytes] = lambda size: read_body(  # noqa: E731 - one call in two tries
        request(io.BytesIO(bytes(size)), length=size), limit=size, account=account
    )
    assert len(take(300_000)) == sum(counted) == 300_000
    with pytest.raises(Overloaded):
        take(1)
