"""What becomes of a task by what the platform says of it: the same in whatever order it says so. Pure."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import clock, codes, labels, services
from webhook.codes import Remedy
from webhook.payloads import Result, Slice, better, highest, risk_rank, slice_key
from webhook.store.slices import SlicePage  # noqa: TC001 - likewise
from webhook.store.tasks import LabelSummary, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NONE = "none"  # the level of what nothing was found in
_FINAL_STATES = frozenset({"completed", "failed", "canceled", "expired"})


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform says of a task.

    Attributes:
        result: None where it is not understood.
        ends_stream: whether a code of 200 says that a stream is over, as the answer of a query does.
    """

    result: Result | None
    received_at: datetime
    ends_stream: bool = False


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """What some results change in a task's slices.

    Attributes:
        labels: the task's label summary afterwards.
        risk_level: the highest of the task's slices afterwards.
        pages: pages to insert; the ones they replace are deleted already.
        flagged: slices that reach the flag level for the first time, in time order.
        fresh_count: slices of stretches of time that were not there before.
        has_slices: whether any came, were they all known.
        tail: the slices at the task's end in which nobody speaks; None where what came is not its end.
        links: to the audio of flagged slices, by `slice_key`, where there was none or no flag before.
    """

    labels: tuple[LabelSummary, ...]
    risk_level: str | None
    pages: list[SlicePage] = []
    flagged: list[Slice] = []
    fresh_count: int = 0
    has_slices: bool = False
    tail: list[Slice] | None = None
    links: dict[bytes, str] = {}


def advance(task: Task, reports: Sequence[Report], merge: Merge) -> Task:
    """Return the task after these results."""
    results = [report.result for report in reports if report.result is not None]
    if task.origin == "external":
        task = _identified(task, results)
    received_at = max(report.received_at for report in reports)
    stated = highest([task.stated_risk_level, *map(_stated_level, results)])
    has_result = bool(task.slice_count or merge.has_slices) or stated is not None
    state, error = _next_state(task, reports, has_result=has_result)
    finished = state in _FINAL_STATES
    live = task.kind == "live"
    return msgspec.structs.replace(
        task,
        state=state,
        error=error,
        platform_task_id=task.platform_task_id or next((r.task_id for r in results if r.task_id), None),
        risk_level=highest((merge.risk_level, stated)),
        stated_risk_level=stated,
        labels=merge.labels,
        slice_count=task.slice_count + merge.fresh_count,
        flagged_slice_count=task.flagged_slice_count + len(merge.flagged),
        last_slice_at=received_at if merge.fresh_count else task.last_slice_at,
        # A callback that overtakes the submit's answer proves that the platform took the task.
        submitted_at=task.submitted_at or (received_at if task.origin == "submitted" else None),
        finished_at=(received_at if state != task.state else task.finished_at) if finished else None,
        updated_at=received_at
        if merge.pages or (state, stated) != (task.state, task.stated_risk_level)
        else task.updated_at,
        # Until it is over it is asked for, or waits for its call: nothing that comes before puts that off.
        next_attempt_at=None if finished else task.next_attempt_at,
        started_at=task.started_at or (received_at if live and _runs(results) else None),
        answered_at=received_at,
        silent_since=_silent_since(task, merge, received_at=received_at) if live else None,
    )


def _stated_level(result: Result) -> str | None:
    """Return what a result says of the task as a whole: while it is in progress, none found yet is none known."""
    return None if result.code == codes.IN_PROGRESS and result.risk_level == _NONE else result.risk_level


def _runs(results: Iterable[Result]) -> bool:
    """Whether the platform tells that it works on a stream, or has worked on it."""
    return any(result.has_data or result.code in {codes.OK, codes.IN_PROGRESS} for result in results)


def _silent_since(task: Task, merge: Merge, *, received_at: datetime) -> datetime | None:
    """Return since when nobody speaks, by the slices at the stream's end."""
    if merge.tail is None:
        return task.silent_since
    if not merge.tail:
        return None
    began = merge.tail[0].start_timestamp
    since = (None if began is None else clock.from_milliseconds(began)) or received_at
    return min(since, task.silent_since or since)


def _identified(task: Task, results: Sequence[Result]) -> Task:
    """Return an external task as all its results together describe it, in whatever order they come."""
    live_id = _least([task.live_id, *(result.live_id for result in results)])
    url = _least([task.source.get("url"), *(result.url for result in results)])
    kind = "audio" if live_id is None else "live"
    return msgspec.structs.replace(
        task,
        kind=kind,
        service=services.DEFAULTS[kind],
        live_id=live_id,
        data_id=_least([task.data_id, *(result.data_id for result in results)]),
        source={} if url is None else {"url": url},
        # what seemed a file that was done is a stream, which no callback ends
        state="processing" if kind != task.kind and task.state == "completed" and not task.error else task.state,
    )


def _least(words: Iterable[str | None]) -> str | None:
    return min((word for word in words if word is not None), default=None)


def _next_state(task: Task, reports: Sequence[Report], *, has_result: bool) -> tuple[str, dict[str, Any] | None]:
    """Return the state and error after some results: the same in whatever order they come.

    A stream is not ended by a callback with code 200: the query decides that it is over. A result
    counts even after the task was given up; a task that breaks after some results is completed with them.

    Args:
        has_result: whether the task has anything to show by now, these results included.
    """
    state, error = task.state, task.error
    results = [report.result for report in reports if report.result is not None]
    answered = any(result.has_data and result.code in {None, codes.OK} for result in results)
    over = any(report.ends_stream and report.result and report.result.code == codes.OK for report in reports)
    if state == "canceled" or (state == "completed" and error is None):
        return state, error
    if over or (answered and task.kind == "audio"):
        return "completed", None
    if state == "expired":
        return ("completed" if answered else state), error
    broken = state in _FINAL_STATES
    failures = [_failure(result.code) for result in results if _fails(result)]
    if not broken and not failures:
        return "processing", error
    known = [error] if broken and error else []
    return ("completed" if has_result else "failed"), min([*known, *failures], key=_precedence, default=None)


def _fails(result: Result) -> bool:
    return not result.has_data and codes.code_of(result.code).remedy not in {Remedy.PROCEED, Remedy.ASK_LATER}


def _failure(code: int | None) -> dict[str, Any]:
    row = codes.code_of(code)
    return {"code": code, "reason": row.reason, "message": row.message}


def _precedence(error: dict[str, Any]) -> tuple[bool, int]:
    """Order errors: what the platform says comes before what we concluded ourselves."""
    code = error.get("code")
    return code is None, code or 0


def count_labels(start: Iterable[LabelSummary], slices: Iterable[Slice]) -> tuple[LabelSummary, ...]:
    """Add the labels of some slices to a summary; the gravest come first."""
    tally: dict[str, list[Any]] = {each.label: [each.risk_level, each.confidence, each.slices] for each in start}
    for piece in slices:
        seen: set[str] = set()
        for finding in piece.results:
            label, level, confidence = finding.label, finding.risk_level, finding.confidence
            if label is None:
                continue
            entry = tally.get(label)
            if entry is None:
                entry = tally[label] = [level, confidence, 0]
            if level != entry[0]:
                entry[0] = highest((entry[0], level))
            if confidence is not None and (entry[1] is None or confidence > entry[1]):
                entry[1] = confidence
            if label not in seen:
                entry[2] += 1
                seen.add(label)
    summary = [
        LabelSummary(label=label, risk_level=level, confidence=confidence, slices=count)
        for label, (level, confidence, count) in tally.items()
    ]
    return tuple(sorted(summary, key=lambda label: (-risk_rank(label.risk_level), label.label)))


def gather(reports: Iterable[Report]) -> tuple[dict[bytes, Slice], dict[bytes, str]]:
    """Return the slices that came, each in its best version, and the links of those of which any version has one."""
    slices: dict[bytes, Slice] = {}
    links: dict[bytes, str] = {}
    for report in reports:
        for piece in report.result.slices if report.result else ():
            key = slice_key(piece)
            other = slices.get(key)
            slices[key] = piece if other is None else better(other, piece)
            if piece.url:
                links.setdefault(key, piece.url)
    return slices, links


def quiet_tail(slices: Sequence[Slice]) -> list[Slice]:
    """Return the last slices, in time order, as far as nobody speaks in them."""
    quiet: list[Slice] = []
    for piece in reversed(slices):
        if not any(finding.label == labels.SILENCE for finding in piece.results):
            break
        quiet.insert(0, piece)
    return quiet
