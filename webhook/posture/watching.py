"""What is watched, and what is written down of it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from webhook import audit, clock, signatures
from webhook.checks import count
from webhook.errors import DecryptionError
from webhook.posture.subject import Finding
from webhook.store import audit as audit_store
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import keys as key_store

if TYPE_CHECKING:
    from webhook.audit import Report, Verified
    from webhook.db import Session
    from webhook.posture.subject import Subject

_MISSED_BEATS = 3
_VERIFIED_WITHIN = timedelta(days=30)
_DAY = timedelta(days=1)
_OF_A_DAY = 10_000  # rows that are counted at the most
_FORBIDDEN = 403


def callbacks(subject: Subject, session: Session) -> Finding:
    """Look at what failed verification, and why."""
    causes, kept = callback_store.causes(session), callback_store.count_by_state(session)
    known = [cause for cause in causes if cause.reason not in signatures.UNKNOWN]
    by_cause: Counter[str] = Counter()
    for cause in causes:
        by_cause[cause.reason] += cause.count
    evidence = {
        "account_uid_set": subject.settings.platform_uid is not None,
        "quarantined_by_cause": dict(sorted(by_cause.items())),
        "unreadable": kept["unreadable"],
    }
    if subject.settings.platform_uid is None:
        found = "WEBHOOK_PLATFORM_UID is not set, so no callback can be verified, and none is asked for."
        return Finding(state="wrong", finding=found, mend="Set it to the account's UID.", evidence=evidence)
    told = f"{count(sum(by_cause.values()), 'callback')} failed verification"
    if known:
        mend = "Mend that, then POST /v1/callbacks/verify."
        return Finding(state="wrong", finding=f"{told}; {known[0].message}", mend=mend, evidence=evidence)
    if causes:
        mend = "GET /v1/callbacks/causes, and look at who knows these URLs."
        found = f"{told}, for no cause that is known: forged, perhaps. They count for nothing."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    if kept["unreadable"]:
        found = f"Every callback was verified; {kept['unreadable']:,} could not be understood."
        mend = "See why: GET /v1/callbacks?state=unreadable."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    return Finding(state="ok", finding="Every callback that is kept was verified, and understood.", evidence=evidence)


def monitoring(subject: Subject, session: Session) -> Finding:
    """Look at whether inputs are moderated, and somebody hears of it."""
    beat = key_store.last_beat(session, key_store.WORKER)
    links = delivery_store.subscription_links(session)
    states = Counter(state for state, _, _ in links)
    given_up = sum(state == "disabled" and reason != "by_client" for state, reason, _ in links)
    evidence = {
        "worker_last_seen_at": clock.rfc3339_or_none(beat),
        "active_subscriptions": states["active"],
        "disabled_for_failing": given_up,
        "flag_level": subject.settings.flag_level,
        "audio_of_flagged_slices_saved": subject.settings.evidence and not subject.settings.zero_retention,
    }
    if beat is None or subject.now - beat > key_store.HEARTBEAT * _MISSED_BEATS:
        seen = "It has never run" if beat is None else f"It was last seen at {clock.rfc3339(beat)}"
        mend = "Start `webhook serve`, or `webhook worker`."
        found = f"No worker runs: nothing is submitted, and nobody is told. {seen}."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    if given_up:
        mend = "Mend the receiving end, then PATCH it to active and POST …/recover."
        found = f"{count(given_up, 'subscription')} no longer told: disabled for failing."
        return Finding(state="wrong", finding=found, mend=mend, evidence=evidence)
    found = (
        f"A worker runs; slices of risk {subject.settings.flag_level} and above raise an event, for "
        f"{count(states['active'], 'active subscription')} and the feed."
    )
    return Finding(state="ok", finding=found, evidence=evidence)


def audit_log(subject: Subject, session: Session) -> Finding:
    """Verify the audit log: all of it, or its end."""
    if subject.rows is None:
        report = audit.verify(session, subject.keyring)
    else:
        report = audit.verify_end(session, subject.keyring, rows=subject.rows)
    evidence: dict[str, Any] = {
        "head": str(report.head) if report.fault is None else None,
        "rows": report.head.number,
        "verified_now": "all" if subject.rows is None else f"the last {subject.rows}",
        "last_verified_whole": None,
    }
    try:
        last = audit.last_verified(session, subject.keyring)
    except DecryptionError as error:
        return Finding(state="wrong", finding=f"The note of the last verification: {error}", evidence=evidence)
    if last is not None:
        evidence["last_verified_whole"] = {
            "at": clock.rfc3339(last.at),
            "rows": last.number,
            "fault": last.fault,
        }
    if (trouble := _trouble(report, last, is_whole=subject.rows is None)) is not None:
        mend = "Compare it with an export or a backup; `webhook audit verify --noted` where a head was noted elsewhere."
        return Finding(state="wrong", finding=trouble, mend=mend, evidence=evidence)
    if subject.rows is None:
        found = f"{count(report.head.number, 'row')}, none altered, removed or moved. The head is {report.head}."
        return Finding(state="ok", finding=found, evidence=evidence)
    ending = min(subject.rows, report.head.number)
    found = f"{count(report.head.number, 'row')}; the last {ending:,} are as they were written."
    if last is None or subject.now - last.at > _VERIFIED_WITHIN:
        when = "never" if last is None else f"last at {clock.rfc3339(last.at)}"
        mend = "Run `webhook audit verify`, once a month or more often."
        return Finding(state="warning", finding=f"{found} The whole was {when} verified.", mend=mend, evidence=evidence)
    return Finding(
        state="ok", finding=f"{found} All {last.number:,} were so at {clock.rfc3339(last.at)}.", evidence=evidence
    )


def _trouble(report: Report, last: Verified | None, *, is_whole: bool) -> str | None:
    """Say what is wrong with the log, by what was found now, and by what a verification of the whole found last."""
    if report.fault is not None:
        return report.fault.sentence
    if last is None:
        return None
    if last.number > report.head.number:
        had = f"and had {last.number:,} at {clock.rfc3339(last.at)}: an older state was put back, with its note."
        return f"The log has {report.head.number:,} rows, {had}"
    if last.fault is not None and not is_whole:
        return (
            f"The verification of {clock.rfc3339(last.at)} found this: {last.fault}. Run `webhook audit verify` again."
        )
    return None


def access_log(subject: Subject, session: Session) -> Finding:
    """Look at what the audit log says of the last day."""
    last = audit_store.last(session)
    statuses = audit_store.count_by_status(session, since=subject.now - _DAY, among=_OF_A_DAY)
    rows, refused = sum(statuses.values()), statuses.get(_FORBIDDEN, 0)
    last_at = None if last is None else clock.rfc3339(audit_store.row_of(last).at)
    evidence = {"last_row_at": last_at, "rows_of_a_day": rows, "refused_of_a_day": refused, "among_rows": _OF_A_DAY}
    if last is None:
        found = "Nothing was changed or read yet that would be written down."
        return Finding(state="ok", finding=found, evidence=evidence)
    more = " or more" if rows == _OF_A_DAY else ""
    found = f"Of the last day {count(rows, 'row')}{more}, the newest from {last_at}."
    if refused:
        mend = "See who: `webhook audit list`, the rows of status 403."
        found = f"{found} {count(refused, 'request')} wanted what a role does not allow."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    return Finding(state="ok", finding=found, evidence=evidence)
