"""A process's data keys: loaded as it starts, looked for again, and the next one begun when a period is over.

All processes share them: who finds that there is none for the present makes one, and of two that do so at once the one
whose row comes first has made it for both.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from webhook.crypto import SUITES, Keyring, check_suite
from webhook.errors import DatabaseError, DecryptionError, SettingError
from webhook.store import data_keys as data_key_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from webhook.crypto import DataKey
    from webhook.db import Database, Session

log = structlog.get_logger()

_LONG_OVER_SECONDS = 43_200.0  # half of the day after which a data key may be destroyed: `store.data_keys`
_AGAIN_SECONDS = 10.0  # until a next data key that could not be made is looked for again


class DataKeys:
    """The data keys of one database, in one process.

    Args:
        masters: master key id to 32 bytes; the first is the active one.
        suite: what new data keys are for.
        period: for how long values are sealed under one.
        now: seconds since 1970.

    Attributes:
        keyring: seals under the present data key once it is begun; opens what any of them sealed.
    """

    def __init__(
        self,
        database: Database,
        masters: Mapping[str, bytes],
        *,
        suite: str,
        period: timedelta,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._suite = suite
        self._period = period
        self._now = now
        self._current = 0
        self._current_until = 0.0  # seconds since 1970
        self._aside: threading.Thread | None = None  # makes the next data key
        self._turn = threading.Lock()  # one thread sees to the next data key, the others go on under the old one
        self.keyring = Keyring(masters, find=self._find, overdue=self._go_on, now=now)

    def load(self) -> None:
        """Unwrap all data keys.

        Raises:
            SettingError: a master key is missing, or another than the one that wrapped them; or OpenSSL lacks a suite.
            DatabaseError: they cannot be read.
        """
        with self._database.read() as session:
            found = data_key_store.list_data_keys(session)
        live = [one for one in found if one.wrapped is not None]
        for suite in sorted({self._suite, *(one.suite for one in live)} & SUITES):
            check_suite(suite)
        missing = sorted({one.master_key_id for one in live} - {*self.keyring.masters})
        if missing:
            raise SettingError(
                "WEBHOOK_ENCRYPTION_KEYS",
                f"lacks {', '.join(missing)}, by which data keys of {self._database.name} are wrapped",
                "Put it back, after the active one, until `webhook keys rotate-master` has told that it is not needed.",
            )
        try:
            self.keyring.hold(live)
        except DecryptionError as error:
            raise SettingError(
                "WEBHOOK_ENCRYPTION_KEYS",
                f"holds no key that opens {self._database.name}: {str(error).removesuffix('.')}",
                "Set the keys the database was written with, the active one first, or put its key file back.",
            ) from None

    def begin(self, *, first: Callable[[Session, Keyring], None] | None = None) -> None:
        """Seal under the present data key from now on; it is made where there is none.

        Args:
            first: what is sealed together with the first data key that the database ever has, in its transaction.

        Raises:
            DatabaseError: it cannot be made.
            DecryptionError: its row was altered.
        """
        present = None
        with self._database.transaction() as session:
            while present is None:
                # the number comes first: what another process commits after it either is seen or has that number
                key_id = data_key_store.next_id(session)
                present = self._present(session)
                if present is None:
                    made = self._new(key_id)
                    if data_key_store.insert_data_key(session, made) and key_id == 1 and first is not None:
                        self.keyring.hold([made])
                        self.keyring.use(made.id, expires_at=made.expires_at.timestamp())
                        first(session, self.keyring)
        self._use(present)

    def _new(self, key_id: int) -> DataKey:
        created_at = datetime.fromtimestamp(self._now(), UTC)
        return self.keyring.new_data_key(
            key_id, suite=self._suite, created_at=created_at, expires_at=created_at + self._period
        )

    def _present(self, session: Session) -> DataKey | None:
        """Return the data key to seal under now: a newer one than before, as long as it lasts.

        One that is wrapped by a master key which only other processes have yet is not for this one.
        """
        newest = data_key_store.newest_data_key(session, suite=self._suite, master_key_ids=self.keyring.masters)
        if newest is None or newest.id <= self._current or newest.expires_at.timestamp() <= self._now():
            return None
        return newest

    def _use(self, data_key: DataKey) -> None:
        self.keyring.hold([data_key])
        self.keyring.use(data_key.id, expires_at=data_key.expires_at.timestamp())
        self._current = data_key.id
        self._current_until = data_key.expires_at.timestamp()

    def _find(self, key_id: int) -> DataKey | None:
        with self._database.read() as session:
            return data_key_store.data_key(session, key_id)

    def _go_on(self) -> None:
        """Seal under the next data key, if there is one; else have it made.

        Whoever seals mostly has a transaction open, for whose end the one that makes the key may have to wait. So it is
        made by a thread, and what is sealed meanwhile is under the old key, which stays until there is a newer one.

        Raises:
            DatabaseError: this process was idle, or without the others' master key, for so long that they have
                destroyed the old one; a moment later there is another.
        """
        is_long_over = self._now() - self._current_until > _LONG_OVER_SECONDS
        if not self._turn.acquire(blocking=is_long_over):
            return
        try:
            with self._database.read() as session:
                present = self._present(session)
                is_gone = present is None and is_long_over and data_key_store.is_destroyed(session, self._current)
            if present is not None:
                self._use(present)
                return
            if not is_gone:
                self.keyring.use(self._current, expires_at=self._now() + _AGAIN_SECONDS)
            if self._aside is None or not self._aside.is_alive():
                self._aside = threading.Thread(target=self._begin_aside, name="data key", daemon=True)
                self._aside.start()
        finally:
            self._turn.release()
        if is_gone:
            raise DatabaseError(f"Data key {self._current} was destroyed, and the next one is not made yet.")

    def _begin_aside(self) -> None:
        try:
            self.begin()
        except (DatabaseError, DecryptionError) as error:
            log.warning("The next data key could not be made; it is tried again.", error=str(error))
