"""The vendor's signed API: four actions, each answered as the vendor answers it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import magic
from .codes import IN_PROGRESS, INVALID, OK, TOO_FAST, TOO_MANY_STREAMS, HttpRefusal, Refusal
from .limits import RateLimit
from .magic import Fault, Outcome
from .moderation import Moderation, envelope
from .parameters import QUERY_SERVICES, SERVICES, Submission, parse_submission, parse_task_id, read_form
from .tasks import Task, TaskBook, new_task_id
from .uploads import BUCKET, ObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import SandboxConfig

Json = dict[str, Any]

VERSION = "2022-03-02"
ACTIONS = ("VoiceModeration", "VoiceModerationResult", "VoiceModerationCancel", "DescribeUploadToken")

# The gateway's own words for the HTTP faults that magic asks for.
GATEWAY_CODES: Mapping[int, str] = {
    400: "InvalidParameter",
    403: "Forbidden.RAM",
    429: "Throttling.User",
    500: "InternalError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "ServiceTimeout",
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a call is answered: JSON, or nothing, or something that is not the vendor's at all.

    Attributes:
        body: the JSON.
        lost: nothing is answered: `cut` closes the connection, `hang` leaves it open.
        html: an HTTP 502 that is no JSON, as proxies in between send it.
    """

    body: Json
    lost: str | None = None
    html: str | None = None


class Platform:
    """Carries out the actions.

    Args:
        config: limits and delays.
        book: where tasks are kept.
        moderation: what works on them.
        store: where uploads are kept.
        url: base URL of this sandbox, for links.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        config: SandboxConfig,
        *,
        book: TaskBook,
        moderation: Moderation,
        store: ObjectStore,
        url: str,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._book = book
        self._moderation = moderation
        self._store = store
        self._url = url
        self._clock = clock
        self._submits = RateLimit(config.submits_per_second, clock=time.monotonic)
        self._queries = RateLimit(config.queries_per_second, clock=time.monotonic)
        self._faults: Counter[tuple[str, Fault]] = Counter()

    async def answer(self, action: str, body: bytes, *, endpoint: str) -> Answer:
        """Answer an authorized call.

        Args:
            action: one of ACTIONS.
            body: the form.
            endpoint: this sandbox's address as the client reaches it.

        Raises:
            HttpRefusal: magic asks for an HTTP error.
        """
        try:
            if action == "DescribeUploadToken":
                return Answer(body=_upload_token(self._store.issue(endpoint)))
            form = read_form(body)
            if action == "VoiceModeration":
                return await self._submit(form)
            if action == "VoiceModerationResult":
                return Answer(body=self._query(form))
            return Answer(body=self._cancel(form))
        except Refusal as refusal:
            return Answer(body=envelope(refusal.code, text=str(refusal)))

    async def _submit(self, form: Mapping[str, str]) -> Answer:
        if not self._submits.admit():
            raise Refusal(TOO_FAST)
        submission = parse_submission(form, upload_bucket=BUCKET)
        outcome = self._outcome(submission)
        fault = self._due(outcome.http, submission.source)
        if fault is not None and fault.kind not in {"drop", "hang"}:
            return _gateway_fault(fault)
        refused = self._due(outcome.submit_code, submission.source)
        if refused is not None:
            raise Refusal(refused.value)
        task = self._accept(submission, outcome)
        if outcome.callback == "overtake":
            # not for ever: who takes no callback before its answer is there would never get the answer
            with suppress(TimeoutError):
                await asyncio.wait_for(task.called_back.wait(), self._config.callback_timeout_seconds)
        data = {"TaskId": task.task_id}
        if task.submission.data_id is not None:
            data["DataId"] = task.submission.data_id
        lost = {"drop": "cut", "hang": "hang"}[fault.kind] if fault is not None else None
        return Answer(body=envelope(OK, data, text="SUCCESS"), lost=lost)

    def _outcome(self, submission: Submission) -> Outcome:
        """Read the magic of a source; an uploaded file's bytes speak where its name says nothing."""
        source = submission.source
        if submission.bucket == BUCKET:
            stored = self._store.find(source)
            if stored is None:
                return Outcome(code=404)
            source = stored.source or source
        try:
            return magic.read(source)
        except magic.MagicError as error:
            raise Refusal(INVALID, str(error)) from error

    def _accept(self, submission: Submission, outcome: Outcome) -> Task:
        running = self._book.running_stream(submission)
        if running is not None:
            return running
        if submission.kind == "live" and self._book.running_streams >= self._config.concurrent_streams:
            raise Refusal(TOO_MANY_STREAMS)
        task_id = new_task_id(submission.kind)
        task = Task(
            task_id=task_id,
            submission=submission,
            outcome=outcome,
            url=submission.source if submission.bucket is None else f"oss://{submission.bucket}/{submission.source}",
            segments_url=f"{self._url}/segments/{task_id}",
            submitted_at=self._clock(),
            task_id_in_data=self._config.task_id_in_data,
        )
        self._book.add(task)
        self._moderation.begin(task)
        return task

    def _query(self, form: Mapping[str, str]) -> Json:
        if not self._queries.admit():
            raise Refusal(TOO_FAST)
        task_id, kind = parse_task_id(form, QUERY_SERVICES)
        task = self._book.get(task_id, kind)
        refused = self._due(task.outcome.query_code, task_id)
        if refused is not None:
            raise Refusal(refused.value)
        if task.code is not None:
            return envelope(task.code)
        if task.state != "running":
            return envelope(OK, task.data())
        if kind == "audio":
            return envelope(IN_PROGRESS)
        return envelope(IN_PROGRESS, task.data(max(0, task.slice_count - self._config.recent_slices)))

    def _cancel(self, form: Mapping[str, str]) -> Json:
        task_id, kind = parse_task_id(form, SERVICES)
        task = self._book.get(task_id, kind)
        if kind == "audio":
            raise Refusal(INVALID, "tasks of files cannot be canceled")
        self._moderation.cancel(task)
        return envelope(OK)

    def _due(self, fault: Fault | None, source: str) -> Fault | None:
        """Return a fault if it is still to happen to this source, and count it."""
        if fault is None or fault.times is None:
            return fault
        self._faults[source, fault] += 1
        return fault if self._faults[source, fault] <= fault.times else None


def _upload_token(data: Json) -> Json:
    body = envelope(OK, data)
    # this one action says Msg where the others say Message
    body["Msg"] = body.pop("Message")
    return body


def _gateway_fault(fault: Fault) -> Answer:
    if fault.kind == "throttle":
        raise HttpRefusal(
            429,
            "Throttling.User",
            "Request was denied due to user flow control.",
            headers={"x-acs-retry-after": str(fault.value)},
        )
    if fault.kind == "html":
        return Answer(body={}, html="<html><body><h1>502 Bad Gateway</h1></body></html>")
    if fault.kind == "status":
        code = GATEWAY_CODES.get(fault.value, "UnknownError")
        raise HttpRefusal(fault.value, code, "The request has failed as its source asked for.")
    return Answer(body={}, lost="cut")
