"""A command run in this process, and services that watch streams closely or go wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.cli.stub import Stub
from tests.running import Running, environment, sandbox_variables
from webhook import cli, logs
from webhook.cli import client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.platform import Platform


class RunCommand(Protocol):
    """Runs a command; returns its status and what it printed to the two outputs."""

    def __call__(self, *arguments: str, **variables: str) -> tuple[int, str, str]: ...


@pytest.fixture
def webhook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Run a command in this process, with the settings of `environment`."""
    # the log would be bound to this test's captured output for good
    monkeypatch.setattr(logs, "configure", lambda _: None)

    def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["webhook", *arguments])
        for name, value in environment(tmp_path, **variables).items():
            monkeypatch.setenv(name, value)
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def ask(webhook: RunCommand, running: Running) -> RunCommand:
    """Run a command that asks `running`."""
    return lambda *arguments, **variables: webhook(*arguments, **{"WEBHOOK_API_URL": running.url} | variables)


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory, platform: Platform) -> Iterator[Running]:
    """A service that looks after its streams every second, and finds them silent after one."""
    one = Running(
        tmp_path_factory.mktemp("watched"),
        **sandbox_variables(platform.url),
        WEBHOOK_STREAM_POLL_SECONDS="1",
        WEBHOOK_STREAM_SILENCE_SECONDS="1",
    )
    one.start()
    yield one
    assert one.command.stop() == 0, one.command.log


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server that answers what it is told to."""
    with Stub() as one:
        yield one


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(client, "PAUSES_SECONDS", (0.0, 0.0))
