"""The sandbox as an HTTP server: its parts put together, its start and its stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from .api import Platform
from .authorization import Authorizer
from .config import SandboxConfig
from .control import Control
from .courier import Courier
from .faults import Faults
from .gateway import Gateway
from .jobs import Jobs
from .ledger import Ledger
from .magic import MAGIC
from .moderation import Moderation
from .segments import Segments
from .tasks import TaskBook
from .uploads import ObjectStore
from .views import Views

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAGIC", "RunningSandbox", "SandboxConfig", "run", "start"]

# An API call is a few KB; uploads are streamed and have a limit of their own.
MAX_CALL_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RunningSandbox:
    """A sandbox that listens.

    Attributes:
        port: the port it got.
        url: its base URL.
    """

    port: int
    url: str
    _site: _Site

    async def stop(self) -> None:
        """End everything under way, then close the listener and every connection."""
        await self._site.stop()


async def start(config: SandboxConfig | None = None, *, clock: Callable[[], float] = time.time) -> RunningSandbox:
    """Start a sandbox in the running event loop.

    Args:
        config: how it behaves; without it everything is at its default.
        clock: seconds since 1970; what results, uploads and signatures age by.

    Raises:
        OSError: the address cannot be listened on.
    """
    config = config or SandboxConfig()
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.create_server((config.host, config.port), family=family, backlog=1024)
    port: int = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    url = (config.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}").rstrip("/")
    site = _Site(config, url=url, clock=clock)
    await site.start(listener)
    return RunningSandbox(port=port, url=url, _site=site)


def run(config: SandboxConfig | None = None) -> None:
    """Run a sandbox until SIGTERM or SIGINT; its address is the one line on standard output.

    Raises:
        OSError: the address cannot be listened on.
    """
    asyncio.run(_run(config))


async def _run(config: SandboxConfig | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    sandbox = await start(config)
    try:
        sys.stdout.write(f"sandbox: {sandbox.url}\n")
        sys.stdout.flush()
        await stopped.wait()
    finally:
        await sandbox.stop()


class _Site:
    """The parts, and what of them is to be ended."""

    def __init__(self, config: SandboxConfig, *, url: str, clock: Callable[[], float]) -> None:
        control = Control(config, clock=clock)
        faults = Faults(control, clock=clock)
        book = TaskBook(control, clock=clock)
        ledger = Ledger(book, faults)
        self._stopping = asyncio.Event()
        self._jobs = Jobs()
        self._store = ObjectStore(control, clock=clock)
        self._courier = Courier(control, jobs=self._jobs, clock=clock)
        moderation = Moderation(control, book=book, courier=self._courier, faults=faults, jobs=self._jobs)
        platform = Platform(
            control, book=book, moderation=moderation, store=self._store, faults=faults, url=url, clock=clock
        )
        authorizer = Authorizer(key_id=config.access_key_id, key_secret=config.access_key_secret, clock=clock)
        gateway = Gateway(
            platform, authorizer=authorizer, store=self._store, ledger=ledger, url=url, stopping=self._stopping
        )
        segments = Segments(control, book=book, faults=faults, ledger=ledger, stopping=self._stopping)
        views = Views(control, book=book, ledger=ledger, url=url)
        application = web.Application(client_max_size=MAX_CALL_BYTES)
        application.add_routes([*views.routes(), *segments.routes(), *gateway.routes()])
        # little grace: what is still unanswered when the sandbox stops was meant to hang
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def start(self, listener: socket.socket) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        self._stopping.set()
        await self._runner.cleanup()
        await self._jobs.stop()
        await self._courier.close()
        self._store.close()
