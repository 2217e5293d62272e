"""The audit log: who changed what, and who read what was said; a chain in which whatever is missing or changed shows.

A row's hash is the SHA-256 of the hash before it (32 zero bytes before the first) and of the row's columns but the
last, in their order, as a compact JSON array in UTF-8; times are microseconds since 1970, `details` the text as it is
kept. So rows that were altered, taken out of the middle, put in or put elsewhere fit no longer.

The chain alone could be cut short, or made anew from some row on. So the number and hash of the newest row are noted
beside it, sealed by the keyring, and the chain goes on from that note: whoever can write the database but lacks the
encryption keys cannot write another. There is a note from the first data key on, so an emptied log is not taken for a
new one. What this cannot show: an older state of the log put back together with its note, and what was forged by
somebody who has the keys. Against both helps a head (`number:hash`) that was noted elsewhere.

All rows are one chain, so whoever appends waits for the others who do. The callbacks' way appends nothing.
"""

from __future__ import annotations

import hashlib
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import clock
from webhook.db import alone
from webhook.errors import DecryptionError
from webhook.store import audit as audit_store
from webhook.store import data_keys as data_key_store
from webhook.store import keys as key_store
from webhook.store.audit import AuditRow, Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from webhook.crypto import Keyring
    from webhook.db import Session
    from webhook.store.audit import Values

RESUMED = "audit.resumed"
_PLACE = {"table": "meta", "column": "value", "row": "audit_head"}
_NUMBER_BYTES = 8
_VERIFIED = {"table": "meta", "column": "value", "row": "audit_verified"}
_ACTION = audit_store.COLUMNS.index("action")


class Head(msgspec.Struct, frozen=True):
    """A row's number and hash: in them is all that came before it."""

    number: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.number}:{self.hash.hex()}"


EMPTY = Head(0, bytes(hashlib.sha256().digest_size))


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """The first thing that is wrong.

    Attributes:
        number: of the row; None where it is the note of the newest one.
        kind: altered | removed | moved | inserted | rewritten | head.
        sentence: what is wrong, for people.
    """

    number: int | None
    kind: str
    sentence: str


_UNNOTED = Fault(
    number=None,
    kind="head",
    sentence="The note of the newest row is missing: rows after the last one may be, too.",
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    Attributes:
        head: the last row up to which each fits the one before it.
    """

    head: Head
    fault: Fault | None


def details(values: Mapping[str, Any]) -> str:
    """Return details as an entry keeps them."""
    return msgspec.json.encode(values, order="deterministic").decode()


def begin(session: Session, keyring: Keyring) -> None:
    """Note that the log of a new database is empty yet."""
    if audit_store.head(session) is None:
        _note(session, keyring, EMPTY)


def append(session: Session, keyring: Keyring, entries: Sequence[Entry], *, now: datetime) -> None:
    """Append entries. It is to be the last statement of its transaction, since others wait until that has ended.

    Where the note of the newest row is gone, the chain goes on with a row that says so.

    Raises:
        DecryptionError: that note was altered, or sealed with a key that we lack.
    """
    head = _head(session, keyring)
    if head is None:
        alone(session, "audit")  # there is no note for the first ones to wait for each other at
        head = _head(session, keyring)
    if head is None:
        last = audit_store.last(session)
        head = EMPTY if last is None else Head(last[0], last[-1])
        entries = [Entry(actor="service", action=RESUMED), *entries]
    rows = []
    for entry in entries:
        values = (head.number + 1, clock.to_microseconds(now), *msgspec.structs.astuple(entry))
        head = Head(head.number + 1, link(head.hash, values))
        rows.append((*values, head.hash))
    audit_store.insert(session, rows)
    _note(session, keyring, head)


def link(previous: bytes, values: Values) -> bytes:
    """Return the hash of a row, given the one before it and its columns but the last."""
    return hashlib.sha256(previous + msgspec.json.encode(values)).digest()


def _fits(previous: Head, values: Values) -> bool:
    """Return whether a row's hash is that of the row, and follows the one before it."""
    if any(isinstance(value, bytes) for value in values[:-1]):  # in SQLite a text's place may hold them
        return False
    try:
        return bool(link(previous.hash, values[:-1]) == values[-1])
    except UnicodeEncodeError:  # nor is every text there UTF-8
        return False


def _note(session: Session, keyring: Keyring, head: Head) -> None:
    audit_store.set_head(session, keyring.seal(head.number.to_bytes(_NUMBER_BYTES) + head.hash, **_PLACE))


def _is_new(session: Session) -> bool:
    """Return whether a database was only migrated: from its first data key on there is a note."""
    return data_key_store.next_id(session) == 1


def _head(session: Session, keyring: Keyring) -> Head | None:
    sealed = audit_store.head(session)
    if sealed is None:
        return None
    noted = keyring.open(sealed, **_PLACE)
    return Head(int.from_bytes(noted[:_NUMBER_BYTES]), noted[_NUMBER_BYTES:])


def verify(session: Session, keyring: Keyring, *, noted: Head | None = None) -> Report:
    """Go through the whole log and find the first row that does not fit; others may append meanwhile.

    Args:
        noted: what a verification said before, and somebody kept elsewhere.
    """
    last = audit_store.last(session)  # before the note, which so cannot be behind it
    newest = 0 if last is None else int(last[0])
    head, trouble = EMPTY, None
    try:
        found = _head(session, keyring)
    except DecryptionError as error:
        trouble = str(error)
    else:
        head = found or EMPTY
        if found is None and (newest or not _is_new(session)):
            trouble = _UNNOTED.sentence
    report = _walk(session, upto=newest if trouble else head.number, newest=newest, noted=noted)
    if report.fault is not None and report.fault.kind != "head":
        return report
    if trouble is not None:
        return msgspec.structs.replace(report, fault=Fault(number=None, kind="head", sentence=trouble))
    if report.head != head:
        return msgspec.structs.replace(report, fault=_rewritten(head.number))
    return report


def verify_end(session: Session, keyring: Keyring, *, rows: int) -> Report:
    """Verify the last rows alone: that each fits the one before it, and the last one the sealed note.

    The row before them is taken as it is. Others may append meanwhile.
    """
    last = audit_store.last(session)  # before the note, which so cannot be behind it
    try:
        head = _head(session, keyring)
    except DecryptionError as error:
        return Report(head=EMPTY, fault=Fault(number=None, kind="head", sentence=str(error)))
    if head is None:
        return Report(head=EMPTY, fault=None if last is None and _is_new(session) else _UNNOTED)
    base = max(head.number - rows, 0)
    verified = EMPTY if base == 0 else None
    for values in audit_store.in_order(session, after=base - 1):
        if values[0] > head.number:
            if last is not None and values[0] <= last[0]:
                return Report(head=verified or EMPTY, fault=_inserted(values[0]))
            break
        if verified is None:
            verified = Head(values[0], values[-1])
            continue
        if values[0] != verified.number + 1 or not _fits(verified, values):
            return Report(head=verified, fault=_fault_here(verified, found=values[0]))
        verified = Head(values[0], values[-1])
    if verified is None:
        verified = Head(base, b"")
    if verified.number < head.number:
        return Report(head=verified, fault=_fault_here(verified, found=None))
    return Report(head=verified, fault=None if verified == head else _rewritten(head.number))


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification of the whole log came to, as it was noted.

    Attributes:
        number: of the last row up to which each fits the one before it.
        fault: of the first thing that is wrong, its kind.
    """

    at: datetime
    number: int
    fault: str | None


def note_verified(session: Session, keyring: Keyring, report: Report, *, now: datetime) -> None:
    """Note what a verification of the whole log found, sealed: nobody else can say so."""
    fault = None if report.fault is None else report.fault.kind
    noted = msgspec.json.encode(Verified(at=now, number=report.head.number, fault=fault))
    key_store.set_meta(session, _VERIFIED["row"], keyring.seal(noted, **_VERIFIED))


def last_verified(session: Session, keyring: Keyring) -> Verified | None:
    """Return what the last verification of the whole log found; None where none was noted.

    Raises:
        DecryptionError: the note was altered.
    """
    sealed = key_store.meta_value(session, _VERIFIED["row"])
    return None if sealed is None else msgspec.json.decode(keyring.open(sealed, **_VERIFIED), type=Verified)


def _walk(session: Session, *, upto: int, newest: int, noted: Head | None) -> Report:
    """Follow the chain.

    Args:
        upto: the number that was noted last; rows beyond it came since, or are not ours.
        newest: the highest number there was before.
    """
    verified, resumed = EMPTY, None
    for values in audit_store.in_order(session):
        number = values[0]
        if number > upto:
            if number <= newest:
                return Report(head=verified, fault=_inserted(number))
            break
        if number != verified.number + 1 or not _fits(verified, values):
            return Report(head=verified, fault=_fault(session, verified, found=number))
        verified = Head(number, values[-1])
        if noted is not None and number == noted.number and verified != noted:
            return Report(head=verified, fault=_rewritten(number))
        if resumed is None and values[_ACTION] == RESUMED:
            sentence = f"When row {number} was written the note of the newest row was missing, and others may be, too."
            resumed = Fault(number=number, kind="head", sentence=sentence)
    if verified.number < max(upto, noted.number if noted else 0):
        return Report(head=verified, fault=_fault(session, verified, found=None))
    return Report(head=verified, fault=resumed)


def _fault(session: Session, verified: Head, *, found: int | None) -> Fault:
    """Say what became of the row after the last one that fits.

    Args:
        found: the number of the row that stands there.
    """
    expected = verified.number + 1
    for values in audit_store.in_order(session):
        if values[0] != expected and _fits(verified, (expected, *values[1:])):
            sentence = f"Row {expected} was moved: it stands as row {values[0]}."
            return Fault(number=expected, kind="moved", sentence=sentence)
    return _fault_here(verified, found=found)


def _fault_here(verified: Head, *, found: int | None) -> Fault:
    """Say what became of the row after the last one that fits, without looking for it elsewhere."""
    expected = verified.number + 1
    if found is not None and found < expected:
        return _inserted(found)
    if found != expected:
        return Fault(number=expected, kind="removed", sentence=f"Row {expected} is missing.")
    sentence = f"Row {expected} does not fit the one before it: it was altered or replaced, or all before it were."
    return Fault(number=expected, kind="altered", sentence=sentence)


def _inserted(number: int) -> Fault:
    return Fault(number=number, kind="inserted", sentence=f"Row {number} was put in: the service did not write it.")


def _rewritten(number: int) -> Fault:
    sentence = (
        f"The chain up to row {number} is another than was noted: some row was altered, and all after it with it."
    )
    return Fault(number=number, kind="rewritten", sentence=sentence)


def shape(row: AuditRow) -> dict[str, Any]:
    """Return a row as the API shows it."""
    return {
        "number": row.number,
        "at": clock.rfc3339(row.at),
        "actor": row.actor,
        "actor_name": row.actor_name,
        "role": row.role,
        "address": row.address,
        "request_id": row.request_id,
        "action": row.action,
        "object_id": row.object_id,
        "status": row.status,
        "details": _shown(row.details),
        "hash": row.hash.hex(),
    }


def _shown(details: str) -> dict[str, Any]:
    """Return a row's details; of a row that somebody altered what is there instead."""
    try:
        return msgspec.json.decode(details, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {"unreadable": details.encode(errors="replace").decode()}
