"""HTTP/1.1 between the benchmarks and what they measure, as cheap as it can be had, whichever side it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable


class Http(asyncio.Protocol):
    """One connection: whole messages in, by Content-Length.

    Args:
        received: called with the connection, the head and the body of each message.
    """

    def __init__(self, received: Callable[[Http, bytes, bytes], None]) -> None:
        self._received = received
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = 0 if at < 0 else int(lower[at + 15 :].split(b"\r\n", 1)[0])
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._received(self, head, rest[:length])


async def connect(port: int, count: int, received: Callable[[Http, bytes, bytes], None]) -> list[Http]:
    """Return so many connections to a port of this machine."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Http(received), "127.0.0.1", port))[1] for _ in range(count)]
