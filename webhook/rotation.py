"""`webhook keys rotate-master`: everything under the active master key, while the service runs.

Data keys are wrapped anew: a handful of rows, whatever they have sealed. What older versions sealed directly under a
master key is sealed anew under the present data key, a few values in a transaction, each in place of the very bytes
that were read. So it may be killed and begun again at any moment, and a second time finds nothing left to do.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from webhook.crypto import DIRECT
from webhook.errors import DecryptionError
from webhook.store import data_keys as data_key_store
from webhook.store import evidence as evidence_store
from webhook.store.sealed import SEALED, ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.bootstrap import Service
    from webhook.crypto import DataKey
    from webhook.store.sealed import Head, Key, SealedColumn, SealedValue

_HEADS = 5000  # rows looked at in a statement
_PAUSE = 4  # times as long as we had the database, others have it: SQLite's log is copied, too, as it grows
_SAVED = 16  # slices whose audio is listed at once
_PASSES = 5  # one seals, the next finds nothing, or what does not open; more where older processes go on writing


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation did, and what it could not.

    Attributes:
        wrapped: data keys that were wrapped anew.
        sealed: values that were sealed anew, saved audio among them.
        needed: by master key but the active one, how many data keys, values and saved pieces of audio are under it.
    """

    wrapped: int
    sealed: int
    needed: dict[str, int]


def rotate(service: Service, *, progress: Callable[[str, int, int], None]) -> Rotated:
    """Bring everything under the active master key, or under data keys that it wraps.

    Args:
        progress: told what is worked through, how much of it is done, and how much there is.

    Raises:
        DatabaseError: it cannot be read or written.
        StoreUnavailable: saved audio cannot be read or written.
    """
    wrapped = _wrap_anew(service, progress=progress)
    sealed, needed = _audio_anew(service, progress=progress)
    for column in SEALED:
        left: Counter[str] | None = None
        for _ in range(_PASSES):
            before = left
            changed, left = _column_anew(service, column, progress=progress)
            sealed += changed
            if not left or (left == before and not changed):
                break
        needed.update(left)
    needed += Counter(one.master_key_id for one in _live_data_keys(service))
    needed.pop(service.keyring.masters[0], None)
    return Rotated(wrapped=wrapped, sealed=sealed, needed=dict(needed))


def _live_data_keys(service: Service) -> list[DataKey]:
    with service.database.read() as session:
        return [one for one in data_key_store.list_data_keys(session) if one.wrapped is not None]


def _wrap_anew(service: Service, *, progress: Callable[[str, int, int], None]) -> int:
    """Wrap data keys by the active master key; return how many another one wrapped."""
    found, wrapped = _live_data_keys(service), 0
    for number, before in enumerate(found, start=1):
        if before.master_key_id != service.keyring.masters[0]:
            after = service.keyring.rewrap(before)
            with service.database.transaction() as session:
                wrapped += data_key_store.replace_wrapping(session, before, after)
        progress("data_keys.wrapped", number, len(found))
    return wrapped


def _audio_anew(service: Service, *, progress: Callable[[str, int, int], None]) -> tuple[int, Counter[str]]:
    """Seal saved audio anew that a master key sealed; return how much, and what is left by master key."""
    with service.database.read() as session:
        total = evidence_store.count_saved_directly(session)
    done, sealed, left = 0, 0, Counter[str]()
    after = ("", b"")
    while True:
        with service.database.read() as session:
            rows = evidence_store.saved_directly(session, after=after, limit=_SAVED)
        for row in rows:
            under = service.evidence.seal_anew(row)
            if isinstance(under, int):
                with service.database.transaction() as session:
                    evidence_store.note_data_key(session, row, under)
                sealed += 1
            elif under is not None:
                left[under] += 1
            done += 1
            progress("evidence, audio", done, max(total, done))
        if not rows:
            return sealed, left
        after = (rows[-1].task_id, rows[-1].slice_key)


def _column_anew(
    service: Service, column: SealedColumn, *, progress: Callable[[str, int, int], None]
) -> tuple[int, Counter[str]]:
    """Seal a column's values anew that a master key sealed; return how many, and how many there were by master key."""
    with service.database.read() as session:
        total = column.count(session)
    done, changed, found = 0, 0, Counter[str]()
    after: Key | None = None
    while True:
        with _by_turns(), service.database.read() as session:
            heads = column.heads(session, after=after, limit=_HEADS)
        if not heads:
            return changed, found
        found.update(head.under for head in heads if isinstance(head.under, str))
        for until in ranges(heads, wanted=_is_direct):
            changed += _range_anew(service, column, after=after, until=until)
            after = until
        after = heads[-1].key
        done += len(heads)
        progress(column.label, done, max(total, done))


def _is_direct(head: Head) -> bool:
    return isinstance(head.under, str)


def _range_anew(service: Service, column: SealedColumn, *, after: Key | None, until: Key) -> int:
    """Seal some rows' values anew in one transaction, and return how many."""
    with service.database.read() as session:
        values = column.values(session, after=after, until=until, begin=DIRECT)
    anew = [(value, sealed) for value in values if (sealed := _sealed_anew(service, column, value)) is not None]
    with _by_turns(), service.database.transaction() as session:
        return column.replace(session, anew)


@contextmanager
def _by_turns() -> Iterator[None]:
    """Leave processor and database to others for a while after the block."""
    began = time.monotonic()
    yield
    time.sleep(_PAUSE * (time.monotonic() - began))


def _sealed_anew(service: Service, column: SealedColumn, value: SealedValue) -> bytes | None:
    """Return a value under the present data key; None where it does not open, and so needs its old key as before."""
    place = column.place(value)
    try:
        return service.keyring.seal(service.keyring.open(value.sealed, **place), **place)
    except DecryptionError:
        return None
