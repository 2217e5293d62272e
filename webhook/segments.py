"""Fetches the audio of a slice from its link: from allowed addresses only, bounded in size and time."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec
import yarl

from webhook.addresses import parse_url
from webhook.connections import PERMANENT, Connections, word_of
from webhook.errors import SegmentRefused, SegmentUnavailable

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from aiohttp.abc import AbstractResolver

    from webhook.addresses import AddressPolicy

LONGEST_LINK = 8192
"""Characters: links to object stores carry signatures and session tokens."""
HOPS = 3
"""How many redirects are followed; each address on the way is checked."""

_OK = 200
_PLAIN_PORT = 80
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNKNOWN_TYPE = "application/octet-stream"  # RFC 9110 section 8.3: what an answer without a type may be taken for
_AUDIO = re.compile(
    rf"(?:(?:audio|video)/[a-z0-9!#$&^_.+-]{{1,100}}|{_UNKNOWN_TYPE})(?: *;[ -~]{{0,100}})?", re.IGNORECASE
)


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The audio of a slice, as its link gave it.

    Attributes:
        content_type: of sound, of video, or of bytes that nobody has named.
    """

    audio: bytes
    content_type: str


class Segments:
    """Fetches segments; an async context manager.

    Args:
        policy: which addresses may be connected to.
        timeout_seconds: after which it is given up, whatever it is waiting for.
        limit: bytes; what is longer is not fetched to its end.
        resolver, ssl_context: see `Connections`.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        timeout_seconds: float,
        limit: int,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._limit = limit
        self._connections = Connections(policy, resolver=resolver, ssl_context=ssl_context)

    async def __aenter__(self) -> Self:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.__aexit__(kind, error, trace)

    async def fetch(self, url: str) -> Segment:
        """Return what is at a link.

        Raises:
            SegmentRefused: it is too large or no audio, or lies where we never connect to, or behind a certificate
                that does not hold.
            SegmentUnavailable: it could not be had now.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                target = _parsed(url)
                for _ in range(HOPS + 1):
                    async with await self._get(target) as answer:
                        if answer.status not in _REDIRECTS:
                            return await self._read(answer)
                        target = _parsed(answer.headers.get("Location", ""), base=target)
        except (aiohttp.ClientError, OSError) as fault:
            reason = word_of(fault)
            kind = SegmentRefused if reason == "address_not_allowed" or reason in PERMANENT else SegmentUnavailable
            raise kind(reason) from fault
        raise SegmentRefused("too_many_redirects")

    async def _get(self, target: yarl.URL) -> aiohttp.ClientResponse:
        """Ask for a link; by https where it is plain and leads to the public internet.

        Object stores answer by both, and their signatures do not cover the scheme.
        """
        headers = {"Accept-Encoding": "identity"}
        try:
            return await self._connections[target.scheme].get(target, headers=headers, allow_redirects=False)
        except aiohttp.ClientConnectorError as fault:
            if target.scheme == "https" or word_of(fault) != "address_not_allowed":
                raise
        target = target.with_scheme("https").with_port(None if target.port == _PLAIN_PORT else target.port)
        return await self._connections["https"].get(target, headers=headers, allow_redirects=False)

    async def _read(self, answer: aiohttp.ClientResponse) -> Segment:
        if answer.status != _OK:
            raise SegmentUnavailable(f"http_{answer.status}")
        content_type = answer.headers.get("Content-Type") or _UNKNOWN_TYPE
        if not _AUDIO.fullmatch(content_type) or answer.headers.get("Content-Encoding", "identity") != "identity":
            raise SegmentRefused("wrong_type")
        if (answer.content_length or 0) > self._limit:
            raise SegmentRefused("too_large")
        audio = bytearray()
        async for chunk in answer.content.iter_any():
            audio += chunk
            if len(audio) > self._limit:
                raise SegmentRefused("too_large")
        if not audio:
            raise SegmentUnavailable("empty")  # a store may show an object before it is written
        return Segment(audio=bytes(audio), content_type=content_type)


def _parsed(url: str, *, base: yarl.URL | None = None) -> yarl.URL:
    try:
        if base is not None:
            url = str(base.join(yarl.URL(url, encoded=True)))
        return parse_url(url, longest=LONGEST_LINK)
    except ValueError as error:
        raise SegmentRefused("invalid_url") from error
