"""From a submission by the official SDK to a verdict and a signed delivery, whatever the platform does on the way."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from standardwebhooks import Webhook

from tests.platform import Platform
from tests.running import Running, sandbox_variables
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.subscriber import Delivered, Subscriber

_numbers = itertools.count()


@pytest.fixture
def submit(running: Running, platform: Platform) -> Callable[..., Any]:
    """Submit a file whose name chooses its fate, and return its task."""

    def submit_one(name: str, **fields: Any) -> Any:
        stem, dot, ending = name.partition(".mp3")
        source = platform.source(f"{stem},n={next(_numbers)}{dot}{ending}")
        return running.made("/v1/tasks", {"url": source, **fields})

    return submit_one


def over(running: Running, task: Any, *, seconds: float = 15) -> Any:
    """Return a task once it is over."""
    return until(
        lambda: (
            found
            if (found := running.shown(f"/v1/tasks/{task['id']}"))["state"] not in {"queued", "processing"}
            else None
        ),
        seconds=seconds,
    )


def events_of(running: Running, task: Any) -> list[str]:
    return [event["type"] for event in running.feed() if event["data"].get("task", {}).get("id") == task["id"]]


@pytest.fixture
def hook(running: Running, subscriber: Subscriber) -> Iterator[Callable[..., tuple[str, str]]]:
    """Subscribe, and return the path and the secret."""
    made: list[str] = []

    def subscribe(**fields: Any) -> tuple[str, str]:
        path = f"/hook-{next(_numbers)}"
        one = running.made("/v1/subscriptions", {"url": subscriber.url(path), **fields})
        made.append(one["id"])
        return path, one["secret"]

    yield subscribe
    for subscription in made:
        assert running.delete(f"/v1/subscriptions/{subscription}").status == 204


def test_a_file_becomes_a_verdict_and_a_signed_delivery(
    running: Running, subscriber: Subscriber, submit: Callable[..., Any], hook: Callable[..., tuple[str, str]]
) -> None:
    path, secret = hook(filter={"data_id_prefix": "whole-way"})
    task = submit("political_entity,slices=3.mp3", data_id="whole-way")

    finished = over(running, task)
    assert (finished["state"], finished["risk_level"], finished["action"]) == ("completed", "high", "block")
    assert finished["platform_task_id"].startswith("au_f_")

    verdict = running.shown(f"/v1/verdicts/{task['id']}")
    assert (verdict["url"], verdict["data_id"]) == (task["source"]["url"], "whole-way")
    assert (verdict["slice_count"], verdict["flagged_slice_count"]) == (3, 1)
    assert {label["label"] for label in verdict["labels"]} == {"political_entity", "nonLabel"}

    slices = running.items(f"/v1/verdicts/{task['id']}/slices")
    assert [piece["start_time"] for piece in slices] == [0, 10, 20]
    [finding] = slices[0]["results"]
    assert finding["risk_words"] == ["WordA", "词汇B"]
    assert [position["risk_word"] for position in finding["risk_positions"]] == ["WordA", "词汇B"]

    wanted = {"task.submitted", "slice.flagged", "task.completed"}
    received = until(lambda: found if len(found := subscriber.received(path)) >= 3 else None)
    assert {each.event["type"] for each in received} == wanted
    for each in received:
        assert Webhook(secret).verify(each.body, dict(each.headers))["type"] == each.event["type"]
    completed = next(each.event for each in received if each.event["type"] == "task.completed")
    assert completed["data"] == {"task": finished, "verdict": verdict}
    flagged = next(each.event for each in received if each.event["type"] == "slice.flagged")
    assert flagged["data"]["slice"] == slices[0]
    assert {each.id for each in received} == {
        event["id"] for event in running.feed() if event["data"].get("task", {}).get("id") == task["id"]
    }


def test_a_stream_s_slices_arrive_one_by_one_and_it_ends_when_it_is_canceled(
    running: Running, platform: Platform, subscriber: Subscriber, hook: Callable[..., tuple[str, str]]
) -> None:
    path, _ = hook(event_types=["slice.*", "task.canceled"], filter={"kinds": ["live"]})
    source = platform.source("high,endless,interval=0.05,flagged=2.flv")
    stream = running.made("/v1/streams", {"url": source, "live_id": "room-whole-way"})
    until(lambda: running.shown(f"/v1/streams/{stream['id']}")["slice_count"] >= 4)
    assert running.post("/v1/streams", {"url": source, "live_id": "room-whole-way"}).status == 200
    shown = running.shown(f"/v1/streams/{stream['id']}")
    assert (shown["state"], shown["flagged_slice_count"]) == ("processing", 2)
    assert shown["last_slice_at"] is not None

    assert running.delete(f"/v1/streams/{stream['id']}").status == 202
    assert over(running, stream)["state"] == "canceled"
    assert [task["state"] for task in platform.tasks(source)] == ["canceled"]
    until(lambda: subscriber.types(path) == ["slice.flagged", "slice.flagged", "task.canceled"])


@pytest.mark.parametrize(
    "magic",
    ["twice", "overtake", "callback=late:0.3", "shape=bare", "shape=camel", "encoding=multipart", "encoding=json"],
)
def test_however_a_callback_comes_it_counts_once(
    running: Running, platform: Platform, submit: Callable[..., Any], magic: str
) -> None:
    task = submit(f"high,slices=3,{magic}.mp3")
    finished = over(running, task)
    assert (finished["state"], finished["risk_level"], finished["slice_count"]) == ("completed", "high", 3)

    def attempts() -> list[Any]:
        [told] = platform.tasks(task["source"]["url"])
        return [attempt for callback in told["callbacks"] for attempt in callback["attempts"]]

    until(lambda: len(attempts()) == (2 if magic == "twice" else 1))
    assert {attempt["status"] for attempt in attempts()} == {200}
    assert events_of(running, task) == ["task.submitted", "slice.flagged", "task.completed"]
    assert len(running.items(f"/v1/verdicts/{task['id']}/slices")) == 3


@pytest.mark.parametrize("crypt_type", ["SHA256", "SM3"])
def test_every_checksum_of_the_platform_is_verified(
    running: Running, submit: Callable[..., Any], crypt_type: str
) -> None:
    assert over(running, submit("none.mp3", crypt_type=crypt_type))["state"] == "completed"


def test_sm3_as_an_hmac_is_verified_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Platform(sm3_scheme="hmac") as platform:
        running = Running(tmp_path_factory.mktemp("hmac"), **sandbox_variables(platform.url))
        running.start()
        try:
            task = running.made("/v1/tasks", {"url": platform.source("high.mp3"), "crypt_type": "SM3"})
            assert over(running, task)["risk_level"] == "high"

            # with the wrong scheme configured its callbacks go to quarantine, and come out when it is mended
            assert running.command.stop() == 0
            running.start(WEBHOOK_SM3_SCHEME="digest")
            task = running.made("/v1/tasks", {"url": platform.source("high-2.mp3"), "crypt_type": "SM3"})
            [kept, *_] = until(lambda: running.items("/v1/callbacks", state="quarantined"))
            assert (kept["task_id"], kept["reason"]) == (task["id"], "other_scheme")
            assert "WEBHOOK_SM3_SCHEME" in kept["message"]
            assert running.shown(f"/v1/tasks/{task['id']}")["risk_level"] is None

            assert running.command.stop() == 0
            running.start(WEBHOOK_SM3_SCHEME="auto")
            assert running.post(f"/v1/callbacks/{kept['id']}/verify").status in {200, 404}  # or a resend was quicker
            assert over(running, task)["risk_level"] == "high"
            until(lambda: events_of(running, task).count("task.completed") == 1)
        finally:
            running.command.kill()


def test_a_forged_callback_is_never_believed(running: Running, platform: Platform, submit: Callable[..., Any]) -> None:
    task = submit("forged.mp3")
    [kept] = until(
        lambda: [one for one in running.items("/v1/callbacks", state="quarantined") if one["task_id"] == task["id"]]
    )
    assert kept["reason"] == "checksum_wrong"
    shown = running.shown(f"/v1/tasks/{task['id']}")
    assert (shown["state"], shown["risk_level"]) == ("processing", None)
    [told] = platform.tasks(task["source"]["url"])
    assert {attempt["status"] for attempt in told["callbacks"][0]["attempts"]} <= {403}
    assert events_of(running, task) == ["task.submitted"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (404, "source_unreachable"),
        (405, "source_unreachable"),
        (406, "source_too_large"),
        (407, "format_not_supported"),
    ],
)
def test_a_failure_told_by_callback_fails_the_task_and_is_not_paid_for_again(
    running: Running, platform: Platform, submit: Callable[..., Any], code: int, reason: str
) -> None:
    task = submit(f"{code}.mp3")
    finished = over(running, task)
    assert (finished["state"], finished["error"]["code"], finished["error"]["reason"]) == ("failed", code, reason)
    assert events_of(running, task) == ["task.submitted", "task.failed"]
    assert len(platform.tasks(task["source"]["url"])) == 1


@pytest.mark.parametrize(
    ("magic", "reason"), [("submit_code=401", "parameter_invalid"), ("submit_code=406", "source_too_large")]
)
def test_a_submit_that_is_refused_for_good_fails_at_once(
    running: Running, platform: Platform, submit: Callable[..., Any], magic: str, reason: str
) -> None:
    task = submit(f"{magic}.mp3")
    finished = over(running, task)
    assert (finished["state"], finished["error"]["reason"]) == ("failed", reason)
    assert finished["submitted_at"] is None
    assert platform.tasks(task["source"]["url"]) == []


@pytest.mark.parametrize("magic", ["submit_code=500x1", "submit_code=403x1", "http=503x1", "http=throttlex1"])
def test_a_submit_that_is_refused_for_now_is_tried_again(
    running: Running, platform: Platform, submit: Callable[..., Any], magic: str
) -> None:
    task = submit(f"none,{magic}.mp3")
    assert over(running, task)["state"] == "completed"
    assert len(platform.tasks(task["source"]["url"])) == 1
    assert running.shown(f"/v1/tasks/{task['id']}")["error"] is None


def test_a_submit_whose_answer_was_lost_is_not_repeated_and_its_callback_tells(
    running: Running, platform: Platform, submit: Callable[..., Any]
) -> None:
    task = submit("high,http=drop.mp3")
    finished = over(running, task)
    assert (finished["state"], finished["risk_level"]) == ("completed", "high")
    assert finished["platform_task_id"].startswith("au_f_")
    assert len(platform.tasks(task["source"]["url"])) == 1


def test_prefer_wait_answers_with_the_platform_s_acceptance(running: Running, platform: Platform) -> None:
    source = platform.source("none,delay=30,waited.mp3")
    reply = running.post("/v1/tasks", {"url": source}, headers={"Prefer": "respond-async, wait=20"})
    assert (reply.status, reply.json["state"]) == (201, "processing")
    assert reply.json["platform_task_id"].startswith("au_f_")


def test_a_long_poll_of_the_feed_ends_when_something_happens(running: Running, submit: Callable[..., Any]) -> None:
    [*_, newest] = [running.shown("/v1/events", limit=200)]
    while newest["items"]:
        newest = running.shown("/v1/events", limit=200, after=newest["next_cursor"])
    assert running.shown("/v1/events", after=newest["next_cursor"], wait=0)["next_cursor"] == newest["next_cursor"]
    task = submit("none.mp3", data_id="long-poll")
    page = running.shown("/v1/events", after=newest["next_cursor"], wait=60, types="task.completed")
    while not any(event["data"]["task"]["id"] == task["id"] for event in page["items"]):
        page = running.shown("/v1/events", after=page["next_cursor"], wait=60, types="task.completed")
    assert {event["type"] for event in page["items"]} == {"task.completed"}


def test_cloudevents_are_what_their_sdk_reads_and_are_signed_the_same_way(
    running: Running, subscriber: Subscriber, submit: Callable[..., Any], hook: Callable[..., tuple[str, str]]
) -> None:
    path, secret = hook(format="cloudevents", event_types=["task.completed"])
    task = submit("high.mp3")

    def mine() -> Delivered | None:
        found = [one for one in subscriber.received(path) if one.event["data"]["task"]["id"] == task["id"]]
        return found[0] if found else None

    received = until(mine)
    assert received.headers["content-type"] == "application/cloudevents+json"
    Webhook(secret).verify(received.body, dict(received.headers))
    event = from_structured_event(HTTPMessage(headers=dict(received.headers), body=received.body))
    assert (event.get_id(), event.get_type(), event.get_subject()) == (received.id, "task.completed", task["id"])
    assert event.get_source() == running.url
    data = event.get_data()
    assert (data if isinstance(data, dict) else json.loads(str(data)))["task"]["state"] == "completed"


def test_no_secret_and_no_transcript_is_in_the_logs_or_the_metrics(
    running: Running, platform: Platform, submit: Callable[..., Any]
) -> None:
    task = submit("high,text=a-very-private-word.mp3")
    over(running, task)
    refused = submit("submit_code=401,text=another-private-word.mp3")
    over(running, refused)
    running.callback(f"{running.url}/callbacks/unknown-token-canary", b"checksum=a&content=private-content")
    receiver = running.receiver()
    running.callback(receiver["callback_url"], b"checksum=a&content=private-content")
    [told] = platform.tasks(task["source"]["url"])
    parameters = told["parameters"]
    canaries = [
        running.key,
        parameters["callback"].rpartition("/")[2],
        "unknown-token-canary",
        receiver["seed"],
        receiver["callback_url"].rpartition("/")[2],
        "a-very-private-word",
        "private-content",
        "sandbox-secret",
    ]
    shown = running.command.log + running.get("/metrics").body.decode()
    assert [canary for canary in canaries if canary in shown] == []
