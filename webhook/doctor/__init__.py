"""`webhook doctor`: what is misconfigured or stuck, and how to mend it.

It looks where the service would look: in the same environment, and in the same database. No secret is in what
it says.
"""

from __future__ import annotations

import difflib
import http.client
import os
import shutil
import sys
from collections import Counter
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from webhook import bootstrap, clock, logs, processes, services, signatures
from webhook import settings as settings_module
from webhook.addresses import is_private
from webhook.checks import Check, count, ok, warning, wrong
from webhook.db import open_database
from webhook.doctor.contents import examine_contents
from webhook.doctor.marks import mark_of
from webhook.errors import DatabaseError, DecryptionError, PlatformError, ServiceError, SettingError
from webhook.settings import Settings, authority, local_url
from webhook.store import data_keys as data_key_store
from webhook.store import events as event_store
from webhook.store import keys as key_store
from webhook.store import receivers as receiver_store
from webhook.store import tasks as task_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from webhook.crypto import Keyring
    from webhook.db import Database

_GB = 1024**3
_DISK_FULL_BYTES = _GB // 10
_DISK_LOW_BYTES = _GB
_OTHERS_MAY = 0o077
_FETCH_SECONDS = 4.0
_FETCH_BYTES = 65_536
_MISSED_BEATS = 3
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_NOT_A_RAM_USERS = "A RAM user's will not do: the platform hashes the account's into every checksum."


def run(environ: Mapping[str, str], *, as_json: bool) -> int:
    """Look at everything and print what was found.

    Returns:
        The exit status: 0 when nothing is wrong, else 1.
    """
    logs.configure("error")
    checks = examine(environ)
    ill = any(check.state == "wrong" for check in checks)
    if as_json:
        report = msgspec.json.encode({"ok": not ill, "checks": checks})
        sys.stdout.write(msgspec.json.format(report, indent=2).decode() + "\n")
    else:
        show(checks, Console(highlight=False))
    return 1 if ill else 0


def examine(environ: Mapping[str, str]) -> list[Check]:
    """Look at everything; where settings are wrong, at nothing else, since the service would not start."""
    checks = list(_unknown_settings(environ))
    settings, problems = _load(environ)
    checks += [wrong("settings", str(problem)) for problem in problems]
    if settings is None:
        return checks
    given = sum(bool(environ.get(name, "").strip()) for name in _known_settings())
    checks.append(ok("settings", f"{given} of {len(_known_settings())} are set, the others have their defaults."))
    database = open_database(settings.database_url)
    with closing(database):
        stored = list(_storage(settings, database))
        usable = any(check.name == "encryption keys" for check in stored)  # nobody looks at them before the schema
        usable &= all(check.state != "wrong" or check.name == "disk" for check in stored)
        running = list(_processes(settings, database if usable else None))
        return [
            *checks,
            *stored,
            *running,
            _public_url(settings, serving=running[0].state == "ok"),
            _uid(settings),
            _credentials(settings, database if usable else None),
            *_platform(settings, environ),
            _api_keys(settings, database if usable else None),
            _sm3(),
            *(examine_contents(database) if usable else ()),
        ]


def _known_settings() -> list[str]:
    return [field.metadata["variable"] for field in fields(Settings)]


def _unknown_settings(environ: Mapping[str, str]) -> Iterator[Check]:
    known = {name.removeprefix("WEBHOOK_"): name for name in _known_settings()}
    for name in sorted(environ):
        if name.startswith("WEBHOOK_") and name not in known.values():
            close = difflib.get_close_matches(name.removeprefix("WEBHOOK_"), known, n=1)
            mend = f"Did you mean {known[close[0]]}?" if close else None
            yield warning("settings", f"{name} is not a setting, so it does nothing.", mend=mend)


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
    if database.path is None:
        yield from _schema_and_keys(settings, database)
        yield _disk(settings, str(Path.cwd()))
        return
    path, directory = database.path, database.path.parent
    if not directory.is_dir():
        mend = "Make it, or change WEBHOOK_DATABASE_URL."
        yield wrong("database", f"The directory {directory} does not exist.", mend=mend)
        return
    if not os.access(directory, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        mend = "Let the service's user write to both: SQLite keeps its log beside the file."
        yield wrong("database", f"{path} or its directory cannot be written to.", mend=mend)
    elif not path.exists():
        yield warning("database", f"{path} does not exist yet.", mend="`webhook serve` and `webhook migrate` make it.")
    else:
        yield from _schema_and_keys(settings, database)
    yield _disk(settings, directory.as_posix())


def _schema_and_keys(settings: Settings, database: Database) -> Iterator[Check]:
    try:
        bootstrap.check_migrated(database)
    except DatabaseError as error:
        yield wrong("database", str(error))
        return
    try:
        with database.transaction() as session:
            key_store.hold(session)
    except DatabaseError as error:
        mend = "Callbacks are answered 503 until it does. Is it a standby, or set to be read only?"
        yield wrong("database", f"It takes no writes: {error}", mend=mend)
        return
    yield ok("database", f"{database.name}, {database.size() / 1e6:,.1f} MB, schema {database.revision()}.")
    name = "encryption keys"
    try:
        keyring = bootstrap.check_keys(settings, database).keyring
    except ServiceError as error:
        yield wrong(name, str(error))
        return
    try:
        _open_newest_event(database, keyring)
    except DecryptionError as error:
        yield wrong(name, f"Another process has a key that this machine lacks: {error}")
        return
    file = bootstrap.key_file(settings) if settings.encryption_keys is None else None
    others, number = _wrapped_by_others(database, keyring)
    if file is not None and file.stat().st_mode & _OTHERS_MAY:
        yield wrong(name, f"Other users may read the key file {file}.", mend=f"chmod 600 {file}")
    elif others:
        finding = f"Of {count(number, 'data key')}, {others} are wrapped by another master key than the active one."
        yield warning(name, finding, mend="`webhook keys rotate-master`, once every process was started with it.")
    elif file is None:
        yield ok(name, "WEBHOOK_ENCRYPTION_KEYS opens the database.")
    else:
        yield ok(name, f"The key file {file} opens the database. Keep a copy apart from the database's.")


def _wrapped_by_others(database: Database, keyring: Keyring) -> tuple[int, int]:
    """Return how many data keys an older master key wraps, and how many there are."""
    with database.read() as session:
        live = [one for one in data_key_store.list_data_keys(session) if one.wrapped is not None]
    return sum(one.master_key_id != keyring.masters[0] for one in live), len(live)


def _open_newest_event(database: Database, keyring: Keyring) -> None:
    with database.read() as session:
        newest = event_store.newest_event(session)
    if newest is not None:
        keyring.open(newest.data, table="events", column="data", row=newest.id)


def _disk(settings: Settings, directory: str) -> Check:
    free = shutil.disk_usage(directory).free
    finding = f"{free / _GB:,.1f} GB are free in {directory}."
    if free < max(_DISK_FULL_BYTES, settings.callback_body_limit):
        return wrong("disk", finding, mend="Free some: on a full disk callbacks are answered 503.")
    if free < _DISK_LOW_BYTES:
        return warning("disk", finding, mend="Free some, or move the database.")
    return ok("disk", finding)


def _processes(settings: Settings, database: Database | None) -> Iterator[Check]:
    """Check whether web and worker are there."""
    web = _web(settings)
    yield web
    if database is None:
        return
    with database.read() as session:
        beat = key_store.last_beat(session, key_store.WORKER)
    if beat is not None and clock.now() - beat < key_store.HEARTBEAT * _MISSED_BEATS:
        yield ok("worker", f"Its last sign of life was {(clock.now() - beat).total_seconds():.0f} s ago.")
        return
    seen = "It has never run" if beat is None else f"Its last sign of life is of {clock.rfc3339(beat)}"
    found = wrong if web.state == "ok" else warning
    mend = "Start `webhook serve`, or `webhook worker` beside `webhook web`."
    yield found("worker", f"{seen}: without it nothing is submitted or delivered.", mend=mend)


def _web(settings: Settings) -> Check:
    """Check that the addresses are free, or that it is this service that answers there."""
    shown = authority(*settings.bind)
    try:
        processes.check_bind(settings)
    except SettingError as error:
        if "dependencies" not in (_fetch(f"{local_url(*settings.bind)}/readyz") or {}):
            return wrong("web", f"What listens there is not this service. {error}")
        if settings.callback_bind is None:
            return ok("web", f"It answers on {shown}.")
        callbacks = f"{authority(*settings.callback_bind)} (WEBHOOK_CALLBACK_BIND)"
        if "status" in (_fetch(f"{local_url(*settings.callback_bind)}/livez") or {}):
            return ok("web", f"It answers on {shown}, and callbacks alone on {callbacks}.")
        mend = "Restart it with this setting; it says so if another program listens there."
        return wrong("web", f"It answers on {shown}, and not on {callbacks}.", mend=mend)
    return warning("web", f"Nothing listens on {shown}: it is not running.", mend="Start `webhook serve`.")


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
    return is_private(urlsplit(url).hostname or "")


def _public_url(settings: Settings, *, serving: bool) -> Check:
    name, url = "public URL", settings.public_url
    if url is None:
        finding = "WEBHOOK_PUBLIC_URL is not set: tasks are submitted without a callback, so no result comes."
        return wrong(name, finding, mend="Set it to the URL under which the platform reaches this service.")
    if _is_private(url) and not _is_private(settings.platform_endpoint):
        finding = f"WEBHOOK_PUBLIC_URL is {url}, which the platform at {settings.platform_endpoint} cannot reach."
        return wrong(name, finding, mend="Set it to a public address with TLS in front of this service.")
    if serving and (_fetch(f"{url}/livez") or {}).get("status") != "ok":
        mend = "Try it from outside. If it fails there too, mend the name, the proxy or the firewall."
        return warning(name, f"Seen from this machine, {url}/livez does not lead here.", mend=mend)
    if not url.startswith("https://") and not _is_private(url):
        mend = "Put a proxy with TLS in front, and set it to https://."
        return warning(name, f"{url} is without TLS: transcripts cross the internet in the clear.", mend=mend)
    return ok(name, f"{url} leads here." if serving else f"{url}; not tried, since no web process runs here.")


def _uid(settings: Settings) -> Check:
    name, uid = "account UID", settings.platform_uid
    if uid is None:
        finding = "WEBHOOK_PLATFORM_UID is not set, so no callback can be verified, and none is asked for."
        mend = f"Set it to the UID of the Alibaba Cloud account (top right in the console). {_NOT_A_RAM_USERS}"
        return wrong(name, finding, mend=mend)
    if not signatures.ACCOUNT_UID.fullmatch(uid):
        mend = f"Compare it with the account ID in the console. {_NOT_A_RAM_USERS}"
        return warning(name, f"{uid} does not look like an account's UID, which has 16 digits.", mend=mend)
    return ok(name, f"{uid}.")


def _credentials(settings: Settings, database: Database | None) -> Check:
    given = {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": settings.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": settings.access_key_secret,
    }
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        kind = "An AccessKey is" if settings.security_token is None else "A temporary AccessKey and its token are"
        return ok("credentials", f"{kind} set.")
    mend = "Set them to the AccessKey of a RAM user with AliyunYundunGreenWebFullAccess."
    if len(missing) == len(given) and database is not None and _submits_elsewhere(database):
        return warning("credentials", "None are set: receivers work, but nothing can be submitted.", mend=mend)
    return wrong("credentials", f"{' and '.join(missing)} not set, so tasks stay queued.", mend=mend)


def _submits_elsewhere(database: Database) -> bool:
    with database.read() as session:
        receivers = receiver_store.list_receivers(session, after=None, limit=1)
        return bool(receivers) and not task_store.count_by_state(session, ("queued",))["queued"]


def _platform(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """Check that a call passes."""
    proxies = [name for name in _PROXIES if environ.get(name)]
    if proxies:
        finding = f"Calls of the platform go through the proxy of {', '.join(proxies)}, whatever NO_PROXY says."
        yield warning("proxy", finding, mend="Unset it for the service, unless it is the only way out.")
    make_client = bootstrap.platform_client(settings)
    if make_client is None:
        return
    try:
        make_client().probe(service=services.DEFAULTS["audio"])
    except PlatformError as error:
        code = "" if error.code is None else f" It answered {error.code}."
        time = f" The time here is {clock.rfc3339(clock.now())}." if "clock" in error.message else ""
        yield wrong("platform", f"{settings.platform_endpoint}: {error.message}{code}{time}")
    else:
        yield ok("platform", f"{settings.platform_endpoint} accepts our signature.")


def _api_keys(settings: Settings, database: Database | None) -> Check:
    live = 0
    if database is not None:
        with database.read() as session:
            live = sum(key.state(clock.now()) == key_store.LIVE for key in key_store.list_api_keys(session))
    if settings.admin_key is None and not live:
        mend = "Set WEBHOOK_ADMIN_KEY, or `webhook keys create NAME --role admin`."
        return warning("API keys", "There are none, so nobody can use the REST API.", mend=mend)
    also = "" if settings.admin_key is None else ", and WEBHOOK_ADMIN_KEY"
    return ok("API keys", f"{live}{also}.")


def _sm3() -> Check:
    try:
        chosen = signatures.choose_sm3()
    except ServiceError as error:
        return warning("SM3", str(error))
    if chosen is signatures.gmssl_sm3:
        mend = "Use crypt_type SHA256, or an OpenSSL with SM3."
        return warning("SM3", "OpenSSL has none here, and that of gmssl needs seconds for a megabyte.", mend=mend)
    return ok("SM3", f"OpenSSL's, through {chosen.__name__.removesuffix('_sm3')}.")


def show(checks: Sequence[Check], console: Console) -> None:
    """Print a line a check; on a terminal what is too long goes on beneath its beginning."""
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        cells = (
            mark_of(check.state, console),
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
    verdict = f"{count(states['wrong'], 'thing')} wrong" if states["wrong"] else "Nothing is wrong"
    console.print(f"\n{verdict}, {states['warning']} worth a look." if states["warning"] else f"\n{verdict}.")
