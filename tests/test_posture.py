"""Each of the vendor's security asks: what is found where it is met, and where it is not, or cannot be seen."""

from __future__ import annotations

import json
import re
import secrets
import socket
import ssl
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from rich.console import Console

from tests import databases
from tests.certificates import Certificate
from tests.running import ENCRYPTION_KEYS
from tests.test_audit import append, attack, delete, update
from tests.test_erasure import Caller
from tests.test_retention import MONTH, some_of_everything, sweep
from tests.test_rotation import quiet
from webhook import audit, clock, posture
from webhook.api.posture import answer_headers
from webhook.db import Link
from webhook.doctor import security
from webhook.evidence_stores import Bucket
from webhook.models import api_keys, audit_log, data_keys, evidence, meta, slice_pages, subscriptions, tasks
from webhook.platform_client import PlatformClient
from webhook.posture import Subject
from webhook.roles import Role
from webhook.rotation import rotate
from webhook.shredding import Shredding
from webhook.store import audit as audit_store
from webhook.store import keys as key_store
from webhook.store import tombstones as tombstone_store
from webhook.store.audit import Entry
from webhook.store.tombstones import Hold, Tombstone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.conftest import MakeService, MakeSettings
    from webhook.bootstrap import Service
    from webhook.posture import Item

DAY = timedelta(days=1)
SECRET = "xyzzy-and-more-of-it-so-that-it-is-long-enough"


@pytest.fixture(autouse=True)
def command_lines(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Command lines of processes, of which this test alone knows: others run beside it."""
    directory = tmp_path_factory.mktemp("processes")
    (directory / "1").mkdir()
    (directory / "1" / "cmdline").write_text("init\0")
    monkeypatch.setattr("webhook.posture.keys._PROCESSES", directory)
    return directory


class Desk:
    """Looks at a service as it would be with other settings."""

    def __init__(self, service: Service, settings: MakeSettings) -> None:
        self.service = service
        self._settings = settings
        self.subject = Subject(
            settings=service.settings,
            database=service.database,
            keyring=service.keyring,
            headers=answer_headers(),
            now=clock.now(),
            thorough=False,
        )

    def items(self, variables: Mapping[str, str] | None = None, **changes: Any) -> dict[str, Item]:
        if variables is not None:
            url = {"WEBHOOK_DATABASE_URL": self.service.settings.database_url}
            changes["settings"] = self._settings(**url | dict(variables))
        subject = replace(self.subject, **{"now": clock.now()} | changes)
        with self.service.database.read() as session:
            return {item.id: item for item in posture.examine(subject, session)}

    def one(self, name: str, variables: Mapping[str, str] | None = None, **changes: Any) -> Item:
        return self.items(variables, **changes)[name]

    def execute(self, *statements: Any) -> None:
        with self.service.database.transaction() as session:
            for statement in statements:
                session.execute(statement)

    def key(self, *, age: timedelta = DAY, **more: Any) -> str:
        with self.service.database.transaction() as session:
            made, _ = self.service.api_keys.create(session, name="a", role=Role.READER, now=clock.now() - age, **more)
        return made.id


@pytest.fixture
def desk(service: Service, settings: MakeSettings) -> Desk:
    return Desk(service, settings)


SETTINGS: list[tuple[str, dict[str, str], str]] = [
    ("tls_platform", {}, "ok"),
    ("tls_platform", {"WEBHOOK_PLATFORM_ENDPOINT": "http://127.0.0.1:9000"}, "warning"),
    ("tls_platform", {"WEBHOOK_PLATFORM_ENDPOINT": "http://green.example.com"}, "wrong"),
    ("tls_callbacks", {"WEBHOOK_PUBLIC_URL": ""}, "unseen"),
    ("tls_callbacks", {"WEBHOOK_PUBLIC_URL": "https://hooks.example.com"}, "unseen"),
    ("tls_callbacks", {"WEBHOOK_PUBLIC_URL": "http://127.0.0.1:8000"}, "warning"),
    ("tls_callbacks", {"WEBHOOK_PUBLIC_URL": "http://hooks.example.com"}, "wrong"),
    ("encryption_at_rest", {}, "ok"),
    ("encryption_at_rest", {"WEBHOOK_CIPHER_SUITE": "sm4-gcm"}, "warning"),
    ("platform_key", {}, "ok"),
    ("platform_key", {"ALIBABA_CLOUD_ACCESS_KEY_ID": "a"}, "unseen"),
    ("platform_key", {"ALIBABA_CLOUD_ACCESS_KEY_ID": "a", "ALIBABA_CLOUD_SECURITY_TOKEN": "b"}, "ok"),
    ("separate_environments", {}, "unseen"),
    (
        "separate_environments",
        {"WEBHOOK_ADMIN_KEY": SECRET, "ALIBABA_CLOUD_ACCESS_KEY_SECRET": SECRET},
        "wrong",
    ),
    ("separate_environments", {"WEBHOOK_ENCRYPTION_KEYS": f"k1:{'A' * 43}=,k2:{'A' * 43}="}, "wrong"),
    ("api_keys_restricted", {}, "warning"),
    ("api_keys_restricted", {"WEBHOOK_ADMIN_KEY": ""}, "ok"),
    ("addresses", {"WEBHOOK_CALLBACK_BIND": "10.0.0.1:8001"}, "ok"),
    ("addresses", {"WEBHOOK_CALLBACK_BIND": "callbacks.internal:8001"}, "ok"),
    ("addresses", {"WEBHOOK_PUBLIC_URL": ""}, "ok"),
    ("addresses", {}, "warning"),
    ("addresses", {"WEBHOOK_BIND": "0.0.0.0:8000", "WEBHOOK_CALLBACK_BIND": "127.0.0.1:8001"}, "warning"),
    ("addresses", {"WEBHOOK_BIND": "8.8.8.8:8000"}, "wrong"),
    ("trusted_proxies", {}, "ok"),
    ("trusted_proxies", {"WEBHOOK_TRUSTED_PROXIES": "10.1.0.0/16"}, "ok"),
    ("trusted_proxies", {"WEBHOOK_TRUSTED_PROXIES": "10.1.0.0/16,::/0"}, "wrong"),
    ("subscriber_networks", {"WEBHOOK_ALLOWED_PRIVATE_NETWORKS": ""}, "ok"),
    ("subscriber_networks", {"WEBHOOK_ALLOWED_PRIVATE_NETWORKS": "10.0.0.0/8"}, "ok"),
    ("subscriber_networks", {}, "warning"),
    ("subscriber_networks", {"WEBHOOK_ALLOWED_PRIVATE_NETWORKS": "0.0.0.0/0"}, "wrong"),
    ("rate_limits", {}, "ok"),
    ("rate_limits", {"WEBHOOK_REQUESTS_PER_SECOND": "5000"}, "warning"),
    ("input_bounds", {}, "ok"),
    ("input_bounds", {"WEBHOOK_REQUEST_BODY_LIMIT_BYTES": "67108864"}, "warning"),
    ("input_bounds", {"WEBHOOK_CALLBACK_BODY_LIMIT_BYTES": "536870912"}, "warning"),
    ("callbacks_verified", {}, "ok"),
    ("callbacks_verified", {"WEBHOOK_PLATFORM_UID": ""}, "wrong"),
    ("retention", {}, "ok"),
    ("retention", {"WEBHOOK_RETENTION_TRANSCRIPTS_DAYS": "0"}, "warning"),
    ("zero_retention", {}, "unseen"),
    ("zero_retention", {"WEBHOOK_ZERO_RETENTION": "on"}, "ok"),
]


@pytest.mark.parametrize(("name", "variables", "state"), SETTINGS)
def test_what_settings_tell(desk: Desk, name: str, variables: dict[str, str], state: str) -> None:
    found = desk.one(name, variables)
    assert found.state == state, found
    assert found.mend or state in {"ok", "unseen"}


def test_every_item_has_its_own_word_and_says_who_asks_for_what(desk: Desk) -> None:
    with desk.service.database.read() as session:
        items = posture.examine(desk.subject, session)
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert re.fullmatch(r"[a-z_]+", item.id)
        assert item.ask
        assert item.source in {"qwen-security", "qwen-safety", "OWASP REST Security"}
        assert item.finding.endswith(".")
        assert isinstance(item.evidence, dict)


def test_no_secret_is_told(desk: Desk) -> None:
    variables = {
        "WEBHOOK_ADMIN_KEY": SECRET,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": SECRET,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": SECRET,
        "ALIBABA_CLOUD_SECURITY_TOKEN": SECRET,
        "WEBHOOK_API_KEY": SECRET,
    }
    Caller(desk.service).client.made("/v1/subscriptions", {"url": f"nats://u:{SECRET}@127.0.0.1:9/{SECRET}"})
    for thorough in (False, True):
        said = repr(desk.items(variables, thorough=thorough))
        assert SECRET not in said
        assert "AAECAwQF" not in said, "the master key"


# Over the network.


def test_the_platforms_client_speaks_what_its_own_context_says(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "a", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "b"}
    found = desk.one("tls_platform", variables, thorough=True)
    assert (found.state, found.evidence["minimum"], found.evidence["looked_into_client"]) == ("ok", "TLSv1_2", True)
    with monkeypatch.context() as patched:
        patched.setattr("webhook.platform_client.MINIMUM_TLS", ssl.TLSVersion.TLSv1_3)
        assert desk.one("tls_platform", variables, thorough=True).evidence["minimum"] == "TLSv1_3"
    monkeypatch.setattr(PlatformClient, "minimum_tls", lambda _: ssl.TLSVersion.TLSv1_1)
    found = desk.one("tls_platform", variables, thorough=True)
    assert (found.state, "TLSv1_1" in found.finding) == ("wrong", True)


@contextmanager
def speaking(context: ssl.SSLContext) -> Iterator[int]:
    """Listen on loopback, and shake hands with whoever comes; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue

        thread = Thread(target=greet, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """A certificate for this machine's name, which is trusted."""
    made = Certificate(tmp_path, "localhost")
    monkeypatch.setattr("webhook.posture.links.default_ssl_context", lambda: made.trust)
    return made


def callbacks_at(desk: Desk, port: int) -> Item:
    return desk.one("tls_callbacks", {"WEBHOOK_PUBLIC_URL": f"https://localhost:{port}"}, thorough=True)


def test_a_proxy_that_refuses_old_tls_is_as_asked(desk: Desk, certificate: Certificate) -> None:
    with speaking(certificate.context) as port:
        found = callbacks_at(desk, port)
    assert (found.state, found.evidence["spoken"], found.evidence["refused"]) == ("ok", "TLSv1.3", "TLSv1.1")


def test_a_proxy_that_takes_old_tls_is_wrong(desk: Desk, certificate: Certificate) -> None:
    certificate.context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        certificate.context.minimum_version = ssl.TLSVersion.TLSv1
    with speaking(certificate.context) as port:
        found = callbacks_at(desk, port)
    assert (found.state, found.evidence["spoken"], found.evidence["taken"]) == ("wrong", "TLSv1.3", "TLSv1.1")


def test_a_proxy_whose_certificate_does_not_hold_is_wrong(desk: Desk, tmp_path: Path) -> None:
    with speaking(Certificate(tmp_path, "localhost").context) as port:
        found = callbacks_at(desk, port)
    assert (found.state, "self-signed certificate" in found.finding) == ("wrong", True)


def test_a_proxy_that_cannot_be_reached_is_not_seen(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert callbacks_at(desk, port).state == "unseen"


def test_subscriptions_without_tls_are_worth_a_look_while_they_are_active(desk: Desk) -> None:
    client = Caller(desk.service).client
    client.made("/v1/subscriptions", {"url": "https://example.com/hook"})
    client.made("/v1/subscriptions", {"url": "rediss://:p@example.com:6379/0?stream=s"})
    assert desk.one("tls_deliveries").state == "ok"
    for url in ("http://127.0.0.1:9/hook", "nats://127.0.0.1:9/x"):
        client.made("/v1/subscriptions", {"url": url})
    found = desk.one("tls_deliveries")
    assert (found.state, found.evidence["without_tls"]) == ("warning", 2)
    assert found.evidence["minimum"] == "TLSv1_2"
    desk.execute(sa.update(subscriptions).values(state="disabled"))
    assert desk.one("tls_deliveries").state == "ok"


@pytest.mark.parametrize(
    ("link", "state"),
    [
        (None, "ok"),
        (Link("/var/run/postgresql", None, "prefer"), "ok"),
        (Link("127.0.0.1", None, "prefer"), "ok"),
        (Link("::1", None, "prefer"), "ok"),
        (Link("db.internal", None, "prefer"), "wrong"),
        (Link("db.internal", "TLSv1.1", "verify-full"), "wrong"),
        (Link("db.internal", "TLSv1.3", "require"), "warning"),
        (Link("db.internal", "TLSv1.3", "verify-full"), "ok"),
    ],
)
def test_a_servers_connection_is_judged_by_what_it_speaks(
    desk: Desk, link: Link | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.service.database, "link", lambda: link)
    found = desk.one("tls_database")
    assert found.state == state
    if link is not None:
        assert found.evidence == {"server": link.host, "tls": link.tls, "sslmode": link.mode}


def test_a_databases_link_is_what_it_is(service: Service) -> None:
    link = service.database.link()
    if databases.SERVER is None:
        assert link is None
        return
    assert link is not None
    url = sa.make_url(databases.SERVER)
    assert link.host == url.host
    assert link.mode == "prefer"
    with service.database.read() as session:
        assert (link.tls is not None) == session.exec_driver_sql("SHOW ssl").scalar_one().startswith("on")


@pytest.mark.parametrize(
    ("endpoint", "state"), [(None, "ok"), ("https://s3.internal:9000", "ok"), ("http://127.0.0.1:9000", "warning")]
)
def test_a_store_of_evidence_is_judged_by_what_its_client_calls(
    desk: Desk, endpoint: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "x-1"}.items():
        monkeypatch.setenv(name, value)
    if endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    found = desk.one("tls_evidence", {"WEBHOOK_EVIDENCE_STORE": "s3://bucket/prefix"})
    assert found.state == state
    assert found.evidence["endpoint"] == endpoint or endpoint is None
    assert desk.one("tls_evidence", {}).state == "ok", "a directory"


def test_a_store_of_evidence_that_has_no_client_is_not_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Bucket) -> None:
        from botocore.exceptions import NoRegionError

        raise NoRegionError

    monkeypatch.setattr(Bucket, "_client", fail)
    found = desk.one("tls_evidence", {"WEBHOOK_EVIDENCE_STORE": "s3://bucket/prefix"})
    assert (found.state, "NoRegionError" in found.finding) == ("unseen", True)


# At rest.


@pytest.mark.parametrize("thorough", [False, True])
def test_a_value_that_is_not_sealed_is_wrong(desk: Desk, *, thorough: bool) -> None:
    Caller(desk.service).done()
    assert desk.one("encryption_at_rest", thorough=thorough).state == "ok"
    desk.execute(sa.update(tasks).values(secrets=b'{"token": "a"}'))
    found = desk.one("encryption_at_rest", thorough=thorough)
    assert (found.state, found.evidence["not_sealed"]) == ("wrong", {"tasks.secrets": 1})


def test_a_request_looks_at_the_newest_rows_and_a_command_at_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = Caller(desk.service)
    first = caller.submit()
    caller.submit()
    desk.execute(sa.update(tasks).where(tasks.c.id == first).values(secrets=b"{}"))
    monkeypatch.setattr("webhook.posture.subject._ROWS", 1)
    assert desk.one("encryption_at_rest").state == "ok"
    assert desk.one("encryption_at_rest", thorough=True).state == "wrong"


def test_data_keys_are_shown_with_their_ages_and_how_many_are_gone(desk: Desk, make_service: MakeService) -> None:
    assert desk.one("data_keys").state == "ok"
    past = clock.now() - 2 * MONTH
    desk.execute(sa.update(data_keys).values(created_at=past, expires_at=past + MONTH))
    found = desk.one("data_keys")
    assert (found.state, "due for the next" in found.finding) == ("warning", True)
    service = make_service()
    assert desk.one("data_keys", now=clock.now() + 3 * DAY).state == "ok", "it could go since yesterday"
    later = clock.now() + 10 * DAY
    found = desk.one("data_keys", now=later)
    assert (found.state, found.evidence["looked_for_unused_at"]) == ("warning", None)
    for days in (8, 9.5):
        one = Shredding(keyring=service.keyring, now=lambda days=days: clock.now() + days * DAY)  # type: ignore[misc]
        while one.shred_some(service.database):
            pass
    found = desk.one("data_keys", now=later)
    assert (found.state, found.evidence["made"], found.evidence["destroyed"]) == ("ok", 2, 1)
    assert found.finding.startswith(f"1 of 2 data keys destroyed, the oldest live one from {clock.now():%Y-%m-%d}")
    desk.execute(sa.update(data_keys).values(wrapped=None))
    assert desk.one("data_keys").state == "warning"


def test_master_keys_are_shown_with_when_they_were_rotated(make_service: MakeService, settings: MakeSettings) -> None:
    first = Desk(make_service(), settings)
    found = first.one("master_keys")
    assert (found.state, found.evidence["in_keyring"], found.evidence["last_rotated_at"]) == ("ok", 1, None)
    assert f"never rotated; in use since {clock.now():%Y-%m-%d}" in found.finding
    rotated = Desk(make_service(WEBHOOK_ENCRYPTION_KEYS=f"k2:{'A' * 43}=,{ENCRYPTION_KEYS}"), settings)
    found = rotated.one("master_keys")
    assert (found.state, found.evidence["wrapped_by_others"]) == ("warning", {"k1": 1})
    rotate(rotated.service, progress=quiet)
    with rotated.service.database.transaction() as session:
        entry = Entry(actor="cli:a", action=audit_store.ROTATED, object_id="k2")
        audit.append(session, rotated.service.keyring, [entry], now=clock.now() - 100 * DAY)
    found = rotated.one("master_keys")
    assert (found.state, found.evidence["others"]) == ("ok", ["k1"])
    assert found.evidence["last_rotated_at"] == found.evidence["active_since"]
    assert f"last rotated {clock.now() - 100 * DAY:%Y-%m-%d}" in found.finding
    assert rotated.one("master_keys", now=clock.now() + 300 * DAY).state == "warning"
    first.execute(sa.delete(data_keys))
    assert first.one("master_keys").evidence["active_since"] is None


# Keys and files.


def test_api_keys_are_judged_by_their_ages(desk: Desk) -> None:
    assert desk.one("api_keys_rotated").state == "ok"
    key = desk.key(lifetime=60 * DAY)
    assert desk.one("api_keys_rotated").state == "ok"
    found = desk.one("api_keys_rotated", now=clock.now() + 95 * DAY)
    assert found.evidence["live"] == 0, "it has expired"
    desk.execute(sa.update(api_keys).values(expires_at=None))
    found = desk.one("api_keys_rotated")
    assert (found.state, found.evidence["without_expiry"], found.evidence["never_used"]) == ("warning", 1, 1)
    assert key in found.finding
    found = desk.one("api_keys_rotated", now=clock.now() + 95 * DAY)
    assert (found.evidence["older_than_90_days"], found.evidence["unused_for_90_days"]) == (1, 1)
    desk.execute(sa.update(api_keys).values(revoked_at=clock.now()))
    assert desk.one("api_keys_rotated").state == "ok"


def test_api_keys_are_judged_by_where_they_may_be_used(desk: Desk) -> None:
    without = {"WEBHOOK_ADMIN_KEY": ""}
    desk.key(networks=["10.0.0.0/8"])
    assert desk.one("api_keys_restricted", without).state == "ok"
    desk.key()
    found = desk.one("api_keys_restricted", without)
    assert (found.state, found.evidence["live_by_role"], found.evidence["from_anywhere"]) == (
        "warning",
        {"reader": 2},
        1,
    )
    with desk.service.database.transaction() as session:
        for number in range(6):
            desk.service.api_keys.create(session, name=f"b{number}", role=Role.ADMIN, now=clock.now())
    assert "…" in desk.one("api_keys_restricted", without).finding


def test_keys_for_some_networks_need_to_know_the_proxies(desk: Desk) -> None:
    desk.key(networks=["10.0.0.0/8"])
    assert desk.one("trusted_proxies").state == "warning"
    assert desk.one("trusted_proxies", {"WEBHOOK_BIND": "10.0.0.1:8000"}).state == "ok"


def test_a_secret_on_a_command_line_is_wrong(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"WEBHOOK_API_KEY": (secret := secrets.token_hex())}
    assert desk.one("secrets_outside_code", variables).state == "ok"
    monkeypatch.setattr("webhook.posture.keys._PROCESSES", Path("/proc"))
    waiting = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waiting, f"--key={secret}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = desk.one("secrets_outside_code", variables)
        process.communicate()
    assert (found.state, found.evidence["command_lines_with_a_secret"]) == ("wrong", 1)
    assert str(process.pid) in found.finding


def test_where_command_lines_are_not_shown_they_are_not_seen(desk: Desk, command_lines: Path) -> None:
    line = command_lines / "1" / "cmdline"
    line.unlink()
    assert desk.one("secrets_outside_code").state == "unseen"
    line.mkdir()  # which cannot be read
    assert desk.one("secrets_outside_code").state == "unseen"


def test_a_servers_password_on_a_command_line_is_wrong(desk: Desk, command_lines: Path) -> None:
    (command_lines / "1" / "cmdline").write_text(f"webhook\0--from\0postgresql://a:{SECRET}@db/b\0")
    settings = replace(desk.service.settings, database_url=f"postgresql+psycopg://a:{SECRET}@db/b")
    assert desk.one("secrets_outside_code", settings=settings).state == "wrong"


@databases.needs_sqlite
def test_a_key_file_beside_the_database_is_worth_a_look_and_wrong_where_others_may_read_it(
    desk: Desk, tmp_path: Path
) -> None:
    assert desk.one("secrets_outside_code").evidence["master_key_from"] == "environment"
    key_file = tmp_path / "webhook.db.key"
    key_file.write_text(ENCRYPTION_KEYS)
    key_file.chmod(0o600)
    for path in tmp_path.glob("webhook.db*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    variables = {"WEBHOOK_ENCRYPTION_KEYS": ""}
    assert desk.one("secrets_outside_code", variables).state == "warning"
    found = desk.one("files_private", variables)
    assert (found.state, str(key_file) in found.evidence["looked_at"]) == ("ok", True)
    key_file.chmod(0o640)
    found = desk.one("files_private", variables)
    assert (found.state, found.evidence["open_to_others"], found.mend) == (
        "wrong",
        {str(key_file): "640"},
        f"chmod go= {key_file}",
    )


@databases.needs_sqlite
def test_a_database_that_others_may_read_is_worth_a_look(desk: Desk, tmp_path: Path) -> None:
    for path in tmp_path.glob("webhook.db*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    assert desk.one("files_private").state == "ok"
    (tmp_path / "webhook.db").chmod(0o644)
    assert desk.one("files_private").state == "warning"


# What is watched.


def test_callbacks_that_failed_verification_are_counted_by_cause(desk: Desk) -> None:
    caller = Caller(desk.service)
    task_id = caller.submit()
    _, url, _ = caller.address(task_id)
    assert caller.client.callback(url, b"checksum=" + b"0" * 64 + b"&content=%7B%7D") == 403
    found = desk.one("callbacks_verified")
    assert (found.state, sum(found.evidence["quarantined_by_cause"].values())) == ("warning", 1)
    desk.execute(sa.text("UPDATE callbacks SET reason = 'other_uid', message = 'Another UID.'"))
    found = desk.one("callbacks_verified")
    assert (found.state, found.evidence["quarantined_by_cause"]) == ("wrong", {"other_uid": 1})
    desk.execute(sa.text("UPDATE callbacks SET state = 'unreadable'"))
    found = desk.one("callbacks_verified")
    assert (found.state, found.evidence["unreadable"]) == ("warning", 1)


def test_who_watches_is_a_worker_that_runs_and_subscribers_that_listen(desk: Desk) -> None:
    assert desk.one("monitoring").state == "warning"
    with desk.service.database.transaction() as session:
        key_store.beat(session, key_store.WORKER, now=clock.now())
    Caller(desk.service).client.made("/v1/subscriptions", {"url": "https://example.com/hook"})
    found = desk.one("monitoring")
    assert (found.state, found.evidence["active_subscriptions"]) == ("ok", 1)
    desk.execute(sa.update(subscriptions).values(state="disabled", disabled_reason="by_client"))
    assert desk.one("monitoring").state == "ok"
    desk.execute(sa.update(subscriptions).values(disabled_reason="failing"))
    assert desk.one("monitoring").state == "wrong"
    assert desk.one("monitoring", now=clock.now() + DAY).state == "warning"


def verified(service: Service, *, days: float = 0) -> None:
    """Verify the whole log as `webhook audit verify` does."""
    with service.database.read() as session:
        report = audit.verify(session, service.keyring)
    with service.database.transaction() as session:
        audit.note_verified(session, service.keyring, report, now=clock.now() - days * DAY)


def test_the_end_of_the_audit_log_is_verified_and_when_the_whole_last_was(desk: Desk) -> None:
    assert desk.one("audit_log").state == "warning", "it never was"
    verified(desk.service)
    assert desk.one("audit_log").state == "ok"
    append(desk.service, 1, 2, 3)
    found = desk.one("audit_log")
    assert (found.state, found.evidence["rows"], found.evidence["last_verified_whole"]["rows"]) == ("ok", 3, 0)
    verified(desk.service, days=40)
    assert desk.one("audit_log").state == "warning"
    assert desk.one("audit_log", thorough=True).state == "ok"
    attack(desk.service, update("status = 1", 2))
    for thorough in (False, True):
        found = desk.one("audit_log", thorough=thorough)
        assert (found.state, "Row 2" in found.finding) == ("wrong", True)


def test_an_older_state_of_the_log_is_told_by_what_was_verified(desk: Desk) -> None:
    append(desk.service, 1, 2)
    with desk.service.database.read() as session:
        before = audit_store.head(session)
    append(desk.service, 3)
    verified(desk.service)
    attack(desk.service, delete("number = 3"))
    with desk.service.database.transaction() as session:
        audit_store.set_head(session, before or b"")
    found = desk.one("audit_log")
    assert (found.state, "had 3" in found.finding) == ("wrong", True)


def test_what_a_verification_found_stays_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    append(desk.service, *range(5))
    attack(desk.service, update("status = 1", 2))
    monkeypatch.setattr("webhook.posture.subject._ROWS", 2)
    assert desk.one("audit_log").state == "warning", "beyond what a request looks at"
    verified(desk.service)
    found = desk.one("audit_log")
    assert (found.state, found.evidence["last_verified_whole"]["fault"]) == ("wrong", "altered")
    attack(desk.service, update("status = 201", 2))
    assert desk.one("audit_log").state == "wrong", "a request has not seen that it is mended"
    assert desk.one("audit_log", thorough=True).state == "ok"
    desk.execute(sa.update(meta).where(meta.c.name == "audit_verified").values(value=b"\3" + bytes(40)))
    assert desk.one("audit_log").state == "wrong"


def test_what_roles_did_not_allow_is_worth_a_look(desk: Desk) -> None:
    assert desk.one("access_log").state == "ok"
    append(desk.service, 1)
    found = desk.one("access_log")
    assert (found.state, found.evidence["rows_of_a_day"], found.evidence["refused_of_a_day"]) == ("ok", 1, 0)
    with desk.service.database.transaction() as session:
        refused = Entry(actor="key_1", action="callback.read", status=403)
        audit.append(session, desk.service.keyring, [refused], now=clock.now())
    found = desk.one("access_log")
    assert (found.state, found.evidence["refused_of_a_day"]) == ("warning", 1)
    assert desk.one("access_log", now=clock.now() + 2 * DAY).state == "ok"


def test_headers_are_those_of_an_answer(desk: Desk) -> None:
    reply = Caller(desk.service).client.get("/livez")
    assert desk.one("security_headers", headers=reply.headers).state == "ok"
    assert desk.one("security_headers").state == "ok"
    for name in ("Cache-Control", "X-Frame-Options", "Content-Security-Policy"):
        found = desk.one("security_headers", headers={**answer_headers(), name: "x"})
        assert (found.state, name in found.finding) == ("wrong", True)


# What is kept.


def test_transcripts_past_their_time_are_wrong_unless_they_are_held(desk: Desk) -> None:
    task_id = Caller(desk.service).done()
    assert desk.one("retention").state == "ok"
    desk.execute(sa.update(slice_pages).values(written_at=clock.now() - 200 * DAY))
    assert desk.one("retention").state == "wrong"
    with desk.service.database.transaction() as session:
        tombstone_store.place_hold(session, Hold(task_id=task_id, placed_at=clock.now(), placed_by="key_1"))
    found = desk.one("retention")
    assert (found.state, found.evidence["legal_holds"]) == ("ok", 1)


def test_zero_retention_is_seen_in_what_there_is(desk: Desk) -> None:
    some_of_everything(Caller(desk.service))
    on = {"WEBHOOK_ZERO_RETENTION": "on"}
    found = desk.one("zero_retention", on)
    assert (found.state, found.evidence["there_is"]) == (
        "warning",
        {"transcripts": True, "callbacks": True, "audio": True},
    )
    sweep(desk.service, days=31, callbacks=MONTH, quarantined=MONTH, transcripts=MONTH)
    desk.execute(sa.delete(evidence))
    assert desk.one("zero_retention", on).state == "ok"


def test_what_is_erased_and_not_gone_is_wrong_after_a_day(desk: Desk) -> None:
    assert desk.one("erasure").state == "ok"
    buried = Tombstone(task_id="task_1", token_digest=None, erased_at=clock.now(), erased_by="key_1")
    with desk.service.database.transaction() as session:
        tombstone_store.insert_tombstone(session, buried)
    assert (desk.one("erasure").state, desk.one("erasure").evidence["unfinished"]) == ("ok", 1)
    assert desk.one("erasure", now=clock.now() + 2 * DAY).state == "wrong"


# The command.


def environ(service: Service) -> dict[str, str]:
    """Return the environment of a service of a test."""
    return {
        "WEBHOOK_DATABASE_URL": service.settings.database_url,
        "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "WEBHOOK_PLATFORM_UID": "1234567890123456",
    }


def test_the_command_needs_no_running_service_and_writes_nothing(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    with service.database.read() as session:
        before = [session.execute(sa.select(table)).all() for table in (meta, data_keys, audit_log)]
    assert security.run(environ(service), as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    with service.database.read() as session:
        assert [session.execute(sa.select(table)).all() for table in (meta, data_keys, audit_log)] == before
    assert report["ok"] is True
    assert {item["id"] for item in report["items"]} == {row.id for row in posture._ROWS}
    assert security.run(environ(service) | {"WEBHOOK_PLATFORM_UID": ""}, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_the_command_prints_a_line_for_each_item_under_its_ask(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert security.run(environ(service), as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "TLS 1.2 or later for all connections (qwen-security)"
    assert lines[1].startswith("  ✓  tls_platform  https://")
    assert sum(re.match(r"  [✓!✗?]  [a-z_]+  ", line) is not None for line in lines) == len(posture._ROWS)
    assert re.fullmatch(r"0 things wrong, \d+ worth a look, \d+ as asked, 3 that cannot be seen from here.", lines[-1])


def test_on_a_terminal_of_80_columns_nothing_is_cut(service: Service) -> None:
    items = security.examine(environ(service))
    console = Console(width=80, force_terminal=True, record=True, no_color=True)
    security.show(items, console)
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    said = re.sub(r"\s+", "", shown)
    assert all(re.sub(r"\s+", "", item.finding) in said for item in items if len(item.id) + len(item.finding) < 60)
    assert "…" not in shown
