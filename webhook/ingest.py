"""Verified results into slices, verdict and events: once, however often and in whatever order they come.

`accept` takes a batch of verified callbacks inside one transaction. A callback is new by a unique
index over its address and the digest of its content; only new ones change a task. The order of
callbacks does not matter: of two versions of a slice the better one stays (`payloads.better`), and
levels, counts and labels are those of the slices that stay.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import clock, codes
from webhook.codes import Remedy
from webhook.payloads import Result, Slice, better, highest, risk_rank, slice_key
from webhook.shapes import slice_shape, task_shape, verdict_shape
from webhook.store import callbacks as callback_store
from webhook.store import events as event_store
from webhook.store import slices as slice_store
from webhook.store import tasks as task_store
from webhook.store.callbacks import Callback
from webhook.store.events import EventRow
from webhook.store.slices import SlicePage
from webhook.store.tasks import LabelSummary, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.store.tasks import Address

SERVICES = {"audio": "audio_detection_byllm_global", "live": "live_detection_byllm_global"}

_PAGE_SLICES = 200  # about 40 KB of JSON: what one request for slices shows at the most
_FINAL_STATES = frozenset({"completed", "failed", "canceled", "expired"})
_SLICES = msgspec.json.Decoder(tuple[Slice, ...])


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A verified callback on its way into the store.

    Attributes:
        digest: SHA-256 of the content; with the address, what makes the callback the same.
        stated_task_id: the form's taskId, which nothing vouches for.
        result: the parsed content, or None where it is not understood.
        problem: why it is not understood.
        callback_id: of a callback that was kept before; None makes one.
    """

    address: Address
    content: bytes
    digest: bytes
    checksum: str
    stated_task_id: str | None
    result: Result | None
    problem: str | None
    received_at: datetime
    callback_id: str | None = None


class Ingest:
    """Writes verified results.

    Args:
        keyring: seals what is stored.
        flag_level: slices at or above it raise `slice.flagged`.
        now: the time of events.
    """

    def __init__(
        self, keyring: Keyring, *, flag_level: str = "medium", now: Callable[[], datetime] = clock.now
    ) -> None:
        self._keyring = keyring
        self._flag_rank = risk_rank(flag_level)
        self._now = now

    def accept(self, session: Session, arrivals: Sequence[Arrival]) -> list[str | None]:
        """Store a batch of callbacks with all that follows from them.

        Returns:
            For each arrival the id of its new callback, or None where the same one was stored before.
        """
        ids = [arrival.callback_id or clock.new_id("cb", arrival.received_at) for arrival in arrivals]
        task_ids = [_task_id(arrival) for arrival in arrivals]
        rows = [self._callback(*row) for row in zip(ids, task_ids, arrivals, strict=True)]
        new = callback_store.insert_callbacks(session, rows)
        results: dict[str, list[Arrival]] = {}
        events: list[EventRow] = []
        for callback_id, task_id, arrival in zip(ids, task_ids, arrivals, strict=True):
            if callback_id not in new:
                continue
            if arrival.result is None or task_id is None:
                events.append(self._rejected(callback_id, task_id, arrival))
            else:
                results.setdefault(task_id, []).append(arrival)
        self._apply(session, results, events)
        return [callback_id if callback_id in new else None for callback_id in ids]

    def event(self, type_: str, data: dict[str, Any], *, task_id: str | None = None) -> EventRow:
        """Make an event, sealed, ready to be inserted beside its fact."""
        return self._event(type_, msgspec.json.encode(data), task_id)

    def task_event(self, type_: str, task: Task) -> EventRow:
        """Make a `task.*` event, with the verdict as it is now."""
        return self.event(type_, {"task": task_shape(task), "verdict": verdict_shape(task)}, task_id=task.id)

    def open_slices(self, page: SlicePage) -> tuple[Slice, ...]:
        """Return the slices of a page, in time order.

        Raises:
            DecryptionError: the page does not open.
        """
        body = self._keyring.open(page.body, table="slice_pages", column="body", row=_page_row(page))
        return _SLICES.decode(body)

    def _event(self, type_: str, data: bytes, task_id: str | None) -> EventRow:
        now = self._now()
        event_id = clock.new_id("evt", now)
        sealed = self._keyring.seal(data, table="events", column="data", row=event_id)
        return EventRow(id=event_id, type=type_, task_id=task_id, created_at=now, data=sealed)

    def _callback(self, callback_id: str, task_id: str | None, arrival: Arrival) -> Callback:
        return Callback(
            id=callback_id,
            address_id=arrival.address.id,
            task_id=task_id,
            state="unreadable" if arrival.result is None else "accepted",
            digest=arrival.digest,
            checksum=arrival.checksum,
            stated_task_id=arrival.stated_task_id,
            reason="unreadable" if arrival.result is None else None,
            message=arrival.problem,
            content=self._keyring.seal(arrival.content, table="callbacks", column="content", row=callback_id),
            size=len(arrival.content),
            received_at=arrival.received_at,
        )

    def _rejected(self, callback_id: str, task_id: str | None, arrival: Arrival) -> EventRow:
        shape = {
            "id": callback_id,
            "task_id": task_id,
            "state": "unreadable",
            "reason": "unreadable",
            "message": arrival.problem,
            "received_at": clock.rfc3339(arrival.received_at),
        }
        return self.event("callback.rejected", {"callback": shape}, task_id=task_id)

    def _apply(self, session: Session, results: dict[str, list[Arrival]], events: list[EventRow]) -> None:
        """Work the new results of each task into it, and write all that changed."""
        tasks = task_store.tasks_by_id(session, results)
        made: list[Task] = []
        changed: list[Task] = []
        labels: list[tuple[str, str]] = []
        pages: list[SlicePage] = []
        for task_id in sorted(results):
            arrivals = results[task_id]
            before = tasks.get(task_id) or _external_task(task_id, arrivals[0])
            merge = self._merge_slices(session, before, arrivals)
            after = _advance(before, arrivals, merge)
            if task_id in tasks:
                changed.append(after)
                self._note_identity(session, before, after)
            else:
                made.append(after)
            known = {label.label for label in before.labels}
            labels += [(label.label, task_id) for label in after.labels if label.label not in known]
            pages += merge.pages
            events += self._events(before, after, merge)
        task_store.insert_tasks(session, made)
        task_store.update_results(session, changed)
        task_store.add_labels(session, labels)
        slice_store.insert_pages(session, pages)
        event_store.insert_events(session, events)

    @staticmethod
    def _note_identity(session: Session, before: Task, after: Task) -> None:
        """Write what a later callback told of an external task; rarely anything."""
        names = ("kind", "service", "live_id", "data_id", "source")
        told = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
        if told:
            task_store.update_task(session, after.id, **told)

    def _merge_slices(self, session: Session, task: Task, arrivals: Iterable[Arrival]) -> _Merge:
        """Merge new slices with those stored in the same stretch of time; the pages touched are written anew."""
        incoming: dict[bytes, Slice] = {}
        for arrival in arrivals:
            for piece in arrival.result.slices if arrival.result else ():
                key = slice_key(piece)
                other = incoming.get(key)
                incoming[key] = piece if other is None else better(other, piece)
        if not incoming:
            return _Merge(labels=task.labels, risk_level=task.risk_level)
        stored: dict[bytes, Slice] = {}
        if task.slice_count:
            touched = slice_store.overlapping_pages(session, task.id, first_key=min(incoming), last_key=max(incoming))
            for page in touched:
                stored.update((slice_key(piece), piece) for piece in self.open_slices(page))
            slice_store.delete_pages(session, touched)
        merged = stored | incoming
        replaced = False
        for key in stored.keys() & incoming.keys():
            merged[key] = better(stored[key], incoming[key])
            replaced |= merged[key] is not stored[key]
        fresh = [piece for key, piece in incoming.items() if key not in stored]
        flagged = sorted(
            (key, piece)
            for key, piece in incoming.items()
            if self._reaches_flag_level(piece) and not (key in stored and self._reaches_flag_level(stored[key]))
        )
        pages = self._pages(task.id, sorted(merged.items()))
        if replaced:
            # A label or level may have gone with the version that bore it, so all slices are counted again.
            elsewhere = [piece for page in slice_store.pages(session, task.id) for piece in self.open_slices(page)]
            every = [*elsewhere, *merged.values()]
            labels, risk_level = _count_labels((), every), highest({piece.risk_level for piece in every})
        else:
            labels = _count_labels(task.labels, fresh)
            risk_level = highest({task.risk_level, *[piece.risk_level for piece in fresh]})
        return _Merge(
            labels=labels,
            risk_level=risk_level,
            pages=pages,
            flagged=[piece for _, piece in flagged],
            fresh_count=len(fresh),
            incoming=list(incoming.values()),
        )

    def _reaches_flag_level(self, piece: Slice) -> bool:
        return risk_rank(piece.risk_level) >= self._flag_rank

    def _pages(self, task_id: str, slices: Sequence[tuple[bytes, Slice]]) -> list[SlicePage]:
        pages = []
        for start in range(0, len(slices), _PAGE_SLICES):
            part = slices[start : start + _PAGE_SLICES]
            page = SlicePage(
                task_id=task_id, first_key=part[0][0], last_key=part[-1][0], slice_count=len(part), body=b""
            )
            body = msgspec.json.encode([piece for _, piece in part])
            sealed = self._keyring.seal(body, table="slice_pages", column="body", row=_page_row(page))
            pages.append(msgspec.structs.replace(page, body=sealed))
        return pages

    def _events(self, before: Task, after: Task, merge: _Merge) -> list[EventRow]:
        submitted = before.submitted_at is None and after.submitted_at is not None and after.origin == "submitted"
        over = after.state != before.state and after.state in {"completed", "failed"}
        if not (submitted or over or merge.flagged):
            return []
        task = msgspec.Raw(msgspec.json.encode(task_shape(after)))  # the same in all of them: written once
        with_verdict = {"task": task, "verdict": verdict_shape(after)}
        events = []
        if submitted:
            events.append(self.event("task.submitted", with_verdict, task_id=after.id))
        events += [
            self.event("slice.flagged", {"task": task, "slice": slice_shape(piece)}, task_id=after.id)
            for piece in merge.flagged
        ]
        if over:
            events.append(self.event(f"task.{after.state}", with_verdict, task_id=after.id))
        return events


class _Merge(msgspec.Struct, frozen=True, kw_only=True):
    """What some results change in a task's slices.

    Attributes:
        labels: the task's label summary afterwards.
        risk_level: the highest of the task's slices afterwards.
        pages: pages to insert; the ones they replace are deleted already.
        flagged: slices that reach the flag level for the first time, in time order.
        fresh_count: slices of stretches of time that were not there before.
        incoming: the slices that came.
    """

    labels: tuple[LabelSummary, ...]
    risk_level: str | None
    pages: list[SlicePage] = []
    flagged: list[Slice] = []
    fresh_count: int = 0
    incoming: list[Slice] = []


def _page_row(page: SlicePage) -> str:
    return f"{page.task_id}/{page.first_key.hex()}"


def _platform_task_id(arrival: Arrival) -> str | None:
    """Return the platform's id: from the signed content, and only where that has none from the form."""
    return (arrival.result.task_id if arrival.result else None) or arrival.stated_task_id


def _task_id(arrival: Arrival) -> str | None:
    """Return the id of the task that an arrival speaks of.

    An external task's id follows from the receiver and the platform's id, so that whoever hears of it
    first makes it; without any id of the platform's, the content tells one task from another.
    """
    if not arrival.address.receiver:
        return arrival.address.id
    if arrival.result is None:
        return None
    name = f"{arrival.address.id}|{_platform_task_id(arrival) or arrival.digest.hex()}"
    return f"task_{hashlib.sha256(name.encode()).hexdigest()[:28]}"


def _external_task(task_id: str, arrival: Arrival) -> Task:
    """Return the task that a receiver's first callback about it makes, before its result is worked in."""
    return Task(
        id=task_id,
        origin="external",
        kind="audio",
        service=SERVICES["audio"],
        state="processing",
        source={},
        crypt_type=arrival.address.crypt_type,
        receiver_id=arrival.address.id,
        platform_task_id=_platform_task_id(arrival),
        created_at=arrival.received_at,
        updated_at=arrival.received_at,
    )


def _advance(task: Task, arrivals: Sequence[Arrival], merge: _Merge) -> Task:
    """Return the task after these results."""
    results = [arrival.result for arrival in arrivals if arrival.result is not None]
    if task.origin == "external":
        task = _identified(task, results)
    received_at = max(arrival.received_at for arrival in arrivals)
    stated = highest([task.stated_risk_level, *(result.risk_level for result in results)])
    has_result = bool(task.slice_count or merge.incoming) or stated is not None
    state, error = _next_state(task, results, has_result=has_result)
    finished = state in _FINAL_STATES
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
        last_slice_at=received_at if merge.incoming else task.last_slice_at,
        # A callback that overtakes the submit's answer proves that the platform took the task.
        submitted_at=task.submitted_at or (received_at if task.origin == "submitted" else None),
        finished_at=(received_at if state != task.state else task.finished_at) if finished else None,
        updated_at=received_at,
        # A stream that is to be canceled waits for its call of the platform, whatever it brings meanwhile.
        next_attempt_at=task.next_attempt_at if state == "queued" or _to_be_canceled(task, state) else None,
    )


def _to_be_canceled(task: Task, state: str) -> bool:
    return task.cancel_requested_at is not None and state == "processing"


def _identified(task: Task, results: Sequence[Result]) -> Task:
    """Return an external task as all its results together describe it, in whatever order they come."""
    live_id = _least([task.live_id, *(result.live_id for result in results)])
    url = _least([task.source.get("url"), *(result.url for result in results)])
    kind = "audio" if live_id is None else "live"
    return msgspec.structs.replace(
        task,
        kind=kind,
        service=SERVICES[kind],
        live_id=live_id,
        data_id=_least([task.data_id, *(result.data_id for result in results)]),
        source={} if url is None else {"url": url},
        # what seemed a file that was done is a stream, which no callback ends
        state="processing" if kind != task.kind and task.state == "completed" and not task.error else task.state,
    )


def _least(words: Iterable[str | None]) -> str | None:
    return min((word for word in words if word is not None), default=None)


def _next_state(task: Task, results: Sequence[Result], *, has_result: bool) -> tuple[str, dict[str, Any] | None]:
    """Return the state and error after some results: the same in whatever order they come.

    A stream is not ended by a callback with code 200: the query decides that it is over. A result
    counts even after the task was given up; a task that breaks after some results is completed with them.

    Args:
        has_result: whether the task has anything to show by now, these results included.
    """
    state, error = task.state, task.error
    answered = any(result.has_data and result.code in {None, codes.OK} for result in results)
    if state == "canceled" or (state == "completed" and error is None):
        return state, error
    if answered and task.kind == "audio":
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


def _count_labels(start: Iterable[LabelSummary], slices: Iterable[Slice]) -> tuple[LabelSummary, ...]:
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
