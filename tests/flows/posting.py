"""Callbacks of a receiver, posted as the platform does it, and whether what became of them is what was answered."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from tests.clients import FORM
from tests.signed import content, form, piece

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Sequence

    from tests.clients import Client
    from tests.subscriber import Delivered

_ANSWERS = {200, 503}  # to an authentic callback: it is on disk, or it is our own trouble
_ANSWERS_TO_FORGED = {403, 503}
_OFTEN = 0.2  # of the callbacks that were answered are sent again: an answer may be lost
_USUAL, _LONG_TEXT = 0.97, 30_000  # the others are of up to a megabyte, and take another way
_PAUSE_SECONDS = 0.02  # before a callback is sent again


@dataclass(kw_only=True)
class Sent:
    """One callback of a task of its own: what was said, and whether it was answered 200."""

    task_id: str
    body: bytes
    slices: int
    flagged: int
    acknowledged: bool = False


class Posting:
    """Posts callbacks to one receiver; may be used by several threads.

    Args:
        receiver: as it was made.
        patience_seconds: for an answer.

    Attributes:
        sent: what was sent, by the platform's id of its task.
        forged: how many were sent whose checksum is wrong.
        refused, unanswered: how many authentic ones were answered 503, or not at all.
        violations: answers that should not be.
    """

    def __init__(self, receiver: Any, *, patience_seconds: float = 30) -> None:
        self._receiver = receiver
        self._patience_seconds = patience_seconds
        self._numbers = itertools.count()
        self.sent: dict[str, Sent] = {}
        self.forged = self.refused = self.unanswered = 0
        self.violations: list[str] = []

    @property
    def acknowledged(self) -> list[Sent]:
        """The callbacks that were answered 200."""
        return [one for one in self.sent.values() if one.acknowledged]

    def send(self, dice: random.Random, over: threading.Event) -> None:
        """Post callbacks on a kept connection, each again until it is answered 200 or it is over."""
        with _session() as session:
            while not over.is_set():
                one = self._next(dice)
                while not one.acknowledged and not over.is_set():
                    self._try(session, one)
                    if not one.acknowledged:
                        over.wait(_PAUSE_SECONDS)
                if one.acknowledged and dice.random() < _OFTEN:
                    self._try(session, one)

    def forge(self, over: threading.Event) -> None:
        """Post callbacks whose checksum is wrong until it is over."""
        with _session() as session:
            while not over.wait(_PAUSE_SECONDS):
                number = next(self._numbers)
                body = form(content(piece(0, risk="high"), TaskId=f"forged-{number}"), seed="another seed")
                self.forged += 1
                with suppress(requests.RequestException):
                    status = self._answer(session, body)
                    if status not in _ANSWERS_TO_FORGED:
                        self.violations.append(f"forged-{number} was answered {status}")

    def send_again(self, dice: random.Random, *, share: float) -> None:
        """Do what the platform does about callbacks that it got no 200 for, and for a share of the others.

        Nothing stands in the way any more: each must be answered 200 at once.
        """
        with _session() as session:
            for one in list(self.sent.values()):
                if not one.acknowledged or dice.random() < share:
                    status = self._post(session, one)
                    if status != 200:
                        self.violations.append(f"{one.task_id} was answered {status} when it was sent again")

    def compare_verdicts(self, service: Client) -> list[str]:
        """Return what of the callbacks is lost, doubled, changed or forged."""
        wrong: list[str] = []
        found: dict[str, Any] = {}
        for verdict in service.items("/v1/verdicts", limit=200):
            if verdict["data_id"] is None:
                if verdict["platform_task_id"] in found:
                    wrong.append(f"{verdict['platform_task_id']} has two tasks")
                found[verdict["platform_task_id"]] = verdict
        for one in self.acknowledged:
            verdict = found.get(one.task_id)
            if verdict is None:
                wrong.append(f"{one.task_id} was answered 200 and is lost")
            elif (verdict["slice_count"], verdict["flagged_slice_count"]) != (one.slices, one.flagged):
                wrong.append(f"{one.task_id} has {verdict['slice_count']} slices instead of {one.slices}")
        # what was not answered 200 may be stored all the same: its answer was lost
        return wrong + [f"{task_id} has a verdict, and nobody sent it" for task_id in found.keys() - self.sent.keys()]

    def _next(self, dice: random.Random) -> Sent:
        task_id = f"t-{next(self._numbers)}"
        lengths = [10, 300] if dice.random() < _USUAL else [_LONG_TEXT]
        slices = [
            piece(
                at * 10, risk=dice.choice(["none", "none", "none", "medium", "high"]), text="x" * dice.choice(lengths)
            )
            for at in range(dice.choice([1, 3, 10, 40]))
        ]
        one = Sent(
            task_id=task_id,
            body=form(content(*slices, TaskId=task_id), seed=self._receiver["seed"]),
            slices=len(slices),
            flagged=sum(each["RiskLevel"] in {"medium", "high"} for each in slices),
        )
        self.sent[task_id] = one
        return one

    def _try(self, session: requests.Session, one: Sent) -> None:
        try:
            self._post(session, one)
        except requests.RequestException:
            self.unanswered += 1

    def _post(self, session: requests.Session, one: Sent) -> int:
        status = self._answer(session, one.body)
        one.acknowledged |= status == 200
        self.refused += status == 503
        if status not in _ANSWERS:
            self.violations.append(f"{one.task_id} was answered {status}")
        return status

    def _answer(self, session: requests.Session, body: bytes) -> int:
        url = self._receiver["callback_url"]
        answer = session.post(url, data=body, headers={"Content-Type": FORM}, timeout=self._patience_seconds)
        return answer.status_code


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy must not come between us and loopback
    return session


def compare_events(service: Client, feed: Sequence[Any]) -> list[str]:
    """Return where the events of the feed are not those of the verdicts."""
    wrong: list[str] = []
    of_tasks = [event for event in feed if "task" in event["data"]]
    completed = Counter(event["data"]["task"]["id"] for event in of_tasks if event["type"] == "task.completed")
    flagged = Counter(event["data"]["task"]["id"] for event in of_tasks if event["type"] == "slice.flagged")
    for verdict in service.items("/v1/verdicts", limit=200):
        wanted = 1 if verdict["state"] == "completed" else 0
        if completed[verdict["task_id"]] != wanted:
            wrong.append(f"{verdict['task_id']} was completed {completed[verdict['task_id']]} times")
        if flagged[verdict["task_id"]] != verdict["flagged_slice_count"]:
            wrong.append(f"{verdict['task_id']} raised {flagged[verdict['task_id']]} slice.flagged")
    if len({event["id"] for event in feed}) != len(feed):
        wrong.append("an event is twice in the feed")
    return wrong


def compare_deliveries(feed: Sequence[Any], received: Sequence[Delivered]) -> list[str]:
    """Return which events of the feed a subscriber did not get, or got under two ids or in two versions."""
    wrong: list[str] = []
    ids = {event["id"] for event in feed}
    bodies: dict[str, set[bytes]] = {}
    for delivered in received:
        bodies.setdefault(delivered.id, set()).add(delivered.body)
        if delivered.event["id"] != delivered.id:
            wrong.append(f"{delivered.id} was delivered with the event {delivered.event['id']}")
    wrong += [f"{event_id} is not delivered" for event_id in ids - bodies.keys()]
    wrong += [f"{event_id} is delivered and not in the feed" for event_id in bodies.keys() - ids]
    for event_id, versions in bodies.items():
        if len(versions) > 1:
            wrong.append(f"{event_id} was delivered in {len(versions)} versions")
    return wrong
