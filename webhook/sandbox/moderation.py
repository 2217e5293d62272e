"""The moderation itself: time passes, slices come about, callbacks go out, the task ends."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from .callbacks import Callback, Sender, checksum, content_of
from .codes import OK, UNREACHABLE, message
from .slices import DEFAULT_SLICES

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .config import SandboxConfig
    from .tasks import Task, TaskBook

# An endless stream goes quiet after so many slices, so that it never fills the memory.
MAX_STREAM_SLICES = 20_000


def envelope(code: int, data: dict[str, Any] | None = None, *, text: str | None = None) -> dict[str, Any]:
    """Return `{Code, Data, Message, RequestId}`, without `Data` where there is none."""
    body = {"Code": code, "Data": data, "Message": text or message(code), "RequestId": str(uuid.uuid4()).upper()}
    if data is None:
        del body["Data"]
    return body


class Moderation:
    """Runs every task beside the requests; `stop` it."""

    def __init__(self, config: SandboxConfig, book: TaskBook, sender: Sender) -> None:
        self._config = config
        self._book = book
        self._sender = sender
        self._jobs: set[asyncio.Task[None]] = set()
        self._streams: dict[str, asyncio.Task[None]] = {}

    def begin(self, task: Task) -> None:
        """Begin to moderate a task that was just accepted."""
        job = self._spawn(self._moderate_stream(task) if task.kind == "live" else self._moderate_file(task))
        if task.kind == "live":
            self._streams[task.task_id] = job
            job.add_done_callback(lambda _: self._streams.pop(task.task_id, None))

    def cancel(self, task: Task) -> None:
        """End a stream; once it is over this changes nothing."""
        if task.state == "running":
            self._book.end(task, "canceled")
            job = self._streams.get(task.task_id)
            if job is not None:
                job.cancel()

    async def stop(self) -> None:
        """End everything under way, resends too."""
        while self._jobs:
            for job in self._jobs:
                job.cancel()
            await asyncio.gather(*self._jobs, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    async def _delay(self, task: Task) -> None:
        seconds = task.outcome.delay_seconds
        if task.outcome.callback != "overtake":
            await asyncio.sleep(self._config.moderation_delay_seconds if seconds is None else seconds)

    async def _moderate_file(self, task: Task) -> None:
        await self._delay(task)
        if task.outcome.code is not None:
            self._fail(task, task.outcome.code)
            return
        task.slice_count = DEFAULT_SLICES if task.outcome.slices is None else task.outcome.slices
        self._book.end(task, "finished")
        self._report(task, envelope(OK, task.data()))

    async def _moderate_stream(self, task: Task) -> None:
        outcome = task.outcome
        if outcome.code is not None:
            await self._delay(task)
            self._fail(task, outcome.code)
            return
        total = outcome.slices
        if total is None:
            total = MAX_STREAM_SLICES if outcome.end == "never" else DEFAULT_SLICES
        reported = 0
        while task.slice_count < total:
            if task.slice_count or outcome.callback != "overtake":
                await asyncio.sleep(outcome.interval_seconds)
            task.slice_count += 1
            if task.slice_count - reported >= outcome.batch or task.slice_count == total:
                self._report(task, envelope(OK, task.data(reported)))
                reported = task.slice_count
        if outcome.end == "break":
            self._fail(task, UNREACHABLE)
        elif outcome.end == "finish":
            self._book.end(task, "finished")
        if total == 0:
            task.called_back.set()

    def _fail(self, task: Task, code: int) -> None:
        self._book.end(task, "failed", code=code)
        self._report(task, envelope(code))

    def _report(self, task: Task, body: dict[str, Any]) -> None:
        """Send a callback for a task, if it asked for any."""
        submission, outcome = task.submission, task.outcome
        if submission.callback is None:
            task.called_back.set()
            return
        content = content_of(body, outcome.shape or self._config.callback_shape)
        callback = Callback(
            url=submission.callback,
            checksum=checksum(
                content,
                uid=self._config.uid,
                seed=f"{submission.seed}_forged" if outcome.forged else submission.seed,
                crypt_type=submission.crypt_type,
                sm3_scheme=self._config.sm3_scheme,
            ),
            content=content,
            content_bytes=len(content.encode()),
            task_id=task.task_id,
            encoding=outcome.encoding or self._config.callback_encoding,
            lost=outcome.callback in {"lost", "none"},
        )
        task.callbacks.append(callback)
        self._spawn(self._deliver(task, callback))

    async def _deliver(self, task: Task, callback: Callback) -> None:
        if not callback.lost:
            await asyncio.sleep(task.outcome.late_seconds)
            first = await self._sender.attempt(callback)
            task.called_back.set()
            if not first.acknowledged:
                await self._sender.resend(callback)
            if task.outcome.callback == "twice":
                await self._sender.attempt(callback)
        task.called_back.set()
        callback.content = ""
