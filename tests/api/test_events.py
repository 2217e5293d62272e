"""The feed: a reader who follows the cursor misses nothing and sees nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.signed import content, form, piece

if TYPE_CHECKING:
    from tests.clients import AppClient

STREAM = {"url": "rtmp://example.com/live/1"}


@pytest.fixture
def happen(client: AppClient) -> Any:
    """Raise `task.canceled`, one for each live_id."""

    def one(*live_ids: str) -> None:
        for live_id in live_ids:
            made = client.made("/v1/streams", {**STREAM, "live_id": live_id})
            assert client.delete(f"/v1/streams/{made['id']}").status == 202

    return one


def live_ids(page: Any) -> list[str]:
    return [event["data"]["task"]["live_id"] for event in page["items"]]


def test_an_empty_feed_has_a_cursor_all_the_same(client: AppClient, happen: Any) -> None:
    page = client.shown("/v1/events")
    assert page["items"] == []
    happen("a")
    assert live_ids(client.shown("/v1/events", after=page["next_cursor"])) == ["a"]


def test_the_feed_starts_at_the_oldest_and_the_cursor_goes_on(client: AppClient, happen: Any) -> None:
    happen("a", "b", "c")
    first = client.shown("/v1/events", limit=2)
    assert live_ids(first) == ["a", "b"]
    happen("d")
    second = client.shown("/v1/events", limit=2, after=first["next_cursor"])
    assert live_ids(second) == ["c", "d"]
    last = client.shown("/v1/events", after=second["next_cursor"])
    assert (last["items"], last["next_cursor"]) == ([], second["next_cursor"])


def test_types_choose_and_the_cursor_goes_over_what_was_left_out(client: AppClient, happen: Any) -> None:
    receiver = client.receiver()
    happen("a")
    client.callback(receiver["callback_url"], form(content(piece(0, risk="high"), LiveId="b"), seed=receiver["seed"]))
    happen("c")
    every = ["task.canceled", "stream.started", "slice.flagged", "task.canceled"]
    assert [event["type"] for event in client.feed()] == every
    assert [event["type"] for event in client.feed(types="slice.*,callback.rejected")] == ["slice.flagged"]
    assert live_ids({"items": client.feed(types="task.canceled,task.failed", limit=1)}) == ["a", "c"]


@pytest.mark.parametrize(
    ("types", "chosen"),
    [
        ("*", ["task.canceled", "stream.started", "slice.flagged"]),
        ("*.canceled", ["task.canceled"]),
        ("task.c*", ["task.canceled"]),
        ("s*", ["stream.started", "slice.flagged"]),
        ("*ed", ["task.canceled", "stream.started", "slice.flagged"]),
        ("*a*e*", ["task.canceled", "stream.started", "slice.flagged"]),
        ("*l*l*,task.expired", ["slice.flagged"]),
        ("**.s*", ["stream.started"]),
        ("task.completed*", []),
        ("review.*", []),
    ],
)
def test_a_star_stands_for_any_characters_of_a_type(
    client: AppClient, happen: Any, types: str, chosen: list[str]
) -> None:
    receiver = client.receiver()
    happen("a")
    client.callback(receiver["callback_url"], form(content(piece(0, risk="high"), LiveId="b"), seed=receiver["seed"]))
    assert [event["type"] for event in client.feed(types=types)] == chosen


def test_an_event_is_as_the_contract_has_it(client: AppClient, happen: Any) -> None:
    happen("a")
    [event] = client.feed()
    [task] = client.items("/v1/streams")
    del task["last_slice_at"], task["silent_since"]
    verdict = client.shown(f"/v1/verdicts/{task['id']}")
    assert event == {
        "id": event["id"],
        "type": "task.canceled",
        "timestamp": event["timestamp"],
        "data": {"task": task, "verdict": verdict},
    }
    assert event["timestamp"].endswith("Z")


def test_a_reader_that_waits_for_nothing_gets_an_empty_page_in_the_end(client: AppClient) -> None:
    assert client.shown("/v1/events", wait=1) == {"items": [], "next_cursor": "0"}
