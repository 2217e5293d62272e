"""What the database tells: what piles up, what fails, what waits."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from webhook import clock, codes, deliveries, signatures
from webhook.checks import Check, count, ok, warning, wrong
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import limits as limit_store
from webhook.store import lists as list_store
from webhook.store.lists import TaskQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.db import Database, Session

_QUEUED_FOR = timedelta(minutes=1)  # a submit takes a second, a busy platform some more
_NO_RESULT_FOR = timedelta(hours=2)
_MANY_DELIVERIES = 1000
_LOOKED_AT = 200  # rows of which the most frequent reason is told
_UNREACHABLE = "Check the network and WEBHOOK_PLATFORM_ENDPOINT."


def examine_contents(database: Database) -> list[Check]:
    """Check what piles up in the database."""
    with database.read() as session:
        kept = callback_store.count_by_state(session)
        return [
            _quarantine(session),
            _unreadable(kept["unreadable"]),
            _queue(session),
            _results(session),
            _subscriptions(session),
            _backlog(session),
            *_limits(session),
        ]


def _quarantine(session: Session) -> Check:
    found = callback_store.causes(session)
    if not found:
        return ok("quarantine", "No callback failed verification.")
    failed = f"{count(sum(cause.count for cause in found), 'callback')} failed verification"
    mend = "Mend that, then verify them again: POST /v1/callbacks/verify. GET /v1/callbacks/causes has all causes."
    known = [cause for cause in found if cause.reason not in signatures.UNKNOWN]
    if not known:
        return warning("quarantine", f"{failed}. {found[0].message}", mend=mend)
    return wrong("quarantine", f"{failed}; {known[0].count} of them: {known[0].message}", mend=mend)


def _unreadable(number: int) -> Check:
    if not number:
        return ok("unreadable", "Every authentic callback was understood.")
    mend = "See why: GET /v1/callbacks?state=unreadable."
    return warning("unreadable", f"{count(number, 'authentic callback')} could not be understood.", mend=mend)


def _queue(session: Session) -> Check:
    query = TaskQuery(states=("queued",), until=clock.now() - _QUEUED_FOR, limit=_LOOKED_AT)
    stuck = list_store.list_tasks(session, query)
    if not stuck:
        return ok("queue", "No task waits longer than a minute to be submitted.")
    reasons = Counter(task.error["message"] if task.error else "Not tried yet." for task in stuck)
    message, times = reasons.most_common(1)[0]
    mend = "See worker, credentials and platform above. Once that is mended they go out by themselves."
    return wrong("queue", f"{_waiting(len(stuck), 'task')} a minute to be submitted; {times}: {message}", mend=mend)


def _results(session: Session) -> Check:
    query = TaskQuery(states=("processing",), kind="audio", until=clock.now() - _NO_RESULT_FOR, limit=_LOOKED_AT)
    waiting = list_store.list_tasks(session, query)
    if not waiting:
        return ok("results", "No file waits longer than two hours for its result.")
    mend = "Does the public URL lead here from outside? Queries bring results, too, but later."
    return warning("results", f"{_waiting(len(waiting), 'file')} two hours for a result.", mend=mend)


def _waiting(number: int, noun: str) -> str:
    more = " or more" if number == _LOOKED_AT else ""
    return f"{number}{more} {noun} waits longer than" if number == 1 else f"{number}{more} {noun}s wait longer than"


def _subscriptions(session: Session) -> Check:
    found: list[delivery_store.Subscription] = []
    after = None
    while page := delivery_store.subscriptions_page(session, after=after, limit=_LOOKED_AT):
        found += page
        after = page[-1].id
    disabled = [one for one in found if one.state == "disabled" and one.disabled_reason != "by_client"]
    if disabled:
        mend = 'Mend the receiving end; then PATCH {"state": "active"} and POST …/recover, or DELETE it.'
        finding = f"{len(disabled)} of {len(found)} were disabled: their URL is gone, or failed for days: "
        return wrong("subscriptions", f"{finding}{_named(disabled)}.", mend=mend)
    failing = [one for one in found if one.state == "active" and one.failing_since is not None]
    if failing:
        mend = "GET /v1/subscriptions/{id}/deliveries shows what is answered."
        finding = f"{len(failing)} of {len(found)} do not take what they are sent: {_named(failing)}."
        return warning("subscriptions", finding, mend=mend)
    return ok("subscriptions", f"{len(found)}, none of them failing.")


def _named(found: Sequence[delivery_store.Subscription]) -> str:
    """Name some subscriptions by id and host: the rest of a URL may be a secret."""
    some = 3
    names = [f"{one.id} ({urlsplit(one.url).hostname})" for one in found[:some]]
    return ", ".join([*names, "…"] if len(found) > some else names)


def _backlog(session: Session) -> Check:
    owed = sum(delivery_store.count_pending(session).values())
    behind = event_store.behind(session, deliveries.CURSOR)
    finding = f"{owed:,} owed, and {count(behind, 'event')} not fanned out yet."
    if owed + behind < _MANY_DELIVERIES:
        return ok("deliveries", finding)
    mend = "Is the worker alive, a subscriber slow or failing? More at once: WEBHOOK_SUBSCRIPTION_CONCURRENCY."
    return warning("deliveries", finding, mend=mend)


def _limits(session: Session) -> Iterator[Check]:
    """Check that the platform turned nothing away lately."""
    for limit in limit_store.all_limits(session):
        if not limit.is_closed:
            continue
        mend = next((row.message for row in codes.CODES.values() if row.reason == limit.reason), _UNREACHABLE)
        until = "" if limit.closed_until is None else f" It is tried again at {clock.rfc3339(limit.closed_until)}."
        finding = f"They wait ({limit.reason}, {limit.closed_count} times in a row).{until}"
        stopped = wrong if limit.reason == "not_authorized" else warning
        yield stopped(limit.name, finding, mend=mend)
