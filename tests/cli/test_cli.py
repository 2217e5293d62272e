"""The command line: keys, refusals in one sentence, and what is printed where."""

from __future__ import annotations

import re
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import databases
from tests.clients import AppClient
from tests.running import ENCRYPTION_KEYS, environment
from webhook import bootstrap, models
from webhook import settings as settings_module
from webhook.app import create_app
from webhook.crypto import Keyring

if TYPE_CHECKING:
    from tests.cli.conftest import RunCommand

ROOT = Path(__file__).parents[2]


def test_a_key_is_printed_once_and_opens_the_api_until_it_is_revoked(webhook: RunCommand, tmp_path: Path) -> None:
    status, out, _ = webhook("keys", "create", "the moderators", "--role", "reader")
    assert status == 0
    key = out.strip()
    assert re.fullmatch(r"wk_[A-Za-z0-9_-]{43}", key)
    assert [path for path in tmp_path.iterdir() if key.encode() in path.read_bytes()] == []

    status, listed, _ = webhook("keys", "list")
    assert status == 0
    assert key not in listed
    head, row = listed.splitlines()
    assert re.split("  +", head) == ["ID", "CLIENT", "ROLE", "STATE", "EXPIRES", "LAST USED", "NETWORKS"]
    key_id, *rest = re.split("  +", row)
    assert rest == ["the moderators", "reader", "live", "never", "never", "any"]

    service = bootstrap.build(settings_module.load(environment(tmp_path)))
    client = AppClient(create_app(service))
    assert client.get("/v1/tasks", key=key).status == 200
    assert client.post("/v1/tasks", {"url": "https://example.com/a.mp3"}, key=key).status == 403
    assert webhook("keys", "revoke", key_id)[0] == 0
    assert client.get("/v1/tasks", key=key).status == 401
    assert "revoked" in webhook("keys", "list")[1]
    assert webhook("keys", "revoke", key_id)[0] == 1
    service.database.close()


@pytest.mark.parametrize(
    ("role", "may_submit", "may_subscribe"), [("reader", 403, 403), ("submitter", 201, 403), ("admin", 201, 201)]
)
def test_a_key_s_role_is_what_it_may_do(
    webhook: RunCommand, tmp_path: Path, role: str, may_submit: int, may_subscribe: int
) -> None:
    key = webhook("keys", "create", "a test", "--role", role)[1].strip()
    service = bootstrap.build(settings_module.load(environment(tmp_path)))
    client = AppClient(create_app(service))
    assert client.post("/v1/tasks", {"url": "https://example.com/a.mp3"}, key=key).status == may_submit
    assert client.post("/v1/subscriptions", {"url": "https://example.com/"}, key=key).status == may_subscribe
    service.database.close()


def test_a_client_changes_from_one_key_to_the_next(webhook: RunCommand, tmp_path: Path) -> None:
    create = ("keys", "create", "uploader", "--role", "submitter", "--expires", "90d", "--network", "127.0.0.1/8")
    first = webhook(*create)[1].strip()
    status, out, err = webhook("keys", "rotate", "uploader")
    assert status == 0
    second = out.strip()
    rows = [re.split("  +", row) for row in webhook("keys", "list")[1].splitlines()[1:]]
    assert [(row[1:4], row[6]) for row in rows] == [(["uploader", "submitter", "live"], "127.0.0.0/8")] * 2
    assert err == f"When uploader uses it: webhook keys revoke {rows[0][0]}\n"
    status, out, err = webhook("keys", "rotate", "uploader")
    assert (status, out) == (1, "")
    assert rows[0][0] in err
    assert webhook("keys", "revoke", rows[0][0])[0] == 0
    service = bootstrap.build(settings_module.load(environment(tmp_path)))
    client = AppClient(create_app(service))
    assert [client.get("/v1/tasks", key=key).status for key in (first, second)] == [401, 200]
    service.database.close()


def test_the_readme_shows_what_each_role_may_do(webhook: RunCommand) -> None:
    status, out, _ = webhook("keys", "roles")
    assert status == 0
    assert f"\n```\n{out}```\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["keys", "create", "x"], "--role"),
        (["keys", "create", "x", "--role", "owner"], "--role"),
        (["keys", "create", "x\n", "--role", "reader"], "NAME"),
        (["keys", "create", "x", "--role", "reader", "--expires", "soon"], "90d"),
        (["keys", "create", "x", "--role", "reader", "--expires", "0d"], "90d"),
        (["keys", "create", "x", "--role", "reader", "--network", "example.com"], "10.0.0.0/8"),
        (["keys", "rotate", "nobody"], "nobody"),
        (["keys", "revoke", "key_nobody"], "key_nobody"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_wrong_command_is_told_what_is_wrong(webhook: RunCommand, arguments: list[str], says: str) -> None:
    status, out, err = webhook(*arguments)
    assert (status, out) == (1, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["web", "worker"])
def test_a_process_refuses_a_database_that_was_not_migrated(webhook: RunCommand, tmp_path: Path, command: str) -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    status, _, err = webhook(command)
    assert status == 1
    assert "webhook migrate" in err
    assert not (tmp_path / "webhook.db").exists()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked  # who called it can be stopped as before


def test_a_wrong_setting_is_named_with_its_mend(webhook: RunCommand) -> None:
    status, out, err = webhook("migrate", WEBHOOK_FLAG_LEVEL="severe")
    assert (status, out) == (1, "")
    assert err == ("webhook: WEBHOOK_FLAG_LEVEL: is not one of low, medium, high (it is 'severe'). Set it to medium.\n")


def test_a_database_that_was_written_with_other_keys_is_refused(
    webhook: RunCommand,
) -> None:
    assert webhook("keys", "list")[0] == 0
    status, _, err = webhook("keys", "list", WEBHOOK_ENCRYPTION_KEYS=f"k1:{'A' * 43}=")
    assert status == 1
    assert err.startswith("webhook: WEBHOOK_ENCRYPTION_KEYS: holds no key that opens ")


@databases.needs_sqlite
def test_a_key_file_is_made_for_its_owner_alone_and_told_of_once(webhook: RunCommand, tmp_path: Path) -> None:
    status, _, err = webhook("migrate", WEBHOOK_ENCRYPTION_KEYS="")
    path = tmp_path / "webhook.db.key"
    assert status == 0
    assert str(path) in err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() not in err
    assert str(path) not in webhook("migrate", WEBHOOK_ENCRYPTION_KEYS="")[2]
    assert webhook("keys", "list", WEBHOOK_ENCRYPTION_KEYS="")[0] == 0

    path.rename(tmp_path / "elsewhere")
    status, _, err = webhook("worker", WEBHOOK_ENCRYPTION_KEYS="")
    assert status == 1
    assert "Put the key file back" in err
    assert webhook("migrate", WEBHOOK_ENCRYPTION_KEYS="")[0] == 0
    assert not path.exists()


def test_the_sandbox_lists_what_its_names_do(webhook: RunCommand) -> None:
    status, out, _ = webhook("sandbox", "--magic")
    assert status == 0
    assert "submit_code=" in out


def test_the_version_is_told(webhook: RunCommand) -> None:
    assert webhook("--version")[:2] == (0, "webhook, version 0.1.0\n")


def test_a_rotation_says_which_keys_are_no_longer_needed(webhook: RunCommand, tmp_path: Path) -> None:
    new = f"k2:{'A' * 43}="
    both = {"WEBHOOK_ENCRYPTION_KEYS": f"{new},{ENCRYPTION_KEYS}"}
    assert webhook("keys", "list")[0] == 0
    status, out, _ = webhook("keys", "rotate-master", **both)
    assert (status, out.splitlines()) == (
        0,
        [
            "Data keys wrapped by k2 now: 1. Values sealed anew: 0.",
            "k1 is no longer needed: take it out of WEBHOOK_ENCRYPTION_KEYS, in every process.",
        ],
    )
    status, _, complaint = webhook("keys", "list")
    assert (status, "WEBHOOK_ENCRYPTION_KEYS: lacks k2" in complaint) == (1, True)
    assert webhook("keys", "rotate-master", WEBHOOK_ENCRYPTION_KEYS=new)[0] == 0

    task = {"table": "tasks", "column": "secrets", "row": "task_1"}
    service = bootstrap.build(settings_module.load(environment(tmp_path, **both)))
    AppClient(create_app(service)).made("/v1/tasks", {"url": "https://example.com/a.mp3"})
    for master, key_id in ((b"1" * 32, "k1"), (b"0" * 32, "k0")):
        with service.database.transaction() as session:
            sealed = Keyring({key_id: master}).seal(b"{}", **task)
            session.execute(models.tasks.update().values(secrets=sealed))
        status, out, complaint = webhook("keys", "rotate-master", **both)
        assert (status, "k1 is no longer needed" in out) == (1, key_id == "k0")
        held = "" if key_id == "k1" else ", which WEBHOOK_ENCRYPTION_KEYS does not hold,"
        assert f"{key_id}{held} is still needed; values or data keys under it: 1." in out
        assert "started with k2 as the first key, then run this again" in complaint
    service.database.close()
