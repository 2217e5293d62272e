"""Erasure: all that a task has brought, taken away for good, but for a tombstone that says so.

The task and the first of what it has brought go in the transaction that is asked for it: for nearly every task that is
all. Of a stream of weeks the worker takes the rest, some at a time; audio it deletes in the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from webhook import clock
from webhook.deliveries import ERASED
from webhook.errors import Conflict
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import evidence as evidence_store
from webhook.store import slices as slice_store
from webhook.store import tasks as task_store
from webhook.store import tombstones as tombstone_store
from webhook.store.tasks import ACTIVE_STATES
from webhook.store.tombstones import Hold, Tombstone

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from webhook.db import Database, Session
    from webhook.store.tasks import Task
    from webhook.uploads import Uploads

_ROWS_AT_ONCE = 200  # of each table: more would keep callbacks from the database
_TASKS_AT_ONCE = 20
_UNFINISHED_AT_ONCE = 1000


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the tasks of one `data_id`.

    Attributes:
        erased: how many, now.
        held: how many a legal hold keeps.
        running: how many are not over, and so cannot be erased yet.
        more: whether there are others to be erased, by asking again.
    """

    erased: int
    held: int
    running: int
    more: bool


class Erasure:
    """Erases tasks, and keeps them from it.

    Args:
        uploads: where files lie that nobody took.
    """

    def __init__(self, *, uploads: Uploads, now: Callable[[], datetime] = clock.now) -> None:
        self._uploads = uploads
        self._now = now
        self._emptied: set[str] = set()  # erased tasks of which at most audio is left

    def erase(self, session: Session, task: Task, *, by: str) -> None:
        """Erase a task.

        Args:
            by: id of the API key.

        Raises:
            Conflict: it is held, or not over.
        """
        if tombstone_store.hold(session, task.id) is not None:
            raise Conflict("The task is under a legal hold; it can be erased once the hold is released.")
        # what other systems submit is never known to be over, and is dropped when it comes
        if task.origin == "submitted" and task.state in ACTIVE_STATES:
            raise Conflict("The task is not over yet: cancel it if it is a stream, or wait for its result.")
        self._erase(session, task, by=by)

    def erase_data(self, session: Session, data_id: str, *, by: str) -> Erased:
        """Erase the tasks of one `data_id` that can be erased, up to so many at once."""
        found = task_store.erasable_tasks(session, data_id, limit=_TASKS_AT_ONCE + 1)
        # one may have been held while we waited for its lock
        erased = [task for task in found[:_TASKS_AT_ONCE] if tombstone_store.hold(session, task.id) is None]
        for task in erased:
            self._erase(session, task, by=by)
        held, running = task_store.count_of_data(session, data_id)
        return Erased(erased=len(erased), held=held, running=running, more=len(found) > _TASKS_AT_ONCE)

    def hold(self, session: Session, task: Task, *, by: str) -> Hold:
        """Keep a task from being erased, and from all retention, until the hold is released."""
        tombstone_store.place_hold(session, Hold(task_id=task.id, placed_at=self._now(), placed_by=by))
        held = tombstone_store.hold(session, task.id)
        assert held is not None  # noqa: S101 - it was placed in this transaction, or before it
        return held

    def finish_some(self, database: Database) -> bool:
        """Take away some more of what was erased; return whether there may be more to take away now.

        Raises:
            DatabaseError: it cannot be done now.
        """
        with database.read() as session:
            unfinished = tombstone_store.unfinished(session, limit=_UNFINISHED_AT_ONCE)
        self._emptied.intersection_update(unfinished)
        for task_id in [each for each in unfinished if each not in self._emptied][:_TASKS_AT_ONCE]:
            with database.transaction() as session:
                if self._take_away(session, task_id):
                    return True
            self._emptied.add(task_id)
        with database.read() as session:
            done = [one for one in sorted(self._emptied) if not evidence_store.has_evidence(session, one)]
        if done and database.scrub():
            with database.transaction() as session:
                tombstone_store.finish(session, done, now=self._now())
        return len(self._emptied) < len(unfinished)

    def _erase(self, session: Session, task: Task, *, by: str) -> None:
        buried = Tombstone(task_id=task.id, token_digest=task.token_digest, erased_at=self._now(), erased_by=by)
        tombstone_store.insert_tombstone(session, buried)
        task_store.delete_task(session, task)
        if task.receiver_id is not None and task.platform_task_id is not None:
            callback_store.erase_quarantined(session, address_id=task.receiver_id, stated_task_id=task.platform_task_id)
        self._uploads.discard(task)
        self._take_away(session, task.id)

    def _take_away(self, session: Session, task_id: str) -> bool:
        """Take away some of what a task has brought; return whether there may be more."""
        now = self._now()
        told = event_store.erase_events(session, task_id, limit=_ROWS_AT_ONCE)
        if told:
            delivery_store.give_up(session, delivery_store.owed_of(session, told), error=ERASED, now=now)
        counts = (
            len(told),
            callback_store.erase_callbacks(session, task_id, limit=_ROWS_AT_ONCE),
            slice_store.erase_pages(session, task_id, limit=_ROWS_AT_ONCE),
            evidence_store.erase_evidence(session, task_id, now=now, limit=_ROWS_AT_ONCE),
        )
        return max(counts) == _ROWS_AT_ONCE
