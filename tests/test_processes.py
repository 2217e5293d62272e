"""`webhook serve` as a process: it stops when told to, leaves nothing behind, and says why it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.clients import NO_KEY
from tests.running import Running, is_running, run
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    one.start()
    yield one
    one.command.kill()


def refusal(directory: Path, *arguments: str, **variables: str) -> str:
    """Run a command that must refuse to start, and return the one sentence that it says."""
    ended = run(directory, *arguments, **variables)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    [sentence] = ended.stderr.splitlines()
    assert sentence.startswith("webhook: ")
    return sentence


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_with_status_0_and_leaves_no_process(serving: Running, number: signal.Signals) -> None:
    pids = serving.command.pids()
    assert len(pids) >= 4, "the parent, gunicorn and its worker, the worker"
    assert serving.command.stop(number) == 0
    until(lambda: not any(map(is_running, pids)))
    assert "Traceback" not in serving.command.log


def test_what_a_killed_parent_leaves_ends_by_itself_and_frees_the_port(serving: Running) -> None:
    pids = serving.command.pids()
    os.kill(serving.command.pid, signal.SIGKILL)
    serving.command.wait()
    until(lambda: not any(map(is_running, pids)), seconds=60)
    serving.start()
    assert serving.get("/livez", key=NO_KEY).status == 200


def test_a_port_that_is_taken_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
        sentence = refusal(tmp_path, "serve", WEBHOOK_BIND=bind)
    assert sentence.startswith("webhook: WEBHOOK_BIND: ")
    assert bind in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    away = tmp_path / "away"
    sentence = refusal(
        tmp_path, "serve", WEBHOOK_BIND="127.0.0.1:0", WEBHOOK_DATABASE_URL=f"sqlite:///{away}/webhook.db"
    )
    assert str(away) in sentence
    assert "WEBHOOK_DATABASE_URL" in sentence


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "webhook.db").write_bytes(b"something else altogether, and long enough\n" * 50)
    sentence = refusal(tmp_path, "migrate")
    assert "webhook.db" in sentence
    assert "not an SQLite database" in sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "webhook.db").touch()
    (tmp_path / "webhook.db").chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert "permissions" in refusal(tmp_path, "migrate")
    finally:
        tmp_path.chmod(0o700)


def test_a_database_that_another_program_holds_locked_is_told(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "webhook.db", isolation_level=None)
    try:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in refusal(tmp_path, "migrate")
    finally:
        other.close()
