"""The time and the ids that are ordered by it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RANDOM_BYTES = 8  # beside 48 bits of milliseconds


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


def new_id(prefix: str, time: datetime) -> str:
    """Make an id that sorts by time to the millisecond: `task_` and 28 hex digits, 16 of them random."""
    return f"{prefix}_{to_microseconds(time) // 1000:012x}{os.urandom(_RANDOM_BYTES).hex()}"
