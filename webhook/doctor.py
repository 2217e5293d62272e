"""`webhook doctor`: what is misconfigured or stuck, and how to mend it.

It looks where the service would look: in the same environment, and in the same database. No secret is in what
it says.
"""

from __future__ import annotations

import difflib
import http.client
import os
import re
import shutil
import sys
from collections import Counter
from contextlib import closing
from dataclasses import fields
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from webhook import bootstrap, clock, codes, deliveries, logs, processes, services, signatures
from webhook import settings as settings_module
from webhook.crypto import Keyring
from webhook.db import Database
from webhook.errors import DatabaseError, PlatformError, ServiceError, SettingError
from webhook.settings import Settings
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import keys as key_store
from webhook.store import limits as limit_store
from webhook.store import receivers as receiver_store
from webhook.store import tasks as task_store
from webhook.store.tasks import TaskQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from webhook.db import Session

State = Literal["ok", "warning", "wrong"]

_GB = 1024**3
_DISK_FULL_BYTES = _GB // 10
_DISK_LOW_BYTES = _GB
_OTHERS_MAY = 0o077
_FETCH_SECONDS = 4.0
_FETCH_BYTES = 65_536
_MISSED_BEATS = 3
_QUEUED_FOR = timedelta(minutes=1)  # a submit takes a second, a busy platform some more
_NO_RESULT_FOR = timedelta(hours=2)
_MANY_DELIVERIES = 1000
_LOOKED_AT = 200  # rows of which the most frequent reason is told
_ACCOUNT_UID = re.compile(r"[0-9]{16}")  # Alibaba Cloud, Account Center, "View your Alibaba Cloud account ID"
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_NOT_A_RAM_USERS = "A RAM user's will not do: the platform hashes the account's into every checksum."


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        name: a stable word.
        state: a `warning` is worth a look, but nothing fails for it.
        finding: how it is, in a sentence or two.
        mend: what to do about it.
    """

    name: str
    state: State
    finding: str
    mend: str | None = None


def _ok(name: str, finding: str) -> Check:
    return Check(name=name, state="ok", finding=finding)


def _warning(name: str, finding: str, *, mend: str | None = None) -> Check:
    return Check(name=name, state="warning", finding=finding, mend=mend)


def _wrong(name: str, finding: str, *, mend: str | None = None) -> Check:
    return Check(name=name, state="wrong", finding=finding, mend=mend)


def run(environ: Mapping[str, str], *, as_json: bool) -> int:
    """Look at everything and print what was found.

    Returns:
        The exit status: 0 when nothing is wrong, else 1.
    """
    logs.configure("error")
    checks = examine(environ)
    wrong = any(check.state == "wrong" for check in checks)
    if as_json:
        report = msgspec.json.encode({"ok": not wrong, "checks": checks})
        sys.stdout.write(msgspec.json.format(report, indent=2).decode() + "\n")
    else:
        show(checks, Console(highlight=False))
    return 1 if wrong else 0


def examine(environ: Mapping[str, str]) -> list[Check]:
    """Look at everything; where settings are wrong, at nothing else, since the service would not start."""
    checks = list(_unknown_settings(environ))
    settings, problems = _load(environ)
    checks += [_wrong("settings", str(problem)) for problem in problems]
    if settings is None:
        return checks
    given = sum(bool(environ.get(name, "").strip()) for name in _known_settings())
    checks.append(_ok("settings", f"{given} of {len(_known_settings())} are set, the others have their defaults."))
    database = Database(settings.database_url)
    with closing(database):
        stored = list(_storage(settings, database))
        usable = database.path.exists() and all(check.state != "wrong" or check.name == "disk" for check in stored)
        running = list(_processes(settings, database if usable else None))
        return [
            *checks,
            *stored,
            *running,
            _public_url(settings, serving=running[0].state == "ok"),
            _uid(settings),
            _credentials(settings, database if usable else None),
            *_platform(settings, environ),
            *(_limits(database) if usable else ()),
            _api_keys(settings, database if usable else None),
            _sm3(),
            *(_contents(database) if usable else ()),
        ]


def _known_settings() -> list[str]:
    return [field.metadata["variable"] for field in fields(Settings)]


def _unknown_settings(environ: Mapping[str, str]) -> Iterator[Check]:
    known = {name.removeprefix("WEBHOOK_"): name for name in _known_settings()}
    for name in sorted(environ):
        if name.startswith("WEBHOOK_") and name not in known.values():
            close = difflib.get_close_matches(name.removeprefix("WEBHOOK_"), known, n=1)
            mend = f"Did you mean {known[close[0]]}?" if close else None
            yield _warning("settings", f"{name} is not a setting, so it does nothing.", mend=mend)


def _load(environ: Mapping[str, str]) -> tuple[Settings | None, list[SettingError]]:
    """Read the settings; a wrong one is noted and left out, so that the next one is found too."""
    rest = dict(environ)
    problems: list[SettingError] = []
    while True:
        try:
            settings = settings_module.load(rest)
        except SettingError as error:
            problems.append(error)
            if rest.pop(error.variable, None) is None:  # its default does not go with another setting
                return None, problems
        else:
            return (None if problems else settings), problems


def _storage(settings: Settings, database: Database) -> Iterator[Check]:
    """Check the database's directory, file, schema and keys, and the disk."""
    path, directory = database.path, database.path.parent
    if not directory.is_dir():
        mend = "Make it, or change WEBHOOK_DATABASE_URL."
        yield _wrong("database", f"The directory {directory} does not exist.", mend=mend)
        return
    if not os.access(directory, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        mend = "Let the service's user write to both: SQLite keeps its log beside the file."
        yield _wrong("database", f"{path} or its directory cannot be written to.", mend=mend)
    elif not path.exists():
        yield _warning("database", f"{path} does not exist yet.", mend="`webhook serve` and `webhook migrate` make it.")
    else:
        yield from _schema_and_keys(settings, database)
    yield _disk(settings, directory.as_posix())


def _schema_and_keys(settings: Settings, database: Database) -> Iterator[Check]:
    path = database.path
    try:
        bootstrap.check_migrated(database)
    except DatabaseError as error:
        yield _wrong("database", str(error))
        return
    yield _ok("database", f"{path}, {path.stat().st_size / 1e6:,.1f} MB, schema {database.revision()}.")
    name = "encryption keys"
    try:
        bootstrap.check_keys(database, Keyring(bootstrap.encryption_keys(settings)))
    except ServiceError as error:
        yield _wrong(name, str(error))
        return
    file = bootstrap.key_file(settings).absolute()
    if settings.encryption_keys is not None:
        yield _ok(name, "WEBHOOK_ENCRYPTION_KEYS opens the database.")
    elif file.stat().st_mode & _OTHERS_MAY:
        yield _wrong(name, f"Other users may read the key file {file}.", mend=f"chmod 600 {file}")
    else:
        yield _ok(name, f"The key file {file} opens the database. Keep a copy apart from the database's.")


def _disk(settings: Settings, directory: str) -> Check:
    free = shutil.disk_usage(directory).free
    finding = f"{free / _GB:,.1f} GB are free in {directory}."
    if free < max(_DISK_FULL_BYTES, settings.callback_body_limit):
        return _wrong("disk", finding, mend="Free some: on a full disk callbacks are answered 503.")
    if free < _DISK_LOW_BYTES:
        return _warning("disk", finding, mend="Free some, or move the database.")
    return _ok("disk", finding)


def _processes(settings: Settings, database: Database | None) -> Iterator[Check]:
    """Check whether web and worker are there."""
    web = _web(settings)
    yield web
    if database is None:
        return
    with database.read() as session:
        beat = key_store.last_beat(session, key_store.WORKER)
    if beat is not None and clock.now() - beat < key_store.HEARTBEAT * _MISSED_BEATS:
        yield _ok("worker", f"Its last sign of life was {(clock.now() - beat).total_seconds():.0f} s ago.")
        return
    seen = "It has never run" if beat is None else f"Its last sign of life is of {clock.rfc3339(beat)}"
    found = _wrong if web.state == "ok" else _warning
    mend = "Start `webhook serve`, or `webhook worker` beside `webhook web`."
    yield found("worker", f"{seen}: without it nothing is submitted or delivered.", mend=mend)


def _web(settings: Settings) -> Check:
    """Check that the address is free, or that it is this service that answers there."""
    host, port = settings.bind
    try:
        processes.check_bind(settings)
    except SettingError as error:
        asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        if "dependencies" in (_fetch(f"http://{f'[{asked}]' if ':' in asked else asked}:{port}/readyz") or {}):
            return _ok("web", f"It answers on {host}:{port}.")
        return _wrong("web", f"What listens there is not this service. {error}")
    return _warning("web", f"Nothing listens on {host}:{port}: it is not running.", mend="Start `webhook serve`.")


def _fetch(url: str) -> dict[str, Any] | None:
    """Get a JSON object; None where none comes."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(parts.hostname or "", parts.port, timeout=_FETCH_SECONDS)) as connection:
            connection.request("GET", parts.path)
            return msgspec.json.decode(connection.getresponse().read(_FETCH_BYTES), type=dict[str, Any])
    except (OSError, http.client.HTTPException, msgspec.DecodeError, ValueError):
        return None


def _is_private(url: str) -> bool:
    """Say whether a URL's host is this machine, or an address that is not public."""
    host = urlsplit(url).hostname or ""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _public_url(settings: Settings, *, serving: bool) -> Check:
    name, url = "public URL", settings.public_url
    if url is None:
        finding = "WEBHOOK_PUBLIC_URL is not set: tasks are submitted without a callback, so no result comes."
        return _wrong(name, finding, mend="Set it to the URL under which the platform reaches this service.")
    if _is_private(url) and not _is_private(settings.platform_endpoint):
        finding = f"WEBHOOK_PUBLIC_URL is {url}, which the platform at {settings.platform_endpoint} cannot reach."
        return _wrong(name, finding, mend="Set it to a public address with TLS in front of this service.")
    if serving and (_fetch(f"{url}/livez") or {}).get("status") != "ok":
        mend = "Try it from outside. If it fails there too, mend the name, the proxy or the firewall."
        return _warning(name, f"Seen from this machine, {url}/livez does not lead here.", mend=mend)
    if not url.startswith("https://") and not _is_private(url):
        mend = "Put a proxy with TLS in front, and set it to https://."
        return _warning(name, f"{url} is without TLS: transcripts cross the internet in the clear.", mend=mend)
    return _ok(name, f"{url} leads here." if serving else f"{url}.")


def _uid(settings: Settings) -> Check:
    name, uid = "account UID", settings.platform_uid
    if uid is None:
        finding = "WEBHOOK_PLATFORM_UID is not set, so no callback can be verified, and none is asked for."
        mend = f"Set it to the UID of the Alibaba Cloud account (top right in the console). {_NOT_A_RAM_USERS}"
        return _wrong(name, finding, mend=mend)
    if not _ACCOUNT_UID.fullmatch(uid):
        mend = f"Compare it with the account ID in the console. {_NOT_A_RAM_USERS}"
        return _warning(name, f"{uid} does not look like an account's UID, which has 16 digits.", mend=mend)
    return _ok(name, f"{uid}.")


def _credentials(settings: Settings, database: Database | None) -> Check:
    given = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": settings.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": settings.access_key_secret,
    }
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        kind = "An AccessKey is" if settings.security_token is None else "A temporary AccessKey and its token are"
        return _ok("credentials", f"{kind} set.")
    mend = "Set them to the AccessKey of a RAM user with AliyunYundunGreenWebFullAccess."
    if len(missing) == len(given) and database is not None and _submits_elsewhere(database):
        return _warning("credentials", "None are set: receivers work, but nothing can be submitted.", mend=mend)
    return _wrong("credentials", f"{' and '.join(missing)} not set, so tasks stay queued.", mend=mend)


def _submits_elsewhere(database: Database) -> bool:
    with database.read() as session:
        receivers = receiver_store.list_receivers(session, after=None, limit=1)
        return bool(receivers) and not task_store.count_by_state(session, ("queued",))["queued"]


def _platform(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """Check that a call passes."""
    proxies = [name for name in _PROXIES if environ.get(name)]
    if proxies:
        finding = f"Calls of the platform go through the proxy of {', '.join(proxies)}, whatever NO_PROXY says."
        yield _warning("proxy", finding, mend="Unset it for the service, unless it is the only way out.")
    make_client = bootstrap.platform_client(settings)
    if make_client is None:
        return
    try:
        make_client().probe(service=services.DEFAULTS["audio"])
    except PlatformError as error:
        code = "" if error.code is None else f" It answered {error.code}."
        time = f" The time here is {clock.rfc3339(clock.now())}." if "clock" in error.message else ""
        yield _wrong("platform", f"{settings.platform_endpoint}: {error.message}{code}{time}")
    else:
        yield _ok("platform", f"{settings.platform_endpoint} accepts our signature.")


_UNREACHABLE = "Check the network and WEBHOOK_PLATFORM_ENDPOINT."


def _limits(database: Database) -> Iterator[Check]:
    """Check that the platform turned nothing away lately."""
    with database.read() as session:
        found = [each for each in limit_store.all_limits(session) if each.reason is not None]
    for limit in found:
        mend = next((row.message for row in codes.CODES.values() if row.reason == limit.reason), _UNREACHABLE)
        until = "" if limit.closed_until is None else f" It is tried again at {clock.rfc3339(limit.closed_until)}."
        finding = f"They wait ({limit.reason}, {limit.closed_count} times in a row).{until}"
        stopped = _wrong if limit.reason == "not_authorized" else _warning
        yield stopped(limit.name, finding, mend=mend)


def _api_keys(settings: Settings, database: Database | None) -> Check:
    live = 0
    if database is not None:
        with database.read() as session:
            live = sum(key.revoked_at is None for key in key_store.list_api_keys(session))
    if settings.admin_key is None and not live:
        mend = "Set WEBHOOK_ADMIN_KEY, or `webhook keys create NAME --role admin`."
        return _warning("API keys", "There are none, so nobody can use the REST API.", mend=mend)
    also = "" if settings.admin_key is None else ", and WEBHOOK_ADMIN_KEY"
    return _ok("API keys", f"{live}{also}.")


def _sm3() -> Check:
    try:
        chosen = signatures.choose_sm3()
    except ServiceError as error:
        return _warning("SM3", str(error))
    if chosen is signatures.gmssl_sm3:
        mend = "Use crypt_type SHA256, or an OpenSSL with SM3."
        return _warning("SM3", "OpenSSL has none here, and that of gmssl needs seconds for a megabyte.", mend=mend)
    return _ok("SM3", f"OpenSSL's, through {chosen.__name__.removesuffix('_sm3')}.")


def _contents(database: Database) -> list[Check]:
    """Check what piles up in the database."""
    with database.read() as session:
        kept = callback_store.count_by_state(session)
        return [
            _quarantine(session, kept["quarantined"]),
            _unreadable(kept["unreadable"]),
            _queue(session),
            _results(session),
            _subscriptions(session),
            _backlog(session),
        ]


def _quarantine(session: Session, count: int) -> Check:
    if not count:
        return _ok("quarantine", "No callback failed verification.")
    rows = callback_store.list_callbacks(session, state="quarantined", task_id=None, after=None, limit=_LOOKED_AT)
    diagnosed = Counter(row.message or "" for row in rows if row.reason not in {None, "checksum_wrong"})
    failed = f"{_count(count, 'callback')} failed verification"
    if not diagnosed:
        finding = f"{failed}, and no known mistake explains it: forged, or another account's."
        mend = "Compare WEBHOOK_PLATFORM_UID with the account that submits the tasks."
        return _warning("quarantine", finding, mend=mend)
    message, times = diagnosed.most_common(1)[0]
    mend = "Mend that, then verify them again: POST /v1/callbacks/{id}/verify."
    return _wrong("quarantine", f"{failed}; of the newest {len(rows)}, {times}: {message}", mend=mend)


def _unreadable(count: int) -> Check:
    if not count:
        return _ok("unreadable", "Every authentic callback was understood.")
    mend = "See why: GET /v1/callbacks?state=unreadable."
    return _warning("unreadable", f"{_count(count, 'authentic callback')} could not be understood.", mend=mend)


def _queue(session: Session) -> Check:
    query = TaskQuery(states=("queued",), until=clock.now() - _QUEUED_FOR, limit=_LOOKED_AT)
    stuck = task_store.list_tasks(session, query)
    if not stuck:
        return _ok("queue", "No task waits longer than a minute to be submitted.")
    reasons = Counter(task.error["message"] if task.error else "Not tried yet." for task in stuck)
    message, times = reasons.most_common(1)[0]
    mend = "See worker, credentials and platform above. Once that is mended they go out by themselves."
    return _wrong("queue", f"{_waiting(len(stuck), 'task')} a minute to be submitted; {times}: {message}", mend=mend)


def _results(session: Session) -> Check:
    query = TaskQuery(states=("processing",), kind="audio", until=clock.now() - _NO_RESULT_FOR, limit=_LOOKED_AT)
    waiting = task_store.list_tasks(session, query)
    if not waiting:
        return _ok("results", "No file waits longer than two hours for its result.")
    mend = "Does the public URL lead here from outside? A lost result is not asked for again: submit the file anew."
    return _warning("results", f"{_waiting(len(waiting), 'file')} two hours for a result.", mend=mend)


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
        return _wrong("subscriptions", f"{finding}{_named(disabled)}.", mend=mend)
    failing = [one for one in found if one.state == "active" and one.failing_since is not None]
    if failing:
        mend = "GET /v1/subscriptions/{id}/deliveries shows what is answered."
        finding = f"{len(failing)} of {len(found)} do not take what they are sent: {_named(failing)}."
        return _warning("subscriptions", finding, mend=mend)
    return _ok("subscriptions", f"{len(found)}, none of them failing.")


def _named(found: Sequence[delivery_store.Subscription]) -> str:
    """Name some subscriptions by id and host: the rest of a URL may be a secret."""
    some = 3
    names = [f"{one.id} ({urlsplit(one.url).hostname})" for one in found[:some]]
    return ", ".join([*names, "…"] if len(found) > some else names)


def _backlog(session: Session) -> Check:
    owed = sum(delivery_store.count_pending(session).values())
    behind = event_store.behind(session, deliveries.CURSOR)
    finding = f"{owed:,} owed, and {_count(behind, 'event')} not fanned out yet."
    if owed + behind < _MANY_DELIVERIES:
        return _ok("deliveries", finding)
    mend = "Is the worker alive, a subscriber slow or failing? More at once: WEBHOOK_SUBSCRIPTION_CONCURRENCY."
    return _warning("deliveries", finding, mend=mend)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


# How a state looks, with and without Unicode, and in which colour.
_MARKS: dict[State, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "warning": ("!", "!", "yellow"),
    "wrong": ("✗", "x", "red"),
}


def show(checks: Sequence[Check], console: Console) -> None:
    """Print a line a check; on a terminal what is too long goes on beneath its beginning."""
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark, plain, style = _MARKS[check.state]
        cells = (
            Text(plain if console.options.ascii_only else mark, style=style),
            Text(check.name, style="bold"),
            Text(f"{check.finding} {check.mend}" if check.mend else check.finding),
        )
        if console.is_terminal:
            table.add_row(*cells)
        else:
            console.print(Text("  ").join(cells), soft_wrap=True)
    if console.is_terminal:
        console.print(table)
    states = Counter(check.state for check in checks)
    verdict = f"{_count(states['wrong'], 'thing')} wrong" if states["wrong"] else "Nothing is wrong"
    console.print(f"\n{verdict}, {states['warning']} worth a look." if states["warning"] else f"\n{verdict}.")
