"""A small receiver of callbacks: keeps the bytes of each, answers what the test asks for."""

from __future__ import annotations

import queue
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Received:
    """One callback as it came in."""

    content_type: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def form(self) -> dict[str, str]:
        fields = parse_qs(self.body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")
        assert all(len(values) == 1 for values in fields.values())
        return {name: values[0] for name, values in fields.items()}


class Receiver:
    """Listens on a free port of loopback."""

    def __init__(self) -> None:
        self.received: queue.Queue[Received] = queue.Queue()
        self.statuses: deque[int] = deque()
        self.redirected = 0
        self.url = ""

    async def start(self) -> None:
        application = web.Application(client_max_size=0)
        application.add_routes([web.post("/callback", self._take), web.route("*", "/elsewhere", self._elsewhere)])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/callback"

    async def stop(self) -> None:
        await self._runner.cleanup()

    def next(self, seconds: float = 5) -> Received:
        """Return the next callback; queue.Empty where none comes in time."""
        return self.received.get(timeout=seconds)

    def nothing_for(self, seconds: float) -> bool:
        """Say whether no callback comes within so many seconds."""
        try:
            self.received.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    async def _take(self, request: web.Request) -> web.Response:
        self.received.put(
            Received(content_type=request.content_type, body=await request.read(), headers=dict(request.headers))
        )
        status = self.statuses.popleft() if self.statuses else 200
        headers: dict[str, Any] = {"Location": "/elsewhere"} if status in {301, 302, 307} else {}
        return web.Response(status=status, headers=headers)

    async def _elsewhere(self, _request: web.Request) -> web.Response:
        self.redirected += 1
        return web.Response()
