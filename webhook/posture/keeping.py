"""What is kept, for how long, and whether what is to go is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from webhook import bootstrap, clock
from webhook.checks import count
from webhook.posture.subject import Finding
from webhook.store import evidence as evidence_store
from webhook.store import slices as slice_store
from webhook.store import tombstones as tombstone_store
from webhook.store.sealed import CALLBACKS

if TYPE_CHECKING:
    from webhook.db import Session
    from webhook.posture.subject import Subject

_LATE = timedelta(days=1)  # for what a worker does every minute


def retention(subject: Subject, session: Session) -> Finding:
    """Look at how long each kind is kept, and whether it goes."""
    periods = bootstrap.periods_of(subject.settings).aligned()
    days = {name: None if period is None else period.days for name, period in msgspec.structs.asdict(periods).items()}
    held, since = tombstone_store.held(session)
    evidence = {"days": days, "legal_holds": held, "first_hold_placed_at": clock.rfc3339_or_none(since)}
    for_ever = [name for name, period in days.items() if period is None]
    if periods.transcripts is not None:
        before = subject.now - periods.transcripts - _LATE
        if slice_store.old_pages(session, before=before, limit=1):
            found = f"Transcripts are there that were to go by {clock.rfc3339(before)}."
            return Finding(state="wrong", finding=found, mend="Run a worker; its log says why not.", evidence=evidence)
    holds = f"{count(held, 'legal hold')}" + (f", the first of {since:%Y-%m-%d}" if since else "")
    if for_ever:
        found = f"Kept for ever: {', '.join(for_ever)}; {holds}."
        mend = "Set their WEBHOOK_RETENTION_…_DAYS to what was promised."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    told = ", ".join(f"{name} {number}" for name, number in days.items())
    return Finding(state="ok", finding=f"In days: {told}; {holds}.", evidence=evidence)


def zero_retention(subject: Subject, session: Session) -> Finding:
    """Look at whether anything that was said is there."""
    is_on = subject.settings.zero_retention
    content = sum(CALLBACKS.versions(session, limit=subject.rows).values())
    left = {
        "transcripts": slice_store.has_text(session),
        "callbacks": content > 0,
        "audio": evidence_store.has_saved(session),
    }
    evidence = {"on": is_on, "there_is": left, "rows_of_each_table": subject.rows}
    there = [name for name, is_there in left.items() if is_there]
    if not is_on:
        mend = "Where it was promised, set WEBHOOK_ZERO_RETENTION=on."
        found = "It is off: what was said is kept as the retention says. What was promised cannot be seen from here."
        return Finding(state="unseen", finding=found, mend=mend, evidence=evidence)
    if there:
        found = f"It is on, but there is from before: {', '.join(there)}."
        mend = "It goes with its retention; lower WEBHOOK_RETENTION_…_DAYS to have it gone sooner."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    return Finding(state="ok", finding="It is on, and nothing that was said is there.", evidence=evidence)


def erasure(subject: Subject, session: Session) -> Finding:
    """Look at whether what was erased is gone."""
    number, first = tombstone_store.backlog(session)
    evidence = {"unfinished": number, "first_erased_at": clock.rfc3339_or_none(first)}
    if first is not None and subject.now - first > _LATE:
        found = f"{count(number, 'erased task')} not gone whole, the first erased at {clock.rfc3339(first)}."
        mend = "Run a worker; its log says why not: a store of evidence that cannot be reached, perhaps."
        return Finding(state="wrong", finding=found, mend=mend, evidence=evidence)
    found = f"{count(number, 'erased task')} being taken away." if number else "All that was erased is gone."
    return Finding(state="ok", finding=found, evidence=evidence)
