"""Sends to a subscriber over HTTP; each connection's address passes the `AddressPolicy` before it is made."""

from __future__ import annotations

import asyncio
import io
import time
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import aiohttp

from webhook.addresses import parse_url
from webhook.connections import Connections, word_of
from webhook.transports.outcome import Outcome

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from aiohttp.abc import AbstractResolver

    from webhook.addresses import AddressPolicy

MAX_ANSWER_BYTES = 64 * 1024
"""How much of an answer is read; what is longer costs its connection."""
DRAIN_SECONDS = 2.0
"""How long the rest of an answer may take once its status is known: it only serves to keep the connection."""
_AT_ONE_GO_BYTES = 64 * 1024  # what is longer is written as the subscriber takes it


class HttpTransport:
    """Sends POST requests to subscribers; an async context manager.

    Args:
        policy: which addresses may be connected to.
        timeout_seconds: after which an attempt has failed, from the call of `send`, whatever it is waiting for.
        connections: how many attempts there may be at once; those beyond wait, and their time runs, so let
            no more be in flight.
        resolver: what looks names up; it is not closed. By default the system's, in threads.
        ssl_context: by default the system's certificate authorities, and TLS 1.2 or later.
        clock: seconds, for durations.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        timeout_seconds: float = 15.0,
        connections: int = 512,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._slots = asyncio.Semaphore(connections)
        self._connections = Connections(policy, resolver=resolver, ssl_context=ssl_context)
        self._clock = clock

    async def __aenter__(self) -> Self:
        await self._connections.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.__aexit__(kind, error, trace)

    async def send(self, *, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Make one attempt; whatever the subscriber or the network does is in the outcome.

        The answer's status settles it, also where the rest breaks off, never ends or comes late.

        Args:
            url: where to; one that `AddressPolicy.check_url` would not take has the outcome `invalid_url`.
            headers: content type and signature.
            body: what the signature covers.
        """
        started = self._clock()
        answer: aiohttp.ClientResponse | None = None
        error: str | None = None
        try:
            target = _parsed(url)
        except ValueError:
            return Outcome(error="invalid_url", duration_ms=0)
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._slots,
                self._connections[target.scheme].post(
                    target,
                    data=body if len(body) <= _AT_ONE_GO_BYTES else io.BytesIO(body),
                    headers=dict(headers),
                    allow_redirects=False,
                ) as answer,
            ):
                await _drain(answer)
        except (aiohttp.ClientError, OSError) as fault:
            error = word_of(fault)
        status = retry_after = None
        if answer is not None:
            status, retry_after = answer.status, answer.headers.get("Retry-After")
            error = None if 200 <= status < 300 else f"http_{status}"  # noqa: PLR2004
        duration_ms = round((self._clock() - started) * 1000)
        return Outcome(status=status, error=error, retry_after=retry_after, duration_ms=duration_ms)


_parsed = lru_cache(maxsize=1024)(parse_url)  # the same few, again and again


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read a small answer to its end, so that its connection can serve again; give up a long one."""
    if answer.content.at_eof():
        return
    left = MAX_ANSWER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                chunk = await answer.content.read(left)
                if not chunk:
                    return
                left -= len(chunk)
    answer.close()
