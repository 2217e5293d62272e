"""`webhook serve` as a process: it stops when told to, leaves nothing behind, and says why it cannot start."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import databases
from tests.clients import NO_KEY
from tests.running import Command, Running, children, environment, free_port, is_running, run, tracing, web_and_worker
from tests.signed import content, form, piece
from tests.waiting import until
from webhook import processes
from webhook.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHILDREN = 2 if databases.SERVER is None else 3  # the worker process, and the web's
SETTLED_SECONDS = 6  # what cannot start within 5 s of the service's start ends that


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path, **tracing())
    one.start()
    yield one
    one.command.kill()


def refusal(directory: Path, *arguments: str, under: Sequence[str] = (), **variables: str) -> str:
    """Run a command that must refuse to start, and return the one sentence that it says."""
    ended = run(directory, *arguments, under=under, **variables)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    [sentence] = ended.stderr.splitlines()
    assert sentence.startswith("webhook: ")
    return sentence


def is_held(pid: int, directory: Path) -> bool:
    """Hold a process, but not while it is writing to SQLite's file: nobody else could."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    if databases.SERVER is None:
        with (directory / "webhook.db-lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.kill(pid, signal.SIGCONT)
                return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_with_status_0_and_leaves_no_process(serving: Running, number: signal.Signals) -> None:
    receiver = serving.receiver()
    assert serving.callback(receiver["callback_url"], form(content(piece(0)), seed=receiver["seed"])) == 200
    assert len(serving.items("/v1/verdicts")) == 1
    pids = serving.command.pids()
    assert len(pids) == 1 + CHILDREN
    assert serving.command.stop(number) == 0
    until(lambda: not any(map(is_running, pids)))
    assert "Traceback" not in serving.command.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_too_while_it_is_being_started(tmp_path: Path, number: signal.Signals) -> None:
    one = Running(tmp_path)
    one.launch()
    until(lambda: "listening on" in one.command.log)  # the database is there; the processes are not
    pids = one.command.pids()
    assert one.command.stop(number) == 0
    until(lambda: not any(map(is_running, pids)))
    assert "Traceback" not in one.command.log


FAILING = """
import os, sys
from webhook import bootstrap
from webhook.errors import ServiceError

parent, build = os.getpid(), bootstrap.build

def fail(settings):
    if os.getpid() == parent:
        return build(settings)
    raise ServiceError("It cannot be started.")

bootstrap.build = fail
sys.argv = ["webhook", "serve"]
from webhook.cli import main
main()
"""


def test_processes_that_cannot_start_end_the_service(tmp_path: Path) -> None:
    env = environment(tmp_path, WEBHOOK_BIND=f"127.0.0.1:{free_port()}")
    command = [sys.executable, "-c", FAILING]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "It cannot be started." in ended.stderr
    assert "The process failed." not in ended.stderr


def test_what_a_killed_parent_leaves_ends_by_itself_and_is_waited_for(serving: Running) -> None:
    os.kill(serving.command.pid, signal.SIGKILL)
    serving.command.wait()
    serving.start()
    assert serving.get("/livez", key=NO_KEY).status == 200


def test_a_worker_that_outlives_its_parent_keeps_nobody_from_starting(serving: Running) -> None:
    web, worker = web_and_worker(serving.command.pid)
    until(lambda: is_held(worker, serving.directory))  # as if it had something to finish
    try:
        os.kill(serving.command.pid, signal.SIGKILL)
        serving.command.wait()
        until(lambda: not is_running(web))
        serving.start()
        assert is_running(worker)
    finally:
        os.kill(worker, signal.SIGKILL)
    assert serving.get("/livez", key=NO_KEY).status == 200


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_is_killed_as_soon_as_it_is_started_is_started_again(tmp_path: Path, which: int) -> None:
    one = Running(tmp_path)
    env = environment(tmp_path, **one.variables, **tracing())
    command = Command("serve", env=env, log=tmp_path / "log")
    pids = until(lambda: found if len(found := children(command.pid)) == CHILDREN else None)
    os.kill(pids[which], signal.SIGKILL)
    until(lambda: f"Worker (pid:{pids[which]}) was sent SIGKILL!" in command.log)
    until(lambda: len(children(command.pid)) == CHILDREN)
    assert command.stop() == 0
    assert "Traceback" not in command.log


@databases.needs_sqlite
def test_a_process_that_cannot_start_any_more_is_tried_until_it_can(serving: Running) -> None:
    path, away = serving.directory / "webhook.db", serving.directory / "away"
    web, _ = web_and_worker(serving.command.pid)
    pause = threading.Event()
    pause.wait(SETTLED_SECONDS)
    path.rename(away)
    path.mkdir()
    os.kill(web, signal.SIGKILL)
    until(lambda: "A process could not be started again" in serving.command.log)
    path.rmdir()
    away.rename(path)
    web_and_worker(serving.command.pid)
    assert serving.get("/livez", key=NO_KEY).status == 200


def test_a_process_that_refuses_what_it_finds_says_why_and_ends_the_service(tmp_path: Path) -> None:
    assert run(tmp_path, "keys", "list").returncode == 0
    ended = run(tmp_path, "serve", WEBHOOK_BIND="127.0.0.1:0", WEBHOOK_ENCRYPTION_KEYS=f"k1:{'A' * 43}=", **tracing())
    assert ended.returncode == 1
    assert "WEBHOOK_ENCRYPTION_KEYS: holds no key that opens" in ended.stderr
    assert "Traceback" not in ended.stderr


@databases.needs_sqlite
@pytest.mark.parametrize("command", ["serve", "web"])
def test_a_second_web_process_at_a_database_is_refused(running: Running, command: str) -> None:
    bind = f"127.0.0.1:{free_port()}"
    sentence = refusal(running.directory, command, WEBHOOK_BIND=bind)
    assert "Another web process serves" in sentence
    assert "webhook.db" in sentence


def test_what_is_still_taken_is_waited_for_and_refused_in_the_end() -> None:
    taken = [DatabaseError("Another has it."), DatabaseError("Another has it.")]

    def take() -> str:
        if taken:
            raise taken.pop()
        return "ours"

    assert processes._awaited(take, seconds=60) == "ours"
    taken.append(DatabaseError("Another has it."))
    with pytest.raises(DatabaseError, match="Another has it"):
        processes._awaited(take, seconds=0)


def test_a_port_that_is_taken_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
        sentence = refusal(tmp_path, "serve", WEBHOOK_BIND=bind)
    assert sentence.startswith("webhook: WEBHOOK_BIND: ")
    assert bind in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    away = tmp_path / "away"
    url = f"sqlite:///{away}/webhook.db"
    sentence = refusal(tmp_path, "serve", WEBHOOK_BIND="127.0.0.1:0", WEBHOOK_DATABASE_URL=url, **tracing())
    assert str(away) in sentence
    assert "WEBHOOK_DATABASE_URL" in sentence


@databases.needs_sqlite
def test_a_directory_in_the_database_s_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "webhook.db").mkdir()
    sentence = refusal(tmp_path, "migrate")
    assert "webhook.db is not a file" in sentence
    assert "WEBHOOK_DATABASE_URL" in sentence


def test_a_place_for_uploads_that_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    elsewhere = {"WEBHOOK_UPLOAD_DIRECTORY": f"{tmp_path}/file/uploads", "WEBHOOK_BIND": "127.0.0.1:0"}
    assert refusal(tmp_path, "serve", **elsewhere).startswith("webhook: WEBHOOK_UPLOAD_DIRECTORY: ")


@databases.needs_sqlite
def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "webhook.db").write_bytes(b"something else altogether, and long enough\n" * 50)
    sentence = refusal(tmp_path, "migrate")
    assert "webhook.db" in sentence
    assert "not an SQLite database" in sentence


@databases.needs_sqlite
def test_a_read_only_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "webhook.db").touch()
    (tmp_path / "webhook.db").chmod(0o400)
    tmp_path.chmod(0o500)
    # root may write everywhere by a capability of its own
    under = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    try:
        assert "permissions" in refusal(tmp_path, "migrate", under=under)
    finally:
        tmp_path.chmod(0o700)


@databases.needs_sqlite
def test_a_database_that_another_program_holds_locked_is_told(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "webhook.db", isolation_level=None)
    try:
        other.execute("CREATE TABLE theirs (x)")
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in refusal(tmp_path, "migrate")
    finally:
        other.close()
