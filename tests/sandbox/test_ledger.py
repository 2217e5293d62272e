"""What the sandbox tells of itself: enough to compare a database with it, slice by slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from darabonba.exceptions import UnretryableException

from tests.waiting import until

from .vendor import LIVE

if TYPE_CHECKING:
    from .conftest import Sandbox
    from .receiver import Receiver

URL = "http://example.com/talk.mp3"
STREAM = "rtmp://example.com/live/room"


def test_a_task_shows_its_whole_life(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses.append(500)
    stream = {"service": LIVE, "url": f"{STREAM}?slices=5&interval=0.01&batch=2&http=dropx1", "liveId": "room"}
    asked = {"dataId": "d", "callback": receiver.url, "seed": "s"}
    with pytest.raises(UnretryableException):
        sandbox.vendor.submit(**stream, **asked)
    until(lambda: sandbox.tasks()[0]["state"] == "finished")
    task_id = sandbox.tasks()[0]["task_id"]
    assert sandbox.vendor.query(task_id, service=LIVE)["Code"] == 200
    until(lambda: all(callback["acknowledged"] for callback in sandbox.task(task_id)["callbacks"]))

    task = sandbox.task(task_id)
    assert {name: task[name] for name in ("service", "kind", "source", "data_id", "live_id")} == {
        "service": LIVE,
        "kind": "live",
        "source": stream["url"],
        "data_id": "d",
        "live_id": "room",
    }
    assert (task["charged"], task["state"], task["code"], task["slice_count"]) == (1, "finished", None, 5)
    assert task["answers"] == {"VoiceModeration": {"drop": 1}, "VoiceModerationResult": {"200": 1}}
    callbacks = task["callbacks"]
    assert [(callback["first_slice"], callback["slice_count"]) for callback in callbacks] == [(0, 2), (2, 2), (4, 1)]
    assert {callback["code"] for callback in callbacks} == {200}
    assert sum(attempt["status"] == 500 for callback in callbacks for attempt in callback["attempts"]) == 1
    assert len(task["slices"]) == 5


def test_a_stream_submitted_again_is_answered_and_not_charged_again(sandbox: Sandbox) -> None:
    stream = {"service": LIVE, "url": f"{STREAM}?end=never", "liveId": "room"}
    ids = {sandbox.vendor.submit(**stream)["Data"]["TaskId"] for _ in range(3)}
    [task] = sandbox.tasks()
    assert ids == {task["task_id"]}
    assert (task["charged"], task["answers"]) == (1, {"VoiceModeration": {"200": 3}})
    assert sandbox.ledger()["accepted"] == 1


def test_a_failed_task_shows_its_code_and_an_empty_callback(sandbox: Sandbox, receiver: Receiver) -> None:
    task_id = sandbox.vendor.submit(url=f"{URL}?code=406", callback=receiver.url, seed="s")["Data"]["TaskId"]
    receiver.next()
    task = sandbox.task(task_id)
    assert (task["state"], task["code"], task["slices"]) == ("failed", 406, [])
    [callback] = task["callbacks"]
    assert (callback["code"], callback["slice_count"]) == (406, 0)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("data_id=b", ["b"]),
        ("live_id=room", ["c"]),
        ("state=running", ["c"]),
        (f"source={URL}", ["b", "a"]),
        (f"source={URL}&data_id=c", []),
        ("", ["c", "b", "a"]),
    ],
)
def test_tasks_can_be_looked_up(sandbox: Sandbox, query: str, wanted: list[str]) -> None:
    for name in "ab":
        sandbox.vendor.submit(url=URL, dataId=name)
    sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?end=never", liveId="room", dataId="c")
    until(lambda: len(sandbox.get("/sandbox/tasks?state=finished").json()["items"]) == 2)
    found: list[Any] = sandbox.get(f"/sandbox/tasks?{query}").json()["items"]
    assert [task["data_id"] for task in found] == wanted
    assert all("slices" not in task for task in found)
    sliced = sandbox.get(f"/sandbox/tasks?{query}&slices=true").json()["items"]
    assert [len(task["slices"]) == task["slice_count"] for task in sliced] == [True] * len(wanted)


@pytest.mark.parametrize("query", ["dataid=b", "slices=all", "limit=1"])
def test_what_tasks_cannot_be_looked_up_by_is_refused(sandbox: Sandbox, query: str) -> None:
    answer = requests.get(f"{sandbox.url}/sandbox/tasks?{query}", timeout=5)
    assert answer.status_code == 422
    assert "data_id" in answer.json()["error"]
