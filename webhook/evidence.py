"""Evidence: the audio of flagged slices of streams, saved while its link lives.

A slice's evidence is claimed, captured and settled: two short transactions with the network between them. A
claim is a lease longer than a capture can take; a worker that dies leaves it to end, and another takes it up.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import structlog

from webhook import backoff, clock
from webhook.crypto import sealed_under
from webhook.errors import DecryptionError, EvidenceLost, SegmentRefused, SegmentUnavailable, StoreUnavailable
from webhook.store import evidence as evidence_store
from webhook.store.evidence import EXPIRED, FAILED, PENDING, SAVED, EvidenceRow

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Database, Session
    from webhook.evidence_stores import EvidenceStore
    from webhook.payloads import Slice
    from webhook.segments import Segment, Segments

log = structlog.get_logger()

LINK_LIFETIME = timedelta(minutes=30)  # vendor-docs/voice-moderation, "Table 4. SliceDetails": Url
_GIVE_UP_AFTER = timedelta(hours=1)  # of nobody who captures: the link is dead for long
_OWN_TROUBLE = "store_unavailable"
_ERASED_AT_ONCE = 50
_ERASE_AGAIN_AFTER = timedelta(minutes=1)


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """A capture that has ended.

    Attributes:
        segment: what was saved, None where nothing was.
        data_key_id: what it was sealed under.
        reason: why not, in a stable word.
        final: whether another attempt would change nothing.
    """

    row: EvidenceRow
    segment: Segment | None = None
    data_key_id: int | None = None
    reason: str | None = None
    final: bool = False


def new_links(
    links: Mapping[bytes, str],
    flagged: Iterable[bytes],
    *,
    before: Mapping[bytes, Slice],
    flagged_before: Container[bytes],
) -> dict[bytes, str]:
    """Return the links of slices that have both a link and a flag now, whichever of the two came first.

    Args:
        links: those that have just come, of whatever version of a slice.
        flagged: keys of those slices that have come and are flagged now.
        before: slices that were there before, by their key.
        flagged_before: the keys of those of them that were flagged.
    """
    found: dict[bytes, str] = {}
    for key in flagged:
        known = before[key].url if key in before else None
        link = links.get(key) or known
        if link and not (known and key in flagged_before):
            found[key] = link
    return found


def wanted(keyring: Keyring, task_id: str, slice_key: bytes, url: str, *, now: datetime) -> EvidenceRow:
    """Return the row that has a slice's audio saved."""
    row = EvidenceRow(task_id=task_id, slice_key=slice_key, url=b"", next_attempt_at=now, created_at=now)
    sealed = keyring.seal(url.encode(), table="evidence", column="url", row=name_of(row))
    return msgspec.structs.replace(row, url=sealed)


def name_of(row: EvidenceRow) -> str:
    """Return the name of a slice's audio: in the store, and to the keyring."""
    return f"{row.task_id}/{row.slice_key.hex()}"


class Evidence:
    """Captures evidence and gives it back.

    Args:
        timeout: how long fetching may take, and how long storing may; the lease outlasts both.
        dice: random numbers from 0 to 1, for jitter.
    """

    def __init__(
        self,
        *,
        keyring: Keyring,
        store: EvidenceStore,
        timeout: timedelta,
        now: Callable[[], datetime] = clock.now,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._keyring = keyring
        self._store = store
        self._timeout = timeout
        self._now = now
        self._dice = dice

    def claim(self, session: Session, *, limit: int) -> list[EvidenceRow]:
        """Take what is due."""
        now = self._now()
        return evidence_store.claim_evidence(
            session, now=now, lease=secrets.token_hex(8), lease_until=now + 3 * self._timeout, limit=limit
        )

    async def capture(self, segments: Segments, row: EvidenceRow) -> Settlement:
        """Fetch a slice's audio, and keep it sealed; what goes wrong is in the settlement."""
        try:
            segment = await segments.fetch(self._open_url(row))
            async with asyncio.timeout(self._timeout.total_seconds()):
                under = await asyncio.to_thread(self._keep, row, segment.audio)
        except SegmentRefused as error:
            return Settlement(row=row, reason=error.reason, final=True)
        except SegmentUnavailable as error:
            return Settlement(row=row, reason=error.reason)
        except (StoreUnavailable, DecryptionError, TimeoutError) as error:
            log.warning("The audio of a slice could not be kept.", task=row.task_id, error=str(error) or "timeout")
            return Settlement(row=row, reason=_OWN_TROUBLE)
        return Settlement(row=row, segment=segment, data_key_id=under if isinstance(under, int) else None)

    def settle(self, session: Session, settlement: Settlement) -> None:
        """Note what became of a capture; one whose lease has ended meanwhile is somebody else's now."""
        row, segment = settlement.row, settlement.segment
        state, due = self._next(settlement)
        held = evidence_store.settle_evidence(
            session,
            row,
            state=state,
            reason=settlement.reason,
            content_type=segment.content_type if segment else None,
            size=len(segment.audio) if segment else None,
            object=name_of(row) if segment else None,
            data_key_id=settlement.data_key_id,
            attempt_count=row.attempt_count + 1,
            next_attempt_at=due,
        )
        if held and state in {EXPIRED, FAILED}:
            log.warning("The audio of a slice was not saved.", task=row.task_id, state=state, reason=settlement.reason)

    def give_up(self, session: Session) -> None:
        """Settle what nobody captures any more, as when it is switched off."""
        now = self._now()
        evidence_store.expire_evidence(session, due_before=now - _GIVE_UP_AFTER, now=now)

    def load(self, row: EvidenceRow) -> bytes:
        """Return audio that was saved; blocks on the store, so outside any transaction.

        Raises:
            EvidenceLost: the store has it no longer.
            StoreUnavailable: the store cannot be read now.
            DecryptionError: it does not open.
        """
        return self._open_audio(row, self._store.get(row.object or name_of(row)))

    def erase_some(self, database: Database) -> bool:
        """Delete some of the audio that is to be deleted; return whether there may be more to delete now.

        Raises:
            DatabaseError: it cannot be noted now.
        """
        now = self._now()
        with database.read() as session:
            rows = evidence_store.erased_evidence(session, now=now, limit=_ERASED_AT_ONCE)
        gone: list[EvidenceRow] = []
        left: list[EvidenceRow] = []
        for row in rows:
            try:
                self._store.delete(name_of(row))
                gone.append(row)
            except StoreUnavailable as error:
                if row.object is None:  # it is not known to lie there, and the store may never have been made
                    gone.append(row)
                    continue
                log.warning("The audio of a slice could not be erased; it is tried again.", error=str(error))
                left.append(row)
                break  # the others would fare no better
        if rows:
            with database.transaction() as session:
                evidence_store.delete_erased(session, gone)
                for row in left:
                    evidence_store.put_off_erased(session, row, until=now + _ERASE_AGAIN_AFTER)
        return len(gone) == _ERASED_AT_ONCE

    def seal_anew(self, row: EvidenceRow) -> int | str | None:
        """Seal saved audio under the present data key, if a master key sealed it directly; blocks on the store.

        Returns:
            The id of the data key (a number) that it is sealed under now, or of the master key (a text) if it does not
            open; None where the store has it no longer.

        Raises:
            StoreUnavailable: the store cannot be read or written now.
        """
        try:
            sealed = self._store.get(row.object or name_of(row))
        except EvidenceLost:
            return None
        under = sealed_under(sealed)
        if isinstance(under, str):
            with suppress(DecryptionError):
                return self._keep(row, self._open_audio(row, sealed))
        return under

    def _keep(self, row: EvidenceRow, audio: bytes) -> int | str | None:
        """Put audio into the store, and return what it is sealed under."""
        sealed = self._keyring.seal(audio, table="evidence", column="audio", row=name_of(row))
        self._store.put(name_of(row), sealed)
        return sealed_under(sealed)

    def _open_audio(self, row: EvidenceRow, sealed: bytes) -> bytes:
        return self._keyring.open(sealed, table="evidence", column="audio", row=name_of(row))

    def _open_url(self, row: EvidenceRow) -> str:
        return self._keyring.open(row.url, table="evidence", column="url", row=name_of(row)).decode()

    def _next(self, settlement: Settlement) -> tuple[str, datetime | None]:
        """Return the state after a capture, and when the next attempt is due: the last one as the link ends."""
        row, now = settlement.row, self._now()
        if settlement.segment is not None:
            return SAVED, None
        if settlement.final:
            return FAILED, None
        end = row.created_at + LINK_LIFETIME
        if now >= end:
            return (FAILED if settlement.reason == _OWN_TROUBLE else EXPIRED), None
        delay = backoff.capture_delay(attempts_made=row.attempt_count + 1, dice=self._dice)
        return PENDING, min(now + delay, end)
