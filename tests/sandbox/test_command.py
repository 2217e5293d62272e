"""`webhook sandbox`: its options are the configuration's fields, and arrive there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest
import requests
from click.testing import CliRunner

from webhook.sandbox.command import sandbox
from webhook.sandbox.config import FIXED, SandboxConfig

FIELDS = SandboxConfig.__struct_fields__
DEFAULTS = SandboxConfig()
CHOICES: dict[str, Any] = {
    "sm3_scheme": "hmac",
    "callback_shape": "camel",
    "callback_encoding": "json",
    "account_code": 408,
    "outage": "throttle:500",
    "faults": 0.25,
}


def test_every_setting_is_an_option_and_every_option_a_setting() -> None:
    names = {parameter.name for parameter in sandbox.params if isinstance(parameter, click.Option)}
    assert names == {*FIELDS, "magic"}


def test_the_help_shows_options_by_group_with_defaults() -> None:
    text = CliRunner().invoke(sandbox, ["--help"]).output
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith((" ", "Usage"))]
    assert headings == [
        *("Address and account:", "Timing:", "Limits:", "Lifetimes:", "Shapes:", "Faults:", "Options:"),
    ]
    for name in FIELDS:
        assert f"--{name.replace('_', '-')}" in text
    assert "[default: 86400.0]" in " ".join(text.split())


def test_every_option_arrives_in_the_running_sandbox() -> None:
    wanted: dict[str, Any] = {}
    arguments = ["--port", "0"]
    for name in set(FIELDS) - set(FIXED):
        default, flag = getattr(DEFAULTS, name), name.replace("_", "-")
        if isinstance(default, bool):
            wanted[name] = not default
            arguments.append(f"--no-{flag}")
        else:
            wanted[name] = CHOICES.get(name) or (f"{default}1" if isinstance(default, str) else default + 1)
            arguments += [f"--{flag}", str(wanted[name])]
    command = [sys.executable, "-m", "webhook", "sandbox", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        shown = requests.get(f"{url}/sandbox/control", timeout=5).json()
        process.terminate()
    assert shown == wanted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--faults", "2"], "faults"),
        (["--port", "-1"], "port"),
        (["--time-scale", "0"], "time_scale"),
        (["--outage", "sometimes"], "outage"),
        (["--account-code", "7"], "account_code"),
        (["--callback-shape", "round"], "--callback-shape"),
        (["--submits-per-second", "many"], "--submits-per-second"),
    ],
)
def test_a_wrong_value_is_refused_by_name(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(sandbox, arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_an_address_in_use_is_said_so() -> None:
    result = CliRunner().invoke(sandbox, ["--host", "192.0.2.1", "--port", "0"])
    assert result.exit_code == 1
    assert "192.0.2.1:0 cannot be listened on" in result.output
