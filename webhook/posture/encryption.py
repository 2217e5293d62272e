"""What is stored: whether it is sealed, under which keys, and how old these are."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from webhook import clock, shredding
from webhook.checks import count
from webhook.crypto import DIRECT, ENVELOPED
from webhook.posture.subject import Finding
from webhook.store import audit as audit_store
from webhook.store import data_keys as data_key_store
from webhook.store.audit import AuditQuery
from webhook.store.sealed import SEALED

if TYPE_CHECKING:
    from webhook.crypto import DataKey
    from webhook.db import Session
    from webhook.posture.subject import Subject

_AES = "aes-256-gcm"
_MASTER_DAYS = 365  # the vendor says "regularly", and names no time
_LATE = timedelta(days=3)  # for what a worker does every day


def at_rest(subject: Subject, session: Session) -> Finding:
    """Look at how values are sealed."""
    suites = Counter(one.suite for one in _live(session))
    looked: Counter[str] = Counter()
    bare: dict[str, int] = {}
    for column in SEALED:
        for version, number in column.versions(session, limit=subject.rows).items():
            kind = "data_key" if version in ENVELOPED else "master_key" if version in DIRECT else "not_sealed"
            looked[kind] += number
            if kind == "not_sealed":
                bare[column.label] = bare.get(column.label, 0) + number
    suite = subject.settings.cipher_suite
    evidence = {
        "suite": suite,
        "live_data_keys_by_suite": dict(sorted(suites.items())),
        "values_looked_at": dict(sorted(looked.items())),
        "not_sealed": bare,
        "rows_of_each_table": subject.rows,
    }
    scope = "all values" if subject.rows is None else f"the newest {subject.rows:,} rows of each table"
    if bare:
        told = ", ".join(f"{number} in {label}" for label, number in sorted(bare.items()))
        mend = "The service did not write them: restore these rows from a backup, and find out who did."
        found = f"Of {scope}, {count(sum(bare.values()), 'value')} not encrypted: {told}."
        return Finding(state="wrong", finding=found, mend=mend, evidence=evidence)
    if {suite, *suites} != {_AES}:
        mend = "If AES-256 is asked for, set WEBHOOK_CIPHER_SUITE=aes-256-gcm; old keys go with their period."
        found = f"Of {scope}, every one is encrypted; not only by AES-256: SM4-GCM is in use, whose keys have 128 bits."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    found = f"Of {scope}, every one is encrypted, by AES-256-GCM ({sum(looked.values()):,} were looked at)."
    return Finding(state="ok", finding=found, evidence=evidence)


def data_keys(subject: Subject, session: Session) -> Finding:
    """Look at the keys that values are sealed under."""
    every, live = data_key_store.list_data_keys(session), _live(session)
    looked_at = shredding.looked_at(session)
    evidence: dict[str, Any] = {
        "made": len(every),
        "destroyed": len(every) - len(live),
        "period_days": subject.settings.data_key_period.days,
        "oldest_live_from": _time(live[0]) if live else None,
        "newest_from": _time(live[-1]) if live else None,
        "looked_for_unused_at": clock.rfc3339_or_none(looked_at),
    }
    if not live:
        found = "There is none yet: the service makes one as it starts."
        return Finding(state="warning", finding=found, evidence=evidence)
    found = (
        f"{evidence['destroyed']} of {count(len(every), 'data key')} destroyed, the oldest live one from "
        f"{live[0].created_at:%Y-%m-%d}, the newest from {live[-1].created_at:%Y-%m-%d}."
    )
    if live[-1].expires_at + _LATE <= subject.now:
        mend = "A running service begins the next one by itself. If one runs, see its log."
        late = f"{found} The newest has been due for the next since {live[-1].expires_at:%Y-%m-%d}."
        return Finding(state="warning", finding=late, mend=mend, evidence=evidence)
    unused = data_key_store.destroyable(session, now=subject.now - _LATE)
    if unused and (looked_at is None or subject.now - looked_at > _LATE):
        mend = "Run a worker: it looks once a day."
        late = f"{found} Nobody has looked for days whether a past one can go."
        return Finding(state="warning", finding=late, mend=mend, evidence=evidence)
    return Finding(state="ok", finding=found, evidence=evidence)


def master_keys(subject: Subject, session: Session) -> Finding:
    """Look at the keys that wrap data keys, and when the first of them became that."""
    active, *others = subject.keyring.masters
    live = _live(session)
    elsewhere = Counter(one.master_key_id for one in live if one.master_key_id != active)
    rotated = audit_store.newest(session, AuditQuery(action=audit_store.ROTATED, object_id=active, limit=1))
    own = [one.created_at for one in live if one.master_key_id == active]
    since = rotated[0].at if rotated else min(own, default=None)
    evidence = {
        "in_keyring": len(others) + 1,
        "active": active,
        "others": others,
        "last_rotated_at": clock.rfc3339(rotated[0].at) if rotated else None,
        "active_since": clock.rfc3339_or_none(since),
        "live_data_keys": len(live),
        "wrapped_by_others": dict(sorted(elsewhere.items())),
    }
    named = f"{count(len(others) + 1, 'master key')}; {active} is active"
    if elsewhere:
        found = f"{named}, and {sum(elsewhere.values())} of {count(len(live), 'data key')} are wrapped by another one."
        return Finding(state="warning", finding=found, mend="webhook keys rotate-master", evidence=evidence)
    if since is None:
        return Finding(state="ok", finding=f"{named}, and has wrapped nothing yet.", evidence=evidence)
    how = "last rotated" if rotated else "never rotated; in use since"
    found = f"{named}, {how} {since:%Y-%m-%d}."
    if subject.now - since > timedelta(days=_MASTER_DAYS):
        mend = "Put a new one first in WEBHOOK_ENCRYPTION_KEYS, restart, then `webhook keys rotate-master`."
        return Finding(state="warning", finding=f"{found} That is over a year.", mend=mend, evidence=evidence)
    return Finding(state="ok", finding=found, evidence=evidence)


def _live(session: Session) -> list[DataKey]:
    return [one for one in data_key_store.list_data_keys(session) if one.wrapped is not None]


def _time(one: DataKey) -> str:
    return clock.rfc3339(one.created_at)
