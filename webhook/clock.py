"""The time and the ids that are ordered by it."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


def to_microseconds(time: datetime) -> int:
    """Return microseconds since 1970, as the database keeps a time."""
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Return the aware time of so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def from_milliseconds(milliseconds: int) -> datetime | None:
    """Return the aware time of so many milliseconds since 1970; None for one that no calendar has."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def rfc3339(time: datetime) -> str:
    """Write a time as the API does: `2026-11-21T07:41:00.123456Z`."""
    return time.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def rfc3339_or_none(time: datetime | None) -> str | None:
    """Write a time that there may not be."""
    return None if time is None else rfc3339(time)


def new_id(prefix: str, time: datetime) -> str:
    """Make an id: `task_` and 28 hex digits, of which 12 are the time in milliseconds and the others random.

    Ids sort by time, and those that this process makes in one millisecond in the order in which they are made.
    """
    return f"{prefix}_{_numbers.next(to_microseconds(time) // 1000):028x}"


def first_id(prefix: str, time: datetime) -> str:
    """Return what sorts before all ids of a time, and after those of the milliseconds before it."""
    return f"{prefix}_{to_microseconds(time) // 1000 << _RANDOM_BITS:028x}"


def time_of(id_: str) -> datetime:
    """Return the time of an id, to the millisecond before it."""
    number = int(id_.rpartition("_")[2], 16)
    return from_microseconds((number >> _RANDOM_BITS) * 1000)


class _Numbers:
    """Random numbers that grow within a millisecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self, millisecond: int) -> int:
        random = int.from_bytes(os.urandom(_RANDOM_BITS // 8))
        with self._lock:
            if self._last >> _RANDOM_BITS == millisecond:
                self._last += 1 + (random >> _RANDOM_BITS // 2)
            else:
                self._last = (millisecond << _RANDOM_BITS) | random >> 1  # half of them are left to grow into
            return self._last


_RANDOM_BITS = 64
_numbers = _Numbers()
