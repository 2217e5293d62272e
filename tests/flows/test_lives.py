"""Every way in, every answer of the platform, every loss of a callback: each task ends with a verdict or a reason.

The official SDK talks to the sandbox; both sides' times are seconds instead of minutes and hours.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.flows.test_flows import events_of, over
from tests.platform import Platform
from tests.running import Running, sandbox_variables
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = itertools.count()

HURRIED = {
    "WEBHOOK_POLL_DELAY_SECONDS": "1",
    "WEBHOOK_STREAM_POLL_SECONDS": "1",
    "WEBHOOK_STREAM_SILENCE_SECONDS": "2",
    "WEBHOOK_RESULT_LIFETIME_SECONDS": "10",
    "WEBHOOK_SUBMIT_OUTCOME_WAIT_SECONDS": "2",
    "WEBHOOK_RUNNING_STREAMS": "20",
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Platform]:
    with Platform() as one:
        yield one


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory, stage: Platform) -> Iterator[Running]:
    one = Running(tmp_path_factory.mktemp("hurried"), **sandbox_variables(stage.url), **HURRIED)
    one.start()
    yield one
    assert one.command.stop() == 0, one.command.log


@pytest.fixture
def submit(hurried: Running, stage: Platform) -> Callable[..., Any]:
    def submit_one(name: str, **fields: Any) -> Any:
        stem, _, ending = name.rpartition(".")
        source = stage.source(f"{stem},n={next(_numbers)}.{ending}")
        return hurried.made("/v1/tasks", {"url": source, **fields})

    return submit_one


@pytest.fixture
def register(hurried: Running, stage: Platform) -> Callable[..., Any]:
    def register_one(name: str) -> Any:
        number = next(_numbers)
        source = stage.source(f"{name},n={number}.m3u8")
        return hurried.made("/v1/streams", {"url": source, "live_id": f"room-{number}"})

    return register_one


def accepted(stage: Platform, task: Any) -> list[Any]:
    """Return what the sandbox accepted, and so charged, of a task."""
    return stage.tasks(task["source"]["url"])


# sources


def test_an_uploaded_file_goes_through_the_platforms_storage_to_a_verdict(hurried: Running, stage: Platform) -> None:
    sample = stage.sample("political_entity.wav")
    reply = hurried.upload(("file", "talk.wav", sample), ("data_id", None, b"uploaded"))
    assert reply.status == 201
    after = over(hurried, reply.json)
    assert (after["state"], after["risk_level"], after["data_id"]) == ("completed", "high", "uploaded")
    until(lambda: not list(hurried.directory.glob("*.uploads/*")), seconds=5)
    assert stage.ledger()["answers"]["DescribeUploadToken"]


def test_a_file_in_storage_of_the_account_s_own_is_submitted_by_name(hurried: Running) -> None:
    oss = {"bucket": "own", "object": f"medium,n={next(_numbers)}.mp3", "region": "ap-southeast-1"}
    after = over(hurried, hurried.made("/v1/tasks", {"oss": oss}))
    assert (after["state"], after["risk_level"]) == ("completed", "medium")


# codes


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (400, "parameter_missing"),
        (401, "parameter_invalid"),
        (402, "parameter_too_long"),
        (406, "source_too_large"),
        (407, "format_not_supported"),
    ],
)
def test_a_submit_that_is_refused_for_good_fails(
    hurried: Running, stage: Platform, submit: Callable[..., Any], code: int, reason: str
) -> None:
    task = submit(f"submit_code={code}.mp3")
    after = over(hurried, task)
    assert (after["state"], after["error"]["code"], after["error"]["reason"]) == ("failed", code, reason)
    assert accepted(stage, task) == []


@pytest.mark.parametrize("code", [403, 404, 405, 480, 500, 599])
def test_a_submit_that_is_turned_away_once_is_made_again(
    hurried: Running, stage: Platform, submit: Callable[..., Any], code: int
) -> None:
    task = submit(f"submit_code={code}x1.mp3")
    after = over(hurried, task)
    assert (after["state"], after["error"]) == ("completed", None)
    assert len(accepted(stage, task)) == 1


@pytest.mark.parametrize("callback", ["slices=1", "callback=lost"], ids=["by callback", "by query"])
@pytest.mark.parametrize(
    "failure",
    [
        (404, "source_unreachable"),
        (405, "source_unreachable"),
        (406, "source_too_large"),
        (407, "format_not_supported"),
    ],
)
def test_a_failure_that_comes_later_fails_the_task_and_nothing_is_paid_twice(
    hurried: Running, stage: Platform, submit: Callable[..., Any], callback: str, failure: tuple[int, str]
) -> None:
    task = submit(f"code={failure[0]},{callback}.mp3")
    after = over(hurried, task)
    assert (after["state"], after["error"]["code"], after["error"]["reason"]) == ("failed", *failure)
    assert len(accepted(stage, task)) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 500, 599])
def test_a_query_that_is_turned_away_is_made_again(hurried: Running, submit: Callable[..., Any], code: int) -> None:
    after = over(hurried, submit(f"low,callback=lost,query_code={code}x1.mp3"))
    assert (after["state"], after["risk_level"]) == ("completed", "low")


def test_a_refused_account_stops_submissions_until_it_is_let_in_again(
    hurried: Running, stage: Platform, submit: Callable[..., Any]
) -> None:
    def platform() -> str:
        return str(hurried.shown("/readyz")["dependencies"]["platform"])

    stage.control(account_code=408)
    task = submit("low.mp3")
    until(lambda: platform() == "submissions wait: not_authorized")
    waiting = hurried.shown(f"/v1/tasks/{task['id']}")
    assert (waiting["state"], waiting["queue_position"], waiting["error"]["code"]) == ("queued", 1, 408)
    stage.control(account_code=None)
    assert over(hurried, task, seconds=60)["state"] == "completed"
    assert platform() == "configured"


# callbacks


@pytest.mark.parametrize("how", ["lost", "lostx3", "late:1", "twice", "double", "overtake"])
def test_however_its_callback_comes_a_file_gets_its_verdict_once(
    hurried: Running, stage: Platform, submit: Callable[..., Any], how: str
) -> None:
    task = submit(f"high,slices=12,flagged=2,callback={how}.mp3")
    after = over(hurried, task)
    assert (after["state"], after["risk_level"]) == ("completed", "high")
    assert (after["slice_count"], after["flagged_slice_count"]) == (12, 2)
    assert sorted(events_of(hurried, task)) == ["slice.flagged"] * 2 + ["task.completed", "task.submitted"]
    assert len(accepted(stage, task)) == 1


def test_a_task_that_the_platform_never_finishes_expires_with_no_verdict(
    hurried: Running, submit: Callable[..., Any]
) -> None:
    task = submit("delay=1000.mp3")
    after = over(hurried, task)
    assert (after["state"], after["error"]["reason"], after["risk_level"]) == ("expired", "result_expired", None)
    assert hurried.shown(f"/v1/verdicts/{task['id']}")["risk_level"] is None
    assert events_of(hurried, task) == ["task.submitted", "task.expired"]


def test_a_file_whose_answer_was_lost_is_completed_by_its_callback(
    hurried: Running, stage: Platform, submit: Callable[..., Any]
) -> None:
    task = submit("low,http=drop.mp3")
    after = over(hurried, task)
    assert (after["state"], after["risk_level"]) == ("completed", "low")
    assert len(accepted(stage, task)) == 1


def test_a_file_whose_answer_and_callback_were_lost_fails_and_is_not_paid_again(
    hurried: Running, stage: Platform, submit: Callable[..., Any]
) -> None:
    task = submit("low,http=drop,callback=lost.mp3")
    after = over(hurried, task)
    assert (after["state"], after["error"]["reason"]) == ("failed", "submit_outcome_unknown")
    assert len(accepted(stage, task)) == 1


def test_a_refresh_asks_at_once(hurried: Running, submit: Callable[..., Any]) -> None:
    task = submit("delay=1000.mp3")
    until(lambda: hurried.shown(f"/v1/tasks/{task['id']}")["platform_task_id"])
    assert hurried.post(f"/v1/tasks/{task['id']}/refresh").status == 202


# streams


def test_a_stream_starts_runs_and_ends(hurried: Running, register: Callable[..., Any]) -> None:
    task = register("slices=4,interval=0.3")
    after = over(hurried, task)
    assert (after["state"], after["slice_count"]) == ("completed", 4)
    types = events_of(hurried, task)
    assert types[0] == "task.submitted"
    assert types[1] == "stream.started"
    assert types[-2:] == ["task.completed", "stream.ended"]


@pytest.mark.parametrize("how", ["lost", "reordered", "echo", "twice"])
def test_however_its_callbacks_come_a_stream_has_all_its_slices_once(
    hurried: Running, register: Callable[..., Any], how: str
) -> None:
    task = register(f"high,slices=6,flagged=2,interval=0.2,callback={how}")
    after = over(hurried, task)
    assert (after["state"], after["slice_count"], after["flagged_slice_count"]) == ("completed", 6, 2)
    assert events_of(hurried, task).count("slice.flagged") == 2
    slices = hurried.items(f"/v1/verdicts/{task['id']}/slices")
    assert [piece["start_timestamp"] for piece in slices] == sorted(piece["start_timestamp"] for piece in slices)


def test_a_stream_that_breaks_ends_with_what_it_brought_and_a_reason(
    hurried: Running, register: Callable[..., Any]
) -> None:
    after = over(hurried, register("slices=2,interval=0.2,end=break"))
    assert (after["state"], after["error"]["reason"], after["slice_count"]) == ("completed", "source_unreachable", 2)


def test_a_stream_that_the_platform_cannot_reach_fails(hurried: Running, register: Callable[..., Any]) -> None:
    after = over(hurried, register("slices=0,end=break"))
    assert (after["state"], after["error"]["reason"]) == ("failed", "source_unreachable")


@pytest.mark.parametrize("how", ["silent_from=2,slices=5,interval=0.3", "slices=3,interval=0.2,gap=2:5"])
def test_a_stream_that_falls_silent_says_so_once(hurried: Running, register: Callable[..., Any], how: str) -> None:
    task = register(f"{how},end=never")
    silent = until(lambda: hurried.shown(f"/v1/streams/{task['id']}")["silent_since"])
    assert silent
    assert events_of(hurried, task).count("stream.silent") == 1
    assert hurried.delete(f"/v1/streams/{task['id']}").status == 202
    over(hurried, task)


def test_a_stream_that_is_canceled_is_over_on_the_platform_too(
    hurried: Running, stage: Platform, register: Callable[..., Any]
) -> None:
    task = register("slices=1000,interval=0.2,end=never")
    until(lambda: hurried.shown(f"/v1/tasks/{task['id']}")["slice_count"] > 1)
    assert hurried.delete(f"/v1/streams/{task['id']}").status == 202
    assert over(hurried, task)["state"] == "canceled"
    (known,) = accepted(stage, task)
    assert known["state"] == "canceled"
    assert events_of(hurried, task)[-2:] == ["task.canceled", "stream.ended"]
    again = hurried.made("/v1/streams", {"url": task["source"]["url"], "live_id": task["live_id"]})
    assert again["id"] != task["id"]
    hurried.delete(f"/v1/streams/{again['id']}")


def test_a_stream_whose_submit_answer_was_lost_is_registered_once(
    hurried: Running, stage: Platform, register: Callable[..., Any]
) -> None:
    task = register("http=dropx1,slices=3,interval=1.5")
    after = over(hurried, task)
    assert (after["state"], after["slice_count"]) == ("completed", 3)
    assert len(accepted(stage, task)) == 1
