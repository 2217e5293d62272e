"""Waiting for a condition: the one place where tests let time pass."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_PAUSE_SECONDS = 0.01


def until(check: Callable[[], T | None], *, seconds: float = 15) -> T:
    """Ask again and again until the answer is true, and return it.

    Args:
        check: what is asked; cheap and without effects.
        seconds: the deadline, far beyond what it takes, so that a slow machine changes nothing.

    Raises:
        AssertionError: it was not true in time; the message shows the last answer.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s; the last answer was {found!r}"
        pause.wait(_PAUSE_SECONDS)
    return found
