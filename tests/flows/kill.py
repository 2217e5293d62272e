"""Load, `kill -9` of every process at a random moment, restart; then everything that was answered 200 is looked for.

`python -m tests.flows.kill --rounds 100 --seed 7` prints a summary, and ends with status 1 where anything was
lost, doubled, or delivered under two ids.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import requests
import sqlalchemy as sa

from tests import databases
from tests.flows.posting import Posting, compare_deliveries, compare_events
from tests.platform import Platform
from tests.postgres_server import PostgresServer
from tests.running import Running, sandbox_variables
from tests.subscriber import Subscriber
from tests.waiting import until

if TYPE_CHECKING:
    from tests.flows.posting import Sent

SENDERS = 8
PATH = "/all"
SETTLED_SECONDS = 90
SETTINGS = {
    "WEBHOOK_DELIVERY_TIMEOUT_SECONDS": "1",
    "WEBHOOK_DELIVERY_LEASE_SECONDS": "2",
    "WEBHOOK_SUBMIT_OUTCOME_WAIT_SECONDS": "1",
}


_SERVER_ALONE = 0.5  # of the rounds in which it is killed


@dataclass(kw_only=True)
class Tally:
    """What a run did, and what it found wrong."""

    rounds: int = 0
    killed: int = 0
    crashed: int = 0
    sent: dict[str, Sent] = field(default_factory=dict)
    forged: int = 0
    submitted: set[str] = field(default_factory=set)
    events: int = 0
    deliveries: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Sent]:
        """The callbacks that were answered 200."""
        return [one for one in self.sent.values() if one.acknowledged]

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.killed} processes killed, {self.crashed} crashes of the server, "
            f"{len(self.sent)} callbacks sent, {len(self.acknowledged)} of them answered 200, "
            f"{self.forged} forged, {len(self.submitted)} tasks submitted, "
            f"{self.events} events, {self.deliveries} deliveries: {len(self.violations)} violations"
        )


class Rounds:
    """The rounds of one run, on one database.

    Args:
        dice: decides what is sent and when the power goes.
        server: that the database is on, if it is to be killed too: with the service, or it alone.
    """

    def __init__(
        self,
        service: Running,
        *,
        platform: Platform,
        subscriber: Subscriber,
        dice: random.Random,
        server: PostgresServer | None = None,
    ) -> None:
        self._service = service
        self._platform = platform
        self._subscriber = subscriber
        self._dice = dice
        self._server = server
        self._numbers = itertools.count()

    def run(self, rounds: int) -> Tally:
        """Run the rounds, let everything settle, and look."""
        self._service.start()
        self._posting = Posting(self._service.receiver())
        self.tally = Tally(sent=self._posting.sent, violations=self._posting.violations)
        self._service.made("/v1/subscriptions", {"url": self._subscriber.url(PATH)})
        for _ in range(rounds):
            self._round()
        self._stay_away()
        self._posting.send_again(self._dice, share=0.1)
        self._settle()
        feed, received = self._service.feed(limit=200), self._subscriber.received(PATH)
        self.tally.violations += self._posting.compare_verdicts(self._service)
        self._check_submitted()
        self.tally.violations += compare_events(self._service, feed) + compare_deliveries(feed, received)
        self.tally.events, self.tally.deliveries, self.tally.forged = len(feed), len(received), self._posting.forged
        return self.tally

    def _round(self) -> None:
        """Send from all sides until the power goes; then start again."""
        over = threading.Event()
        with ThreadPoolExecutor(SENDERS + 2) as threads:
            for seed in [self._dice.random() for _ in range(SENDERS)]:
                threads.submit(self._posting.send, random.Random(seed), over)
            threads.submit(self._posting.forge, over)
            threads.submit(self._submit, over)
            over.wait(self._dice.uniform(0.05, 0.7))
            alone = self._server is not None and self._dice.random() < _SERVER_ALONE
            if not alone:
                self.tally.killed += len(self._service.command.kill())
            if self._server is not None:
                self._server.crash()
                self.tally.crashed += 1
            if alone:
                over.wait(self._dice.uniform(0.05, 0.7))
            over.set()
        self.tally.rounds += 1
        if not alone:
            self._service.start()

    def _stay_away(self) -> None:
        """Kill it once more, and start it when the leases of its calls have ended: 30 s later, or so it seems."""
        self.tally.killed += len(self._service.command.kill())
        url = self._service.variables.get("WEBHOOK_DATABASE_URL")
        with databases.connected(self._service.directory, url=url) as database:
            database.execute(sa.text("UPDATE tasks SET lease_until = 0 WHERE lease_until IS NOT NULL"))
        self._service.start()

    def _submit(self, over: threading.Event) -> None:
        """Submit files; the service answers for those that it answered 201."""
        while not over.is_set():
            source = self._platform.source(f"high-{next(self._numbers)}.mp3")
            with suppress(requests.RequestException):
                if self._service.post("/v1/tasks", {"url": source, "data_id": source.rpartition("/")[2]}).status == 201:
                    self.tally.submitted.add(source)
            over.wait(0.05)

    def _settle(self) -> None:
        """Wait until nothing is under way: every task over, every event delivered."""
        metrics = ("webhook_tasks{", "webhook_deliveries_pending{", "webhook_events_behind ")

        def quiet() -> bool:
            lines = self._service.get("/metrics").body.decode().splitlines()
            return all(float(line.rpartition(" ")[2]) == 0 for line in lines if line.startswith(metrics))

        until(quiet, seconds=SETTLED_SECONDS)

    def _check_submitted(self) -> None:
        """No submitted file is lost, and none was paid for twice."""
        tasks = {task["source"]["url"]: task for task in self._service.items("/v1/tasks", limit=200) if task["data_id"]}
        for source in self.tally.submitted:
            accepted = self._platform.tasks(source)
            heard = any(callback["acknowledged"] for each in accepted for callback in each["callbacks"])
            state = tasks[source]["state"] if source in tasks else "lost"
            if len(accepted) > 1:
                self._wrong(f"{source} was submitted {len(accepted)} times")
            # of a submit that a worker died in nothing is known but by its callback, which the platform gives up too
            if state not in ({"completed"} if heard else {"completed", "failed"} if accepted else {"failed"}):
                told = "with" if heard else "without"
                self._wrong(f"{source} is {state}, and the platform took it {len(accepted)} times, {told} a callback")

    def _wrong(self, what: str) -> None:
        self.tally.violations.append(what)


def run(directory: Path, *, rounds: int, seed: int, server: PostgresServer | None = None) -> Tally:
    """Run some rounds in a directory."""
    with Platform(submits_per_second=1000) as platform, Subscriber() as subscriber:
        database = {} if server is None else {"WEBHOOK_DATABASE_URL": server.url}
        service = Running(directory, **sandbox_variables(platform.url), **SETTINGS, **database)
        try:
            dice = random.Random(seed)
            return Rounds(service, platform=platform, subscriber=subscriber, dice=dice, server=server).run(rounds)
        finally:
            service.command.kill()


def main() -> int:
    """Run what the command line asks for; the exit status is 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--server", action="store_true", help="on a PostgreSQL server that is killed as well")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        server = PostgresServer(directory) if asked.server else None
        try:
            tally = run(directory, rounds=asked.rounds, seed=asked.seed, server=server)
        finally:
            if server is not None:
                server.stop()
    print(f"seed {asked.seed}: {tally}")
    for violation in tally.violations:
        print(f"  {violation}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
