"""Retention: what is past its time is removed, some rows at a time; what a legal hold keeps is passed over.

Each kind of data has a sweep. Where rows are in the order of time by their key, it follows a cursor, so that nothing is
looked at twice; where a hold is released, the cursors go back to the task's beginning.
"""

from __future__ import annotations

from datetime import timedelta  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import structlog

from webhook import clock
from webhook.db import alone
from webhook.deliveries import CURSOR
from webhook.errors import DecryptionError
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import evidence as evidence_store
from webhook.store import keys as key_store
from webhook.store import slices as slice_store
from webhook.store import tombstones as tombstone_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from webhook.db import Database, Session
    from webhook.ingest import Ingest
    from webhook.store.slices import SlicePage
    from webhook.store.tasks import Task

log = structlog.get_logger()

_ROWS_AT_ONCE = 200  # more would keep callbacks from the database
_PAGES_AT_ONCE = 50  # each takes half a millisecond, though not of the database
_CALLBACKS, _EVENTS, _DELIVERIES = "callbacks_retention", "events_retention", "deliveries_retention"
_ALONE = "retention"
_ALONG_IDS = {_CALLBACKS: "cb", _DELIVERIES: "dlv"}


class Periods(msgspec.Struct, frozen=True, kw_only=True):
    """How long each kind of data is kept; None for ever.

    Attributes:
        callbacks: the content of those that were verified.
        quarantined: callbacks with a wrong checksum.
        transcripts: what was said in slices.
        evidence: the audio of slices.
    """

    callbacks: timedelta | None
    quarantined: timedelta | None
    transcripts: timedelta | None
    evidence: timedelta | None
    events: timedelta | None
    deliveries: timedelta | None

    def aligned(self) -> Periods:
        """Return periods by which no transcript is kept longer in one place than it may be in another.

        Raw callbacks and events repeat transcripts, a quarantined callback may become an accepted one, and a delivery
        is nothing without its event.
        """
        callbacks = _shorter(self.callbacks, self.transcripts)
        events = _shorter(self.events, self.transcripts)
        return msgspec.structs.replace(
            self,
            callbacks=callbacks,
            quarantined=_shorter(self.quarantined, callbacks),
            events=events,
            deliveries=_shorter(self.deliveries, events),
        )


def _shorter(one: timedelta | None, other: timedelta | None) -> timedelta | None:
    return min((period for period in (one, other) if period is not None), default=None)


class Retention:
    """Removes what is past its time.

    Args:
        periods: as they were set.
    """

    def __init__(self, *, periods: Periods, ingest: Ingest, now: Callable[[], datetime] = clock.now) -> None:
        self._periods = periods.aligned()
        self._ingest = ingest
        self._now = now
        self._removed = False  # since the log was scrubbed

    def sweep_some(self, database: Database) -> bool:
        """Remove some rows of each kind, each in a transaction of its own; return whether there may be more.

        Raises:
            DatabaseError: it cannot be done now.
        """
        more = False
        for sweep, period in (
            (self._deliveries, self._periods.deliveries),
            (self._events, self._periods.events),
            (self._callbacks, self._periods.callbacks),
            (self._quarantined, self._periods.quarantined),
            (self._evidence, self._periods.evidence),
        ):
            if period is None:
                continue
            with database.transaction() as session:
                alone(session, _ALONE)
                more |= sweep(session, self._now() - period)
        if self._periods.transcripts is not None:
            more |= self._transcripts(database, self._now() - self._periods.transcripts)
        if self._removed and not more:
            self._removed = not database.scrub()
        return more

    def release(self, session: Session, task: Task) -> bool:
        """End a task's hold, and let what is past its time go; return whether there was one."""
        alone(session, _ALONE)  # or a sweep that is under way would move its cursor on from where it was
        if not tombstone_store.release_hold(session, task.id):
            return False
        for name, prefix in _ALONG_IDS.items():
            begin = clock.first_id(prefix, task.created_at)
            if _reached(session, name) > begin:
                key_store.set_meta(session, name, begin.encode())
        event_store.move_cursor(session, _EVENTS, 0)
        return True

    def _deliveries(self, session: Session, before: datetime) -> bool:
        return self._sweep(session, _DELIVERIES, before, delivery_store.delete_deliveries)

    def _callbacks(self, session: Session, before: datetime) -> bool:
        return self._sweep(session, _CALLBACKS, before, callback_store.drop_contents)

    def _sweep(self, session: Session, name: str, before: datetime, sweep: Callable[..., Sequence[str]]) -> bool:
        """Go on along ids, which are in the order of time; return whether there may be more."""
        upto = clock.first_id(_ALONG_IDS[name], before)
        passed = sweep(session, after=_reached(session, name), before=upto, limit=_ROWS_AT_ONCE)
        if passed:
            self._removed = True
            key_store.set_meta(session, name, passed[-1].encode())
        return len(passed) == _ROWS_AT_ONCE

    def _events(self, session: Session, before: datetime) -> bool:
        passed = event_store.delete_events(
            session,
            after=event_store.cursor(session, _EVENTS),
            upto=event_store.cursor(session, CURSOR),
            before=before,
            limit=_ROWS_AT_ONCE,
        )
        if passed:
            self._removed = True
            event_store.move_cursor(session, _EVENTS, passed[-1])
        return len(passed) == _ROWS_AT_ONCE

    def _quarantined(self, session: Session, before: datetime) -> bool:
        deleted = callback_store.delete_quarantined(session, before=clock.first_id("cb", before), limit=_ROWS_AT_ONCE)
        self._removed |= deleted > 0
        return deleted == _ROWS_AT_ONCE

    def _transcripts(self, database: Database, before: datetime) -> bool:
        """Strip some pages, which takes long, between the two transactions."""
        with database.read() as session:
            pages = slice_store.old_pages(session, before=before, limit=_PAGES_AT_ONCE)
        if not pages:
            return False
        stripped = [self._stripped(page) for page in pages]
        with database.transaction() as session:
            for page, bare in zip(pages, stripped, strict=True):
                slice_store.rewrite_page(session, bare, was=page.written_at)
        self._removed = True
        return len(pages) == _PAGES_AT_ONCE

    def _stripped(self, page: SlicePage) -> SlicePage:
        try:
            return self._ingest.strip(page)
        except DecryptionError as error:
            log.warning("What was said in slices cannot be removed; it is tried again later.", error=str(error))
            return msgspec.structs.replace(page, written_at=self._now())

    def _evidence(self, session: Session, before: datetime) -> bool:
        marked = evidence_store.erase_old(session, before=before, now=self._now(), limit=_ROWS_AT_ONCE)
        self._removed |= marked > 0
        return marked == _ROWS_AT_ONCE


def _reached(session: Session, name: str) -> str:
    """Return the last id that a sweep has looked at, empty where it has not begun."""
    return (key_store.meta_value(session, name) or b"").decode()
