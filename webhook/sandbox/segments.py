"""The audio of streams' slices: to be fetched for half an hour, and not always as one would wish."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from . import audio

if TYPE_CHECKING:
    from .control import Control
    from .faults import Faults
    from .ledger import Ledger
    from .outcomes import Fault
    from .tasks import TaskBook

MEGABYTE = bytes(1_000_000)
# A slow one comes in so many pieces.
PIECES = 60
# In the query of a link to which another one leads.
STRAIGHT = "straight"


class Segments:
    """Serves the audio of slices.

    Args:
        control: how long their links are good.
        book: where tasks are kept.
        faults: counts what was asked for so many times.
        ledger: where fetches are counted.
        stopping: set when the sandbox stops.
    """

    def __init__(
        self, control: Control, *, book: TaskBook, faults: Faults, ledger: Ledger, stopping: asyncio.Event
    ) -> None:
        self._control = control
        self._book = book
        self._faults = faults
        self._ledger = ledger
        self._stopping = stopping

    def routes(self) -> list[web.RouteDef]:
        """Return its route."""
        return [web.get("/segments/{task_id}/{index:[0-9]{1,6}}.wav", self._segment, allow_head=False)]

    async def _segment(self, request: web.Request) -> web.StreamResponse:
        task = self._book.find(request.match_info["task_id"])
        index = int(request.match_info["index"])
        if task is None or task.kind != "live" or index >= task.slice_count:
            self._ledger.note("Segment", "404")
            raise web.HTTPNotFound
        if self._control.is_over(self._control.config.segment_ttl_seconds, since=task.made_at(index)):
            self._ledger.note("Segment", "403", task)
            raise web.HTTPForbidden
        fault = None
        if STRAIGHT not in request.query:
            fault = self._faults.due("segment", task.outcome.segment, request.path)
        self._ledger.note("Segment", _name(fault), task)
        sound = audio.wav(f"slice {index}".encode(), hertz=220 + 55 * (index % 12))
        if fault is None:
            return web.Response(body=sound, content_type="audio/wav")
        return await self._faulty(request, fault, sound)

    async def _faulty(self, request: web.Request, fault: Fault, sound: bytes) -> web.StreamResponse:
        if fault.kind == "status":
            return web.Response(status=fault.value)
        if fault.kind == "html":
            return web.Response(text="<html><body>Not a sound</body></html>", content_type="text/html")
        if fault.kind == "redirect":
            raise web.HTTPFound(f"{request.path}?{STRAIGHT}")
        response = web.StreamResponse(headers={"Content-Type": "audio/wav"})
        if fault.kind == "slow":
            response.content_length = len(sound)
        # who fetches may leave before the end, and so may we
        with suppress(ConnectionError):
            await response.prepare(request)
            await (self._trickle if fault.kind == "slow" else self._flood)(response, fault, sound)
        return response

    async def _trickle(self, response: web.StreamResponse, fault: Fault, sound: bytes) -> None:
        """Send a sound in small pieces, so that no wait between two of them is long."""
        step = len(sound) // PIECES + 1
        for start in range(0, len(sound), step):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), fault.value / PIECES)
            if self._stopping.is_set():
                return
            await response.write(sound[start : start + step])

    async def _flood(self, response: web.StreamResponse, fault: Fault, sound: bytes) -> None:
        """Send a sound of no declared length that is followed by far too much."""
        await response.write(sound)
        for _ in range(fault.value):
            if self._stopping.is_set():
                return
            await response.write(MEGABYTE)


def _name(fault: Fault | None) -> str:
    if fault is None:
        return "200"
    return str(fault.value) if fault.kind == "status" else fault.kind
