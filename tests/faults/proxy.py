"""A connection between two parts of which a test has the wire: it passes, stalls, or is cut."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from typing import Self

_PIECE_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
PASS, STALL, CUT, RESET = "pass", "stall", "cut", "reset"
MODES = (STALL, CUT, RESET)


class Proxy:
    """Forwards what comes to a port of its own; a context manager.

    It passes what comes, holds it (`stall`), refuses connections and cuts those there are (`cut`), or takes them and
    resets them after the first bytes of an answer (`reset`).

    Attributes:
        port: its own.
        target: where it forwards to, set before anybody connects.
    """

    def __init__(self) -> None:
        self.target = ("127.0.0.1", 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._mode = PASS
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """`http://` and its address."""
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode: str) -> None:
        """Change what becomes of connections, those that are there included."""
        self._loop.call_soon_threadsafe(self._set, mode)

    def _set(self, mode: str) -> None:
        self._mode = mode
        if mode == STALL:
            self._passing.clear()
        else:
            self._passing.set()
        if mode in {CUT, RESET}:
            for writer in self._writers:
                _reset(writer)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        taken = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in taken:
            task.cancel()
        await asyncio.gather(*taken, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            if self._mode == CUT:
                return
            far_reader, far = await asyncio.open_connection(*self.target)
            self._writers.add(far)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, far, answers=False))
                both.create_task(self._forward(far_reader, writer, answers=True))
            writer.close()
            far.close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # one side is gone, and so the other goes
        finally:
            for one in (writer, far):
                if one is not None:
                    self._writers.discard(one)
                    if not one.is_closing():
                        _reset(one)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while piece := await reader.read(_PIECE_BYTES):
            await self._passing.wait()
            if answers and self._mode == RESET:
                writer.write(piece[: len(piece) // 2])
                await writer.drain()
                raise ConnectionResetError
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection without a word."""
    with suppress(OSError):
        sock = writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
