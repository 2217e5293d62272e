"""The power goes, again and again; or one process alone is killed."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.databases import once
from tests.flows import kill
from tests.postgres_server import PostgresServer, needs_programs
from tests.running import web_and_worker
from tests.signed import content, form, piece
from tests.waiting import until

if TYPE_CHECKING:
    from tests.platform import Platform
    from tests.running import Running


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


def test_a_web_process_that_is_killed_is_started_again_and_takes_callbacks(running: Running) -> None:
    receiver = running.receiver()

    def post(data_id: str) -> int | None:
        body = form(content(piece(0, risk="high"), DataId=data_id, TaskId=data_id), seed=receiver["seed"])
        with suppress(OSError):
            return running.callback(receiver["callback_url"], body)
        return None

    assert post("before-a-kill") == 200
    web, worker = web_and_worker(running.command.pid)
    os.kill(web, signal.SIGKILL)
    until(lambda: post("after-a-kill") == 200, seconds=30)
    assert post("before-a-kill") == 200
    new_web, same_worker = web_and_worker(running.command.pid)
    assert (new_web != web, same_worker) == (True, worker)
    for data_id in ("before-a-kill", "after-a-kill"):
        [verdict] = running.items("/v1/verdicts", data_id=data_id)
        assert (verdict["risk_level"], verdict["slice_count"]) == ("high", 1)


def test_a_worker_that_is_killed_is_started_again_and_submits(running: Running, platform: Platform) -> None:
    web, worker = web_and_worker(running.command.pid)
    os.kill(worker, signal.SIGKILL)
    task = running.made("/v1/tasks", {"url": platform.source("high,after-a-kill.mp3")})
    until(lambda: running.shown(f"/v1/tasks/{task['id']}")["state"] == "completed", seconds=30)
    same_web, new_worker = web_and_worker(running.command.pid)
    assert (same_web, new_worker != worker) == (web, True)
