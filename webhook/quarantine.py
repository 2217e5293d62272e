"""Is a callback the platform's? And what is kept of those that do not prove it.

A wrong checksum mostly means a wrong setting: another account's UID, another algorithm. So the callback is
kept, in bounds, with a diagnosis where one can be had, and can be verified again when the setting is mended.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import msgspec
import structlog

from webhook import clock, payloads, signatures
from webhook.errors import Conflict, DecryptionError, NotConfigured, Unreadable
from webhook.ingest import Arrival
from webhook.store import callbacks as callback_store
from webhook.store import receivers as receiver_store
from webhook.store import tasks as task_store
from webhook.store.callbacks import Callback
from webhook.tokens import open_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Database, Session
    from webhook.ingest import Ingest
    from webhook.settings import Settings
    from webhook.signatures import CryptType, Diagnosis, Sm3Scheme
    from webhook.store.tasks import Address

log = structlog.get_logger()

_LONGEST_CHECKSUM = 128  # of a wrong one, kept to be shown
_KNOWN_UIDS = 100  # that a wrong checksum is tried with
_KNOWN_SEEDS = 20
_ROOM = 16  # one in so many of all that may be kept is room for what comes
_PAGE = 200  # ids of callbacks that are to be verified again, read at once
_LONGEST_SECONDS = 20.0  # after which the others are left to another request


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody who knows a token says that the platform found.

    Attributes:
        stated_task_id: the form's taskId, which the checksum does not cover.
    """

    address: Address
    checksum: str
    content: bytes
    stated_task_id: str | None
    received_at: datetime


class NotQuarantined(Conflict):
    """The callback was accepted, is unreadable, or made room for others."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What became of quarantined callbacks that were verified again.

    Attributes:
        next_after: the id of the last one, where others may follow.
    """

    accepted: int
    unreadable: int
    quarantined: int
    next_after: str | None


class Quarantine:
    """Verifies callbacks, and keeps those that fail."""

    def __init__(self, *, settings: Settings, keyring: Keyring, ingest: Ingest) -> None:
        self._settings = settings
        self._keyring = keyring
        self._ingest = ingest
        self._room_rows = self._room_bytes = 0  # until all that is kept is looked at again

    def verify(self, claim: Claim, *, callback_id: str | None = None) -> Arrival | None:
        """Return a callback that is authentic, parsed; None where its checksum is wrong.

        Raises:
            NotConfigured: no account UID is set, so nothing can be verified.
            DecryptionError: the address's seed does not open.
        """
        address = claim.address
        uid = address.uid or self._settings.platform_uid
        if uid is None:
            raise NotConfigured("WEBHOOK_PLATFORM_UID is not set, so no callback can be verified.")
        if not signatures.verify(
            crypt_type=cast("CryptType", address.crypt_type),
            scheme=cast("Sm3Scheme", self._settings.sm3_scheme),
            checksum=claim.checksum,
            uid=uid,
            seed=self._seed(address),
            content=claim.content,
        ):
            return None
        result, problem = None, None
        try:
            result = payloads.parse(claim.content)
        except Unreadable as error:
            problem = str(error)
        return Arrival(
            callback_id=callback_id,
            address=address,
            content=claim.content,
            digest=hashlib.sha256(claim.content).digest(),
            checksum=claim.checksum,
            stated_task_id=claim.stated_task_id,
            result=result,
            problem=problem,
            received_at=claim.received_at,
        )

    def keep(self, database: Database, claim: Claim) -> None:
        """Keep a callback whose checksum is wrong, with a diagnosis; the oldest make room.

        Raises:
            DatabaseError: it could not be kept.
        """
        address = claim.address
        callback_id = clock.new_id("cb", claim.received_at)
        diagnosis = self._diagnose(database, claim)
        row = Callback(
            id=callback_id,
            address_id=address.id,
            task_id=None if address.receiver else address.id,
            state="quarantined",
            digest=hashlib.sha256(claim.content).digest(),
            checksum=claim.checksum[:_LONGEST_CHECKSUM],
            stated_task_id=claim.stated_task_id,
            reason=diagnosis.reason,
            message=diagnosis.message,
            content=self._ingest.sealed_content(callback_id, claim.content),
            size=len(claim.content),
            received_at=claim.received_at,
        )
        with database.transaction() as session:
            if not address.receiver and task_store.task(session, address.id) is None:
                return  # it was erased meanwhile
            callback_store.insert_callbacks(session, [row])
            self._trim(session, row)

    def _trim(self, session: Session, newest: Callback) -> None:
        """Keep the quarantine within its bounds.

        One address may have half of all bytes: so whoever knows its token cannot drive out all others. To look at all
        that is kept takes milliseconds, in which nobody else writes: so there is room made for some more at a time.
        """
        rows, size = self._settings.quarantine_rows, self._settings.quarantine_bytes
        per_token = self._settings.quarantine_per_token
        callback_store.trim_quarantine(session, rows=per_token, total_bytes=size // 2, address_id=newest.address_id)
        self._room_rows -= 1
        self._room_bytes -= newest.size
        if self._room_rows < 0 or self._room_bytes < 0:
            self._room_rows, self._room_bytes = rows // _ROOM, size // _ROOM
            callback_store.trim_quarantine(session, rows=rows - self._room_rows, total_bytes=size - self._room_bytes)

    def verify_again(self, database: Database, callback_id: str) -> Callback:
        """Verify a quarantined callback by the present settings; an authentic one is taken in as if it came now.

        No transaction lasts while it is verified, however large it is.

        Returns:
            The callback as it is afterwards: accepted, unreadable, or still quarantined, for another cause perhaps.

        Raises:
            Conflict: it is not quarantined, its content was not kept, or its address is gone.
            NotConfigured, DecryptionError: as `verify`.
        """
        with database.read() as session:
            callback = callback_store.callback(session, callback_id)
            if callback is None or callback.state != "quarantined":
                raise NotQuarantined("The callback is not quarantined.")
            address = task_store.address_of(session, callback.address_id)
        if not callback.content:
            raise Conflict("The callback's content was not kept, so it cannot be verified again.")
        if address is None:
            raise Conflict("The callback's address no longer exists.")
        claim = Claim(
            address=address,
            checksum=callback.checksum,
            content=self._keyring.open(callback.content, table="callbacks", column="content", row=callback.id),
            stated_task_id=callback.stated_task_id,
            received_at=callback.received_at,
        )
        arrival = self.verify(claim, callback_id=callback.id)
        if arrival is None:
            return self._diagnosed_again(database, callback, self._diagnose(database, claim))
        with database.transaction() as session:
            if not callback_store.take_quarantined(session, callback.id):
                raise NotQuarantined("The callback is not quarantined any more.")
            self._ingest.accept(session, [arrival])
            # the same content may have been accepted under another id meanwhile
            taken = callback_store.callback_of_content(session, address_id=address.id, digest=arrival.digest)
        return callback if taken is None else taken

    def verify_all(self, database: Database, *, reason: str | None, after: str) -> Verified:
        """Verify quarantined callbacks again, oldest first, each in transactions of its own.

        Args:
            reason: why they are quarantined; None for all.
            after: the id of the last one that was verified; empty to begin with the oldest.
        """
        deadline = time.monotonic() + _LONGEST_SECONDS
        states = Counter[str]()
        unfinished = None
        for each in self._quarantined_ids(database, reason=reason, after=after):
            states[self._state_again(database, each)] += 1
            if time.monotonic() >= deadline:
                unfinished = each
                break
        return Verified(
            accepted=states["accepted"],
            unreadable=states["unreadable"],
            quarantined=states["quarantined"],
            next_after=unfinished,
        )

    def _quarantined_ids(self, database: Database, *, reason: str | None, after: str) -> Iterator[str]:
        while True:
            with database.read() as session:
                page = callback_store.quarantined_ids(session, reason=reason, after=after, limit=_PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]

    def _state_again(self, database: Database, callback_id: str) -> str:
        """Verify one of many; what cannot be verified now stays where it is, and stops none of the others."""
        try:
            return self.verify_again(database, callback_id).state
        except NotQuarantined:
            return "taken meanwhile"
        except (Conflict, NotConfigured, DecryptionError) as error:
            log.warning("A quarantined callback could not be verified again.", callback=callback_id, error=str(error))
            return "quarantined"

    def _diagnosed_again(self, database: Database, callback: Callback, diagnosis: Diagnosis) -> Callback:
        """Note what is wrong by the present settings, where that is something else."""
        if (callback.reason, callback.message) == (diagnosis.reason, diagnosis.message):
            return callback
        with database.transaction() as session:
            callback_store.diagnose_quarantined(
                session, callback.id, reason=diagnosis.reason, message=diagnosis.message
            )
        return msgspec.structs.replace(callback, reason=diagnosis.reason, message=diagnosis.message)

    def _diagnose(self, database: Database, claim: Claim) -> Diagnosis:
        """Say what a claim's checksum is wrong by."""
        address = claim.address
        with database.read() as session:
            uids = [address.uid, self._settings.platform_uid, *receiver_store.known_uids(session, limit=_KNOWN_UIDS)]
            others = receiver_store.other_secrets(session, address.id, limit=_KNOWN_SEEDS) if address.receiver else []
        known = [uid for uid in uids if uid]
        found = signatures.diagnose(
            crypt_type=cast("CryptType", address.crypt_type),
            scheme=cast("Sm3Scheme", self._settings.sm3_scheme),
            checksum=claim.checksum,
            uids=known,
            seed=self._seed(address),
            content=claim.content,
            other_seeds=list(self._seeds(others)),
        )
        return found or signatures.undiagnosed(known[0])

    def _seeds(self, receivers: Iterable[tuple[str, bytes]]) -> Iterator[str]:
        for receiver_id, secrets in receivers:
            with suppress(DecryptionError):  # one whose key is gone is of no help here
                yield open_secrets(self._keyring, secrets, table="receivers", row=receiver_id).seed

    def _seed(self, address: Address) -> str:
        table = "receivers" if address.receiver else "tasks"
        return open_secrets(self._keyring, address.secrets, table=table, row=address.id).seed
