"""Sends to a subscriber over HTTP; each connection's address passes the `AddressPolicy` before it is made."""

from __future__ import annotations

import asyncio
import io
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import aiohttp
import msgspec

from webhook.addresses import parse_url
from webhook.connections import Connections, word_of

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


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one attempt.

    Attributes:
        status: HTTP status of the answer, or None where none came.
        error: None where the attempt succeeded, else a stable word: `http_<status>` where there was an answer, else
            `timeout`, `dns`, `tls`, `connection_refused`, `connection_reset`, `connection_failed`, `unreachable`,
            `address_not_allowed`, `invalid_response` or `invalid_url`.
        retry_after: the answer's `Retry-After` as it came.
        duration_ms: milliseconds from the call of `send` to its return.
    """

    status: int | None
    error: str | None
    retry_after: str | None
    duration_ms: int

    @property
    def delivered(self) -> bool:
        """Whether the subscriber has taken it: 2xx and nothing else."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004

    @property
    def gone(self) -> bool:
        """Whether the subscriber wants nothing more: 410."""
        return self.status == 410  # noqa: PLR2004


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
            target = parse_url(url)
        except ValueError:
            return Outcome(status=None, error="invalid_url", retry_after=None, duration_ms=0)
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._slots,
                self._connections[target.scheme].post(
                    target,
                    data=io.BytesIO(body),  # as bytes it would be written at one go, however large
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


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read a small answer to its end, so that its connection can serve again; give up a long one."""
    left = MAX_ANSWER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while left > 0:
                chunk = await answer.content.read(left)
                if not chunk:
                    return
                left -= len(chunk)
    answer.close()
