"""Keys and secrets: who has which, how old they are, and where they lie."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from webhook import bootstrap, clock
from webhook.checks import count
from webhook.evidence_stores import Directory
from webhook.posture.subject import Finding
from webhook.settings import Settings
from webhook.store import keys as key_store
from webhook.store.keys import LIVE, ApiKey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.db import Session
    from webhook.posture.subject import Subject

_OLD = timedelta(days=90)  # the vendor says "regularly", and names no time
_OTHERS_MAY = 0o077
_PROCESSES = Path("/proc")
_SHORTEST = 8  # characters of a secret that is looked for: shorter ones stand anywhere
_FINGERPRINT = 12  # hex digits, which tell keys from each other and nothing else
_SOME = 5


def rotated(subject: Subject, session: Session) -> Finding:
    """Look at the ages of API keys."""
    live = _live(subject, session)
    lasting = [one for one in live if one.expires_at is None]
    old = [one for one in live if subject.now - one.created_at > _OLD]
    unused = [one for one in live if subject.now - (one.last_used_at or one.created_at) > _OLD]
    evidence = {
        "live": len(live),
        "without_expiry": len(lasting),
        "older_than_90_days": len(old),
        "unused_for_90_days": len(unused),
        "never_used": sum(one.last_used_at is None for one in live),
        "oldest_created_at": clock.rfc3339_or_none(min((one.created_at for one in live), default=None)),
        "newest_created_at": clock.rfc3339_or_none(max((one.created_at for one in live), default=None)),
    }
    told = [
        *([f"{len(lasting)} without expiry ({_named(lasting)})"] if lasting else []),
        *([f"{len(old)} older than 90 days ({_named(old)})"] if old else []),
        *([f"{len(unused)} not used for as long ({_named(unused)})"] if unused else []),
    ]
    if told:
        mend = (
            "`webhook keys rotate NAME --expires 90d`, then `webhook keys revoke` the old one; revoke what is unused."
        )
        found = f"Of {count(len(live), 'live API key')}: {', '.join(told)}."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    found = f"{count(len(live), 'live API key')}; each expires, none is older than 90 days or unused for as long."
    return Finding(state="ok", finding=found, evidence=evidence)


def restricted(subject: Subject, session: Session) -> Finding:
    """Look at what API keys may do, and from where."""
    live = _live(subject, session)
    roles = Counter(one.role for one in live)
    anywhere = [one for one in live if one.networks is None]
    evidence = {
        "live_by_role": dict(sorted(roles.items())),
        "from_anywhere": len(anywhere),
        "admin_key_in_settings": subject.settings.admin_key is not None,
    }
    told = f"{count(len(live), 'live API key')} ({_counted(roles)})" if live else "No live API key"
    if subject.settings.admin_key is not None:
        found = f"{told}, and WEBHOOK_ADMIN_KEY, which has every role, from anywhere, for ever."
        mend = "Make a key for each client (`webhook keys create`), then take WEBHOOK_ADMIN_KEY out."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    if anywhere:
        found = f"{told}; {len(anywhere)} may be used from anywhere ({_named(anywhere)})."
        mend = "Make their next ones with --network."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    return Finding(state="ok", finding=f"{told}; each is for some networks only.", evidence=evidence)


def _live(subject: Subject, session: Session) -> list[ApiKey]:
    return [one for one in key_store.list_api_keys(session) if one.state(subject.now) == LIVE]


def _named(some: Sequence[ApiKey]) -> str:
    names = [one.id for one in some[:_SOME]]
    return ", ".join([*names, "…"] if len(some) > _SOME else names)


def _counted(roles: Counter[str]) -> str:
    return ", ".join(f"{number} {role}" for role, number in sorted(roles.items()))


def platform(subject: Subject, _session: Session) -> Finding:
    """Look at the AccessKey."""
    settings = subject.settings
    key_id, is_temporary = settings.access_key_id, settings.security_token is not None
    evidence = {
        "access_key_fingerprint": None if key_id is None else _fingerprint(key_id.encode()),
        "temporary": is_temporary,
    }
    if key_id is None:
        return Finding(state="ok", finding="No AccessKey is set, so none can be lost.", evidence=evidence)
    may = "what its RAM user may do cannot be seen from here"
    if is_temporary:
        found = f"A temporary AccessKey, which expires by itself; {may}."
        return Finding(state="ok", finding=found, evidence=evidence)
    found = f"A lasting AccessKey; when it was made, and {may}."
    mend = "In the RAM console: one user for this service, AliyunYundunGreenWebFullAccess alone, a key of this year."
    return Finding(state="unseen", finding=found, mend=mend, evidence=evidence)


def outside_code(subject: Subject, _session: Session) -> Finding:
    """Look at where secrets come from, and whether a command line shows one."""
    masters = bootstrap.encryption_keys(subject.settings).values()
    texts = [*_secrets(subject.settings), *(base64.b64encode(key).decode() for key in masters)]
    secrets = {text.encode() for text in texts if len(text) >= _SHORTEST}
    key_file = None if subject.settings.encryption_keys is not None else bootstrap.key_file(subject.settings)
    lines = list(_command_lines())
    shown = [pid for pid, line in lines if any(secret in line for secret in secrets)]
    evidence = {
        "secrets_looked_for": len(secrets),
        "command_lines_looked_at": len(lines),
        "command_lines_with_a_secret": len(shown),
        "master_key_from": "environment" if key_file is None else "file",
    }
    if shown:
        told = ", ".join(map(str, shown[:_SOME]))
        mend = "Everybody on this machine sees command lines: give it by the environment, and change the secret."
        found = f"A secret is on the command line of {count(len(shown), 'process', 'processes')} ({told})."
        return Finding(state="wrong", finding=found, mend=mend, evidence=evidence)
    if key_file is not None:
        found = f"The master key lies beside the database that it opens ({key_file}); no command line shows a secret."
        mend = "Move its line into WEBHOOK_ENCRYPTION_KEYS, given by a secrets manager, and keep a copy elsewhere."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    if not lines:
        found = "Secrets come from the environment; this system does not show command lines."
        return Finding(state="unseen", finding=found, evidence=evidence)
    found = "Secrets come from the environment, and no command line shows one."
    return Finding(state="ok", finding=found, evidence=evidence)


def _secrets(settings: Settings) -> Iterator[str]:
    """Yield the secrets of settings, as they are written, but for the master keys."""
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        if not field.metadata["secret"] or value is None:
            continue
        if field.name == "database_url":
            yield sa.make_url(value).password or ""
        elif isinstance(value, str):
            yield value


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for path in _PROCESSES.glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes()
        except OSError:  # it has ended, or is not ours to see
            continue


def files(subject: Subject, _session: Session) -> Finding:
    """Look at who may read the files of the service."""
    seen = {path: path.stat().st_mode & 0o777 for path in _files(subject) if path.exists()}
    open_ = {str(path): f"{mode:o}" for path, mode in sorted(seen.items()) if mode & _OTHERS_MAY}
    evidence = {"looked_at": [str(path) for path in sorted(seen)], "open_to_others": open_}
    if open_:
        key_file = str(bootstrap.key_file(subject.settings))
        found = (
            f"Other users of this machine may get at {', '.join(f'{path} ({mode})' for path, mode in open_.items())}."
        )
        mend = f"chmod go= {' '.join(open_)}"
        return Finding(state="wrong" if key_file in open_ else "warning", finding=found, mend=mend, evidence=evidence)
    told = count(len(seen), "file or directory", "files and directories")
    return Finding(state="ok", finding=f"{told} of the service here, all their owner's alone.", evidence=evidence)


def _files(subject: Subject) -> Iterator[Path]:
    settings, path = subject.settings, subject.database.path
    if settings.encryption_keys is None and (key_file := bootstrap.key_file(settings)) is not None:
        yield key_file
    if path is not None:
        yield from (path, *(Path(f"{path}-{end}") for end in ("wal", "shm")))
    yield bootstrap.upload_path(settings)
    store = None if (settings.evidence_store or "").startswith("s3:") else bootstrap.evidence_store(settings)
    if isinstance(store, Directory):
        yield store.root


def environments(subject: Subject, _session: Session) -> Finding:
    """Look at whether a secret serves twice; other installations cannot be seen."""
    settings = subject.settings
    masters = bootstrap.encryption_keys(settings)
    fingerprints = {f"master key {name}": _fingerprint(key) for name, key in masters.items()}
    if settings.access_key_id is not None:
        fingerprints["AccessKey"] = _fingerprint(settings.access_key_id.encode())
    evidence: dict[str, Any] = {
        "platform_endpoint": settings.platform_endpoint,
        "platform_uid": settings.platform_uid,
        "fingerprints": fingerprints,
    }
    given = [settings.admin_key, settings.access_key_secret, *(key.hex() for key in masters.values())]
    twice = [secret for secret, number in Counter(filter(None, given)).items() if number > 1]
    if twice:
        found = f"{count(len(twice), 'secret')} of the settings serve for two things."
        return Finding(state="wrong", finding=found, mend="Make one of its own for each.", evidence=evidence)
    told = ", ".join(f"{name} {fingerprint}" for name, fingerprint in fingerprints.items())
    found = f"Which keys other environments use cannot be seen from here. The fingerprints of these: {told}."
    mend = "Run this in each environment: no fingerprint may be in two."
    return Finding(state="unseen", finding=found, mend=mend, evidence=evidence)


def _fingerprint(secret: bytes) -> str:
    return hashlib.sha256(b"webhook fingerprint\0" + secret).hexdigest()[:_FINGERPRINT]
