"""Streams that fall silent, pause and break; the audio of their slices, and what is wrong with it."""

from __future__ import annotations

import io
import wave
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.waiting import until

from .vendor import LIVE

if TYPE_CHECKING:
    from .conftest import Sandbox

STREAM = "rtmp://example.com/live/room"


def over(sandbox: Sandbox, query: str) -> dict[str, Any]:
    """Submit a stream, wait for its end, and return what the sandbox says of it."""
    task_id = sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?interval=0.01&{query}")["Data"]["TaskId"]
    until(lambda: sandbox.task(task_id)["state"] != "running")
    return sandbox.task(task_id)


def test_a_stream_can_fall_silent_in_the_midst_of_findings(sandbox: Sandbox) -> None:
    slices = over(sandbox, "slices=5&risk=high&flagged=4&silent_from=3")["slices"]
    labels = [entry["Result"][0]["Label"] for entry in slices]
    assert labels == ["political_entity"] * 2 + ["specified_nontalk"] * 3
    assert [entry["Text"] == "" for entry in slices] == [False, False, True, True, True]
    assert [entry["RiskLevel"] for entry in slices] == ["high", "high", "low", "low", "low"]


def test_a_stream_can_pause_and_go_on(sandbox: Sandbox) -> None:
    task = over(sandbox, "slices=4&gap=2:0.3")
    gaps = [after["StartTimestamp"] - before["EndTimestamp"] for before, after in pairwise(task["slices"])]
    assert gaps == [0, 300, 0]
    lasted = datetime.fromisoformat(task["finished_at"]) - datetime.fromisoformat(task["submitted_at"])
    assert lasted.total_seconds() >= 0.3


@pytest.mark.parametrize(("end", "state", "code"), [("finish", "finished", None), ("break", "failed", 404)])
def test_a_stream_ends_or_breaks(sandbox: Sandbox, end: str, state: str, code: int | None) -> None:
    task = over(sandbox, f"slices=2&end={end}")
    assert (task["state"], task["code"], task["slice_count"]) == (state, code, 2)


def test_a_stream_can_break_with_any_code(sandbox: Sandbox) -> None:
    assert over(sandbox, "slices=1&end=break:405")["code"] == 405


def links(sandbox: Sandbox, segment: str, slices: int = 1) -> list[str]:
    """Return the links of a stream's slices."""
    task = over(sandbox, f"slices={slices}&segment={segment}")
    return [entry["Url"] for entry in task["slices"]]


def is_sound(answer: requests.Response) -> bool:
    with wave.open(io.BytesIO(answer.content)) as sound:
        return answer.status_code == 200 and sound.getnframes() == 8000


def test_the_audio_of_every_slice_can_be_downloaded(sandbox: Sandbox) -> None:
    task = over(sandbox, "slices=3")
    sounds = [requests.get(entry["Url"], timeout=5) for entry in task["slices"]]
    assert all(map(is_sound, sounds))
    assert {sound.headers["Content-Type"] for sound in sounds} == {"audio/wav"}
    assert len({sound.content for sound in sounds}) == 3
    assert sandbox.task(task["task_id"])["answers"]["Segment"] == {"200": 3}


def test_a_segment_can_be_missing_at_first_or_always(sandbox: Sandbox) -> None:
    one, other = links(sandbox, "503x2", slices=2)
    assert [requests.get(link, timeout=5).status_code for link in (one, one, one, other)] == [503, 503, 200, 503]
    [gone] = links(sandbox, "404")
    assert [requests.get(gone, timeout=5).status_code for _ in range(3)] == [404] * 3
    assert sandbox.ledger()["answers"]["Segment"] == {"200": 1, "404": 3, "503": 3}


def test_a_segment_can_be_no_sound_at_all(sandbox: Sandbox) -> None:
    [link] = links(sandbox, "html")
    answer = requests.get(link, timeout=5)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_a_segment_can_be_elsewhere(sandbox: Sandbox) -> None:
    [link] = links(sandbox, "redirect")
    assert requests.get(link, timeout=5, allow_redirects=False).status_code == 302
    assert is_sound(requests.get(link, timeout=5))


def test_a_segment_can_be_so_slow_that_only_the_whole_wait_tells(sandbox: Sandbox) -> None:
    [quick] = links(sandbox, "slow:0")
    assert is_sound(requests.get(quick, timeout=5))
    [slow] = links(sandbox, "slow:86400")
    with requests.get(slow, timeout=5, stream=True) as answer:
        assert answer.status_code == 200
        assert int(answer.headers["Content-Length"]) > 8000


def test_a_segment_can_be_huge_and_not_say_so(sandbox: Sandbox) -> None:
    [link] = links(sandbox, "huge:3")
    assert len(requests.get(link, timeout=5).content) > 3_000_000
    [endless] = links(sandbox, "huge")
    with requests.get(endless, timeout=5, stream=True) as answer:
        assert "Content-Length" not in answer.headers
        assert len(answer.raw.read(5_000_000)) == 5_000_000
    assert sandbox.get("/sandbox/ledger")  # nobody read the rest, and all goes on
