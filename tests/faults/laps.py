"""Rounds of faults on one service, and what must hold of it after each, and of all that was sent in the end.

Each round sets one fault while callbacks, forged ones among them, come in from several senders, files, uploads and
streams are submitted, a stream is canceled and a signing secret rotated; then it is lifted. After some rounds, a
lap, all of it is given time to end, and what was sent, stored, delivered and read is compared.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import requests
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.clients import NO_KEY
from tests.faults.kinds import KILL, KINDS, NotReached, family
from tests.faults.world import RECOVERED_SECONDS, SUBSCRIBER_PATH, World
from tests.flows.agreement import CANCELED, Agreement, Fate
from tests.flows.posting import Posting, compare_deliveries, compare_events
from tests.flows.reading import Reader
from tests.flows.submitting import Submitter
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.flows.agreement import Submission
    from tests.postgres_server import PostgresServer

LAP_ROUNDS = 15
SENDERS = 2
RUNNING_SECONDS = 1.0  # by which a stream runs, or something stands in its way
TIMES_OTHERS = 3  # what is not a kill differs by its dice, too
SETTLED_SECONDS = 60
PATIENCE_SECONDS = 5
FILES = (
    Fate(magic="none,slices=2"),
    Fate(magic="high,slices=5,flagged=2"),
    Fate(magic="medium,callback=lost"),
    Fate(magic="high,callback=overtake"),
    Fate(magic="code=407", ends=(("failed", "format_not_supported"),)),
)
UPLOADS = (Fate(magic="high,slices=5,flagged=2"), Fate(magic="none,slices=2,callback=twice"))
STREAMS = (Fate(magic="high,slices=4,flagged=3,interval=0.1"),)
ENDLESS = Fate(magic="high,slices=9999,flagged=1,interval=0.2,end=never", ends=(CANCELED,))
_LOOK_SECONDS = 2.0
_OWED = ("webhook_tasks{", "webhook_deliveries_pending{", "webhook_events_behind ", "webhook_evidence_pending ")


@dataclass(kw_only=True)
class Tally:
    """What a run did, and what it found wrong.

    Attributes:
        faults: those that happened, by kind.
        points: those of them at which somebody was killed.
        unreached: points that nobody came to in a round of theirs.
        left_out: what cannot be set here, since no file system may be mounted.
        revived: how often the service had ended by itself, and a supervisor was needed.
        violations: each with the rounds that it was found in.
    """

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    points: set[str] = field(default_factory=set)
    unreached: Counter[str] = field(default_factory=Counter)
    left_out: set[str] = field(default_factory=set)
    revived: int = 0
    callbacks: int = 0
    acknowledged: int = 0
    refused: int = 0
    unanswered: int = 0
    forged: int = 0
    submitted: int = 0
    events: int = 0
    deliveries: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())) or "none"
        unreached = f"; not reached: {', '.join(sorted(self.unreached))}" if self.unreached else ""
        left_out = f"; left out, for want of a mount: {', '.join(sorted(self.left_out))}" if self.left_out else ""
        return (
            f"{self.rounds} rounds; faults: {counted}\n"
            f"killed at {len(self.points)} different steps{unreached}{left_out}\n"
            f"{self.callbacks} callbacks, {self.acknowledged} of them answered 200 in the end, after {self.refused} "
            f"answers 503 and {self.unanswered} that were lost; {self.forged} forged; "
            f"{self.submitted} tasks submitted; {self.events} events; {self.deliveries} deliveries; "
            f"{self.revived} times the service had ended and was started again\n"
            f"{len(self.violations)} violations"
        )


def fault_of(number: int, *, seed: int, kinds: Sequence[str]) -> str:
    """Return the fault of a round, dealt from a pack in which each is: what is more than a kill several times."""
    pack = [name for name in kinds for _ in range(1 if family(name) == KILL else TIMES_OTHERS)]
    turn, place = divmod(number, len(pack))
    return random.Random(f"{seed} {turn}").sample(pack, len(pack))[place]


class Lap:
    """Some rounds in one world.

    Args:
        tally: of the whole run.
    """

    def __init__(self, world: World, *, tally: Tally) -> None:
        self._world = world
        self._service = world.service
        self._tally = tally
        self._posting = Posting(self._service.receiver(), patience_seconds=PATIENCE_SECONDS)
        self._submitter = Submitter(self._service, platform=world.platform, prefix="fault")
        self._secret = ""
        self._log_read = 0

    def run(self, numbers: Sequence[int], *, seed: int, kinds: Sequence[str]) -> list[str]:
        """Run rounds, and return what was found wrong."""
        wrong: list[str] = []
        with Reader(lambda: self._service) as reader:
            for number in numbers:
                name = fault_of(number, seed=seed, kinds=kinds)
                found = self._round(name, random.Random(f"{seed} {number} {name}"))
                wrong += [f"round {number} ({name}): {each}" for each in found]
                if found:
                    break  # what it has left behind would be found again
            if self._submitter.given_up.is_set():
                reader.given_up.set()
            if not wrong:
                wrong += self._settle()
        feed = self._service.feed(limit=200) if not wrong else []
        if not wrong:
            wrong += self._compare(feed, reader)
        self._count(feed)
        return wrong

    def _round(self, name: str, dice: random.Random) -> list[str]:
        """Use the service from all sides under a fault, and return what is wrong when it is lifted."""
        over = threading.Event()
        kind = KINDS[name]
        self._tally.rounds += 1
        with ThreadPoolExecutor(SENDERS + 4) as threads:
            seeds = [dice.random() for _ in range(SENDERS)]
            uses: list[Callable[[], None]] = [partial(self._posting.send, random.Random(each), over) for each in seeds]
            uses += [partial(self._posting.forge, over), self._rotate]
            uses += [partial(use, random.Random(dice.random())) for use in (self._submit_files, self._use_streams)]
            work: list[Future[None]] = []
            try:
                with kind.set(self._world, dice):
                    work += [threads.submit(use) for use in uses]
                self._tally.faults[family(name)] += 1
                if family(name) == KILL:
                    self._tally.points.add(name)
            except NotReached:
                self._tally.unreached[name] += 1
            finally:
                over.set()
                recovered = self._recover()
                while recovered and wait(work, timeout=_LOOK_SECONDS).not_done:
                    recovered = self._recover()  # a kill that has begun may come only now
                if not recovered:
                    self._submitter.given_up.set()
            for each in work:
                if recovered:
                    each.result()
        if not recovered:
            told = self._service.command.log[-1000:]
            return [f"the service did not recover within {RECOVERED_SECONDS} s; its log ends in {told}"]
        self._posting.send_again(dice, share=0.0)
        wrong = [*self._posting.violations, *self._submitter.violations]
        wrong += self._posting.compare_verdicts(self._service)
        return wrong + (self._faults_of_ours() if kind.quiet else self._skip_log())

    def _recover(self) -> bool:
        try:
            self._world.recover()
        except AssertionError:
            return False
        return True

    def _submit_files(self, dice: random.Random) -> None:
        for kind, fates in (("file", FILES), ("upload", UPLOADS)):
            self._submitter.submit(dice, kind, dice.choice(fates))

    def _use_streams(self, dice: random.Random) -> None:
        running, waiting = (self._submitter.submit(dice, "stream", ENDLESS) for _ in range(2))
        if waiting is not None:
            self._submitter.cancel(waiting)
        self._submitter.submit(dice, "stream", dice.choice(STREAMS))
        if running is not None:
            with suppress(AssertionError):
                until(lambda: self._is_submitted(running), seconds=RUNNING_SECONDS)
            self._submitter.cancel(running)

    def _is_submitted(self, one: Submission) -> bool:
        try:
            reply = self._service.get(f"/v1/streams/{one.task_id}")
        except requests.RequestException:
            return False
        return reply.status == 200 and bool(reply.json["state"] != "queued")

    def _rotate(self) -> None:
        path = f"/v1/subscriptions/{self._world.subscription}/rotate-secret"
        self._secret = self._submitter.insist(lambda: self._service.post(path)).json["secret"]

    def _settle(self) -> list[str]:
        """Wait until nothing is under way."""
        try:
            until(lambda: not self._owed(), seconds=SETTLED_SECONDS)
        except AssertionError:
            return [f"this does not end: {', '.join(self._owed())}"]
        return []

    def _owed(self) -> list[str]:
        """Return what is under way, as the metrics show it."""
        try:
            reply = self._service.get("/metrics", key=NO_KEY)
        except requests.RequestException as error:
            return [type(error).__name__]
        lines = [line for line in reply.body.decode().splitlines() if line.startswith(_OWED)]
        return [line for line in lines if float(line.rpartition(" ")[2]) != 0] if lines else ["no metrics"]

    def _compare(self, feed: Sequence[Any], reader: Reader) -> list[str]:
        agreement = Agreement()
        agreement.compare(self._service, platform=self._world.platform, submissions=self._submitter.submissions)
        wrong = agreement.violations + compare_events(self._service, feed)
        wrong += compare_deliveries(feed, self._world.subscriber.received(SUBSCRIBER_PATH))
        ids = [event["id"] for event in feed]
        if reader.seen != ids:
            missed = len(set(ids) - set(reader.seen))
            wrong.append(f"who followed the feed saw {len(reader.seen)} of {len(ids)} events, and missed {missed}")
        return wrong + self._compare_evidence() + self._check_secret() + self._faults_of_ours()

    def _compare_evidence(self) -> list[str]:
        """The audio of every flagged slice of a stream is saved, since the platform had it all the time."""
        wrong = []
        for one in self._submitter.submissions.values():
            if one.kind == "stream":
                slices = self._service.items(f"/v1/verdicts/{one.task_id}/slices", limit=200)
                states = Counter(piece["evidence"] for piece in slices if piece["risk_level"] == "high")
                if states.keys() - {"saved"}:
                    wrong.append(f"{one} has evidence {dict(states)}")
        return wrong

    def _check_secret(self) -> list[str]:
        """The secret that was told last signs."""
        self._rotate()
        before = len(self._world.subscriber.received(SUBSCRIBER_PATH))
        self._service.made(f"/v1/subscriptions/{self._world.subscription}/test", None)
        until(lambda: len(self._world.subscriber.received(SUBSCRIBER_PATH)) > before)
        delivered = self._world.subscriber.received(SUBSCRIBER_PATH)[-1]
        try:
            Webhook(self._secret).verify(delivered.body, dict(delivered.headers))
        except WebhookVerificationError as error:
            return [f"the last secret does not sign: {error}"]
        return []

    def _faults_of_ours(self) -> list[str]:
        """Return what the log has of errors that nobody foresaw, since the last look."""
        lines = self._skip_log(told=True)
        return [f"the log has {line[:1500]}" for line in lines if '"exception"' in line or "Traceback" in line]

    def _skip_log(self, *, told: bool = False) -> list[str]:
        log = self._service.command.log
        new, self._log_read = log[self._log_read :], len(log)
        return new.splitlines() if told else []

    def _count(self, feed: Sequence[Any]) -> None:
        tally = self._tally
        tally.callbacks += len(self._posting.sent)
        tally.acknowledged += len(self._posting.acknowledged)
        tally.refused += self._posting.refused
        tally.unanswered += self._posting.unanswered
        tally.forged += self._posting.forged
        tally.submitted += len(self._submitter.submissions)
        tally.events += len(feed)
        tally.deliveries += len(self._world.subscriber.received(SUBSCRIBER_PATH))
        tally.revived += self._world.revived


def available(*, on: str) -> list[str]:
    """Return the faults that a database can be put to."""
    return [name for name, kind in KINDS.items() if kind.on in {None, on}]


def run(
    *,
    rounds: int,
    seed: int,
    kinds: Sequence[str],
    server: PostgresServer | None = None,
    first: int = 0,
    lying: bool = False,
    logs: Path | None = None,
    after_lap: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Run rounds, some in each lap.

    Args:
        first: number of the first round, which decides its fault.
        lying: what is run is dishonest, so that something must be found.
        logs: where the logs of laps go in which something was found.
        after_lap: is told what was done so far.
    """
    tally = Tally()
    end = first + rounds
    for start in range(first, end, LAP_ROUNDS):
        numbers = range(start, min(start + LAP_ROUNDS, end))
        with World(server=server, lying=lying) as world:
            possible = [name for name in kinds if world.disk.is_mounted or not KINDS[name].needs_mount]
            tally.left_out |= set(kinds) - set(possible)
            try:
                found = Lap(world, tally=tally).run(numbers, seed=seed, kinds=possible)
            except Exception as error:  # noqa: BLE001 - whatever the check did not foresee is no pass
                found = [f"{type(error).__name__}: {error}"]
            if found:
                kept = f", log {world.keep_log(logs, f'rounds-{start}.log')}" if logs else ""
                place = f"rounds {numbers[0]} to {numbers[-1]} (--first {start} --rounds {len(numbers)}{kept})"
                tally.violations += [f"{place}: {each}" for each in found]
        after_lap(tally)
    return tally
