"""How many calls a second the platform takes: counted for real, over a sliding second."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RateLimit:
    """Admits at most so many calls within any second.

    Args:
        per_second: how many calls are admitted as things stand.
        clock: monotonic seconds.
    """

    def __init__(self, per_second: Callable[[], int], *, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._admitted: deque[float] = deque()

    def admit(self) -> bool:
        """Say whether a call made now is within the limit; refused calls do not count."""
        now = self._clock()
        while self._admitted and now - self._admitted[0] >= 1:
            self._admitted.popleft()
        if len(self._admitted) >= self._per_second():
            return False
        self._admitted.append(now)
        return True
