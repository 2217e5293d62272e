"""Shredding: data keys of past periods are destroyed, once nothing that is stored is sealed under them.

So what was deleted is gone also where its bytes are left: in a server's dead rows, in logs and pages that were never
overwritten. A worker looks once a day, some rows at a time. What a retention removes, a key waits for. What none ever
removes (tasks' seeds, subscriptions' secrets, the bare slices) is sealed anew under the present key, once nothing else
is left under its own. A later look must find nothing at all, and only then the key goes: whatever is killed in between
is just looked at again.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from webhook import audit, clock
from webhook.crypto import beginnings
from webhook.db import alone
from webhook.errors import DecryptionError
from webhook.store import data_keys as data_key_store
from webhook.store import evidence as evidence_store
from webhook.store import keys as key_store
from webhook.store.audit import Entry
from webhook.store.sealed import SEALED, ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from webhook.crypto import DataKey, Keyring
    from webhook.db import Database, Session
    from webhook.store.sealed import Head, Key, SealedColumn, SealedValue

log = structlog.get_logger()

_EVERY = timedelta(days=1)  # between two looks, whichever worker takes them
_ASK_SECONDS = 3600.0  # between looks whether another is due
_HEADS = 2000  # rows looked at in a turn, a few milliseconds
_ALONE = "shredding"
_LOOKED_AT = "data_keys_looked_at"


class Shredding:
    """Destroys data keys that nothing is under.

    Args:
        ticks: seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        *,
        keyring: Keyring,
        now: Callable[[], datetime] = clock.now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keyring = keyring
        self._now = now
        self._ticks = ticks
        self._ask_at = 0.0
        self._turns: Iterator[None] | None = None
        self._destroyed = False  # since the log was scrubbed

    def shred_some(self, database: Database) -> bool:
        """Go on with a look, or begin one where it is time; return whether there is more to do.

        Raises:
            DatabaseError: it cannot be done now.
        """
        if self._destroyed:
            self._destroyed = not database.scrub()
        if self._turns is None:
            if self._ticks() < self._ask_at:
                return False
            self._ask_at = self._ticks() + _ASK_SECONDS
            self._turns = self._look(database)
        try:
            next(self._turns)
        except BaseException as end:
            self._turns = None
            if not isinstance(end, StopIteration):
                raise
            return False
        return True

    def _look(self, database: Database) -> Iterator[None]:
        """Take one look, turn by turn."""
        with database.transaction() as session:
            candidates = self._begin(session)
        ids = {one.id for one in candidates}
        waiting: set[int] = set()  # for a retention
        lasting: set[int] = set()
        # what tells that a key must wait comes first: then nothing else need be looked at
        for finding in (_audio(database), *(_heads(database, one) for one in _in_order())):
            for found in finding:
                waiting |= {under for under, lasts in found if not lasts} & ids
                lasting |= {under for under, lasts in found if lasts} & ids
                if ids <= waiting:
                    return
                yield
        anew = lasting - waiting
        for column in _in_order():
            if anew and column.lasts:
                yield from self._seal_anew(database, column, anew)
        unused = ids - waiting - lasting
        if unused:
            self._destroy(database, unused)

    def _begin(self, session: Session) -> list[DataKey]:
        """Return the data keys to look for; none where a worker has looked today."""
        alone(session, _ALONE)
        now, before = self._now(), looked_at(session)
        if before is not None and timedelta() <= now - before < _EVERY:
            return []
        key_store.set_meta(session, _LOOKED_AT, str(clock.to_microseconds(now)).encode())
        return data_key_store.destroyable(session, now=now)

    def _seal_anew(self, database: Database, column: SealedColumn, ids: set[int]) -> Iterator[None]:
        """Seal what lasts under the present data key, a few values in a transaction."""
        begin = beginnings(sorted(ids))

        def wanted(head: Head) -> bool:
            return head.lasting and head.under in ids

        after: Key | None = None
        for heads in _pages(database, column):
            for until in ranges(heads, wanted=wanted):
                with database.read() as session:
                    values = column.values(session, after=after, until=until, begin=begin, lasting=True)
                anew = [(value, sealed) for value in values if (sealed := self._sealed_anew(column, value)) is not None]
                with database.transaction() as session:
                    column.replace(session, anew)
                after = until
                yield
            after = heads[-1].key
            yield

    def _sealed_anew(self, column: SealedColumn, value: SealedValue) -> bytes | None:
        place = column.place(value)
        try:
            return self._keyring.seal(self._keyring.open(value.sealed, **place), **place)
        except DecryptionError as error:
            log.warning("A value does not open, so its data key is kept.", error=str(error))
            return None

    def _destroy(self, database: Database, ids: set[int]) -> None:
        now = self._now()
        with database.transaction() as session:
            gone = [
                one
                for one in data_key_store.destroyable(session, now=now)
                if one.id in ids and data_key_store.destroy(session, one.id, now=now)
            ]
            audit.append(session, self._keyring, [_entry(one) for one in gone], now=now)
        self._destroyed = bool(gone)
        log.info("Data keys of past periods were destroyed.", keys=[one.id for one in gone])


def looked_at(session: Session) -> datetime | None:
    """Return when a look was last begun."""
    noted = key_store.meta_value(session, _LOOKED_AT)
    return None if noted is None else clock.from_microseconds(int(noted))


def _entry(gone: DataKey) -> Entry:
    period = {"created_at": clock.rfc3339(gone.created_at), "expires_at": clock.rfc3339(gone.expires_at)}
    return Entry(actor="service", action="data_key.destroyed", object_id=str(gone.id), details=audit.details(period))


def _in_order() -> list[SealedColumn]:
    return sorted(SEALED, key=lambda column: column.lasts)


Found = set[tuple[int, bool]]  # a data key, and whether what is under it lasts


def _pages(database: Database, column: SealedColumn) -> Iterator[Sequence[Head]]:
    """Yield what a column's values begin with, in the order of its keys."""
    after: Key | None = None
    while True:
        with database.read() as session:
            heads = column.heads(session, after=after, limit=_HEADS)
        if not heads:
            return
        after = heads[-1].key
        yield heads


def _heads(database: Database, column: SealedColumn) -> Iterator[Found]:
    for heads in _pages(database, column):
        yield {(head.under, head.lasting) for head in heads if isinstance(head.under, int)}


def _audio(database: Database) -> Iterator[Found]:
    after: tuple[str, bytes] | None = None
    while True:
        with database.read() as session:
            rows = evidence_store.audio_keys(session, after=after, limit=_HEADS)
        if not rows:
            return
        after = rows[-1][0]
        yield {(under, False) for _, under in rows if under is not None}
