"""Several machines at one PostgreSQL: web and worker processes are killed at random under callbacks.

`TEST_POSTGRESQL_URL=… python -m tests.flows.machines --seconds 60 --seed 7` prints a summary, and ends with status 1
where anything that was answered 200 is lost or doubled, or where the feed, a subscriber or a broker missed an event.
With `--server` the database's server is one of its own, and with `--brokers` three of them subscribe: these are killed
as well.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from tests.brokers import BROKERS
from tests.clients import NO_KEY, HttpClient
from tests.flows.reading import Reader
from tests.postgres_server import PostgresServer
from tests.running import Command, children, environment, free_port, run
from tests.signed import content, form, piece
from tests.subscriber import Subscriber
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.brokers import Broker

WEBS, WORKERS, SENDERS, SUBSCRIPTIONS = 2, 4, 6, 3  # a web command is two processes
SETTLED_SECONDS = 120
_SERVERS_SHARE = 0.25  # of what is killed
SETTINGS = {"WEBHOOK_DELIVERY_TIMEOUT_SECONDS": "3", "WEBHOOK_DELIVERY_LEASE_SECONDS": "4"}


@dataclass(kw_only=True)
class Tally:
    """What a run did, and what it found wrong."""

    killed: int = 0
    crashed: int = 0  # servers
    revived: int = 0  # commands that had ended by themselves, and were started again as by a supervisor
    acknowledged: dict[str, int] = field(default_factory=dict)  # a task's slices, by the platform's id
    events: int = 0
    deliveries: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.killed} processes killed, {self.crashed} crashes of servers, {self.revived} commands revived, "
            f"{len(self.acknowledged)} callbacks answered 200, {self.events} events, {self.deliveries} deliveries: "
            f"{len(self.violations)} violations"
        )


class Machine:
    """One web or worker command, started again whenever it is killed.

    Args:
        port: of a web command; None is a worker.
        database: the setting, where it is not the directory's.
    """

    def __init__(self, directory: Path, *, name: str, port: int | None, database: dict[str, str]) -> None:
        bind = {} if port is None else {"WEBHOOK_BIND": f"127.0.0.1:{port}"}
        self._env = environment(directory, **SETTINGS, **bind, **database)
        self._log = directory / f"{name}.log"
        self._kind = "worker" if port is None else "web"
        self.client = HttpClient(f"http://127.0.0.1:{port}")
        self.start()

    def start(self) -> None:
        self.command = Command(self._kind, env=self._env, log=self._log)

    def revive(self) -> int:
        """Start it where it has ended by itself, as a supervisor does; return how often that was: 0 or 1.

        A process that is started while the database's server is away ends, and says so.
        """
        if self.command.is_alive():
            return 0
        self.start()
        return 1

    def kill(self, dice: random.Random) -> None:
        """Kill all of it and start it again; or one web process, which its parent starts again."""
        own = children(self.command.pid)
        if self._kind == "web" and own and dice.random() < 0.5:
            with suppress(ProcessLookupError):
                os.kill(dice.choice(own), signal.SIGKILL)
            return
        self.command.kill()
        self.start()

    def is_up(self) -> bool:
        try:
            return self.client.get("/livez", key=NO_KEY).status == 200
        except requests.RequestException:
            return False


class Run:
    """One run.

    Args:
        server: that the database is on, if it is to be killed, too.
        brokers: that subscribe, and are killed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        subscriber: Subscriber,
        dice: random.Random,
        server: PostgresServer | None = None,
        brokers: Sequence[Broker] = (),
    ) -> None:
        self._subscriber = subscriber
        self._server = server
        self._brokers = brokers
        self._began = datetime.now(UTC)
        self._dice = dice
        self._numbers: Iterator[int] = itertools.count()
        self._over = threading.Event()
        self.tally = Tally()
        database = {} if server is None else {"WEBHOOK_DATABASE_URL": server.url}
        migrated = run(directory, "migrate", **database)
        assert migrated.returncode == 0, migrated.stderr
        names = {"web": range(WEBS), "worker": range(WORKERS)}
        self._webs, self._workers = (
            [
                Machine(
                    directory,
                    name=f"{name}-{number}",
                    port=free_port() if name == "web" else None,
                    database=database,
                )
                for number in numbers
            ]
            for name, numbers in names.items()
        )

    def run(self, seconds: float) -> Tally:
        """Send and kill for some time, let everything settle, and look."""
        client = self._webs[0].client
        self._wait_for_webs()
        self._receiver = client.receiver()
        urls = [self._subscriber.url(f"/{number}") for number in range(SUBSCRIPTIONS)]
        urls += [broker.url() for broker in self._brokers]
        subscriptions = [client.made("/v1/subscriptions", {"url": url})["id"] for url in urls]
        seeds = [self._dice.random() for _ in range(SENDERS)]
        senders = [threading.Thread(target=self._send, args=(random.Random(seed),)) for seed in seeds]
        dice = random.Random(self._dice.random())
        with Reader(lambda: dice.choice(self._webs).client) as reader:
            for sender in senders:
                sender.start()
            try:
                end = time.monotonic() + seconds
                while not self._over.wait(self._dice.uniform(0.2, 1.2)) and time.monotonic() < end:
                    self._kill_one()
                    self._revive()
            finally:
                self._over.set()
                for sender in senders:
                    sender.join()
            self._wait_for_webs()
            until(lambda: self._is_quiet() or self._hurry(subscriptions), seconds=SETTLED_SECONDS)
        self._check_verdicts()
        self._check_events(reader.seen)
        return self.tally

    def stop(self) -> None:
        """End all of it."""
        self._over.set()
        for machine in (*self._webs, *self._workers):
            machine.command.kill()

    def _kill_one(self) -> None:
        machines = [*self._webs, *self._workers]
        servers: list[Broker | PostgresServer] = [*self._brokers]
        servers += [] if self._server is None else [self._server]
        if servers and self._dice.random() < _SERVERS_SHARE:
            victim = self._dice.choice(servers)
            if isinstance(victim, PostgresServer):
                victim.crash()
            else:
                victim.kill()
                victim.start()
            self.tally.crashed += 1
        else:
            self._dice.choice(machines).kill(self._dice)
            self.tally.killed += 1

    def _revive(self) -> None:
        self.tally.revived += sum(machine.revive() for machine in (*self._webs, *self._workers))

    def _wait_for_webs(self) -> None:
        def are_up() -> bool:
            self._revive()
            return all(web.is_up() for web in self._webs)

        until(are_up, seconds=60)

    def _send(self, dice: random.Random) -> None:
        """Post callbacks anywhere, each again until it is answered 200 or the time is over."""
        path = self._receiver["callback_url"].removeprefix(self._webs[0].client.url)
        while not self._over.is_set():
            task_id = f"t-{next(self._numbers)}"
            slices = [piece(at * 10, risk=dice.choice(["none", "high"])) for at in range(dice.randrange(1, 12))]
            body = form(content(*slices, TaskId=task_id), seed=self._receiver["seed"])
            while not self._over.is_set():
                with suppress(requests.RequestException):
                    client = dice.choice(self._webs).client
                    if client.callback(client.url + path, body) == 200:
                        self.tally.acknowledged[task_id] = len(slices)
                        break
                self._over.wait(0.05)

    def _hurry(self, subscriptions: Sequence[str]) -> bool:
        """Let what failed while a broker was away be sent now: it is due in minutes."""
        for subscription in subscriptions:
            self._webs[0].client.post(f"/v1/subscriptions/{subscription}/recover", {"since": self._began.isoformat()})
        time.sleep(2)
        return False

    def _is_quiet(self) -> bool:
        reply = self._webs[0].client.get("/metrics", key=NO_KEY)
        lines = reply.body.decode().splitlines()
        owed = ("webhook_deliveries_pending{", "webhook_events_behind ")
        figures = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(owed)]
        return reply.status == 200 and figures != [] and not any(figures)

    def _check_verdicts(self) -> None:
        found: dict[str, list[Any]] = {}
        for verdict in self._webs[0].client.items("/v1/verdicts", limit=200):
            found.setdefault(verdict["platform_task_id"], []).append(verdict)
        for task_id, count in self.tally.acknowledged.items():
            stored = [verdict["slice_count"] for verdict in found.get(task_id, [])]
            if stored != [count]:
                self._wrong(f"{task_id} of {count} slices is stored as {stored}")

    def _check_events(self, seen: Sequence[str]) -> None:
        feed = [event["id"] for event in self._webs[0].client.feed(limit=200)]
        self.tally.events = len(feed)
        if len(set(feed)) != len(feed):
            self._wrong("an event is twice in the feed")
        if sorted(seen) != sorted(feed):
            missed = len(set(feed) - set(seen))
            self._wrong(f"who followed the feed saw {len(seen)} of {len(feed)} events, and missed {missed}")
        got = {
            f"subscription {number}": [delivered.id for delivered in self._subscriber.received(f"/{number}")]
            for number in range(SUBSCRIPTIONS)
        }
        got |= {type(broker).__name__: [kept.id for kept in asyncio.run(broker.kept())] for broker in self._brokers}
        for name, ids in got.items():
            self.tally.deliveries += len(ids)
            if set(ids) != set(feed):
                self._wrong(f"{name} got {len(set(ids))} of {len(feed)} events, and {len(set(ids) - set(feed))} others")

    def _wrong(self, what: str) -> None:
        self.tally.violations.append(what)


def run_for(directory: Path, *, seconds: float, seed: int, server: bool = False, brokers: bool = False) -> Tally:
    """Run for some seconds in a directory, with servers of its own if asked."""
    with Subscriber() as subscriber, ExitStack() as stack:
        database = None
        if server:
            place = Path(tempfile.mkdtemp(prefix="webhook-postgres-"))  # where the server's user may go
            stack.callback(shutil.rmtree, place)
            database = PostgresServer(place)
            stack.callback(database.stop)
        started = []
        for name, kind in BROKERS.items() if brokers else ():
            (directory / name).mkdir()
            started.append(stack.enter_context(kind(directory / name)))
        one = Run(directory, subscriber=subscriber, dice=random.Random(seed), server=database, brokers=started)
        try:
            return one.run(seconds)
        finally:
            one.stop()


def main() -> int:
    """Run what the command line asks for; the exit status is 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--server", action="store_true", help="on a PostgreSQL server that is killed as well")
    parser.add_argument("--brokers", action="store_true", help="brokers subscribe, and are killed as well")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        tally = run_for(
            Path(directory), seconds=asked.seconds, seed=asked.seed, server=asked.server, brokers=asked.brokers
        )
    print(f"seed {asked.seed}: {tally}")
    for violation in tally.violations:
        print(f"  {violation}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
