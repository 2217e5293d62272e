"""Tasks on their way to the platform: submitted, settled, canceled.

A task's row is written first, with a token and a seed of its own, so that its callback can be verified
before the submit call has even returned. Then a worker claims it, calls the platform outside any
transaction, and settles it. A file whose submit may have been accepted is never sent again: it would be
paid twice. It waits for its callback, and fails with `submit_outcome_unknown` when none comes.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import backoff, clock
from webhook.errors import Conflict, OutcomeUnknown, PlatformBusy, PlatformError, PlatformRefused
from webhook.platform_client import CALL_TIMEOUT_SECONDS
from webhook.store import events as event_store
from webhook.store import tasks as task_store
from webhook.store.tasks import ACTIVE_STATES, Task
from webhook.tokens import new_secrets, open_secrets, seal_secrets, token_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.ingest import Ingest
    from webhook.platform_client import PlatformClient

AUDIO_SERVICE = "audio_detection_byllm_global"
LIVE_SERVICE = "live_detection_byllm_global"

LEASE = timedelta(seconds=CALL_TIMEOUT_SECONDS + 15)

# How often a submit is tried again, by reason; the others wait as long as it takes.
_MOST_ATTEMPTS = {"source_unreachable": 3, "platform_error": 10}
_NEVER_HEARD = PlatformRefused(
    code=None,
    reason="submit_outcome_unknown",
    message="The platform's answer to the submit was lost and no result came. "
    "It may have been accepted and charged: submit it again if you want it moderated for sure.",
)


_INTERRUPTED = OutcomeUnknown(
    code=None, reason="submit_outcome_unknown", message="The worker was stopped in the middle of the submit."
)


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks to be moderated.

    Attributes:
        source: `{"url": …}` or `{"oss": {"bucket", "object", "region"}}`.
    """

    kind: str
    service: str
    source: dict[str, Any]
    data_id: str | None = None
    live_id: str | None = None
    referer: str | None = None
    crypt_type: str = "SHA256"


class Tasks:
    """Submits and cancels.

    Args:
        callback_base_url: our public URL; None submits without a callback.
        unknown_outcome_wait: how long a file whose submit's answer was lost waits for its callback.
        dice: random numbers from 0 to 1, for backoff.
    """

    def __init__(
        self,
        *,
        keyring: Keyring,
        ingest: Ingest,
        callback_base_url: str | None,
        unknown_outcome_wait: timedelta,
        now: Callable[[], datetime] = clock.now,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._keyring = keyring
        self._ingest = ingest
        self._callback_base_url = callback_base_url
        self._unknown_outcome_wait = unknown_outcome_wait
        self._now = now
        self._dice = dice

    def submit(self, session: Session, new: NewTask) -> tuple[Task, bool]:
        """Write a task down for the worker to submit.

        Returns:
            The task and True; or the active stream of the same service and `live_id`, and False.
        """
        now = self._now()
        task_id = clock.new_id("task", now)
        own = new_secrets()
        task = Task(
            id=task_id,
            origin="submitted",
            kind=new.kind,
            service=new.service,
            state="queued",
            source=new.source,
            data_id=new.data_id,
            live_id=new.live_id,
            referer=new.referer,
            crypt_type=new.crypt_type,
            token_digest=token_digest(own.token),
            secrets=seal_secrets(self._keyring, own, table="tasks", row=task_id),
            created_at=now,
            updated_at=now,
            next_attempt_at=now,
        )
        if task_store.insert_task(session, task):
            return task, True
        active = task_store.active_stream(session, service=new.service, live_id=new.live_id or "")
        if active is None:
            raise Conflict("Another task stands in this one's way; try again.")
        return active, False

    def cancel(self, session: Session, task: Task) -> Task:
        """Cancel a stream: at once where the platform has not heard of it, else by the worker.

        Raises:
            Conflict: it is a file, which the platform cannot cancel, or none of ours.
        """
        if task.kind != "live" or task.origin != "submitted":
            raise Conflict("The platform cancels only streams that this service registered.")
        if task.state not in ACTIVE_STATES:
            return task
        now = self._now()
        if task.state == "queued" and task.lease is None:
            self._finish(session, task, state="canceled", cancel_requested_at=now)
        else:
            task_store.update_task(session, task.id, cancel_requested_at=now, next_attempt_at=now)
        return task_store.task(session, task.id) or task

    def claim(self, session: Session, *, lease: str, limit: int) -> list[Task]:
        """Take tasks whose call of the platform is due, under a lease."""
        now = self._now()
        return task_store.claim_due(session, now=now, lease=lease, lease_until=now + LEASE, limit=limit)

    def carry_out(
        self,
        transaction: Callable[[], AbstractContextManager[Session]],
        client: PlatformClient,
        *,
        task: Task,
        lease: str,
    ) -> None:
        """Make the call that a claimed task is due for, and settle it.

        Args:
            transaction: opens the transaction that settles.
            task: as `claim` returned it.
        """
        if task.state == "queued" and task.lease is not None and task.kind == "audio":
            # a worker died in the middle of this very call, and the platform may have taken it
            with transaction() as session:
                self._settle_unknown(session, task, lease=lease, error=_INTERRUPTED)
        elif task.state == "queued":
            self._submit(transaction, client, task=task, lease=lease)
        elif task.cancel_requested_at is not None and task.platform_task_id is not None:
            self._cancel(transaction, client, task=task, lease=lease)
        else:
            with transaction() as session:
                self._fail(session, task.id, lease=lease, error=_NEVER_HEARD)

    def _submit(
        self,
        transaction: Callable[[], AbstractContextManager[Session]],
        client: PlatformClient,
        *,
        task: Task,
        lease: str,
    ) -> None:
        try:
            platform_task_id = client.submit(service=task.service, parameters=self._parameters(task))
        except PlatformRefused as error:
            with transaction() as session:
                self._fail(session, task.id, lease=lease, error=error)
        except OutcomeUnknown as error:
            with transaction() as session:
                self._settle_unknown(session, task, lease=lease, error=error)
        except PlatformBusy as error:
            with transaction() as session:
                self._settle_busy(session, task, lease=lease, error=error)
        else:
            with transaction() as session:
                self._settle_submitted(session, task.id, lease=lease, platform_task_id=platform_task_id)

    def _cancel(
        self,
        transaction: Callable[[], AbstractContextManager[Session]],
        client: PlatformClient,
        *,
        task: Task,
        lease: str,
    ) -> None:
        try:
            client.cancel(service=task.service, platform_task_id=task.platform_task_id or "")
        except PlatformRefused:
            pass  # the platform no longer knows the stream: there is nothing left to cancel
        except PlatformError as error:
            with transaction() as session:
                self._settle_busy(session, task, lease=lease, error=error)
            return
        with transaction() as session:
            current = task_store.task(session, task.id)
            if current is not None and current.lease == lease and current.state in ACTIVE_STATES:
                self._finish(session, current, state="canceled")

    def _parameters(self, task: Task) -> dict[str, str]:
        """Return the platform's ServiceParameters (vendor-docs/voice-moderation, "Table 1")."""
        parameters: dict[str, str | None] = {
            "dataId": task.data_id,
            "liveId": task.live_id,
            "referer": task.referer,
        }
        if "oss" in task.source:
            oss = task.source["oss"]
            parameters |= {
                "ossBucketName": oss["bucket"],
                "ossObjectName": oss["object"],
                "ossRegionId": oss["region"],
            }
        else:
            parameters["url"] = task.source["url"]
        if self._callback_base_url is not None:
            own = open_secrets(self._keyring, task.secrets or b"", table="tasks", row=task.id)
            parameters |= {
                "callback": f"{self._callback_base_url}/callbacks/{own.token}",
                "seed": own.seed,
                "cryptType": task.crypt_type,
            }
        return {name: value for name, value in parameters.items() if value is not None}

    def _settle_submitted(self, session: Session, task_id: str, *, lease: str, platform_task_id: str) -> None:
        """Note that the platform took the task; its callback may have been here before."""
        current = task_store.task(session, task_id)
        if current is None:
            return
        now = self._now()
        first_heard = current.submitted_at is None
        task_store.update_task(
            session,
            task_id,
            platform_task_id=current.platform_task_id or platform_task_id,
            state="processing" if current.state == "queued" else current.state,
            submitted_at=current.submitted_at or now,
            attempt_count=0,
            next_attempt_at=now if current.cancel_requested_at and current.state in ACTIVE_STATES else None,
        )
        task_store.update_task(session, task_id, held=lease, **_RELEASED)
        if first_heard:
            self._raise(session, "task.submitted", task_id)

    def _settle_busy(self, session: Session, task: Task, *, lease: str, error: PlatformError) -> None:
        """Put the call off, or give up when it was tried often enough."""
        attempts = task.attempt_count + 1
        if task.state == "queued" and attempts >= _MOST_ATTEMPTS.get(error.reason, attempts + 1):
            self._fail(session, task.id, lease=lease, error=error)
            return
        due = self._now() + backoff.submit_delay(attempts_made=attempts, dice=self._dice)
        # only what still waits is put off: a callback may have settled the task meanwhile
        current = task_store.task(session, task.id)
        waits = current is not None and current.state in ACTIVE_STATES and current.next_attempt_at is not None
        task_store.update_task(
            session,
            task.id,
            held=lease,
            attempt_count=attempts,
            next_attempt_at=due if waits else None,
            error=_error_shape(error) if task.state == "queued" and waits else current.error if current else None,
            **_RELEASED,
        )

    def _settle_unknown(self, session: Session, task: Task, *, lease: str, error: OutcomeUnknown) -> None:
        """The submit may have been accepted: a stream's is repeated (its liveId makes it safe), a file's is not."""
        if task.kind == "live":
            self._settle_busy(session, task, lease=lease, error=error)
            return
        if self._callback_base_url is None:
            self._fail(session, task.id, lease=lease, error=_NEVER_HEARD)
            return
        current = task_store.task(session, task.id)
        if current is None or current.state != "queued":
            task_store.update_task(session, task.id, held=lease, **_RELEASED)
            return
        deadline = self._now() + self._unknown_outcome_wait
        task_store.update_task(session, task.id, held=lease, state="processing", next_attempt_at=deadline, **_RELEASED)

    def _fail(self, session: Session, task_id: str, *, lease: str, error: PlatformError) -> None:
        current = task_store.task(session, task_id)
        if current is None or current.lease != lease or current.state not in ACTIVE_STATES:
            return
        self._finish(session, current, state="failed", error=_error_shape(error))

    def _finish(self, session: Session, task: Task, *, state: str, **values: Any) -> None:
        now = self._now()
        task_store.update_task(
            session, task.id, state=state, finished_at=now, updated_at=now, next_attempt_at=None, **_RELEASED, **values
        )
        self._raise(session, f"task.{state}", task.id)

    def _raise(self, session: Session, type_: str, task_id: str) -> None:
        task = task_store.task(session, task_id)
        if task is not None:
            event_store.insert_events(session, [self._ingest.task_event(type_, task)])


_RELEASED: dict[str, None] = {"lease": None, "lease_until": None}


def _error_shape(error: PlatformError) -> dict[str, Any]:
    return {"code": error.code, "reason": error.reason, "message": error.message}
