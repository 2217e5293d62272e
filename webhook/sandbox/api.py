"""The vendor's signed API: four actions, each answered as the vendor answers it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import magic
from .answers import Answer, faulty
from .codes import IN_PROGRESS, INVALID, OK, TOO_FAST, TOO_MANY_STREAMS, UNREACHABLE, Refusal
from .faults import CALL_FAULTS, SUBMIT
from .limits import RateLimit
from .moderation import envelope
from .outcomes import Fault, Outcome
from .parameters import QUERY_SERVICES, SERVICES, Submission, parse_submission, parse_task_id, read_form
from .tasks import Task, TaskBook, new_task_id
from .uploads import BUCKET
from .values import MagicError, http_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .control import Control
    from .faults import Faults
    from .moderation import Moderation
    from .uploads import ObjectStore

Json = dict[str, Any]

VERSION = "2022-03-02"
QUERY = "VoiceModerationResult"
CANCEL = "VoiceModerationCancel"
UPLOAD = "DescribeUploadToken"
ACTIONS = (SUBMIT, QUERY, CANCEL, UPLOAD)

# Faults of a submit that was accepted all the same.
_UNANSWERED = ("drop", "hang")


class Platform:
    """Carries out the actions.

    Args:
        control: limits and delays.
        book: where tasks are kept.
        moderation: what works on them.
        store: where uploads are kept.
        faults: what goes wrong.
        url: base URL of this sandbox, for links.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        control: Control,
        *,
        book: TaskBook,
        moderation: Moderation,
        store: ObjectStore,
        faults: Faults,
        url: str,
        clock: Callable[[], float],
    ) -> None:
        self._control = control
        self._book = book
        self._moderation = moderation
        self._store = store
        self._faults = faults
        self._url = url
        self._clock = clock
        self._submits = RateLimit(lambda: control.config.submits_per_second, clock=time.monotonic)
        self._queries = RateLimit(lambda: control.config.queries_per_second, clock=time.monotonic)

    async def answer(self, action: str, body: bytes, *, endpoint: str) -> Answer:
        """Answer an authorized call.

        Args:
            action: one of ACTIONS.
            body: the form.
            endpoint: this sandbox's address as the client reaches it.
        """
        config = self._control.config
        if config.outage is not None:
            return faulty(http_fault(config.outage))
        if config.account_code is not None:
            return Answer(body=envelope(config.account_code))
        try:
            if action == UPLOAD:
                return self._upload_token(endpoint)
            form = read_form(body)
            if action == SUBMIT:
                return await self._submit(form)
            return self._query(form) if action == QUERY else self._cancel(form)
        except Refusal as refusal:
            return Answer(body=envelope(refusal.code, text=str(refusal)))

    async def _submit(self, form: Mapping[str, str]) -> Answer:
        if not self._submits.admit():
            raise Refusal(TOO_FAST)
        submission = parse_submission(form, upload_bucket=BUCKET)
        name, outcome = self._outcome(submission)
        fault = (
            self._faults.due("http", outcome.http, submission.source)
            or self._faults.due("submit_code", outcome.submit_code, submission.source)
            or self._draw(SUBMIT, name, outcome)
        )
        if fault is not None and fault.kind not in _UNANSWERED:
            return faulty(fault)
        task = self._accept(submission, outcome, name=name)
        if outcome.callback.kind == "overtake":
            # not for ever: who takes no callback before its answer is there would never get the answer
            with suppress(TimeoutError):
                await asyncio.wait_for(task.called_back.wait(), self._control.config.callback_timeout_seconds)
        data = {"TaskId": task.task_id}
        if task.submission.data_id is not None:
            data["DataId"] = task.submission.data_id
        return Answer(body=envelope(OK, data, text="SUCCESS"), how="json" if fault is None else fault.kind, task=task)

    def _outcome(self, submission: Submission) -> tuple[str, Outcome]:
        """Read the magic of a source, and the name it stands in: an uploaded file's bytes may have a better one."""
        source = submission.source
        if submission.bucket == BUCKET:
            stored = self._store.find(source)
            if stored is None:
                return source, Outcome(code=Fault(kind="code", value=UNREACHABLE))
            source = stored.source or source
        try:
            return source, magic.read(source)
        except MagicError as error:
            raise Refusal(INVALID, str(error)) from error

    def _accept(self, submission: Submission, outcome: Outcome, *, name: str) -> Task:
        running = self._book.running_stream(submission)
        if running is not None:
            return running
        config = self._control.config
        if submission.kind == "live" and self._book.running_streams >= config.concurrent_streams:
            raise Refusal(TOO_MANY_STREAMS)
        task_id = new_task_id(submission.kind)
        failure = self._faults.due("code", outcome.code, submission.source)
        task = Task(
            task_id=task_id,
            submission=submission,
            outcome=outcome,
            name=name,
            url=submission.source if submission.bucket is None else f"oss://{submission.bucket}/{submission.source}",
            segments_url=f"{self._url}/segments/{task_id}",
            submitted_at=self._clock(),
            task_id_in_data=config.task_id_in_data,
            to_fail_with=None if failure is None else failure.value,
        )
        self._book.add(task)
        self._moderation.begin(task)
        return task

    def _query(self, form: Mapping[str, str]) -> Answer:
        if not self._queries.admit():
            raise Refusal(TOO_FAST)
        task_id, kind = parse_task_id(form, QUERY_SERVICES)
        task = self._book.get(task_id, kind)
        outcome = task.outcome
        fault = (
            self._faults.due("query_http", outcome.query_http, task_id)
            or self._faults.due("query_code", outcome.query_code, task_id)
            or self._draw(QUERY, task.name, outcome, task_id=task_id)
        )
        if fault is not None:
            return faulty(fault, task=task)
        return Answer(body=self._result(task), task=task)

    def _result(self, task: Task) -> Json:
        if task.code is not None:
            return envelope(task.code)
        if task.state != "running":
            return envelope(OK, task.data())
        if task.kind == "audio":
            return envelope(IN_PROGRESS)
        return envelope(IN_PROGRESS, task.data(max(0, task.slice_count - self._control.config.recent_slices)))

    def _cancel(self, form: Mapping[str, str]) -> Answer:
        task_id, kind = parse_task_id(form, SERVICES)
        task = self._book.get(task_id, kind)
        if kind == "audio":
            raise Refusal(INVALID, "tasks of files cannot be canceled")
        fault = self._faults.due("cancel_code", task.outcome.cancel_code, task_id) or self._draw(
            CANCEL, task.name, task.outcome, task_id=task_id
        )
        if fault is not None:
            return faulty(fault, task=task)
        self._moderation.cancel(task)
        return Answer(body=envelope(OK), task=task)

    def _upload_token(self, endpoint: str) -> Answer:
        fault = self._draw(UPLOAD, "", Outcome())
        if fault is not None:
            return faulty(fault)
        body = envelope(OK, self._store.issue(endpoint))
        # this one action says Msg where the others say Message
        body["Msg"] = body.pop("Message")
        return Answer(body=body)

    def _draw(self, action: str, name: str, outcome: Outcome, *, task_id: str | None = None) -> Fault | None:
        probability = outcome.faults
        return self._faults.draw(action, CALL_FAULTS[action], source=name, probability=probability, task_id=task_id)
