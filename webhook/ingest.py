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

from webhook import clock, evidence, services
from webhook.payloads import Slice, better, highest, risk_rank, slice_key, without_words
from webhook.progress import Merge, Report, advance, count_labels, gather, quiet_tail
from webhook.shapes import slice_shape, stream_shape, task_shape, verdict_shape
from webhook.store import arrivals as arrival_store
from webhook.store import callbacks as callback_store
from webhook.store import events as event_store
from webhook.store import evidence as evidence_store
from webhook.store import slices as slice_store
from webhook.store import tasks as task_store
from webhook.store.callbacks import Callback
from webhook.store.events import EventRow
from webhook.store.evidence import PENDING, EvidenceRow
from webhook.store.slices import SlicePage
from webhook.store.tasks import Task
from webhook.store.text import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.store.tasks import Address

_PAGE_SLICES = 200  # about 40 KB of JSON: what one request for slices shows at the most
_SLICES = msgspec.json.Decoder(tuple[Slice, ...])


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
        keep_words: whether contents and what was said are stored, or only risk, labels and times.
        now: the time of events.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        flag_level: str = "medium",
        keep_evidence: bool = True,
        keep_words: bool = True,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._keyring = keyring
        self._flag_rank = risk_rank(flag_level)
        self._keep_evidence = keep_evidence and keep_words
        self._keep_words = keep_words
        self._now = now

    def accept(self, session: Session, arrivals: Sequence[Arrival]) -> list[str | None]:
        """Store a batch of callbacks with all that follows from them.

        Returns:
            For each arrival the id of its new callback, or None where the same one was stored before, or nothing is
            to be stored, since its task was erased.
        """
        ids = [arrival.callback_id or clock.new_id("cb", arrival.received_at) for arrival in arrivals]
        task_ids = [_task_id(arrival) for arrival in arrivals]
        rows = [self._callback(*row) for row in zip(ids, task_ids, arrivals, strict=True)]
        known = arrival_store.begin(
            session,
            rows,
            task_ids={task_id for task_id in task_ids if task_id is not None},
            others={
                task_id
                for task_id, arrival in zip(task_ids, arrivals, strict=True)
                if task_id is not None and arrival.address.receiver
            },
        )
        results: dict[str, list[Report]] = {}
        events: list[EventRow] = []
        for callback_id, task_id, arrival in zip(ids, task_ids, arrivals, strict=True):
            if callback_id not in known.new or task_id in known.erased:
                continue
            if arrival.result is None or task_id is None:
                events.append(self._rejected(callback_id, task_id, arrival))
            else:
                results.setdefault(task_id, []).append(arrival)
        self._apply(session, known.tasks, results, events)
        new = known.new
        if known.erased:
            dropped = {one for one, task_id in zip(ids, task_ids, strict=True) if task_id in known.erased} & new
            callback_store.delete_callbacks(session, dropped)
            new -= dropped
        return [callback_id if callback_id in new else None for callback_id in ids]

    def accept_polled(self, session: Session, task_id: str, report: Report) -> None:
        """Store what a query told of a task of ours; it is not kept raw, since it can be asked for again.

        Nothing is stored of a task that was erased meanwhile.
        """
        tasks = task_store.tasks_by_id(session, [task_id])
        if tasks:
            self._apply(session, tasks, {task_id: [report]}, [])

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

    def sealed_content(self, callback_id: str, content: bytes) -> bytes:
        """Return a callback's content as it is kept: sealed, or empty where none is to be."""
        if not self._keep_words:
            return b""
        return self._keyring.seal(content, table="callbacks", column="content", row=callback_id)

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
            content=self.sealed_content(callback_id, arrival.content),
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

    def _apply(
        self,
        session: Session,
        tasks: Mapping[str, Task],
        results: Mapping[str, Sequence[Report]],
        events: list[EventRow],
    ) -> None:
        """Work the new results of each task into it, and write all that changed.

        Args:
            tasks: those that exist; others are made.
            events: further ones to be written.
        """
        made: list[Task] = []
        changed: list[Task] = []
        moved: list[tuple[Task | None, Task]] = []
        pages: list[SlicePage] = []
        audio: list[EvidenceRow] = []
        for task_id in sorted(results):
            reports = results[task_id]
            before = tasks.get(task_id) or _external_task(task_id, reports)
            merge = self._merge_slices(session, before, reports)
            after = advance(before, reports, merge)
            if task_id in tasks:
                changed.append(after)
                self._note_identity(session, before, after)
            else:
                made.append(after)
            if after.labels or before.labels:
                moved.append((tasks.get(task_id), after))
            pages += merge.pages
            audio += self._wanted_audio(session, before, after, merge)
            events += self._events(before, after, merge)
        with together(session):
            task_store.insert_tasks(session, made)
            task_store.update_results(session, changed)
            task_store.move_labels(session, moved)
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

    def _merge_slices(self, session: Session, task: Task, reports: Iterable[Report]) -> Merge:
        """Merge new slices with those stored in the same stretch of time; the pages touched are written anew."""
        incoming, links = gather(reports)
        if not self._keep_words:
            incoming, links = {key: without_words(piece) for key, piece in incoming.items()}, {}
        if not incoming:
            return Merge(labels=task.labels, risk_level=task.risk_level)
        stored: dict[bytes, Slice] = {}
        touched: list[SlicePage] = []
        if task.slice_count:
            touched = slice_store.overlapping_pages(session, task.id, first_key=min(incoming), last_key=max(incoming))
            for page in touched:
                stored.update((slice_key(piece), piece) for piece in self.open_slices(page))
        merged = {**stored, **incoming} if stored else incoming
        replaced = False
        for key in stored.keys() & incoming.keys():
            merged[key] = better(stored[key], incoming[key])
            replaced |= merged[key] is not stored[key]
        fresh = [piece for key, piece in incoming.items() if key not in stored]
        flagged = {key: merged[key] for key in incoming if self._reaches_flag_level(merged[key])}
        flagged_before = {key for key, piece in stored.items() if self._reaches_flag_level(piece)}
        links = evidence.new_links(links, flagged, before=stored, flagged_before=flagged_before)
        if not fresh and not replaced:
            return Merge(labels=task.labels, risk_level=task.risk_level, has_slices=True, links=links)
        if stored:
            slice_store.delete_pages(session, touched)
        in_order = sorted(merged.items())
        pages = self._pages(task.id, in_order)
        newest = not task.slice_count or not slice_store.has_later(session, task.id, in_order[-1][0])
        if replaced:
            # A label or level may have gone with the version that bore it, so all slices are counted again.
            elsewhere = [piece for page in slice_store.pages(session, task.id) for piece in self.open_slices(page)]
            every = [*elsewhere, *merged.values()]
            summary, risk_level = count_labels((), every), highest({piece.risk_level for piece in every})
        else:
            summary = count_labels(task.labels, fresh)
            risk_level = highest({task.risk_level, *[piece.risk_level for piece in fresh]})
        return Merge(
            labels=summary,
            risk_level=risk_level,
            pages=pages,
            flagged=[flagged[key] for key in sorted(flagged.keys() - flagged_before)],
            fresh_count=len(fresh),
            has_slices=True,
            tail=quiet_tail([piece for _, piece in in_order]) if newest else None,
            links=links,
        )

    def _reaches_flag_level(self, piece: Slice) -> bool:
        return risk_rank(piece.risk_level) >= self._flag_rank

    def strip(self, page: SlicePage) -> SlicePage:
        """Return a page of which only risk, labels and times are left.

        Raises:
            DecryptionError: the page does not open.
        """
        slices = [without_words(piece) for piece in self.open_slices(page)]
        return self._sealed(msgspec.structs.replace(page, written_at=None), slices)

    def _pages(self, task_id: str, slices: Sequence[tuple[bytes, Slice]]) -> list[SlicePage]:
        pages = []
        written_at = self._now() if self._keep_words else None
        for start in range(0, len(slices), _PAGE_SLICES):
            part = slices[start : start + _PAGE_SLICES]
            page = SlicePage(
                task_id=task_id,
                first_key=part[0][0],
                last_key=part[-1][0],
                slice_count=len(part),
                body=b"",
                written_at=written_at,
            )
            pages.append(self._sealed(page, [piece for _, piece in part]))
        return pages

    def _sealed(self, page: SlicePage, slices: Sequence[Slice]) -> SlicePage:
        body = msgspec.json.encode(slices)
        sealed = self._keyring.seal(body, table="slice_pages", column="body", row=_page_row(page))
        return msgspec.structs.replace(page, body=sealed)

    def _events(self, before: Task, after: Task, merge: Merge) -> list[EventRow]:
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
        links = merge.links if self._has_audio(after) else {}
        for piece in merge.flagged:
            shape = slice_shape(piece, evidence=PENDING if slice_key(piece) in links else None)
            events.append(self.event("slice.flagged", {"task": task, "slice": shape}, task_id=after.id))
        if after.silent_since is not None and before.silent_since is None:
            events.append(self.stream_event("stream.silent", after))
        if over:
            events.append(self.event(f"task.{after.state}", with_verdict, task_id=after.id))
            events += self.ended(after)
        return events

    def _has_audio(self, task: Task) -> bool:
        return self._keep_evidence and task.kind == "live"

    def _wanted_audio(self, session: Session, before: Task, after: Task, merge: Merge) -> list[EvidenceRow]:
        """Want the audio of a stream's flagged slices; of all of them where the task has just shown to be a stream."""
        if not self._has_audio(after):
            return []
        links = merge.links
        if before.kind != after.kind and before.slice_count:
            pages = (*slice_store.pages(session, after.id), *merge.pages)
            pieces = [piece for page in pages for piece in self.open_slices(page) if self._reaches_flag_level(piece)]
            links = {slice_key(piece): piece.url for piece in pieces if piece.url} | links
        now = self._now()
        return [evidence.wanted(self._keyring, after.id, key, url, now=now) for key, url in links.items()]


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
