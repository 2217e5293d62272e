"""The power goes, again and again; or one process alone is killed."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.databases import once
from tests.flows import kill
from tests.postgres_server import PostgresServer, needs_programs
from tests.running import children, is_running
from tests.signed import content, form, piece
from tests.waiting import until

if TYPE_CHECKING:
    from tests.platform import Platform
    from tests.running import Running

SETTLED_SECONDS = 6  # a process that ends within 5 s of its start ends the service


def test_what_was_answered_200_survives_kill_9_once_and_reaches_the_subscriber_under_one_id(tmp_path: Path) -> None:
    tally = kill.run(tmp_path, rounds=10, seed=20260131)
    assert tally.violations == [], str(tally)
    assert tally.rounds == 10
    assert len(tally.acknowledged) > 100
    assert tally.submitted


@once
@needs_programs
def test_what_was_answered_200_survives_crashes_of_the_database_s_server(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to the server's user
        server = PostgresServer(Path(directory))
        try:
            tally = kill.run(tmp_path, rounds=6, seed=20260131, server=server)
        finally:
            server.stop()
    assert tally.violations == [], str(tally)
    assert (tally.rounds, tally.crashed) == (6, 6)
    assert len(tally.acknowledged) > 50
    assert tally.submitted


def web_and_worker(running: Running) -> tuple[int, int]:
    """Return the pids of gunicorn's master, which is the one that has a child, and of the worker."""
    worker, web = sorted(children(running.command.pid), key=lambda pid: len(children(pid)))
    assert children(worker) == []
    assert children(web)
    return web, worker


def age_seconds(pid: int) -> float:
    """Return how long a process has lived (proc(5): `starttime`, in ticks since the machine's start)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def kill_settled(pid: int) -> None:
    """Kill a process, once it has lived long enough to be worth starting again, and wait for the end of its children.

    What has no parent any more ends by itself.
    """
    pids = [pid, *children(pid)]
    until(lambda: age_seconds(pid) > SETTLED_SECONDS)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, pids)), seconds=30)


def test_a_web_process_that_is_killed_is_started_again_and_takes_callbacks(running: Running) -> None:
    receiver = running.receiver()

    def post(data_id: str) -> int | None:
        body = form(content(piece(0, risk="high"), DataId=data_id, TaskId=data_id), seed=receiver["seed"])
        with suppress(OSError):
            return running.callback(receiver["callback_url"], body)
        return None

    assert post("before-a-kill") == 200
    web, worker = web_and_worker(running)
    kill_settled(web)
    until(lambda: post("after-a-kill") == 200, seconds=30)
    assert post("before-a-kill") == 200
    new_web, same_worker = web_and_worker(running)
    assert (new_web != web, same_worker) == (True, worker)
    for data_id in ("before-a-kill", "after-a-kill"):
        [verdict] = running.items("/v1/verdicts", data_id=data_id)
        assert (verdict["risk_level"], verdict["slice_count"]) == ("high", 1)


def test_a_worker_that_is_killed_is_started_again_and_submits(running: Running, platform: Platform) -> None:
    web, worker = web_and_worker(running)
    kill_settled(worker)
    task = running.made("/v1/tasks", {"url": platform.source("high,after-a-kill.mp3")})
    until(lambda: running.shown(f"/v1/tasks/{task['id']}")["state"] == "completed", seconds=30)
    same_web, new_worker = web_and_worker(running)
    assert (same_web, new_worker != worker) == (web, True)
