"""Calls of the platform: one made, and what came of it.

A worker claims tasks (`claims`), calls the platform outside any transaction, and settles. A file whose
submit may have been accepted is never sent again: it would be paid twice. It waits for its callback, and fails
with `submit_outcome_unknown` when none comes. What was submitted is asked for until its result is there.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

from webhook import backoff, clock, codes, limits, services
from webhook.claims import UPLOAD_LEASE, Call, Pace, Step
from webhook.errors import DecryptionError, OutcomeUnknown, PlatformBusy, PlatformError, PlatformRefused
from webhook.progress import Report
from webhook.store import events as event_store
from webhook.store import tasks as task_store
from webhook.store.tasks import ACTIVE_STATES, Task
from webhook.tasks import RELEASED
from webhook.tokens import open_secrets
from webhook.uploads import extension

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.ingest import Ingest
    from webhook.payloads import Result
    from webhook.platform_client import PlatformClient
    from webhook.tasks import Tasks
    from webhook.uploads import Uploads

log = structlog.get_logger()

_RENEW_SECONDS = 15.0

# How often a submit is tried again, by reason; the others wait as long as it takes.
_MOST_ATTEMPTS = {"source_unreachable": 3, "platform_error": 10, "upload_failed": 10}
_MOST_CANCELS = 5  # after which the platform's word that it canceled is believed, whatever its queries say
_LAST_QUERY_SHARE = 96  # of the results' lifetime is left when a task is asked for a last time: 15 minutes of a day

_KEY_MISSING = PlatformBusy(
    code=None,
    reason="key_missing",
    message="A worker lacks the key that this task was sealed with: give WEBHOOK_ENCRYPTION_KEYS to all of them.",
)
_NEVER_HEARD = PlatformRefused(
    code=None,
    reason="submit_outcome_unknown",
    message="The platform's answer to the submit was lost and no result came. "
    "It may have been accepted and charged: submit it again if you want it moderated for sure.",
)
_INTERRUPTED = OutcomeUnknown(
    code=None, reason="submit_outcome_unknown", message="The worker was stopped in the middle of the submit."
)
_STOPPED = PlatformBusy(
    code=None, reason="upload_failed", message="The worker was stopped in the middle of the upload."
)
_EXPIRED = {
    "code": None,
    "reason": "result_expired",
    "message": "The platform gave no result in the time that it keeps results. Submit it again if you need a verdict.",
}


class Calls:
    """Makes and settles calls that were claimed.

    Args:
        callback_base_url: our public URL; None submits without a callback.
        dice: random numbers from 0 to 1, for backoff.
    """

    def __init__(
        self,
        *,
        keyring: Keyring,
        ingest: Ingest,
        tasks: Tasks,
        uploads: Uploads,
        pace: Pace,
        callback_base_url: str | None,
        now: Callable[[], datetime] = clock.now,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._keyring = keyring
        self._ingest = ingest
        self._tasks = tasks
        self._uploads = uploads
        self._pace = pace
        self._callback_base_url = callback_base_url
        self._stopping = threading.Event()
        self._now = now
        self._dice = dice

    def stop(self) -> None:
        """Break off what takes long, as uploads do; another worker begins them anew."""
        self._stopping.set()

    def probe(
        self, transaction: Callable[[], AbstractContextManager[Session]], client: PlatformClient, *, limit: str
    ) -> None:
        """Find out, at no cost, whether the platform lets the account in again.

        Args:
            limit: that was closed.
        """
        began = self._now()
        try:
            client.probe(service=services.DEFAULTS["audio"])
        except PlatformError as error:
            with transaction() as session:
                reason = error.reason if error.reason in limits.PAUSES else "platform_unreachable"
                self._close(session, limit, reason=reason, called_at=began)
        else:
            with transaction() as session:
                limits.reopen(session, limit, probed=True)

    def carry_out(
        self, transaction: Callable[[], AbstractContextManager[Session]], client: PlatformClient, *, call: Call
    ) -> None:
        """Make a claimed call, and settle it.

        Args:
            transaction: opens the transaction that settles.
        """
        match call.step:
            case Step.UPLOAD:
                self._upload(transaction, client, call)
            case Step.SUBMIT:
                self._submit(transaction, client, call)
            case Step.QUERY:
                self._query(transaction, client, call)
            case Step.CANCEL:
                self._cancel(transaction, client, call)
            case Step.SETTLE:
                with transaction() as session:
                    self._settle_interrupted(session, call)
        if call.task.upload_size is not None:
            with transaction() as session:
                kept = task_store.with_uploads(session, [call.task.id])
            if not kept:  # it is handed over, or never will be
                self._uploads.discard(call.task)

    def _upload(
        self, transaction: Callable[[], AbstractContextManager[Session]], client: PlatformClient, call: Call
    ) -> None:
        renewed = time.monotonic()

        def progress() -> None:
            nonlocal renewed
            if self._stopping.is_set():
                raise _STOPPED
            if time.monotonic() - renewed < _RENEW_SECONDS:
                return
            renewed = time.monotonic()
            with transaction() as session:
                until = self._now() + UPLOAD_LEASE
                if not task_store.update_task(session, call.task.id, held=call.lease, lease_until=until):
                    raise OutcomeUnknown(code=None, reason="upload_failed", message="Another worker has taken it up.")

        name = call.task.source["file"]["name"]
        try:
            place = client.upload(self._uploads.path(call.task), extension=extension(name), progress=progress)
        except PlatformError as error:
            with transaction() as session:
                if self._stopping.is_set():
                    task_store.update_task(session, call.task.id, held=call.lease, **RELEASED)
                else:
                    self._settle_failed(session, call, error=error, limit=limits.SUBMITS)
            return
        with transaction() as session:
            task_store.update_task(
                session, call.task.id, held=call.lease, uploaded=place, uploaded_at=self._now(), **RELEASED
            )

    def _submit(
        self, transaction: Callable[[], AbstractContextManager[Session]], client: PlatformClient, call: Call
    ) -> None:
        try:
            parameters = self._parameters(call.task)
        except DecryptionError as error:
            log.warning("A task cannot be submitted by this worker.", task=call.task.id, error=str(error))
            with transaction() as session:
                self._put_off(session, call, error=_KEY_MISSING)
            return
        try:
            platform_task_id = client.submit(service=call.task.service, parameters=parameters)
        except OutcomeUnknown as error:
            with transaction() as session:
                self._settle_unknown(session, call, error=error)
        except PlatformError as error:
            with transaction() as session:
                self._settle_failed(session, call, error=error, limit=limits.SUBMITS)
        else:
            with transaction() as session:
                self._settle_submitted(session, call, platform_task_id=platform_task_id)

    def _query(
        self, transaction: Callable[[], AbstractContextManager[Session]], client: PlatformClient, call: Call
    ) -> None:
        try:
            result = client.query(service=call.task.service, platform_task_id=call.task.platform_task_id or "")
        except PlatformError as error:
            with transaction() as session:
                self._settle_query(session, call, error=error)
            return
        with transaction() as session:
            limits.reopen(session, limits.QUERIES)
            if task_store.update_task(session, call.task.id, held=call.lease, **RELEASED):
                self._take(session, call.task.id, result, ends_stream=True)
                self._schedule(session, call.task)

    def _cancel(
        self, transaction: Callable[[], AbstractContextManager[Session]], client: PlatformClient, call: Call
    ) -> None:
        """Cancel a stream, and ask the platform whether it is over, however that was answered.

        What it brought until then counts.
        """
        known = {"service": call.task.service, "platform_task_id": call.task.platform_task_id or ""}
        not_canceled: PlatformError | None = None
        last: Result | None = None
        try:
            client.cancel(**known)
        except PlatformError as error:
            not_canceled = error
        try:
            last = client.query(**known)
        except PlatformRefused:
            not_canceled = None  # the platform no longer knows the stream: there is nothing left to cancel
        except PlatformError as error:
            not_canceled = not_canceled or error
        with transaction() as session:
            current = task_store.task(session, call.task.id)
            if current is None or current.lease != call.lease or current.state not in ACTIVE_STATES:
                return
            if last is not None and last.has_data:
                self._take(session, current.id, last, ends_stream=False)
            if last is not None and last.code == codes.IN_PROGRESS:
                tried_enough = not_canceled is None and current.attempt_count >= _MOST_CANCELS
                not_canceled = None if tried_enough else not_canceled or _STILL_RUNS
            elif last is not None:
                not_canceled = None  # it is over, whoever ended it
            if not_canceled is not None:
                self._put_off(session, call, error=not_canceled)
                return
            after = task_store.task(session, current.id) or current
            self._tasks.finish(session, after, state="canceled", error=None)  # what its submit met is past

    def _take(self, session: Session, task_id: str, result: Result, *, ends_stream: bool) -> None:
        report = Report(result=result, received_at=self._now(), ends_stream=ends_stream)
        self._ingest.accept_polled(session, task_id, report)

    def _parameters(self, task: Task) -> dict[str, str]:
        """Return the platform's ServiceParameters (vendor-docs/voice-moderation, "Table 1")."""
        parameters: dict[str, str | None] = {
            "dataId": task.data_id,
            "liveId": task.live_id,
            "referer": task.referer,
        }
        if "url" in task.source:
            parameters["url"] = task.source["url"]
        else:
            place = task.source.get("oss") or task.uploaded or {}
            parameters |= {
                "ossBucketName": place.get("bucket"),
                "ossObjectName": place.get("object"),
                "ossRegionId": place.get("region"),  # the platform knows where its own storage is
            }
        if self._callback_base_url is not None:
            own = open_secrets(self._keyring, task.secrets or b"", table="tasks", row=task.id)
            parameters |= {
                "callback": f"{self._callback_base_url}/callbacks/{own.token}",
                "seed": own.seed,
                "cryptType": task.crypt_type,
            }
        return {name: value for name, value in parameters.items() if value is not None}

    def _settle_submitted(self, session: Session, call: Call, *, platform_task_id: str) -> None:
        """Note that the platform took the task; its callback may have been here before."""
        limits.reopen(session, limits.SUBMITS)
        if call.task.kind == "live":
            limits.reopen(session, limits.STREAMS)
        current = task_store.task(session, call.task.id)
        if current is None:
            return
        now = self._now()
        queued, active = current.state == "queued", current.state in ACTIVE_STATES
        task_store.update_task(
            session,
            current.id,
            platform_task_id=current.platform_task_id or platform_task_id,
            state="processing" if queued else current.state,
            error=None if queued else current.error,
            submitted_at=current.submitted_at or now,
            attempt_count=0,
            next_attempt_at=now if current.cancel_requested_at and active else None,
            upload_size=None,
        )
        task_store.update_task(session, current.id, held=call.lease, **RELEASED)
        after = task_store.task(session, current.id) or current
        if active and after.cancel_requested_at is None:
            self._schedule(session, after)
        if current.submitted_at is None:
            event_store.insert_events(session, [self._ingest.task_event("task.submitted", after)])

    def _settle_failed(self, session: Session, call: Call, *, error: PlatformError, limit: str) -> None:
        """Settle what the platform did not accept: for good, or it is tried again."""
        if error.reason == "concurrency_limited":
            limits.reopen(session, limit)
            limit = limits.STREAMS
        if error.reason in limits.PAUSES:
            # it concerns all tasks alike, or seems to: no attempt is used up
            again_at = self._close(session, limit, reason=error.reason, called_at=call.claimed_at)
            put_back = {"error": _error_shape(error), "next_attempt_at": again_at, **_let_go(call)}
            task_store.update_task(session, call.task.id, held=call.lease, **put_back)
            return
        limits.reopen(session, limit)
        if isinstance(error, PlatformRefused):
            self._fail(session, call, error=error)
        else:
            self._put_off(session, call, error=error)

    def _put_off(self, session: Session, call: Call, *, error: PlatformError) -> None:
        """Put a call off, or give up when it was tried often enough."""
        attempts = call.task.attempt_count + 1
        if call.task.state == "queued" and attempts >= _MOST_ATTEMPTS.get(error.reason, attempts + 1):
            self._fail(session, call, error=error)
            return
        # only what still waits is put off: a callback may have settled the task meanwhile
        current = task_store.task(session, call.task.id)
        waits = current is not None and current.state in ACTIVE_STATES and current.next_attempt_at is not None
        values = {"attempt_count": attempts, **_let_go(call, lost=isinstance(error, OutcomeUnknown))}
        if waits:
            values["next_attempt_at"] = self._now() + backoff.submit_delay(attempts_made=attempts, dice=self._dice)
            if call.task.state == "queued":
                values["error"] = _error_shape(error)
        task_store.update_task(session, call.task.id, held=call.lease, **values)

    def _settle_unknown(self, session: Session, call: Call, *, error: OutcomeUnknown) -> None:
        """The submit may have been accepted: a stream's is repeated (its liveId makes it safe), a file's is not.

        Others are not risked before it is known that the platform answers.
        """
        if error is not _INTERRUPTED:
            self._close(session, limits.SUBMITS, reason="platform_unreachable", called_at=call.claimed_at)
        if call.task.kind == "live":
            self._put_off(session, call, error=error)
            return
        if self._callback_base_url is None:
            self._fail(session, call, error=_NEVER_HEARD)
            return
        current = task_store.task(session, call.task.id)
        if current is None or current.state != "queued":
            task_store.update_task(session, call.task.id, held=call.lease, **RELEASED)
            return
        deadline = self._now() + self._pace.unknown_outcome_wait
        waiting = {"state": "processing", "error": None, "next_attempt_at": deadline, "upload_size": None}
        task_store.update_task(session, call.task.id, held=call.lease, **waiting, **RELEASED)

    def _settle_interrupted(self, session: Session, call: Call) -> None:
        if call.task.state == "queued":
            self._settle_unknown(session, call, error=_INTERRUPTED)
        else:
            self._fail(session, call, error=_NEVER_HEARD)

    def _settle_query(self, session: Session, call: Call, *, error: PlatformError) -> None:
        """The query told nothing of the task."""
        if error.reason in limits.PAUSES and error.reason != "concurrency_limited":
            again_at = self._close(session, limits.QUERIES, reason=error.reason, called_at=call.claimed_at)
            task_store.update_task(session, call.task.id, held=call.lease, next_attempt_at=again_at, **RELEASED)
            return
        limits.reopen(session, limits.QUERIES)
        if task_store.update_task(session, call.task.id, held=call.lease, **RELEASED):
            self._schedule(session, call.task)

    def _close(self, session: Session, limit: str, *, reason: str, called_at: datetime) -> datetime:
        return limits.close(session, limit, reason=reason, called_at=called_at, now=self._now(), dice=self._dice)

    def _schedule(self, session: Session, asked: Task) -> None:
        """Say when a task is asked for next; without a result in its time it has expired.

        Args:
            asked: the task as it was when it was claimed, or has just been submitted.
        """
        current = task_store.task(session, asked.id)
        if current is None:
            return
        if current.state not in ACTIVE_STATES:
            task_store.update_task(session, current.id, next_attempt_at=None)
            return
        now = self._now()
        due, polls = self._next_poll(current, now=now), current.attempt_count
        if due is None:
            self._tasks.finish(session, current, state="expired", error=_EXPIRED)
        else:
            task_store.update_task(session, current.id, next_attempt_at=due, attempt_count=polls + 1)

    def _next_poll(self, task: Task, *, now: datetime) -> datetime | None:
        """Return when a task is asked for next: once more shortly before its result is forgotten, and not after."""
        live = task.kind == "live"
        # a stream may run for days: as long as the platform tells of it, it is not forgotten
        told_at = max(filter(None, (task.submitted_at, task.answered_at if live else None)), default=task.created_at)
        end = told_at + self._pace.result_lifetime
        last = end - self._pace.result_lifetime / _LAST_QUERY_SHARE
        if now >= end:
            return None
        if now >= last:
            return end
        if live:
            return min(now + self._pace.stream_poll, last)
        delay = backoff.poll_delay(first=self._pace.poll_delay, polls_made=task.attempt_count, dice=self._dice)
        return min(now + delay, last)

    def _fail(self, session: Session, call: Call, *, error: PlatformError) -> None:
        current = task_store.task(session, call.task.id)
        if current is None or current.lease != call.lease or current.state not in ACTIVE_STATES:
            return
        self._tasks.finish(session, current, state="failed", error=_error_shape(error))


def _let_go(call: Call, *, lost: bool = False) -> dict[str, Any]:
    """Return what ends a call's lease.

    A stream that the platform may run already keeps its name, by which `tasks` knows that it must be canceled there.

    Args:
        lost: whether the submit's answer was.
    """
    may_run = call.task.kind == "live" and call.task.state == "queued" and (lost or call.task.lease is not None)
    return {"lease_until": None} if may_run else dict(RELEASED)


_STILL_RUNS = PlatformBusy(
    code=codes.IN_PROGRESS, reason="in_progress", message="The platform has not ended the stream yet."
)


def _error_shape(error: PlatformError) -> dict[str, Any]:
    return {"code": error.code, "reason": error.reason, "message": error.message}
