"""What the platform is to be asked next, claimed under a lease: streams first, files in the order they came."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from webhook import clock, limits
from webhook.db import alone
from webhook.platform_client import CALL_TIMEOUT_SECONDS
from webhook.store import limits as limit_store
from webhook.store import tasks as task_store
from webhook.store.tasks import Task  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.db import Session

LEASE = timedelta(seconds=2 * CALL_TIMEOUT_SECONDS + 15)  # a cancel is two calls
UPLOAD_LEASE = timedelta(seconds=60)  # renewed while the upload goes on
_UPLOAD_KEPT = timedelta(minutes=20)  # the platform keeps an upload for 30: vendor-docs/voice-moderation, "Table 1"


class Step(Enum):
    """What a claimed task needs next."""

    UPLOAD = "upload"
    SUBMIT = "submit"
    SETTLE = "settle"  # no call: whoever made the last one died in it, or nothing was ever heard
    QUERY = "query"
    CANCEL = "cancel"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose next step is ours.

    Attributes:
        lease: fences all that is written of it.
        claimed_at: what the platform turns away then is of one burst with what it turned away since.
    """

    task: Task
    step: Step
    lease: str
    claimed_at: datetime


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls of each kind may be begun; the last counts cancels, too."""

    submits: int
    uploads: int
    queries: int


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """What was claimed.

    Attributes:
        probes: the limits of which it is to be tried whether the platform lets calls through again.
        again_at: when a limit lets more through; None where none stood in the way.
    """

    calls: list[Call]
    probes: list[str]
    again_at: datetime | None


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast, and how patiently.

    Attributes:
        submits_per_second, queries_per_second, running_streams: the platform's limits for the account.
        poll_delay: from a submit to the first query for its result.
        stream_poll: between two queries for a running stream.
        result_lifetime: how long the platform keeps results.
        unknown_outcome_wait: how long a file whose submit's answer was lost waits for its callback.
    """

    submits_per_second: int
    queries_per_second: int
    running_streams: int
    poll_delay: timedelta
    stream_poll: timedelta
    result_lifetime: timedelta
    unknown_outcome_wait: timedelta


class Claims:
    """Claims what is due.

    Args:
        pace: the platform's limits.
    """

    def __init__(self, *, pace: Pace, now: Callable[[], datetime] = clock.now) -> None:
        self._pace = pace
        self._now = now

    def claim(self, session: Session, *, room: Room) -> Claimed:
        """Take what is due, as far as there is room and the platform's limits allow: streams first, then first come."""
        alone(session, limit_store.ALL)  # or two workers could count the same room
        now = self._now()
        lease = secrets.token_hex(8)
        submits, wait_submit = self._due_submits(session, room=room.submits, now=now)
        uploads = self._due_uploads(session, room=room.uploads, now=now)
        later, wait_query = self._due_later(session, room=room.queries, now=now)
        task_store.lease_tasks(session, [*submits, *later], lease=lease, lease_until=now + LEASE)
        forgotten = {"uploaded": None, "uploaded_at": None}
        task_store.lease_tasks(session, uploads, lease=lease, lease_until=now + UPLOAD_LEASE, **forgotten)
        steps = [(task, Step.UPLOAD) for task in uploads] + [(task, _step(task)) for task in (*submits, *later)]
        calls = [Call(task=task, step=step, lease=lease, claimed_at=now) for task, step in steps]
        probes = limits.due_trials(session, now=now)
        for name in probes:
            limits.begin_trial(session, name, now=now)
        return Claimed(calls=calls, probes=probes, again_at=min(filter(None, (wait_submit, wait_query)), default=None))

    def _due_submits(self, session: Session, *, room: int, now: datetime) -> tuple[list[Task], datetime | None]:
        room_for_streams = min(room, self._pace.running_streams - task_store.running_streams(session, now=now))
        room_for_streams, _ = limits.room(session, limits.STREAMS, wanted=max(room_for_streams, 0), now=now)
        streams = task_store.due_streams(session, now=now, limit=room_for_streams)
        files = task_store.due_files(
            session, now=now, handed_over_since=now - _UPLOAD_KEPT, to_hand_over=False, limit=room - len(streams)
        )
        due = [*streams, *files]
        admitted, wait = self._admitted(session, limits.SUBMITS, due, per_second=self._pace.submits_per_second, now=now)
        if any(task.kind == "live" for task in admitted):
            limits.begin_trial(session, limits.STREAMS, now=now)
        return admitted, wait

    def _due_uploads(self, session: Session, *, room: int, now: datetime) -> list[Task]:
        if limit_store.limit(session, limits.SUBMITS).is_closed:
            return []  # the platform would have forgotten it by the time it takes submissions again
        return task_store.due_files(
            session, now=now, handed_over_since=now - _UPLOAD_KEPT, to_hand_over=True, limit=room
        )

    def _due_later(self, session: Session, *, room: int, now: datetime) -> tuple[list[Task], datetime | None]:
        per_second = self._pace.queries_per_second
        cancels = task_store.due_cancels(session, now=now, limit=room)
        # who cancels asks afterwards how it stands; a stream goes on costing, so it is tried even while queries wait
        granted, wait_cancel = limits.take(session, limits.QUERIES, wanted=len(cancels), per_second=per_second, now=now)
        due = task_store.due_later(session, now=now, limit=room - len(cancels))
        asked = [task for task in due if _step(task) is Step.QUERY]
        admitted, wait = self._admitted(session, limits.QUERIES, asked, per_second=per_second, now=now)
        others = [task for task in due if _step(task) is not Step.QUERY]
        return [*cancels[:granted], *others, *admitted], wait_cancel or wait

    @staticmethod
    def _admitted(
        session: Session, name: str, due: list[Task], *, per_second: int, now: datetime
    ) -> tuple[list[Task], datetime | None]:
        if not due:
            return [], None
        granted, wait = limits.admit(session, name, wanted=len(due), per_second=per_second, now=now)
        return due[:granted], wait

    def has_due(self, session: Session) -> bool:
        """Return whether there is anything to claim."""
        now = self._now()
        return task_store.has_due(session, now=now) or bool(limits.due_trials(session, now=now))


def _step(task: Task) -> Step:
    """Return what a task that is due needs, an upload's way to the platform's storage aside."""
    if task.state == "queued":
        # a worker died in the middle of this very call, and the platform may have taken it
        return Step.SETTLE if task.lease is not None and task.kind == "audio" else Step.SUBMIT
    if task.platform_task_id is None:
        # a stream's callback was here before the submit's answer, which then got lost: its liveId makes it safe
        return Step.SUBMIT if task.kind == "live" else Step.SETTLE
    return Step.CANCEL if task.cancel_requested_at is not None and task.state == "processing" else Step.QUERY
