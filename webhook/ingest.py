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

from webhook import clock, codes, evidence, labels, services
from webhook.codes import Remedy
from webhook.payloads import Result, Slice, better, highest, risk_rank, slice_key
from webhook.shapes import slice_shape, stream_shape, task_shape, verdict_shape
from webhook.store import callbacks as callback_store
from webhook.store import events as event_store
from webhook.store import evidence as evidence_store
from webhook.store import slices as slice_store
from webhook.store import tasks as task_store
from webhook.store.callbacks import Callback
from webhook.store.events import EventRow
from webhook.store.evidence import PENDING, EvidenceRow
from webhook.store.slices import SlicePage
from webhook.store.tasks import LabelSummary, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.store.tasks import Address

_PAGE_SLICES = 200  # about 40 KB of JSON: what one request for slices shows at the most
_FINAL_STATES = frozenset({"completed", "failed", "canceled", "expired"})
_SLICES = msgspec.json.Decoder(tuple[Slice, ...])


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform says of a task.

    Attributes:
        result: None where it is not understood.
        ends_stream: whether a code of 200 says that a stream is over, as the answer of a query does.
    """

    result: Result | None
    received_at: datetime
    ends_stream: bool = False


class Arrival(Report, frozen=True, kw_only=True):
    """A verified callback on its way into the store.

    Attributes:
        digest: SHA-256 of the content; with the address, what makes the callback the same.
        stated_task_id: the form's taskId, which nothing vouches for.
        problem: why the content is not understood.
        callback_id: of a callback that was kept before; None makes one.
    """

    address: Address
    content: bytes
    digest: bytes
    checksum: str
    stated_task_id: str | None
    problem: str | None
    callback_id: str | None = None


class Ingest:
    """Writes verified results.

    Args:
        keyring: seals what is stored.
        flag_level: slices at or above it raise `slice.flagged`.
        keep_evidence: whether their audio is to be saved.
        now: the time of events.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        flag_level: str = "medium",
        keep_evidence: bool = True,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._keyring = keyring
        self._flag_rank = risk_rank(flag_level)
        self._keep_evidence = keep_evidence
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
        results: dict[str, list[Report]] = {}
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

    def accept_polled(self, session: Session, task_id: str, report: Report) -> None:
        """Store what a query told of a task of ours; it is not kept raw, since it can be asked for again."""
        self._apply(session, {task_id: [report]}, [])

    def event(self, type_: str, data: dict[str, Any], *, task_id: str | None = None) -> EventRow:
        """Make an event, sealed, ready to be inserted beside its fact."""
        return self._event(type_, msgspec.json.encode(data), task_id)

    def task_event(self, type_: str, task: Task) -> EventRow:
        """Make a `task.*` event, with the verdict as it is now."""
        return self.event(type_, {"task": task_shape(task), "verdict": verdict_shape(task)}, task_id=task.id)

    def stream_event(self, type_: str, task: Task) -> EventRow:
        """Make a `stream.*` event."""
        return self.event(type_, {"task": stream_shape(task)}, task_id=task.id)

    def ended(self, task: Task) -> list[EventRow]:
        """Make what tells of the end of a stream that ran, in whatever way it ended."""
        return [self.stream_event("stream.ended", task)] if task.started_at is not None else []

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

    def _apply(self, session: Session, results: dict[str, list[Report]], events: list[EventRow]) -> None:
        """Work the new results of each task into it, and write all that changed."""
        tasks = task_store.tasks_by_id(session, results)
        made: list[Task] = []
        changed: list[Task] = []
        noted: list[tuple[str, str]] = []
        pages: list[SlicePage] = []
        audio: list[EvidenceRow] = []
        for task_id in sorted(results):
            reports = results[task_id]
            before = tasks.get(task_id) or _external_task(task_id, reports)
            merge = self._merge_slices(session, before, reports)
            after = _advance(before, reports, merge)
            if task_id in tasks:
                changed.append(after)
                self._note_identity(session, before, after)
            else:
                made.append(after)
            known = {label.label for label in before.labels}
            noted += [(label.label, task_id) for label in after.labels if label.label not in known]
            pages += merge.pages
            audio += [
                evidence.wanted(self._keyring, task_id, piece, now=self._now())
                for piece in merge.flagged
                if self._wants_audio(after, piece)
            ]
            events += self._events(before, after, merge)
        task_store.insert_tasks(session, made)
        task_store.update_results(session, changed)
        task_store.add_labels(session, noted)
        slice_store.insert_pages(session, pages)
        evidence_store.insert_evidence(session, audio)
        event_store.insert_events(session, events)

    @staticmethod
    def _note_identity(session: Session, before: Task, after: Task) -> None:
        """Write what a later callback told of an external task; rarely anything."""
        names = ("kind", "service", "live_id", "data_id", "source")
        told = {name: getattr(after, name) for name in names if getattr(after, name) != getattr(before, name)}
        if told:
            task_store.update_task(session, after.id, **told)

    def _merge_slices(self, session: Session, task: Task, reports: Iterable[Report]) -> _Merge:
        """Merge new slices with those stored in the same stretch of time; the pages touched are written anew."""
        incoming: dict[bytes, Slice] = {}
        for report in reports:
            for piece in report.result.slices if report.result else ():
                key = slice_key(piece)
                other = incoming.get(key)
                incoming[key] = piece if other is None else better(other, piece)
        if not incoming:
            return _Merge(labels=task.labels, risk_level=task.risk_level)
        stored: dict[bytes, Slice] = {}
        touched: list[SlicePage] = []
        if task.slice_count:
            touched = slice_store.overlapping_pages(session, task.id, first_key=min(incoming), last_key=max(incoming))
            for page in touched:
                stored.update((slice_key(piece), piece) for piece in self.open_slices(page))
        merged = stored | incoming
        replaced = False
        for key in stored.keys() & incoming.keys():
            merged[key] = better(stored[key], incoming[key])
            replaced |= merged[key] is not stored[key]
        fresh = [piece for key, piece in incoming.items() if key not in stored]
        if not fresh and not replaced:
            return _Merge(labels=task.labels, risk_level=task.risk_level, has_slices=True)
        if stored:
            slice_store.delete_pages(session, touched)
        flagged = sorted(
            (key, piece)
            for key, piece in incoming.items()
            if self._reaches_flag_level(piece) and not (key in stored and self._reaches_flag_level(stored[key]))
        )
        in_order = sorted(merged.items())
        pages = self._pages(task.id, in_order)
        newest = not task.slice_count or not slice_store.has_later(session, task.id, in_order[-1][0])
        if replaced:
            # A label or level may have gone with the version that bore it, so all slices are counted again.
            elsewhere = [piece for page in slice_store.pages(session, task.id) for piece in self.open_slices(page)]
            every = [*elsewhere, *merged.values()]
            summary, risk_level = _count_labels((), every), highest({piece.risk_level for piece in every})
        else:
            summary = _count_labels(task.labels, fresh)
            risk_level = highest({task.risk_level, *[piece.risk_level for piece in fresh]})
        return _Merge(
            labels=summary,
            risk_level=risk_level,
            pages=pages,
            flagged=[piece for _, piece in flagged],
            fresh_count=len(fresh),
            has_slices=True,
            tail=_quiet_tail([piece for _, piece in in_order]) if newest else None,
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
        if not (submitted or over or merge.flagged or after.kind == "live"):
            return []
        task = msgspec.Raw(msgspec.json.encode(task_shape(after)))  # the same in all of them: written once
        with_verdict = {"task": task, "verdict": verdict_shape(after)}
        events = []
        if submitted:
            events.append(self.event("task.submitted", with_verdict, task_id=after.id))
        if after.started_at != before.started_at:
            events.append(self.stream_event("stream.started", after))
        events += [
            self.event(
                "slice.flagged",
                {
                    "task": task,
                    "slice": slice_shape(piece, evidence=PENDING if self._wants_audio(after, piece) else None),
                },
                task_id=after.id,
            )
            for piece in merge.flagged
        ]
        if after.silent_since is not None and before.silent_since is None:
            events.append(self.stream_event("stream.silent", after))
        if over:
            events.append(self.event(f"task.{after.state}", with_verdict, task_id=after.id))
            events += self.ended(after)
        return events

    def _wants_audio(self, task: Task, piece: Slice) -> bool:
        return self._keep_evidence and evidence.is_wanted(task, piece)


class _Merge(msgspec.Struct, frozen=True, kw_only=True):
    """What some results change in a task's slices.

    Attributes:
        labels: the task's label summary afterwards.
        risk_level: the highest of the task's slices afterwards.
        pages: pages to insert; the ones they replace are deleted already.
        flagged: slices that reach the flag level for the first time, in time order.
        fresh_count: slices of stretches of time that were not there before.
        has_slices: whether any came, were they all known.
        tail: the slices at the task's end in which nobody speaks; None where what came is not its end.
    """

    labels: tuple[LabelSummary, ...]
    risk_level: str | None
    pages: list[SlicePage] = []
    flagged: list[Slice] = []
    fresh_count: int = 0
    has_slices: bool = False
    tail: list[Slice] | None = None


def _quiet_tail(slices: Sequence[Slice]) -> list[Slice]:
    quiet: list[Slice] = []
    for piece in reversed(slices):
        if not any(finding.label == labels.SILENCE for finding in piece.results):
            break
        quiet.insert(0, piece)
    return quiet


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


def _external_task(task_id: str, reports: Sequence[Report]) -> Task:
    """Return the task that a receiver's first callback about it makes, before its result is worked in."""
    arrival = reports[0]
    assert isinstance(arrival, Arrival)  # noqa: S101 - queries are about tasks that are there
    return Task(
        id=task_id,
        origin="external",
        kind="audio",
        service=services.DEFAULTS["audio"],
        state="processing",
        source={},
        crypt_type=arrival.address.crypt_type,
        receiver_id=arrival.address.id,
        platform_task_id=_platform_task_id(arrival),
        created_at=arrival.received_at,
        updated_at=arrival.received_at,
    )


def _advance(task: Task, reports: Sequence[Report], merge: _Merge) -> Task:
    """Return the task after these results."""
    results = [report.result for report in reports if report.result is not None]
    if task.origin == "external":
        task = _identified(task, results)
    received_at = max(report.received_at for report in reports)
    stated = highest([task.stated_risk_level, *(result.risk_level for result in results)])
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


def _runs(results: Iterable[Result]) -> bool:
    """Whether the platform tells that it works on a stream, or has worked on it."""
    return any(result.has_data or result.code in {codes.OK, codes.IN_PROGRESS} for result in results)


def _silent_since(task: Task, merge: _Merge, *, received_at: datetime) -> datetime | None:
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
