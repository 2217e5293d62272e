"""What the platform lets the account do, shared by all workers: calls a second, running streams, whether any pass.

The rates are kept by GCRA: one time says up to when a rate is spent. Within any second it admits at most the
limit, so that the platform's own count, whenever its seconds begin, is never reached.

A limit is closed when the platform says so (too fast, not authorized, cannot be reached), for longer each time;
then one call tries whether it is open again. Where it was the account or the network that stood in the way, a probe
goes first, which costs nothing and risks no task; and what it lets through is one task, until that has passed. No
attempt of a task is used up meanwhile, and the task whose call closed the limit goes behind the others, for a while: it
may be the only one that is turned away.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from webhook import backoff
from webhook.store import limits as limit_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from webhook.db import Session
    from webhook.store.limits import Limit

SUBMITS, QUERIES, STREAMS = "submits", "queries", "streams"

# Reasons (`codes`) that concern all calls alike, and the first pause each asks for.
PAUSES = {
    "rate_limited": timedelta(seconds=1),
    "concurrency_limited": timedelta(seconds=2),
    "platform_unreachable": timedelta(seconds=1),
    "not_authorized": timedelta(seconds=5),
}
PROBED = (SUBMITS, QUERIES)
_PROBED_REASONS = frozenset({"platform_unreachable", "not_authorized"})
_BEHIND = 2  # pauses that a task which was turned away waits longer than the others
_BURST_SHARE = 10  # a tenth of a second's calls may go out at once; the others are spread over it


def room(session: Session, name: str, *, wanted: int, now: datetime) -> tuple[int, datetime | None]:
    """Return how many of these calls a limit does not stand against, and when it will be tried again if it does."""
    found = limit_store.limit(session, name)
    if found.closed_until is not None and now < found.closed_until:
        return 0, found.closed_until
    if _wants_probe(found):
        return 0, None
    return min(wanted, 1 if found.reason is not None else wanted), None


def admit(session: Session, name: str, *, wanted: int, per_second: int, now: datetime) -> tuple[int, datetime | None]:
    """Take up to so many calls out of a limit; they are to be made.

    Returns:
        How many may be made, and when to ask for more: None where all were granted.
    """
    passing, closed_until = room(session, name, wanted=wanted, now=now)
    if passing == 0:
        return 0, closed_until
    granted, again_at = take(session, name, wanted=passing, per_second=per_second, now=now)
    if granted > 0:
        begin_trial(session, name, now=now)
    return granted, again_at


def take(session: Session, name: str, *, wanted: int, per_second: int, now: datetime) -> tuple[int, datetime | None]:
    """Take up to so many calls out of a limit's rate, whether it is closed or not; they are to be made.

    Returns:
        As `admit`.
    """
    if wanted == 0:
        return 0, None
    found = limit_store.limit(session, name)
    burst = max(1, per_second // _BURST_SHARE)
    each = timedelta(seconds=1) / max(per_second - burst, 1)
    spent = max(found.spent_until or now, now)
    granted = min(wanted, max(int((now + burst * each - spent) / each), 0))
    if granted > 0:
        limit_store.save_limit(session, msgspec.structs.replace(found, spent_until=spent + granted * each))
    return granted, None if granted == wanted else spent + (granted + 1 - burst) * each


def due_trials(session: Session, *, now: datetime) -> list[str]:
    """Return the limits that were closed, and are to be tried again by a call that concerns no task."""
    return [
        found.name
        for found in limit_store.all_limits(session)
        if _wants_probe(found) and found.closed_until is not None and found.closed_until <= now
    ]


def begin_trial(session: Session, name: str, *, now: datetime) -> None:
    """Note of a limit that was closed that one call tries it: no other does until that one is settled."""
    found = limit_store.limit(session, name)
    if found.reason is not None:
        limit_store.save_limit(session, msgspec.structs.replace(found, closed_until=now + _TRIAL))


def close(
    session: Session, name: str, *, reason: str, called_at: datetime, now: datetime, dice: Callable[[], float]
) -> datetime:
    """Close a limit, for longer the more often it was closed in a row.

    Args:
        called_at: when the call that was turned away was claimed. One from before the limit was closed tells nothing
            new: many are under way at once.

    Returns:
        When the task of that call may be tried again, behind the others.
    """
    found = limit_store.limit(session, name)
    if found.reason is None or found.closed_at is None or found.closed_at < called_at:
        pause = backoff.closed_delay(first=PAUSES[reason], times=found.closed_count, dice=dice)
        found = msgspec.structs.replace(
            found, closed_at=now, closed_until=now + pause, reason=reason, closed_count=found.closed_count + 1
        )
        limit_store.save_limit(session, found)
    until = found.closed_until or now
    return until + _BEHIND * max(until - now, PAUSES[reason])


def reopen(session: Session, name: str, *, probed: bool = False) -> None:
    """Open a limit: a call has passed.

    Args:
        probed: one that concerns no task; so one task may try.
    """
    found = limit_store.limit(session, name)
    if found.reason is None:
        return
    still = {} if probed else {"reason": None, "closed_count": 0}
    limit_store.save_limit(session, msgspec.structs.replace(found, closed_until=None, **still))


def _wants_probe(found: Limit) -> bool:
    return found.name in PROBED and found.reason in _PROBED_REASONS and found.closed_until is not None


_TRIAL = timedelta(seconds=30)  # longer than a call takes
