"""The service's process, as the demo runs it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from webhook.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

STOP_WITHIN_SECONDS = 20.0


class DemoFailed(ServiceError):
    """A step of the demo failed, or took too long; the message says which."""


async def while_running(process: asyncio.subprocess.Process, story: Coroutine[Any, Any, None]) -> None:
    """Tell the story; it ends early when the service does.

    Raises:
        DemoFailed: the service ended by itself.
    """
    telling, ended = asyncio.create_task(story), asyncio.create_task(process.wait())
    try:
        await asyncio.wait({telling, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise DemoFailed(f"The service ended by itself, with status {process.returncode}.")
        await telling
    finally:
        for task in (telling, ended):
            task.cancel()
        await asyncio.gather(telling, ended, return_exceptions=True)


async def stop(process: asyncio.subprocess.Process) -> None:
    """End the service; what does not end by itself is killed with its children."""
    try:
        with suppress(ProcessLookupError, TimeoutError):
            process.terminate()
            async with asyncio.timeout(STOP_WITHIN_SECONDS):
                await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without settings of a real service, or a proxy that loopback calls would go to."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(("WEBHOOK_", "ALIBABA_CLOUD_", "WEB_CONCURRENCY"))
        and not name.lower().endswith("_proxy")
    }
