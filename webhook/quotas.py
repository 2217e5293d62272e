"""How often somebody may ask: a bucket of requests for each name, that fills again at a steady rate.

A bucket is one time: up to when its requests are spent (GCRA). They are in memory, and as many as were taken from
last; one that is forgotten is full again, so a flood of names makes none of them poorer.
"""

from __future__ import annotations

import msgspec

_MOST_NAMES = 10_000
_SECOND = 1_000_000_000  # nanoseconds


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What is left in a bucket.

    Attributes:
        requests: that may be made at once.
        full_seconds: until the bucket is full again, rounded up.
        wait_seconds: until one more may be made, rounded up; 0 is now.
    """

    requests: int
    full_seconds: int
    wait_seconds: int


class Buckets:
    """Buckets of one size, full at first. They belong to one thread.

    Args:
        per_second: how many requests flow in.
        size: how many a full bucket holds.
    """

    def __init__(self, *, per_second: int, size: int, most_names: int = _MOST_NAMES) -> None:
        self._each = _SECOND // per_second
        self._full = self._each * size
        self._most_names = most_names
        self._spent_until: dict[str, int] = {}
        self.size = size
        self.full_seconds = _ceiling(self._full)

    def take(self, name: str, *, now: int) -> bool:
        """Take a request out of a bucket, if it holds one.

        Args:
            now: nanoseconds of a clock that only goes forward, such as `time.monotonic_ns`.
        """
        spent = max(self._spent_until.pop(name, now), now)
        taken = spent + self._each - now <= self._full
        self._spent_until[name] = spent + self._each if taken else spent
        if len(self._spent_until) > self._most_names:
            del self._spent_until[next(iter(self._spent_until))]  # the one that was longest not taken from
        return taken

    def left(self, name: str, *, now: int) -> Left:
        """Return what is left in a bucket."""
        spent = max(self._spent_until.get(name, now), now) - now
        return Left(
            requests=(self._full - spent) // self._each,
            full_seconds=_ceiling(spent),
            wait_seconds=_ceiling(max(spent + self._each - self._full, 0)),
        )


def _ceiling(nanoseconds: int) -> int:
    return -(-nanoseconds // _SECOND)
