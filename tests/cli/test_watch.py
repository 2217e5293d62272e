"""`webhook watch`: a stream of the sandbox's, watched while it goes on and when it is over."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients import ADMIN_KEY
from tests.running import environment
from tests.signed import checksum, content, piece
from tests.waiting import until
from webhook.cli.client import Client
from webhook.cli.following import NewSlices, slices_path
from webhook.cli.watch import _times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import RunCommand
    from tests.running import Running

_numbers = itertools.count()
ROOM = "rtmp://127.0.0.1/live/{}?risk=medium&slices=4&flagged=1&interval=0.1"


@pytest.fixture
def room() -> str:
    return f"cli-room-{next(_numbers)}"


@pytest.fixture
def over(watched: Running, room: str) -> Any:
    """A stream that is over."""
    task = watched.made("/v1/streams", {"url": ROOM.format(room), "live_id": room})
    return until(lambda: found if (found := shown(watched, task))["state"] == "completed" else None, seconds=30)


def shown(service: Running, task: Any) -> Any:
    return service.shown(f"/v1/streams/{task['id']}")


def test_a_stream_is_shown_from_its_start_to_its_end(webhook: RunCommand, watched: Running, room: str) -> None:
    url = ROOM.format(room) + "&end=finish"
    status, out, err = webhook(
        "submit", url, "--live-id", room, "--timeout", "60", WEBHOOK_API_URL=watched.url, TZ="UTC"
    )
    assert status == 10, err
    lines = out.splitlines()
    assert re.fullmatch(r"started \d\d:\d\d:\d\d", lines[0])
    slices = [line for line in lines if re.match(r"\d\d:\d\d:\d\d\.\d-\d\d:\d\d:\d\d\.\d  ", line)]
    assert [line.split()[1] for line in slices] == ["medium", "none", "none", "none"]
    assert "political_entity" in slices[0]
    assert slices == sorted(slices)
    assert re.fullmatch(r"ended [\d:]{8}: completed, medium → review, 4 slices, 1 flagged", lines[-1])
    assert "\x1b" not in out


def test_json_is_one_object_a_line(webhook: RunCommand, watched: Running, room: str) -> None:
    task = watched.made("/v1/streams", {"url": ROOM.format(room) + "&end=never", "live_id": room})
    until(lambda: shown(watched, task)["silent_since"], seconds=30)
    watched.delete(f"/v1/streams/{task['id']}")
    until(lambda: shown(watched, task)["state"] == "canceled")
    status, out, err = webhook("watch", room, "--json", WEBHOOK_API_URL=watched.url)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["type"] for line in lines] == ["stream.started", *["slice"] * 4, "stream.ended"]
    assert {line["task_id"] for line in lines if line["type"] == "slice"} == {task["id"]}
    assert [line["slice"] for line in lines if line["type"] == "slice"] == watched.items(
        f"/v1/verdicts/{task['id']}/slices"
    )
    assert lines[-1]["task"] == shown(watched, task)


class Watching:
    """`webhook watch` as a process."""

    def __init__(self, service: Running, directory: Path, *arguments: str) -> None:
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "webhook", "watch", *arguments],
                env=environment(directory, WEBHOOK_API_URL=service.url),
                stdout=out,
                stderr=err,
            )

    @property
    def lines(self) -> list[str]:
        """What it has shown so far."""
        return self._out.read_text().splitlines()

    @property
    def said(self) -> str:
        """What it has said on standard error."""
        return self._err.read_text()


@pytest.fixture
def watching(watched: Running, tmp_path: Path) -> Iterator[Callable[..., Watching]]:
    """Watch a room; what is still there in the end is killed."""
    made: list[Watching] = []

    def start(*arguments: str) -> Watching:
        made.append(Watching(watched, tmp_path, *arguments))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()


def test_silence_is_told_when_it_comes_and_ctrl_c_ends_quietly(
    watched: Running, watching: Callable[..., Watching], room: str
) -> None:
    task = watched.made("/v1/streams", {"url": ROOM.format(room) + "&end=never", "live_id": room})
    watch = watching(room)
    until(lambda: [line for line in watch.lines if re.fullmatch(r"silent since \d\d:\d\d:\d\d", line)], seconds=30)
    assert watch.process.poll() is None
    watch.process.send_signal(signal.SIGINT)
    assert watch.process.wait(30) == 0
    assert watch.said == f"{room}: {task['id']}\n"
    assert not [line for line in watch.lines if "ended" in line]
    watched.delete(f"/v1/streams/{task['id']}")


def test_only_what_is_new_is_shown_where_that_is_wanted(webhook: RunCommand, watched: Running, over: Any) -> None:
    url = {"WEBHOOK_API_URL": watched.url}
    assert webhook("watch", over["live_id"], **url)[1].count("nonLabel") == 3
    status, out, _ = webhook("watch", over["live_id"], "--new-only", **url)
    assert status == 0
    assert "nonLabel" not in out
    assert "ended" in out


def test_the_active_stream_is_watched_or_else_the_last_one(
    webhook: RunCommand, watched: Running, over: Any, room: str
) -> None:
    again = watched.made("/v1/streams", {"url": ROOM.format(room) + "&end=never", "live_id": room})
    assert again["id"] != over["id"]
    watched.delete(f"/v1/streams/{again['id']}")
    until(lambda: shown(watched, again)["state"] == "canceled")
    status, _, err = webhook("watch", room, WEBHOOK_API_URL=watched.url)
    assert (status, err) == (0, f"{room}: {again['id']}\n")


def test_each_slice_is_read_once_also_those_that_come_late_and_those_beyond_a_page(running: Running) -> None:
    receiver = running.receiver()

    def callback(*starts: int, risk: str = "none") -> Any:
        body = content(*(piece(start, risk=risk) for start in starts), TaskId="cli-late", LiveId="cli-late")
        fields = {"checksum": checksum(body, seed=receiver["seed"]), "content": body}
        reply = running.post(receiver["callback_url"].removeprefix(running.url), fields, key="")
        assert reply.status == 200
        [task] = running.items("/v1/streams", live_id="cli-late")
        return task

    def starts(task: Any) -> list[int]:
        return [one["start_time"] for one in slices.read(task)]

    task = callback(*range(100, 2600, 10))
    slices = NewSlices(Client(running.url, ADMIN_KEY), task["id"])
    assert starts(task) == [*range(100, 2600, 10)]
    assert starts(task) == []
    assert starts(callback(2600)) == [2600]
    assert starts(callback(50, 2610)) == [2610, 50]
    assert starts(callback(2610, risk="high")) == [2610], "its risk has changed"
    assert len(running.items(slices_path(task["id"]))) == 253


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        (None, None, "0-10 s"),
        (1_700_000_000_000, None, "0-10 s"),
        (1_700_000_000_000, 1_700_000_010_000, "22:13:20-22:13:30"),
        (1_700_000_000_300, 1_700_000_000_600, "22:13:20.3-22:13:20.6"),
        (10**30, 10**30 + 5000, f"{10**30}-{10**30 + 5000} ms"),
    ],
)
def test_a_slice_s_time_is_told_whatever_the_platform_says(
    monkeypatch: pytest.MonkeyPatch, start: int | None, end: int | None, told: str
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    one = {"start_time": 0, "end_time": 10, "start_timestamp": start, "end_timestamp": end}
    assert _times(one) == told
