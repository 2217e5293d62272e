"""How callbacks travel: again and again until they are answered 200, or as lost, late or twice as they are to.

Facts (voice-moderation.txt, "callback"): any answer but 200 is a failure, and is followed by up to 16 retries.
"""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING

import aiohttp

from .callbacks import Attempt, encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .callbacks import Callback
    from .control import Control
    from .jobs import Jobs
    from .tasks import Task

# urlencode needs a tenth of a second for so much; more is done beside the event loop
LARGE_CONTENT = 1_000_000


class Courier:
    """Takes callbacks to their receivers; `close` it.

    Args:
        control: intervals and timeouts.
        jobs: where deliveries run.
        clock: seconds since 1970, for the record.
    """

    def __init__(self, control: Control, *, jobs: Jobs, clock: Callable[[], float]) -> None:
        self._control = control
        self._jobs = jobs
        self._clock = clock
        self._held: dict[str, Callback] = {}
        # trust_env stays off: http_proxy must not come between us and loopback
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    def send(self, task: Task, callback: Callback) -> None:
        """Send a callback; a reordered one waits until its successor has gone first."""
        held = self._held.pop(task.task_id, None)
        if callback.way.kind == "reordered" and held is None:
            self._held[task.task_id] = callback
        else:
            self._jobs.spawn(self._deliver(task, callback, then=held))

    def flush(self, task: Task) -> None:
        """Send what waits for a successor that will not come."""
        held = self._held.pop(task.task_id, None)
        if held is not None:
            self._jobs.spawn(self._deliver(task, held))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _deliver(self, task: Task, callback: Callback, *, then: Callback | None = None) -> None:
        way = callback.way
        if way.kind != "lost":
            await asyncio.sleep(way.late_seconds)
            copies = 2 if way.kind == "double" else 1
            await asyncio.gather(*(self._attempt(callback) for _ in range(copies)))
            task.called_back.set()
            if then is not None:
                self._jobs.spawn(self._deliver(task, then))
            await self._resend(callback)
            if way.kind == "twice" and callback.acknowledged:
                await self._attempt(callback)
        task.called_back.set()
        if way.kind == "echo":
            await self._echo(task, callback)
        else:
            callback.content = ""

    async def _echo(self, task: Task, callback: Callback) -> None:
        """Send the callback before this one once more; this one's content is still needed for the same."""
        at = task.callbacks.index(callback)
        if at > 0:
            await self._attempt(task.callbacks[at - 1])

    async def _resend(self, callback: Callback) -> None:
        """Send a callback again until it is acknowledged or the retries are used up."""
        for _ in range(self._control.config.callback_retries):
            if callback.acknowledged:
                return
            await asyncio.sleep(self._control.config.resend_interval_seconds)
            await self._attempt(callback)

    async def _attempt(self, callback: Callback) -> None:
        """Send a callback once and record how it went."""
        at, started = self._clock(), time.monotonic()
        status, error = None, None
        if len(callback.attempts) < callback.way.lost_tries:
            error = "lost"
        else:
            try:
                status = await self._post(callback)
            except (aiohttp.ClientError, TimeoutError, ValueError) as fault:
                error = type(fault).__name__
        callback.attempts.append(
            Attempt(at=at, status=status, error=error, duration_seconds=time.monotonic() - started)
        )

    async def _post(self, callback: Callback) -> int:
        fields = {"checksum": callback.checksum, "content": callback.content, "taskId": callback.task_id}
        if callback.content_bytes > LARGE_CONTENT:
            content_type, body = await asyncio.to_thread(encoded, fields, callback.encoding)
        else:
            content_type, body = encoded(fields, callback.encoding)
        async with self._session.post(
            callback.url,
            # from a file, since aiohttp warns of large bytes
            data=io.BytesIO(body),
            headers={"Content-Type": content_type, "Content-Length": str(len(body))},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=self._control.config.callback_timeout_seconds),
        ) as answer:
            return answer.status
