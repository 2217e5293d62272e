"""What the sandbox shows of itself: tasks, their callbacks and slices, what was accepted and answered."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .callbacks import Callback
    from .tasks import Task, TaskBook

Json = dict[str, Any]


class Ledger:
    """Counts the answers of every action; accepted submissions are what the vendor charges for."""

    def __init__(self, book: TaskBook) -> None:
        self._book = book
        self._answers: Counter[tuple[str, str]] = Counter()

    def note(self, action: str, code: int | str) -> None:
        """Count an answer by its action and code."""
        self._answers[action, str(code)] += 1

    def totals(self) -> Json:
        """Return what was accepted, answered and called back since the start."""
        answers: dict[str, dict[str, int]] = {}
        for (action, code), count in sorted(self._answers.items()):
            answers.setdefault(action, {})[code] = count
        attempts = [attempt for task in self._book for callback in task.callbacks for attempt in callback.attempts]
        return {
            "accepted": self._book.accepted,
            "running_streams": self._book.running_streams,
            "answers": answers,
            "callback_attempts": len(attempts),
            "callbacks_acknowledged": sum(attempt.acknowledged for attempt in attempts),
        }


def moment(seconds: float | None) -> str | None:
    """Return seconds since 1970 as RFC 3339."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def task_list(tasks: Iterable[Task]) -> Json:
    """Return every task, the newest first, without its slices."""
    return {"items": [task_summary(task) for task in reversed(list(tasks))]}


def task_summary(task: Task) -> Json:
    """Return one task: what was asked, how it ended, how its callbacks went."""
    return {
        "task_id": task.task_id,
        "service": task.submission.service,
        "kind": task.kind,
        "state": task.state,
        "code": task.code,
        "parameters": dict(task.submission.parameters),
        "submitted_at": moment(task.submitted_at),
        "finished_at": moment(task.finished_at),
        "charged": True,
        "slice_count": task.slice_count,
        "callbacks": [_callback(callback) for callback in task.callbacks],
    }


def task_details(task: Task) -> Json:
    """Return one task with its slices."""
    return {**task_summary(task), "slices": task.slices()}


def _callback(callback: Callback) -> Json:
    return {
        "url": callback.url,
        "checksum": callback.checksum,
        "content_bytes": callback.content_bytes,
        "lost": callback.lost,
        "acknowledged": any(attempt.acknowledged for attempt in callback.attempts),
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
