"""Random faults: drawn by seed and source, the same in every run, and all written down."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from darabonba.exceptions import UnretryableException

from tests.waiting import until
from webhook.sandbox.config import SandboxConfig
from webhook.sandbox.control import Control
from webhook.sandbox.faults import CALL_FAULTS, SUBMIT, WAYS, Faults

from .vendor import LIVE, ClientException, ServerException, ThrottlingException

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Sandbox
    from .receiver import Receiver

FAILURES = (ClientException, ServerException, ThrottlingException, UnretryableException)


def outcome(call: Callable[[], Any]) -> Any:
    """Return the code that a call was answered with, or the name of what the SDK made of its fault."""
    try:
        return call()["Code"]
    except FAILURES as error:
        return type(error).__name__


def faults(**settings: Any) -> Faults:
    return Faults(Control(SandboxConfig(**settings), clock=time.time), clock=time.time)


def drawn(one: Faults, source: str, times: int = 50) -> list[Any]:
    return [one.draw(SUBMIT, CALL_FAULTS[SUBMIT], source=source, probability=None) for _ in range(times)]


def test_draws_depend_on_seed_source_and_turn_and_on_nothing_else() -> None:
    source = "http://127.0.0.1:1/samples/a.mp3"
    first = drawn(faults(faults=0.5, seed=1), source)
    other = faults(faults=0.5, seed=1)
    drawn(other, "http://127.0.0.1:1/samples/b.mp3")
    assert drawn(other, "http://example.com/samples/a.mp3") == first
    assert drawn(faults(faults=0.5, seed=2), source) != first
    assert drawn(faults(faults=0.5, seed=1), "http://127.0.0.1:1/samples/c.mp3") != first
    assert 10 < sum(fault is not None for fault in first) < 40


def test_without_a_probability_nothing_is_drawn_or_written_down() -> None:
    one = faults()
    assert drawn(one, "a.mp3") == [None] * 50
    assert not one.drawn
    assert not one.counts


@pytest.mark.parametrize("choices", [*CALL_FAULTS.values(), WAYS])
def test_every_fault_comes_up(choices: tuple[Any, ...]) -> None:
    one = faults(faults=1)
    assert {one.draw("any", choices, source=f"{at}.mp3", probability=None) for at in range(500)} == set(choices)
    assert sum(one.counts.values()) == 500


def test_the_same_seed_does_the_same_to_the_same_sources(
    start_sandbox: Callable[..., Sandbox], receiver: Receiver
) -> None:
    def story(seed: int) -> list[Any]:
        sandbox = start_sandbox(faults=0.5, seed=seed)
        told = [
            outcome(
                lambda at=at: sandbox.vendor.submit(  # type: ignore[misc]
                    url=f"{sandbox.url}/samples/{at}.mp3?delay=0", callback=receiver.url, seed="s"
                )
            )
            for at in range(10)
            for _ in range(3)
        ]
        accepted = sandbox.ledger()["accepted"]
        assert 0 < accepted < 30
        until(lambda: sum(len(task["callbacks"]) for task in sandbox.tasks()) == accepted)
        items = sandbox.get("/sandbox/faults").json()["items"]
        return [told, sorted((item["point"], item["source"], item["number"], item["fault"]) for item in items)]

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_every_fault_of_a_call_reaches_the_sdk_and_the_ledger(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(faults=1, submits_per_second=1000)
    seen = {outcome(lambda at=at: sandbox.vendor.submit(url=f"http://x.test/{at}.mp3")) for at in range(60)}  # type: ignore[misc]
    assert seen == {403, 500, "ServerException", "ThrottlingException", "UnretryableException"}
    counts = sandbox.ledger()["faults"][SUBMIT]
    assert counts.keys() == {str(fault) for fault in CALL_FAULTS[SUBMIT]}
    assert sum(counts.values()) == 60
    assert sandbox.ledger()["accepted"] == counts["drop"]

    task_id = sandbox.tasks()[0]["task_id"]
    assert outcome(lambda: sandbox.vendor.query(task_id)) != 200
    assert outcome(sandbox.vendor.upload_token) != 200
    assert {"VoiceModerationResult", "DescribeUploadToken"} < sandbox.ledger()["faults"].keys()
    assert [item["task_id"] for item in sandbox.get("/sandbox/faults").json()["items"]][-2:] == [task_id, None]


def test_a_cancellation_that_failed_at_random_did_not_happen(sandbox: Sandbox) -> None:
    task_id = sandbox.vendor.submit(service=LIVE, url="rtmp://x.test/endless")["Data"]["TaskId"]
    sandbox.control(faults=1)
    assert outcome(lambda: sandbox.vendor.cancel(task_id)) != 200
    assert sandbox.task(task_id)["state"] == "running"
    sandbox.control(faults=0)
    assert outcome(lambda: sandbox.vendor.cancel(task_id)) == 200


def test_a_source_can_have_a_probability_of_its_own(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(faults=1)
    assert sandbox.vendor.submit(url="http://x.test/a.mp3?faults=0")["Code"] == 200
    sandbox.control(faults=0)
    assert outcome(lambda: sandbox.vendor.submit(url="http://x.test/a.mp3?faults=1")) != 200
    assert sandbox.vendor.submit(url="http://x.test/a.mp3")["Code"] == 200


def test_a_way_that_was_asked_for_is_not_left_to_chance(sandbox: Sandbox, receiver: Receiver) -> None:
    asked = {"callback": receiver.url, "seed": "s"}
    chosen = sandbox.vendor.submit(url="http://x.test/a.mp3?callback=twice&delay=0.2", **asked)["Data"]["TaskId"]
    left = sandbox.vendor.submit(url="http://x.test/b.mp3?delay=0.2", **asked)["Data"]["TaskId"]
    sandbox.control(faults=1)
    [known] = until(lambda: sandbox.task(chosen)["callbacks"])
    assert (known["way"], known["by_chance"]) == ("twice", False)
    [known] = until(lambda: sandbox.task(left)["callbacks"])
    assert known["by_chance"]
    [item] = sandbox.get("/sandbox/faults").json()["items"]
    assert (item["point"], item["task_id"], item["fault"]) == ("callback", left, known["way"])


def key(one: Any) -> tuple[Any, ...]:
    """Return what of a slice the SDK's models do not change."""
    names = ("StartTime", "EndTime", "StartTimestamp", "EndTimestamp", "RiskLevel", "Text", "Url")
    return tuple(one.get(name) for name in names)


class Client:
    """The smallest client that gets everything: it submits until accepted, takes callbacks, asks for the rest."""

    def __init__(self, sandbox: Sandbox, receiver: Receiver) -> None:
        self._sandbox = sandbox
        self._receiver = receiver
        self.unanswered = 0

    def submit(self, name: str, **source: Any) -> None:
        answer: Any = None
        while answer not in {200, "UnretryableException"}:
            answer = outcome(
                lambda: self._sandbox.vendor.submit(**source, dataId=name, callback=self._receiver.url, seed="s")
            )
        self.unanswered += answer != 200

    def result(self, task: Any) -> Any:
        """Return the slices of a task, once it is over."""

        def ask() -> Any:
            try:
                answer = self._sandbox.vendor.query(task["task_id"], service=task["service"])
            except FAILURES:
                return None
            return answer["Data"]["SliceDetails"] if answer["Code"] == 200 else None

        return until(ask)

    def received(self) -> dict[str, list[Any]]:
        """Return the slices that came by callback, by task."""
        found: dict[str, list[Any]] = {}
        while not self._receiver.received.empty():
            form = self._receiver.next().form
            found.setdefault(form["taskId"], []).extend(json.loads(form["content"])["Data"]["SliceDetails"])
        return found


def test_who_asks_again_gets_every_slice_and_the_ledger_agrees(
    start_sandbox: Callable[..., Sandbox], receiver: Receiver
) -> None:
    sandbox = start_sandbox(faults=0.3, seed=4, submits_per_second=10_000, queries_per_second=10_000)
    client = Client(sandbox, receiver)
    for at in range(0, 20, 2):
        client.submit(f"file{at}", url=f"http://x.test/{at}.mp3?slices=4&risk=high")
        url = f"rtmp://x.test/{at}?slices=4&interval=0.01&batch=2"
        client.submit(f"room{at}", service=LIVE, url=url, liveId=str(at))
    assert client.unanswered
    assert len({task["data_id"] for task in sandbox.tasks()}) == len(sandbox.tasks()) == 20
    results = {task["task_id"]: client.result(task) for task in sandbox.tasks()}
    until(lambda: all(each["acknowledged"] or each["lost"] for task in sandbox.tasks() for each in task["callbacks"]))

    received = client.received()
    for task in sandbox.get("/sandbox/tasks?slices=true").json()["items"]:
        assert (task["charged"], task["state"], task["code"]) == (1, "finished", None)
        assert [key(one) for one in task["slices"]] == [key(one) for one in results[task["task_id"]]]
        sent = [
            task["slices"][at]
            for each in task["callbacks"]
            if each["acknowledged"]
            for at in range(each["first_slice"], each["first_slice"] + each["slice_count"])
        ]
        came = received.get(task["task_id"], [])
        assert all(one in came for one in sent)
        assert all(one in sent for one in came)
