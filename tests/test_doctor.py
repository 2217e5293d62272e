"""What the doctor says of services that lack something, and of one that lacks nothing."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest
from rich.console import Console

from tests import databases
from tests.platform import Platform
from tests.running import Running, environment, free_port
from tests.running import run as run_command
from webhook import bootstrap, clock, doctor, processes, receivers, signatures, subscriptions
from webhook import settings as settings_module
from webhook.checks import Check, State
from webhook.crypto import Keyring
from webhook.errors import ServiceError
from webhook.ingest import Ingest
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import keys as key_store
from webhook.store import tasks as task_store
from webhook.store.callbacks import Callback
from webhook.tasks import NewTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from webhook.bootstrap import Service

KEY_ID, KEY_SECRET = "sandbox", "sandbox-secret"
HOUR = timedelta(hours=1)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Settings that lack nothing but credentials; nothing listens anywhere."""
    needed = {name: value for name, value in environment(tmp_path).items() if name.startswith("WEBHOOK_")}
    return needed | {
        "WEBHOOK_BIND": f"127.0.0.1:{free_port()}",
        "WEBHOOK_PUBLIC_URL": "https://hooks.example.com",
    }


@pytest.fixture
def service(environ: dict[str, str]) -> Iterator[Service]:
    """The service of `environ`, to put into its database what the doctor is to find."""
    settings = settings_module.load(environ)
    processes.migrate(settings)
    one = bootstrap.build(settings)
    yield one
    one.database.close()


def found(environ: Mapping[str, str], name: str) -> Check:
    """Return the one check of a name."""
    (check,) = [check for check in doctor.examine(environ) if check.name == name]
    return check


def states(environ: Mapping[str, str]) -> dict[str, State]:
    return {check.name: check.state for check in doctor.examine(environ)}


def test_where_nothing_is_set_it_names_what_is_missing(tmp_path: Path) -> None:
    bare = {"WEBHOOK_DATABASE_URL": f"sqlite:///{tmp_path}/webhook.db", "WEBHOOK_BIND": f"127.0.0.1:{free_port()}"}
    checks = doctor.examine(bare)
    assert [check.name for check in checks if check.state == "wrong"] == ["public URL", "account UID", "credentials"]
    assert all(check.mend for check in checks if check.state == "wrong")
    assert not list(tmp_path.iterdir()), "looking makes no database"


def test_a_service_that_runs_as_it_should_has_nothing_wrong(running: Running) -> None:
    environ = environment(running.directory, **running.variables)
    checks = doctor.examine(environ)
    wrong = [check for check in checks if check.state == "wrong" and check.name not in {"quarantine", "queue"}]
    assert not wrong  # other tests leave quarantined callbacks
    names = {check.name for check in checks if check.state == "ok"}
    assert names >= {"web", "worker", "platform", "public URL", "database", "encryption keys"}


def test_every_wrong_setting_is_told_at_once(environ: dict[str, str]) -> None:
    wrong = {
        "WEBHOOK_BIND": "nowhere",
        "WEBHOOK_FLAG_LEVEL": "severe",
        "WEBHOOK_DELIVERY_TIMEOUT_SECONDS": "20",  # as long as the lease's default
    }
    checks = doctor.examine(environ | wrong)
    assert [check.state for check in checks] == ["wrong"] * 3
    said = " ".join(check.finding for check in checks)
    assert all(name in said for name in ("WEBHOOK_BIND", "WEBHOOK_FLAG_LEVEL", "WEBHOOK_DELIVERY_LEASE_SECONDS"))


def test_a_misspelt_setting_is_told_with_the_right_spelling(environ: dict[str, str]) -> None:
    checks = doctor.examine(environ | {"WEBHOOK_PUBLC_URL": "https://example.com"})
    assert checks[0].mend == "Did you mean WEBHOOK_PUBLIC_URL?"
    assert doctor.examine(environ | {"WEBHOOK_QQ": "1"})[0].mend is None


def test_no_secret_is_told(environ: dict[str, str], service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    secrets = {
        "WEBHOOK_ADMIN_KEY": "xyzzy" * 7,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "xyzzy-of-the-platform",
        "ALIBABA_CLOUD_SECURITY_TOKEN": "xyzzy-token",
    }
    with service.database.transaction() as session:
        subscribe(service, session, url="https://example.com/hook/xyzzy?key=xyzzy", failing=True)
    with Platform() as platform:
        doctor.run(environ | secrets | {"WEBHOOK_PLATFORM_ENDPOINT": platform.url}, as_json=True)
    doctor.run({"WEBHOOK_ADMIN_KEY": "xyzzy", "WEBHOOK_ENCRYPTION_KEYS": "xyzzy"}, as_json=False)
    said = capsys.readouterr().out
    assert "example.com" in said
    assert "WEBHOOK_ENCRYPTION_KEYS" in said
    assert "xyzzy" not in said


def test_a_missing_directory_is_wrong(environ: dict[str, str], tmp_path: Path) -> None:
    environ["WEBHOOK_DATABASE_URL"] = f"sqlite:///{tmp_path}/nowhere/webhook.db"
    assert found(environ, "database").state == "wrong"


@databases.needs_sqlite
def test_a_directory_that_cannot_be_written_to_is_wrong(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda _path, _mode: False)  # root may write anywhere
    check = found(environ, "database")
    assert (check.state, "cannot be written to" in check.finding) == ("wrong", True)


@databases.needs_postgresql
def test_a_database_that_takes_no_writes_is_wrong(environ: dict[str, str], service: Service) -> None:
    with service.database.transaction() as session:
        name = session.exec_driver_sql("SELECT current_database()").scalar()
        session.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    check = found(environ, "database")
    assert (check.state, "takes no writes" in check.finding) == ("wrong", True)


def test_a_database_of_another_schema_is_wrong(environ: dict[str, str], tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "webhook.db")) as other:
        other.execute("CREATE TABLE a (b)")
    check = found(environ, "database")
    assert (check.state, "webhook migrate" in check.finding) == ("wrong", True)


@pytest.mark.usefixtures("service")
def test_keys_that_do_not_open_the_database_are_wrong(environ: dict[str, str]) -> None:
    assert found(environ, "encryption keys").state == "ok"
    environ["WEBHOOK_ENCRYPTION_KEYS"] = f"k1:{'A' * 43}="
    assert found(environ, "encryption keys").state == "wrong"


def test_a_key_that_only_another_machine_has_is_wrong(environ: dict[str, str], service: Service) -> None:
    with service.database.transaction() as session:
        event = Ingest(Keyring({"newer": bytes(32)})).event("t", {})
        event_store.insert_events(session, [event])
    check = found(environ, "encryption keys")
    assert (check.state, "this machine lacks" in check.finding) == ("wrong", True)


@pytest.mark.usefixtures("service")
def test_data_keys_that_an_older_master_key_wraps_are_worth_a_look(environ: dict[str, str]) -> None:
    environ["WEBHOOK_ENCRYPTION_KEYS"] = f"k2:{'A' * 43}=,{environ['WEBHOOK_ENCRYPTION_KEYS']}"
    check = found(environ, "encryption keys")
    assert (check.state, check.finding) == (
        "warning",
        "Of 1 data key, 1 are wrapped by another master key than the active one.",
    )
    assert "webhook keys rotate-master" in (check.mend or "")


@databases.needs_sqlite
def test_a_key_file_that_others_may_read_is_wrong(environ: dict[str, str], tmp_path: Path) -> None:
    del environ["WEBHOOK_ENCRYPTION_KEYS"]
    settings = settings_module.load(environ)
    processes.migrate(settings)
    assert found(environ, "encryption keys").state == "ok"
    key_file = tmp_path / "webhook.db.key"
    key_file.chmod(0o644)
    check = found(environ, "encryption keys")
    assert (check.state, check.mend) == ("wrong", f"chmod 600 {key_file}")


@pytest.mark.parametrize(("megabytes", "state"), [(50, "wrong"), (500, "warning"), (5000, "ok")])
def test_a_disk_is_judged_by_what_is_free(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, megabytes: int, state: State
) -> None:
    usage = SimpleNamespace(free=megabytes * 1024**2)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    assert found(environ, "disk").state == state


def test_a_worker_without_a_sign_of_life_is_wrong_only_beside_a_web_process(
    environ: dict[str, str], service: Service
) -> None:
    assert found(environ, "worker").state == "warning"
    with Answering(environ["WEBHOOK_BIND"], {"/readyz": (200, {"dependencies": {}})}):
        assert found(environ, "worker").state == "wrong"
    with service.database.transaction() as session:
        key_store.beat(session, key_store.WORKER, now=clock.now())
    assert found(environ, "worker").state == "ok"
    with service.database.transaction() as session:
        key_store.beat(session, key_store.WORKER, now=clock.now() - HOUR)
    assert found(environ, "worker").state == "warning"


def test_an_address_that_another_program_listens_on_is_wrong(environ: dict[str, str]) -> None:
    assert found(environ, "web").state == "warning"
    with Answering(environ["WEBHOOK_BIND"], {"/readyz": (200, {"hello": 1})}):
        assert found(environ, "web").state == "wrong"
    with hanging_up(int(environ["WEBHOOK_BIND"].partition(":")[2])):
        assert found(environ, "web").state == "wrong"


def test_an_address_for_callbacks_must_answer_beside_the_other(environ: dict[str, str]) -> None:
    environ["WEBHOOK_CALLBACK_BIND"] = f"127.0.0.1:{free_port()}"
    assert found(environ, "web").state == "warning"
    with Answering(environ["WEBHOOK_CALLBACK_BIND"], {"/livez": (200, {"status": "ok"})}):
        alone = found(environ, "web")
        assert (alone.state, "WEBHOOK_CALLBACK_BIND" in alone.finding) == ("wrong", True)
        with Answering(environ["WEBHOOK_BIND"], {"/readyz": (200, {"dependencies": {}})}):
            assert found(environ, "web").state == "ok"
    with Answering(environ["WEBHOOK_BIND"], {"/readyz": (200, {"dependencies": {}})}):
        missing = found(environ, "web")
    assert (missing.state, environ["WEBHOOK_CALLBACK_BIND"] in missing.finding) == ("wrong", True)


@pytest.mark.parametrize(
    ("url", "endpoint", "state"),
    [
        ("https://hooks.example.com", None, "ok"),
        ("https://hooks.example.com", "http://127.0.0.1:1", "ok"),
        ("http://hooks.example.com", None, "warning"),
        ("http://127.0.0.1:8000", None, "wrong"),
        ("http://localhost:8000", None, "wrong"),
        ("https://10.0.0.7", None, "wrong"),
        ("http://[::1]:8000", None, "wrong"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:9000", "ok"),
    ],
)
def test_a_public_url_is_one_that_the_platform_can_reach(
    environ: dict[str, str], url: str, endpoint: str | None, state: State
) -> None:
    environ |= {"WEBHOOK_PUBLIC_URL": url, "WEBHOOK_PLATFORM_ENDPOINT": endpoint or ""}
    assert found(environ, "public URL").state == state


def test_a_public_url_that_leads_elsewhere_is_worth_a_look(environ: dict[str, str]) -> None:
    bind = environ["WEBHOOK_BIND"]
    environ |= {"WEBHOOK_PUBLIC_URL": f"http://{bind}", "WEBHOOK_PLATFORM_ENDPOINT": "http://127.0.0.1:1"}
    ready: dict[str, tuple[int, Any]] = {"/readyz": (200, {"dependencies": {}})}
    with Answering(bind, ready):
        assert found(environ, "public URL").state == "warning"
    with Answering(bind, ready | {"/livez": (200, {"status": "ok"})}):
        assert found(environ, "public URL").state == "ok"


@pytest.mark.parametrize(
    ("uid", "state"), [("", "wrong"), ("1234567890123456", "ok"), ("201234567890123456", "warning"), ("me", "warning")]
)
def test_a_uid_is_an_accounts(environ: dict[str, str], uid: str, state: State) -> None:
    environ["WEBHOOK_PLATFORM_UID"] = uid
    check = found(environ, "account UID")
    assert check.state == state
    assert state == "ok" or "RAM user's will not do" in (check.mend or "")


def test_half_of_the_credentials_is_as_good_as_none(environ: dict[str, str]) -> None:
    check = found(environ | {"ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID}, "credentials")
    assert check.finding.startswith("ALIBABA_CLOUD_ACCESS_KEY_SECRET not set")
    assert check.state == "wrong"


def test_who_has_only_receivers_needs_no_credentials(environ: dict[str, str], service: Service) -> None:
    assert found(environ, "credentials").state == "wrong"
    with service.database.transaction() as session:
        receivers.open_receiver(
            session, service.keyring, name="a", crypt_type="SHA256", seed=None, uid=None, now=clock.now()
        )
    assert found(environ, "credentials").state == "warning"


# The gateway's answers: status, code and what a person on call is to do about it.
REFUSALS = [
    (404, "InvalidAccessKeyId.NotFound", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    (400, "SignatureDoesNotMatch", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
    (400, "InvalidTimeStamp.Expired", "The time here is 2"),
    (403, "InvalidSecurityToken.Expired", "ALIBABA_CLOUD_SECURITY_TOKEN"),
    (403, "Forbidden.RAM", "AliyunYundunGreenWebFullAccess"),
    (403, "SomethingNew", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    (500, "InternalError", "internal error"),
    (200, 408, "not activated"),
    (200, 500, "internal error"),
]


@pytest.mark.parametrize(("status", "code", "said"), REFUSALS)
def test_what_the_platform_refuses_is_told_with_its_mend(
    environ: dict[str, str], status: int, code: int | str, said: str
) -> None:
    check = probed(environ, (status, {"Code": code, "Message": "seed=xyzzy", "RequestId": "1"}))
    assert check.state == "wrong"
    assert said in check.finding
    assert "xyzzy" not in check.finding


@pytest.mark.parametrize("code", [200, 280, 400, 401, 403, 404])
def test_a_platform_that_knows_no_such_task_has_let_us_in(environ: dict[str, str], code: int) -> None:
    assert probed(environ, (200, {"Code": code, "Message": "", "RequestId": "1"})).state == "ok"


def probed(environ: Mapping[str, str], answer: tuple[int, Any]) -> Check:
    """Return what is said of a platform that answers so."""
    with Answering("127.0.0.1:0", {"/": answer}) as fake:
        return found({**environ, **with_credentials(fake.url)}, "platform")


def with_credentials(url: str) -> dict[str, str]:
    return {
        "WEBHOOK_PLATFORM_ENDPOINT": url,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
    }


def test_the_sandbox_accepts_its_own_credentials_and_no_others(environ: dict[str, str], platform: Platform) -> None:
    environ |= with_credentials(platform.url)
    assert found(environ, "platform").state == "ok"
    for name in ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"):
        check = found(environ | {name: "wrong"}, "platform")
        assert (check.state, name in check.finding) == ("wrong", True)


def test_a_platform_that_is_not_there_is_told(environ: dict[str, str]) -> None:
    check = found({**environ, **with_credentials(f"http://127.0.0.1:{free_port()}")}, "platform")
    assert (check.state, "could not be reached" in check.finding) == ("wrong", True)


def test_a_platform_that_hangs_up_could_not_be_reached(environ: dict[str, str]) -> None:
    with hanging_up() as port:
        check = found({**environ, **with_credentials(f"http://127.0.0.1:{port}")}, "platform")
    assert (check.state, "could not be reached" in check.finding) == ("wrong", True)


def test_a_proxy_is_worth_a_look(environ: dict[str, str]) -> None:
    assert "https_proxy" in found(environ | {"https_proxy": "http://user:pw@proxy"}, "proxy").finding
    assert "proxy" not in states(environ)


def test_a_service_without_any_api_key_is_worth_a_look(environ: dict[str, str], service: Service) -> None:
    assert found(environ, "API keys").finding == "0, and WEBHOOK_ADMIN_KEY."
    del environ["WEBHOOK_ADMIN_KEY"]
    assert found(environ, "API keys").state == "warning"
    key = key_store.ApiKey(id="key_1", name="a", role="admin", digest=b"", created_at=clock.now())
    with service.database.transaction() as session:
        key_store.insert_api_key(session, key)
    assert found(environ, "API keys").state == "ok"
    with service.database.transaction() as session:
        key_store.revoke_api_key(session, key.id, now=clock.now())
    assert found(environ, "API keys").state == "warning"


def test_a_slow_sm3_is_worth_a_look(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(environ, "SM3").state == "ok"
    monkeypatch.setattr(signatures, "choose_sm3", lambda: signatures.gmssl_sm3)
    assert found(environ, "SM3").state == "warning"

    def none_works() -> signatures.Hash:
        raise ServiceError("No implementation of SM3 works here.")

    monkeypatch.setattr(signatures, "choose_sm3", none_works)
    assert found(environ, "SM3").state == "warning"


def kept(number: int, *, state: str, reason: str, message: str) -> Callback:
    return Callback(
        id=f"cb_{number}",
        address_id="task_1",
        task_id="task_1",
        state=state,
        digest=bytes([number]) * 32,
        checksum="0" * 64,
        stated_task_id=None,
        reason=reason,
        message=message,
        content=b"",
        size=0,
        received_at=clock.now(),
    )


def test_quarantined_callbacks_are_told_with_their_most_frequent_diagnosis(
    environ: dict[str, str], service: Service
) -> None:
    assert found(environ, "quarantine").state == "ok"
    with service.database.transaction() as session:
        callback_store.insert_callbacks(
            session, [kept(0, state="quarantined", reason="checksum_wrong", message="The checksum is wrong.")]
        )
    check = found(environ, "quarantine")
    assert (check.state, check.finding.startswith("1 callback failed")) == ("warning", True)
    diagnoses = ["other_uid", "upper_case", "other_uid"]
    with service.database.transaction() as session:
        callback_store.insert_callbacks(
            session,
            [
                kept(number, state="quarantined", reason=reason, message=f"It is {reason}.")
                for number, reason in enumerate(diagnoses, 1)
            ],
        )
    check = found(environ, "quarantine")
    assert check.state == "wrong"
    assert check.finding == "4 callbacks failed verification; 2 of them: It is other_uid."


def test_unreadable_callbacks_are_worth_a_look(environ: dict[str, str], service: Service) -> None:
    with service.database.transaction() as session:
        callback_store.insert_callbacks(session, [kept(1, state="unreadable", reason="unreadable", message="No JSON.")])
    assert found(environ, "unreadable").state == "warning"


def submit(service: Service, **values: Any) -> None:
    """Submit a file, and write into its row what the test needs."""
    with service.database.transaction() as session:
        new = NewTask(kind="audio", service="audio_detection_byllm_global", source={"url": "https://example.com/a.mp3"})
        task, _ = service.tasks.submit(session, new)
        task_store.update_task(session, task.id, updated_at=clock.now(), **values)


def test_tasks_that_stay_queued_are_told_with_the_reason(environ: dict[str, str], service: Service) -> None:
    submit(service)
    assert found(environ, "queue").state == "ok", "a new one may wait"
    error = {"code": 408, "reason": "not_authorized", "message": "The account may not."}
    submit(service, created_at=clock.now() - HOUR, error=error)
    submit(service, created_at=clock.now() - HOUR, error=error)
    submit(service, created_at=clock.now() - HOUR)
    check = found(environ, "queue")
    assert check.state == "wrong"
    assert check.finding == "3 tasks wait longer than a minute to be submitted; 2: The account may not."


def test_files_whose_result_does_not_come_are_worth_a_look(environ: dict[str, str], service: Service) -> None:
    submit(service, state="processing")
    assert found(environ, "results").state == "ok"
    submit(service, state="processing", created_at=clock.now() - 3 * HOUR)
    check = found(environ, "results")
    assert (check.state, check.finding) == ("warning", "1 file waits longer than two hours for a result.")


def subscribe(service: Service, session: Any, *, url: str = "https://example.com/", failing: bool = False) -> str:
    subscription, _ = subscriptions.create(
        session,
        service.keyring,
        url=url,
        event_types=[],
        filter={},
        format="standard",
        description=None,
        now=clock.now(),
    )
    if failing:
        delivery_store.update_subscription(session, subscription.id, failing_since=clock.now())
    return subscription.id


def test_subscriptions_that_fail_or_were_disabled_are_told(environ: dict[str, str], service: Service) -> None:
    with service.database.transaction() as session:
        by_client = subscribe(service, session)
        delivery_store.update_subscription(session, by_client, state="disabled", disabled_reason="by_client")
    assert found(environ, "subscriptions").state == "ok"
    with service.database.transaction() as session:
        failing = subscribe(service, session, failing=True)
    check = found(environ, "subscriptions")
    assert (check.state, failing in check.finding) == ("warning", True)
    with service.database.transaction() as session:
        gone = [subscribe(service, session) for _ in range(4)]
        for one in gone:
            delivery_store.update_subscription(session, one, state="disabled", disabled_reason="gone")
    check = found(environ, "subscriptions")
    assert check.state == "wrong"
    assert "4 of 6" in check.finding
    assert check.finding.endswith("(example.com), ….")


def test_a_thousand_deliveries_owed_are_worth_a_look(environ: dict[str, str], service: Service) -> None:
    assert found(environ, "deliveries").state == "ok"
    with service.database.transaction() as session:
        subscription = subscribe(service, session)
        delivery_store.insert_deliveries(
            session,
            [
                subscriptions.new_delivery(
                    event_id=f"evt_{number}", event_type="task.failed", subscription_id=subscription, now=clock.now()
                )
                for number in range(1000)
            ],
        )
    assert found(environ, "deliveries").state == "warning"


def test_its_exit_status_and_its_json_say_whether_anything_is_wrong(tmp_path: Path) -> None:
    command = run_command(tmp_path, "doctor", "--json", WEBHOOK_BIND=f"127.0.0.1:{free_port()}")
    report = json.loads(command.stdout)
    assert command.returncode == 1
    assert report["ok"] is False
    assert {tuple(check) for check in report["checks"]} == {("name", "state", "finding", "mend")}


def test_where_nothing_is_wrong_the_exit_status_is_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = [Check(name="a", state="ok", finding="Fine."), Check(name="b", state="warning", finding="So", mend="so.")]
    monkeypatch.setattr(doctor, "examine", lambda _environ: fine)
    assert doctor.run({}, as_json=False) == 0
    said = capsys.readouterr().out
    assert said == "✓  a  Fine.\n!  b  So so.\n\nNothing is wrong, 1 worth a look.\n"
    assert doctor.run({}, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_on_a_terminal_long_lines_go_on_under_their_beginning() -> None:
    console = Console(width=40, force_terminal=True, record=True, no_color=True)
    doctor.show([Check(name="name", state="wrong", finding="word " * 12)], console)
    lines = console.export_text().splitlines()
    assert lines[0].startswith("✗  name  word")
    assert lines[1].startswith("         word")


@contextmanager
def hanging_up(port: int = 0) -> Iterator[int]:
    """Listen, and close the first connection at once."""
    with socket.create_server(("127.0.0.1", port)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        thread = Thread(target=hang_up)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


class Answering:
    """A web server that knows some answers; a context manager.

    Args:
        bind: `host:port`; port 0 takes a free one.
        answers: path to status and JSON.
    """

    def __init__(self, bind: str, answers: Mapping[str, tuple[int, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = answers.get(self.path, (404, {}))
                content = msgspec.json.encode(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - what the base class looks for

            def log_message(self, *_: object) -> None:
                pass

        host, _, port = bind.partition(":")
        self._server = ThreadingHTTPServer((host, int(port)), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
