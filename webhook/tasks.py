"""Tasks as clients know them: submitted, canceled, asked for again; and how they end.

A task's row is written first, with a token and a seed of its own, so that its callback can be verified
before the submit call has even returned. What the platform is asked, and when, is in `claims` and `calls`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from webhook import clock
from webhook.errors import Conflict
from webhook.store import events as event_store
from webhook.store import tasks as task_store
from webhook.store.tasks import ACTIVE_STATES, Task
from webhook.tokens import new_secrets, seal_secrets, token_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.ingest import Ingest
    from webhook.uploads import Uploads


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks to be moderated.

    Attributes:
        source: `{"url": …}`, `{"oss": {"bucket", "object", "region"}}` or `{"file": {"name", "size"}}`.
        file: the uploaded file, as `uploads.Uploads.begin` named it.
    """

    kind: str
    service: str
    source: dict[str, Any]
    file: Path | None = None
    data_id: str | None = None
    live_id: str | None = None
    referer: str | None = None
    crypt_type: str = "SHA256"


class Tasks:
    """Submits, cancels, and brings tasks to their end.

    Args:
        uploads: where uploaded files wait.
    """

    def __init__(
        self,
        *,
        keyring: Keyring,
        ingest: Ingest,
        uploads: Uploads,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._keyring = keyring
        self._ingest = ingest
        self._uploads = uploads
        self._now = now

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
            upload_size=None if new.file is None else new.file.stat().st_size,
        )
        if new.file is not None:
            self._uploads.adopt(new.file, task)
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
        if task.state not in ACTIVE_STATES or task.cancel_requested_at is not None:
            return task
        now = self._now()
        if task.state == "queued" and task.lease is None:
            self.finish(session, task, state="canceled", cancel_requested_at=now)
        else:
            task_store.update_task(session, task.id, cancel_requested_at=now, next_attempt_at=now, attempt_count=0)
        return task_store.task(session, task.id) or task

    def refresh(self, session: Session, task: Task) -> Task:
        """Have the worker ask the platform for a task now, ahead of all that are due.

        Raises:
            Conflict: the platform has not been heard to know it, or it is none of ours.
        """
        if task.origin != "submitted":
            raise Conflict("The platform can be asked only for what this service submitted.")
        if task.platform_task_id is None:
            raise Conflict("The platform has not said yet that it took the task, so it cannot be asked for.")
        # what was submitted first goes first, and this goes as if it had waited ever since
        task_store.update_task(session, task.id, next_attempt_at=task.created_at)
        return task_store.task(session, task.id) or task

    def finish(self, session: Session, task: Task, *, state: str, **values: Any) -> None:
        """Bring a task to its end, with the events that tell of it."""
        now = self._now()
        ended: dict[str, Any] = {"state": state, "finished_at": now, "updated_at": now, "next_attempt_at": None}
        before = task_store.task(session, task.id)
        task_store.update_task(session, task.id, **ended, **values, **RELEASED, upload_size=None)
        after = task_store.task(session, task.id) or task
        task_store.move_labels(session, [(before, after)])
        told = [self._ingest.task_event(f"task.{state}", after), *self._ingest.ended(after)]
        event_store.insert_events(session, told)


RELEASED: dict[str, None] = {"lease": None, "lease_until": None}
