"""The moderation itself: time passes, slices come about, callbacks go out, the task ends."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from .callbacks import Callback, checksum, content_of
from .codes import OK, message
from .faults import WAYS
from .outcomes import Way
from .slices import DEFAULT_SLICES

if TYPE_CHECKING:
    from .control import Control
    from .courier import Courier
    from .faults import Faults
    from .jobs import Jobs
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
    """Runs every task beside the requests.

    Args:
        control: delays, and what callbacks look like.
        book: where tasks are kept.
        courier: takes the callbacks away.
        faults: what befalls callbacks.
        jobs: where tasks run.
    """

    def __init__(self, control: Control, *, book: TaskBook, courier: Courier, faults: Faults, jobs: Jobs) -> None:
        self._control = control
        self._book = book
        self._courier = courier
        self._faults = faults
        self._jobs = jobs
        self._streams: dict[str, asyncio.Task[None]] = {}

    def begin(self, task: Task) -> None:
        """Begin to moderate a task that was just accepted."""
        job = self._jobs.spawn(self._moderate_stream(task) if task.kind == "live" else self._moderate_file(task))
        job.add_done_callback(lambda _: self._courier.flush(task))
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

    async def _delay(self, task: Task) -> None:
        seconds = task.outcome.delay_seconds
        if task.outcome.callback.kind != "overtake":
            await asyncio.sleep(self._control.config.moderation_delay_seconds if seconds is None else seconds)

    async def _moderate_file(self, task: Task) -> None:
        await self._delay(task)
        if task.to_fail_with is not None:
            self._fail(task, task.to_fail_with)
            return
        task.slice_count = DEFAULT_SLICES if task.outcome.slices is None else task.outcome.slices
        self._book.end(task, "finished")
        self._report(task, OK, first=0)

    async def _moderate_stream(self, task: Task) -> None:
        outcome = task.outcome
        if task.to_fail_with is not None:
            await self._delay(task)
            self._fail(task, task.to_fail_with)
            return
        total = outcome.slices
        if total is None:
            total = MAX_STREAM_SLICES if outcome.end == "never" else DEFAULT_SLICES
        await self._make_slices(task, total)
        if outcome.end == "break":
            self._fail(task, outcome.end_code)
        elif outcome.end == "finish":
            self._book.end(task, "finished")
        if total == 0:
            task.called_back.set()

    async def _make_slices(self, task: Task, total: int) -> None:
        outcome, reported = task.outcome, 0
        while task.slice_count < total:
            if task.slice_count or outcome.callback.kind != "overtake":
                await asyncio.sleep(outcome.interval_seconds)
            if outcome.gap is not None and outcome.gap.after == task.slice_count:
                await asyncio.sleep(outcome.gap.seconds)
            task.slice_count += 1
            if task.slice_count - reported >= outcome.batch or task.slice_count == total:
                self._report(task, OK, first=reported)
                reported = task.slice_count

    def _fail(self, task: Task, code: int) -> None:
        self._book.end(task, "failed", code=code)
        self._report(task, code)

    def _report(self, task: Task, code: int, *, first: int | None = None) -> None:
        """Send a callback for a task, if it asked for any.

        Args:
            task: what it is about.
            code: the code in it.
            first: index of the first slice in it; None for one without `Data`.
        """
        submission, outcome, config = task.submission, task.outcome, self._control.config
        if submission.callback is None:
            task.called_back.set()
            return
        body = envelope(code, None if first is None else task.data(first))
        content = content_of(body, outcome.shape or config.callback_shape)
        drawn = self._drawn_way(task)
        callback = Callback(
            url=submission.callback,
            checksum=checksum(
                content,
                uid=config.uid,
                seed=f"{submission.seed}_forged" if outcome.forged else submission.seed,
                crypt_type=submission.crypt_type,
                sm3_scheme=config.sm3_scheme,
            ),
            content=content,
            content_bytes=len(content.encode()),
            task_id=task.task_id,
            encoding=outcome.encoding or config.callback_encoding,
            code=code,
            first_slice=first or 0,
            slice_count=0 if first is None else task.slice_count - first,
            way=drawn or outcome.callback,
            by_chance=drawn is not None,
        )
        task.callbacks.append(callback)
        self._courier.send(task, callback)

    def _drawn_way(self, task: Task) -> Way | None:
        """Return a random way for a callback, unless the source asks for one."""
        if task.outcome.callback != Way():
            return None
        probability = task.outcome.faults
        return self._faults.draw("callback", WAYS, source=task.name, probability=probability, task_id=task.task_id)
