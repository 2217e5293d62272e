"""Everything at once for minutes: files, uploads and streams, a platform full of faults, processes killed at random.

`python -m tests.flows.soak --minutes 10 --seed 7` prints a summary, and ends with status 1 where the platform's
ledger and the service disagree: what was accepted is charged once, has a verdict or a reason, and every slice.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from tests import leases
from tests.bench import stage
from tests.clients import NO_KEY
from tests.flows.agreement import CANCELED, Agreement, Fate, Submission
from tests.flows.submitting import Submitter
from tests.running import Running, is_running, sandbox_variables, web_and_worker
from tests.sandbox_process import SandboxProcess
from tests.waiting import until

if TYPE_CHECKING:
    from typing import Any

    from tests.platform import Platform

FAULTS = 0.2
RUNNING_STREAMS = 20
RESULT_LIFETIME_SECONDS = 90  # longer than a lease: or the query that a worker died in would be the last
TIME_SCALE = 86_400 / RESULT_LIFETIME_SECONDS
SETTINGS = {
    "WEBHOOK_POLL_DELAY_SECONDS": "1",
    "WEBHOOK_STREAM_POLL_SECONDS": "1",
    "WEBHOOK_RESULT_LIFETIME_SECONDS": str(RESULT_LIFETIME_SECONDS),
    "WEBHOOK_SUBMIT_OUTCOME_WAIT_SECONDS": "5",
    "WEBHOOK_RUNNING_STREAMS": str(RUNNING_STREAMS),
}
_ACTIVE = ("queued", "processing")
SETTLED_SECONDS = 300
LOOK_SECONDS = 0.2
MOST_ATTEMPTS = 17  # of a callback: the first one and the sandbox's retries
VICTIMS = ("worker", "worker", "web", "serve", "all")

FILES = (
    Fate(magic="none,slices=2"),
    Fate(magic="high,slices=5,flagged=2"),
    Fate(magic="medium,slices=30,flagged=7"),
    Fate(magic="label=political_entity,slices=450,flagged=3"),
    Fate(magic="label=customized,slices=3,delay=2"),
    Fate(magic="low,slices=9,silence=3"),
    Fate(magic="high,callback=lost"),
    Fate(magic="high,callback=overtake"),
    Fate(magic="code=404", ends=(("failed", "source_unreachable"),)),
    Fate(magic="code=407", ends=(("failed", "format_not_supported"),)),
    Fate(magic="submit_code=401", ends=(("failed", "parameter_invalid"),), charged=False),
    Fate(magic="high,submit_code=500x1"),
    Fate(magic="low,http=drop"),
    Fate(magic="none,query_code=500x2,callback=late:4"),
)
UPLOADS = (
    Fate(magic="none,slices=2"),
    Fate(magic="high,slices=5,flagged=2"),
    Fate(magic="medium,slices=3,callback=lost"),
    Fate(magic="low,http=drop"),
    Fate(magic="code=406", ends=(("failed", "source_too_large"),)),
)
_BROKEN = (("completed", "source_unreachable"), ("failed", "source_unreachable"))
STREAMS = (
    Fate(magic="none,slices=5,interval=0.5"),
    Fate(magic="high,slices=12,flagged=4,interval=0.4"),
    Fate(magic="high,slices=9,flagged=3,interval=0.5,callback=reordered"),
    Fate(magic="medium,slices=25,flagged=25,interval=0.2,batch=5"),
    Fate(magic="high,slices=4,flagged=1,interval=0.4,end=break", ends=_BROKEN),
    Fate(magic="high,slices=9999,flagged=9999,interval=0.5,end=never", ends=(CANCELED,)),
    Fate(magic="none,slices=9999,interval=0.3,http=dropx1,end=never", ends=(CANCELED,)),
)


@dataclass(kw_only=True)
class Tally:
    """What a run did, and what it found."""

    submissions: dict[str, Submission] = field(default_factory=dict)
    repeated: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    agreement: Agreement = field(default_factory=Agreement)
    violations: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """Return the summary."""
        found = self.agreement
        kinds = Counter(one.kind for one in self.submissions.values())
        return [
            ("submitted", _counted(kinds)),
            ("requests sent again for want of an answer", str(self.repeated)),
            ("processes killed", _counted(self.killed)),
            ("starts of the whole", str(self.starts)),
            ("random faults of the platform", _counted(found.faults)),
            ("accepted, and charged", str(found.accepted)),
            ("streams registered again after their end", str(found.registered_again)),
            ("ended", _counted(found.ends)),
            ("slices, events", f"{found.slices}, {found.events}"),
            ("violations", str(len(self.violations))),
        ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


class Soak:
    """One run.

    Args:
        dice: decides what is submitted and who is killed.
        hurried_leases: whether a dead worker's leases are over at once, instead of after a minute.
    """

    def __init__(self, service: Running, *, platform: Platform, dice: random.Random, hurried_leases: bool) -> None:
        self._service = service
        self._platform = platform
        self._dice = dice
        self._hurried_leases = hurried_leases
        self._over = threading.Event()
        self._endless: list[Submission] = []
        self._submitter = Submitter(service, platform=platform, prefix="soak")
        self.tally = Tally(submissions=self._submitter.submissions, violations=self._submitter.violations)

    def run(self, seconds: float) -> Tally:
        """Submit and kill for some time, let everything settle, and compare."""
        self._start()
        clients = (
            ("file", FILES, 1.0),
            ("file", FILES, 1.0),
            ("upload", UPLOADS, 0.5),
            ("stream", STREAMS, 0.5),
        )
        timer = threading.Timer(seconds, self._over.set)
        timer.start()
        with ThreadPoolExecutor(len(clients)) as threads:
            work = [threads.submit(self._submit, random.Random(self._dice.random()), *each) for each in clients]
            try:
                next_kill = time.monotonic()
                while not self._over.wait(LOOK_SECONDS):
                    self._revive()
                    if time.monotonic() >= next_kill:
                        self._kill()
                        next_kill = time.monotonic() + self._dice.uniform(1, 9)
                self._platform.control(faults=0)
                until(self._is_up, seconds=60)
            finally:
                timer.cancel()
                self._over.set()
            for each in work:
                each.result()
        for one in self._endless:
            self._submitter.cancel(one)
        self._settle()
        self.tally.repeated = self._submitter.repeated
        found = self.tally.agreement
        found.compare(self._service, platform=self._platform, submissions=self.tally.submissions)
        self.tally.violations += [*found.violations, *self._faults_of_ours()]
        return self.tally

    # what clients do

    def _submit(self, dice: random.Random, kind: str, fates: tuple[Fate, ...], per_second: float) -> None:
        """Submit at a modest rate, and cancel some of the streams that never end."""
        while not self._over.wait(dice.expovariate(per_second)):
            one = self._submitter.submit(dice, kind, dice.choice(fates))
            if one is not None and one.fate.endless:
                self._endless.append(one)
            if one is not None and kind == "stream" and self._endless and dice.random() < 0.5:
                self._submitter.cancel(self._endless.pop(dice.randrange(len(self._endless))))

    # what goes wrong meanwhile

    def _kill(self) -> None:
        """Kill one process or all by SIGKILL; `serve` starts again those that it loses, and we start `serve`."""
        serve = self._service.command.pid
        web, worker = web_and_worker(serve)
        victim = self._dice.choice(VICTIMS)
        self.tally.killed[victim] += 1
        if victim == "worker":
            self._kill_worker(worker)
        elif victim == "web":
            os.kill(web, signal.SIGKILL)
        elif victim == "serve":
            pids = self._service.command.pids()
            self._service.command.stop(signal.SIGKILL)
            until(lambda: not any(map(is_running, pids)), seconds=30)
            self._start()
        else:
            self._service.command.kill()
            self._start()

    def _kill_worker(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)  # it must not take a lease that we do not see
        its = leases.held(self._service.directory)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_running(pid))
        if self._hurried_leases:
            leases.end(self._service.directory, its)

    def _revive(self) -> None:
        """Start the service where it has ended, as it does when a process is killed as soon as it is started."""
        if not self._service.command.is_alive():
            self._start()

    def _is_up(self) -> bool:
        """Whether the service is whole again after the last kill; where it has ended, it is started."""
        self._revive()
        try:
            reply = self._service.get("/readyz", key=NO_KEY)
        except requests.RequestException:
            return False
        return reply.status == 200 and bool(reply.json["dependencies"]["worker"] == "ok")

    def _start(self) -> None:
        """Start the service, once nothing is left of the one before."""
        until(self._is_free, seconds=30)
        if self._hurried_leases and self.tally.starts:
            leases.end(self._service.directory, leases.held(self._service.directory))
        self._service.start()
        self.tally.starts += 1

    def _is_free(self) -> bool:
        host, _, port = self._service.variables["WEBHOOK_BIND"].partition(":")
        try:
            with socket.create_server((host, int(port))):
                return True
        except OSError:
            return False

    # what is left in the end

    def _settle(self) -> None:
        """Wait until every task and every callback is over."""
        for task in self._active():
            if task["platform_task_id"] is not None:
                self._submitter.refresh(task["id"])
        until(lambda: not self._active(), seconds=SETTLED_SECONDS)
        until(lambda: all(_is_over(each) for task in self._platform.all_tasks() for each in task["callbacks"]))

    def _active(self) -> list[Any]:
        # the last process that was killed may still have had its port answered by a child that was about to end
        pages = [
            self._submitter.insist(partial(self._service.get, f"/v1/tasks?state={one}&limit=200")) for one in _ACTIVE
        ]
        return [task for page in pages for task in page.json["items"]]

    def _faults_of_ours(self) -> list[str]:
        """Return what the log has of errors that nobody foresaw."""
        lines = self._service.command.log.splitlines()
        return [f"the log has {line[:500]}" for line in lines if '"exception"' in line or "Traceback" in line]


def _is_over(callback: Any) -> bool:
    """Whether a callback is not sent any more."""
    attempts = callback["attempts"]
    if callback["lost"] or len(attempts) >= MOST_ATTEMPTS:
        return True
    taken = [number for number, attempt in enumerate(attempts, 1) if attempt["status"] == 200]
    return bool(taken) and ("twice" not in callback["way"] or len(attempts) > taken[0])


def run(directory: Path, *, seconds: float, seed: int, hurried_leases: bool) -> Tally:
    """Run for some seconds in a directory."""
    settings = {
        "faults": FAULTS,
        "seed": seed,
        "concurrent_streams": RUNNING_STREAMS,
        "time_scale": TIME_SCALE,
        "upload_ttl_seconds": 1800 * TIME_SCALE,
        "segment_ttl_seconds": 1800 * TIME_SCALE,
    }
    with SandboxProcess(directory, **settings) as platform:
        service = Running(directory, **sandbox_variables(platform.url), **SETTINGS)
        dice = random.Random(seed)
        try:
            return Soak(service, platform=platform, dice=dice, hurried_leases=hurried_leases).run(seconds)
        finally:
            service.command.kill()


def main() -> int:
    """Run what the command line asks for; the exit status is 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--hurried-leases", action="store_true", help="a dead worker's leases are over at once")
    parser.add_argument("--directory", type=Path, help="where the database and the logs are to be kept; empty")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tally = run(
            asked.directory or Path(temporary),
            seconds=asked.minutes * 60,
            seed=asked.seed,
            hurried_leases=asked.hurried_leases,
        )
    stage.show(f"Soak of {asked.minutes:g} minutes, seed {asked.seed}", ("", ""), tally.rows())
    for violation in tally.violations:
        print(f"  {violation}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
