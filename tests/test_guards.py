"""What must not drift apart: commands and the Procfile, settings and the README."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from webhook.cli import cli
from webhook.settings import Settings

ROOT = Path(__file__).parents[1]
PROCESSES = {"web", "worker"}  # the commands that run until they are told to stop, on many machines

ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines)}


def readme_rows() -> dict[str, str]:
    rows = ROW.findall((ROOT / "README.md").read_text())
    assert len({name for name, _, _ in rows}) == len(rows), "a setting has two rows"
    return {name: default.strip() for name, default, _ in rows}


def test_every_procfile_entry_is_a_command() -> None:
    for name, command in procfile().items():
        program, *arguments = command.split()
        assert program == "webhook", name
        assert len(arguments) == 1, name
        assert arguments[0] in cli.commands, name


def test_every_process_has_a_procfile_entry_of_its_name_and_the_release_migrates() -> None:
    entries = procfile()
    assert entries.keys() == PROCESSES | {"release"}
    assert {name: entries[name] for name in PROCESSES} == {name: f"webhook {name}" for name in PROCESSES}
    assert entries["release"] == "webhook migrate"


def test_every_setting_has_one_row_in_the_readme_and_every_row_is_a_setting() -> None:
    variables = {field.metadata["variable"] for field in dataclasses.fields(Settings)}
    assert readme_rows().keys() == variables


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: str(field.metadata["variable"]))
def test_a_setting_s_default_stands_in_the_readme(field: dataclasses.Field[object]) -> None:
    shown = readme_rows()[field.metadata["variable"]].strip("`")
    default = field.metadata["default"]
    assert shown == default if default is not None else re.fullmatch("none|from .*|see .*|a key file.*", shown)


def test_no_secret_has_a_default() -> None:
    assert [field.name for field in dataclasses.fields(Settings) if field.metadata["secret"]] == [
        field.name
        for field in dataclasses.fields(Settings)
        if field.metadata["secret"] and (field.metadata["default"] is None or field.name == "database_url")
    ]
