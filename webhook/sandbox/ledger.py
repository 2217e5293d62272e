"""What the sandbox shows of itself: tasks, their callbacks and slices, what was accepted and answered."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .callbacks import Callback
    from .faults import Drawn, Faults
    from .tasks import Task, TaskBook

Json = dict[str, Any]


class Ledger:
    """Counts the answers of every action; accepted submissions are what the vendor charges for."""

    def __init__(self, book: TaskBook, faults: Faults) -> None:
        self._book = book
        self._faults = faults
        self._answers: Counter[tuple[str, str]] = Counter()

    def note(self, action: str, code: str, task: Task | None = None) -> None:
        """Count an answer by its action and code, for its task too."""
        self._answers[action, code] += 1
        if task is not None:
            task.answers[action, code] += 1

    def totals(self) -> Json:
        """Return what was accepted, answered and called back since the start."""
        attempts = [attempt for task in self._book for callback in task.callbacks for attempt in callback.attempts]
        return {
            "accepted": self._book.accepted,
            "running_streams": self._book.running_streams,
            "answers": _by_action(self._answers),
            "callback_attempts": len(attempts),
            "callbacks_acknowledged": sum(attempt.acknowledged for attempt in attempts),
            "faults": _by_action(self._faults.counts),
        }

    def faults(self) -> Json:
        """Return every random fault, the oldest first."""
        return {"items": [_drawn(drawn) for drawn in self._faults.drawn]}

    def tasks(self, wanted: Mapping[str, str], *, slices: bool) -> Json:
        """Return tasks, the newest first.

        Args:
            wanted: what they all have, such as `source` or `data_id`.
            slices: whether their slices are shown.
        """
        show = task_details if slices else task_summary
        found = [task for task in self._book if all(_SOUGHT[name](task) == value for name, value in wanted.items())]
        return {"items": [show(task) for task in reversed(found)]}


# What tasks can be looked up by.
_SOUGHT = {
    "source": lambda task: task.submission.source,
    "data_id": lambda task: task.submission.data_id,
    "live_id": lambda task: task.submission.live_id,
    "state": lambda task: task.state,
}
SOUGHT = tuple(_SOUGHT)


def moment(seconds: float | None) -> str | None:
    """Return seconds since 1970 as RFC 3339."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def task_summary(task: Task) -> Json:
    """Return one task: what was asked, how it ended, how its callbacks went."""
    submission = task.submission
    return {
        "task_id": task.task_id,
        "service": submission.service,
        "kind": task.kind,
        "source": submission.source,
        "data_id": submission.data_id,
        "live_id": submission.live_id,
        "parameters": dict(submission.parameters),
        # a submit that got a running stream's task is not charged again
        "charged": 1,
        "state": task.state,
        "code": task.code,
        "submitted_at": moment(task.submitted_at),
        "finished_at": moment(task.finished_at),
        "slice_count": task.slice_count,
        "answers": _by_action(task.answers),
        "callbacks": [_callback(callback) for callback in task.callbacks],
    }


def task_details(task: Task) -> Json:
    """Return one task with its slices, as callbacks and queries have them."""
    return {**task_summary(task), "slices": task.slices()}


def _by_action(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    shown: dict[str, dict[str, int]] = {}
    for (action, code), count in sorted(counts.items()):
        shown.setdefault(action, {})[code] = count
    return shown


def _callback(callback: Callback) -> Json:
    return {
        "url": callback.url,
        "checksum": callback.checksum,
        "content_bytes": callback.content_bytes,
        "code": callback.code,
        "first_slice": callback.first_slice,
        "slice_count": callback.slice_count,
        "way": str(callback.way),
        "by_chance": callback.by_chance,
        "lost": callback.way.kind == "lost",
        "acknowledged": callback.acknowledged,
        "attempts": [
            {
                "at": moment(attempt.at),
                "status": attempt.status,
                "error": attempt.error,
                "duration_ms": round(attempt.duration_seconds * 1000, 1),
            }
            for attempt in callback.attempts
        ],
    }


def _drawn(drawn: Drawn) -> Json:
    return {
        "at": moment(drawn.at),
        "point": drawn.point,
        "source": drawn.source,
        "task_id": drawn.task_id,
        "number": drawn.number,
        "fault": drawn.fault,
    }
