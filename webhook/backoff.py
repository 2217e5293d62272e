"""When to try again: deliveries, captures of audio, submissions and queries; and what `Retry-After` asks for."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DELIVERY_SCHEDULE = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The delay before each attempt, after the one before it: Standard Webhooks 1.0, "Deliverability and reliability"."""
DELIVERY_JITTER = 0.1
"""The share by which a delay is longer or shorter, so that what failed together does not return together."""
MAX_RETRY_AFTER = timedelta(hours=24)
"""The longest that a subscriber may put off an attempt: its `Retry-After` must not outlive the schedule."""

MIN_SUBMIT_DELAY_SECONDS = 1.0
MAX_SUBMIT_DELAY_SECONDS = 300.0
_MAX_DOUBLINGS = 9  # 1 s doubled so often is past the maximum

POLL_GROWTH = 2
LONGEST_POLL_GAP = timedelta(hours=1)
"""Between two queries for a file's result: a 10-hour file may take hours."""

MAX_CLOSED = timedelta(minutes=1)  # a probe costs nothing
"""The longest that a limit stays closed before a call tries it again."""

LONGEST_SECONDS = 366 * 24 * 3600
"""What a `Retry-After` of more digits than a year of seconds is taken for."""


def next_delivery_delay(
    *, attempts_made: int, retry_after: timedelta | None, dice: Callable[[], float]
) -> timedelta | None:
    """Return how long to wait before the next attempt of a delivery.

    Args:
        attempts_made: how many attempts there have been, 0 for a new delivery.
        retry_after: what the last answer asked for; it puts an attempt off, by a day at most, and never hastens it.
        dice: a random number from 0 to 1.

    Returns:
        The delay, or None when no attempt is left and the delivery is dead.
    """
    if attempts_made >= len(DELIVERY_SCHEDULE):
        return None
    delay = DELIVERY_SCHEDULE[attempts_made] * (1 + DELIVERY_JITTER * (2 * dice() - 1))
    return delay if retry_after is None else max(delay, min(retry_after, MAX_RETRY_AFTER))


def submit_delay(*, attempts_made: int, dice: Callable[[], float]) -> timedelta:
    """Return how long to wait before a submission that the platform could not take is tried again.

    Exponential with full jitter: anything from 1 s to the attempt's ceiling, which doubles up to 5 min. It never
    gives up; that is for the error's class to say.

    Args:
        attempts_made: how many attempts there have been.
        dice: a random number from 0 to 1.
    """
    ceiling = min(MAX_SUBMIT_DELAY_SECONDS, MIN_SUBMIT_DELAY_SECONDS * 2 ** min(attempts_made, _MAX_DOUBLINGS))
    return timedelta(seconds=MIN_SUBMIT_DELAY_SECONDS + (ceiling - MIN_SUBMIT_DELAY_SECONDS) * dice())


def poll_delay(*, first: timedelta, polls_made: int, dice: Callable[[], float]) -> timedelta:
    """Return how long to wait before a result that has not come is asked for again; the gaps double, up to an hour.

    Args:
        first: the delay before the first query.
        polls_made: how many there have been.
        dice: a random number from 0 to 1; with it, what was submitted together is not asked for together.
    """
    growth: int = POLL_GROWTH ** min(polls_made, _MAX_DOUBLINGS)
    gap = min(first * growth, max(first, LONGEST_POLL_GAP))
    return gap * (1 + DELIVERY_JITTER * (2 * dice() - 1)) if polls_made else gap


def closed_delay(*, first: timedelta, times: int, dice: Callable[[], float]) -> timedelta:
    """Return how long no call is made after the platform turned one away for a reason that concerns all.

    Args:
        first: the shortest such pause for the reason.
        times: how often it has turned calls away before, in a row.
        dice: a random number from 0 to 1.
    """
    growth: int = 2 ** min(times, _MAX_DOUBLINGS)
    return min(first * growth, MAX_CLOSED) * (0.5 + dice())


FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(minutes=1)


def pause_delay(*, times: int, dice: Callable[[], float]) -> timedelta:
    """Return how long nothing is sent to a subscriber that has failed again and again.

    From 2 s on, doubling up to a minute: so long may one that is back have to wait.

    Args:
        times: how often it was paused before, in a row.
        dice: a random number from 0 to 1.
    """
    growth: int = 2 ** min(times, _MAX_DOUBLINGS)
    return min(FIRST_PAUSE * growth, LONGEST_PAUSE) * (0.5 + dice() / 2)


CAPTURE_SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (1, 2, 5, 10, 30, 60, 120, 300))
"""The delay after each attempt to save a slice's audio, whose link lives half an hour; the last one repeats."""


def capture_delay(*, attempts_made: int, dice: Callable[[], float]) -> timedelta:
    """Return how long to wait before a slice's audio is asked for again.

    Args:
        attempts_made: how many attempts there have been, at least 1.
        dice: a random number from 0 to 1.
    """
    delay = CAPTURE_SCHEDULE[min(attempts_made, len(CAPTURE_SCHEDULE)) - 1]
    return delay * (1 + DELIVERY_JITTER * (2 * dice() - 1))


def parse_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    """Read a `Retry-After` header: seconds, or a date (RFC 9110 section 10.2.3).

    Args:
        value: the header as it came, or None where there was none.
        now: the time against which a date is read; aware.

    Returns:
        The time to wait, 0 where it has passed already, or None where the header says nothing we understand.
    """
    if value is None:
        return None
    value = value.strip()
    if match := _SECONDS.fullmatch(value):
        negative, digits = match.groups()
        if negative:
            return timedelta(0)
        return timedelta(seconds=min(int(digits), LONGEST_SECONDS) if len(digits) <= _YEAR_DIGITS else LONGEST_SECONDS)
    if not _DATE.fullmatch(value):
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # a date without a zone, as asctime's form is, is UTC
    return max(timedelta(0), (date if date.tzinfo else date.replace(tzinfo=UTC)) - now)


_SECONDS = re.compile(r"(-?)([0-9]+)")
_YEAR_DIGITS = 8
_DATE = re.compile(
    r"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9]{4} [0-9:]{8} GMT"  # IMF-fixdate
    r"|[A-Za-z]{6,9}, [0-9]{2}-[A-Za-z]{3}-[0-9]{2} [0-9:]{8} GMT"  # RFC 850
    r"|[A-Za-z]{3} [A-Za-z]{3} [0-9 ][0-9] [0-9:]{8} [0-9]{4}"  # asctime
)
"""The three forms of an HTTP-date, RFC 9110 section 5.6.7; the parser behind it takes much more."""
