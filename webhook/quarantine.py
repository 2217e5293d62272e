"""Is a callback the platform's? And what is kept of those that do not prove it.

A wrong checksum mostly means a wrong setting: another account's UID, another algorithm. So the callback is
kept, in bounds, with a diagnosis where one can be had, and can be verified again when the setting is mended.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

import msgspec

from webhook import clock, payloads, signatures
from webhook.errors import Conflict, NotConfigured, Unreadable
from webhook.ingest import Arrival
from webhook.store import callbacks as callback_store
from webhook.store import receivers as receiver_store
from webhook.store import tasks as task_store
from webhook.store.callbacks import Callback
from webhook.tokens import open_secrets

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Database, Session
    from webhook.ingest import Ingest
    from webhook.settings import Settings
    from webhook.signatures import CryptType, Sm3Scheme
    from webhook.store.tasks import Address

_LONGEST_CHECKSUM = 128  # of a wrong one, kept to be shown


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


class Quarantine:
    """Verifies callbacks, and keeps those that fail."""

    def __init__(self, *, settings: Settings, keyring: Keyring, ingest: Ingest) -> None:
        self._settings = settings
        self._keyring = keyring
        self._ingest = ingest

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
        with database.read() as session:
            uids = [address.uid, self._settings.platform_uid, *receiver_store.known_uids(session)]
        diagnosis = signatures.diagnose(
            crypt_type=cast("CryptType", address.crypt_type),
            scheme=cast("Sm3Scheme", self._settings.sm3_scheme),
            checksum=claim.checksum,
            uids=[uid for uid in uids if uid],
            seed=self._seed(address),
            content=claim.content,
        )
        row = Callback(
            id=callback_id,
            address_id=address.id,
            task_id=None if address.receiver else address.id,
            state="quarantined",
            digest=hashlib.sha256(claim.content).digest(),
            checksum=claim.checksum[:_LONGEST_CHECKSUM],
            stated_task_id=claim.stated_task_id,
            reason="checksum_wrong" if diagnosis is None else diagnosis.reason,
            message="The checksum is wrong." if diagnosis is None else diagnosis.message,
            content=self._ingest.sealed_content(callback_id, claim.content),
            size=len(claim.content),
            received_at=claim.received_at,
        )
        with database.transaction() as session:
            if not address.receiver and task_store.task(session, address.id) is None:
                return  # it was erased meanwhile
            callback_store.insert_callbacks(session, [row])
            callback_store.trim_quarantine(
                session,
                address_id=address.id,
                per_address=self._settings.quarantine_per_token,
                rows=self._settings.quarantine_rows,
                total_bytes=self._settings.quarantine_bytes,
            )

    def verify_again(self, session: Session, callback: Callback) -> Callback:
        """Verify a quarantined callback by the present settings; an authentic one is taken in as if it came now.

        Returns:
            The callback as it is afterwards: accepted, unreadable, or still quarantined.

        Raises:
            Conflict: it is not quarantined, its content was not kept, or its address is gone.
            NotConfigured, DecryptionError: as `verify`.
        """
        if callback.state != "quarantined":
            raise Conflict("The callback is not quarantined.")
        if not callback.content:
            raise Conflict("The callback's content was not kept, so it cannot be verified again.")
        address = task_store.address_of(session, callback.address_id)
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
            return callback
        callback_store.delete_callbacks(session, [callback.id])
        self._ingest.accept(session, [arrival])
        # the same content may have been accepted under another id meanwhile
        taken = callback_store.callback_of_content(session, address_id=address.id, digest=arrival.digest)
        return callback if taken is None else taken

    def _seed(self, address: Address) -> str:
        table = "receivers" if address.receiver else "tasks"
        return open_secrets(self._keyring, address.secrets, table=table, row=address.id).seed
