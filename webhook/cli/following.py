"""A task followed to its end, and what of its slices is new each time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.cli.client import Client

Json = dict[str, Any]

FINAL_STATES = ("completed", "failed", "canceled", "expired")

_SHORTEST_GAP_SECONDS = 0.25
_LONGEST_GAP_SECONDS = 2.0
_GAP_GROWTH = 1.5
_PAGE_ITEMS = 200

SliceKey = tuple[int | None, int | None, int | None, int | None]


def task_path(task_id: str) -> str:
    """Return where a task is."""
    return f"/v1/tasks/{quote(task_id, safe='')}"


def stream_path(task_id: str) -> str:
    """Return where a stream is."""
    return f"/v1/streams/{quote(task_id, safe='')}"


def verdict_path(task_id: str) -> str:
    """Return where a task's verdict is."""
    return f"/v1/verdicts/{quote(task_id, safe='')}"


def slices_path(task_id: str) -> str:
    """Return where a task's slices are."""
    return f"{verdict_path(task_id)}/slices"


def follow(client: Client, path: str, *, deadline: float | None) -> Iterator[Json]:
    """Yield a task as it is now, again and again, until it is over or the time is.

    The gaps are short while it changes, and grow while it does not.

    Args:
        path: where the task or stream is.
        deadline: on the monotonic clock; None waits as long as it takes.

    Raises:
        Unanswered, Refused: it can no longer be seen.
    """
    before: Json | None = None
    gap = _SHORTEST_GAP_SECONDS
    while True:
        last = deadline is not None and time.monotonic() >= deadline
        task = client.get(path, deadline=deadline)
        yield task
        if last or task["state"] in FINAL_STATES:
            return
        gap = _SHORTEST_GAP_SECONDS if task != before else min(gap * _GAP_GROWTH, _LONGEST_GAP_SECONDS)
        before = task
        time.sleep(gap if deadline is None else max(0.0, min(gap, deadline - time.monotonic())))


def standing(task: Json) -> str:
    """Return in a few words how a task stands."""
    before = (task.get("queue_position") or 1) - 1
    if task["state"] == "queued" and before:
        return f"queued, {before} before it"
    if task["state"] == "processing" and task["slice_count"]:
        return f"processing, {task['slice_count']} slices so far"
    return str(task["state"])


class NewSlices:
    """Reads a task's slices, each once, and once more when its risk level has changed.

    Args:
        task_id: whose.
    """

    def __init__(self, client: Client, task_id: str) -> None:
        self._client = client
        self._path = slices_path(task_id)
        self._seen: dict[SliceKey, str | None] = {}
        self._counts: Any = (0, 0, None)
        self._cursor: str | None = None

    def read(self, task: Json, *, deadline: float | None = None) -> Iterator[Json]:
        """Yield what is new, in time order.

        Args:
            task: as it is now; where its counts are those of the last time, nothing is asked for.
        """
        counts = (task["slice_count"], task["flagged_slice_count"], task["risk_level"])
        if counts == self._counts:
            return
        yield from self._read_on(deadline)
        if len(self._seen) < task["slice_count"]:  # one came late, for a time before what was read last
            self._cursor = None
            yield from self._read_on(deadline)
        self._counts = counts

    def _read_on(self, deadline: float | None) -> Iterator[Json]:
        """Read from the last page that was full; the one behind it may have grown."""
        while True:
            page = self._client.get(self._path, deadline=deadline, limit=_PAGE_ITEMS, cursor=self._cursor)
            for one in page["items"]:
                key = (one["start_time"], one["end_time"], one["start_timestamp"], one["end_timestamp"])
                if key not in self._seen or self._seen[key] != one["risk_level"]:
                    self._seen[key] = one["risk_level"]
                    yield one
            if page["next_cursor"] is None:
                return
            self._cursor = page["next_cursor"]
