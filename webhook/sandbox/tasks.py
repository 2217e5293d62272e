"""The tasks the platform knows: what was asked, how far each is, what its result is, how long it is kept."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .codes import INVALID, Refusal
from .slices import live_slice_at, risk_level_of, slice_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .callbacks import Callback
    from .control import Control
    from .outcomes import Outcome
    from .parameters import Kind, Submission

Json = dict[str, Any]
State = Literal["running", "finished", "failed", "canceled"]

# Beyond it the oldest finished tasks are forgotten before their time, so that load tests fit into memory.
MAX_TASKS = 100_000


@dataclass(kw_only=True, eq=False)
class Task:
    """One accepted submission. Its slices are not stored: they follow from outcome and number.

    Attributes:
        name: of the source, as it chose the outcome.
        url: what `Data.Url` shows.
        segments_url: where the slices' audio is, for live tasks.
        to_fail_with: the code it is going to end with, None where it is going to have a result.
        code: the code it failed with.
        answers: what its submits, queries and cancellations were answered, and fetches of its slices' audio.
        called_back: set once the first callback was tried, or there was none to send.
    """

    task_id: str
    submission: Submission
    outcome: Outcome
    name: str
    url: str
    segments_url: str
    submitted_at: float
    task_id_in_data: bool
    to_fail_with: int | None = None
    state: State = "running"
    code: int | None = None
    finished_at: float | None = None
    slice_count: int = 0
    callbacks: list[Callback] = field(default_factory=list)
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    called_back: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def kind(self) -> Kind:
        """Whether it is a file (`audio`) or a stream (`live`)."""
        return self.submission.kind

    def made_at(self, index: int) -> float:
        """Return when the slice of a stream was made, in seconds since 1970."""
        return self.submitted_at + self.outcome.starts_after_milliseconds(index) / 1000

    def slices(self, first: int = 0) -> list[Json]:
        """Return the slices made so far, from an index on."""
        if self.kind == "audio":
            return [slice_at(self.outcome, index) for index in range(first, self.slice_count)]
        return [
            live_slice_at(self.outcome, index, started_at=self.submitted_at, url=f"{self.segments_url}/{index}.wav")
            for index in range(first, self.slice_count)
        ]

    def data(self, first: int = 0) -> Json:
        """Return `Data` with the slices made so far, from an index on."""
        slices = self.slices(first)
        data: Json = {"TaskId": self.task_id} if self.task_id_in_data else {}
        data["Url"] = self.url
        if self.submission.live_id is not None and self.kind == "live":
            data["LiveId"] = self.submission.live_id
        if self.submission.data_id is not None:
            data["DataId"] = self.submission.data_id
        return {**data, "RiskLevel": risk_level_of(slices), "SliceDetails": slices}


def new_task_id(kind: Kind) -> str:
    """Return an id with the characters that the vendor's have: letters, digits, `@`, `-` and `_`."""
    return f"au_{'l' if kind == 'live' else 'f'}_{secrets.token_hex(9)}-{secrets.token_hex(3)}@{secrets.token_hex(2)}"


class TaskBook:
    """Every task, also those whose results have expired, and which streams are running.

    Args:
        control: how long a result can be queried.
        clock: seconds since 1970.
    """

    def __init__(self, control: Control, *, clock: Callable[[], float]) -> None:
        self._control = control
        self._clock = clock
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._streams: dict[str, Task] = {}
        self.accepted = 0

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._tasks.values()))

    @property
    def running_streams(self) -> int:
        """How many live tasks are running."""
        return len(self._streams)

    def running_stream(self, submission: Submission) -> Task | None:
        """Return the running task of the same service and `liveId`, if there is one."""
        if submission.live_id is None:
            return None
        for task in self._streams.values():
            known = task.submission
            if (known.service, known.live_id) == (submission.service, submission.live_id):
                return task
        return None

    def add(self, task: Task) -> None:
        """Take a task in; it counts as accepted, and so as charged."""
        self.accepted += 1
        self._tasks[task.task_id] = task
        if task.kind == "live":
            self._streams[task.task_id] = task
        if len(self._tasks) > MAX_TASKS:
            oldest = next((known for known in self._tasks.values() if known.finished_at is not None), None)
            if oldest is not None:
                del self._tasks[oldest.task_id]

    def find(self, task_id: str) -> Task | None:
        """Return a task, however old; None where it is unknown."""
        return self._tasks.get(task_id)

    def get(self, task_id: str, kind: Kind) -> Task:
        """Return a task of a kind.

        Raises:
            Refusal: 401, it is unknown, expired, or of the other kind.
        """
        task = self.find(task_id)
        if task is None or task.kind != kind or self._is_expired(task):
            raise Refusal(INVALID, "taskId is unknown or expired")
        return task

    def end(self, task: Task, state: State, *, code: int | None = None) -> None:
        """Bring a running task to its end."""
        task.state, task.code, task.finished_at = state, code, self._clock()
        self._streams.pop(task.task_id, None)

    def _is_expired(self, task: Task) -> bool:
        ended_at = task.finished_at
        return ended_at is not None and self._control.is_over(self._control.config.result_ttl_seconds, since=ended_at)
