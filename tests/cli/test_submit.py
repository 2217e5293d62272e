"""`webhook submit`: to the real service, whose platform is the sandbox; and through a connection that breaks."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.cli.stub import PROBLEM, answers, cuts
from tests.running import environment
from webhook.cli.following import standing
from webhook.cli.submit import exit_status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import RunCommand
    from tests.cli.stub import Got, Stub
    from tests.platform import Platform
    from tests.running import Running

_numbers = itertools.count()


@pytest.fixture
def submit(ask: RunCommand) -> RunCommand:
    """Submit something to `running`, or to where the variables say; a verdict that does not come ends the waiting."""
    return lambda *arguments, **variables: ask("submit", "--timeout", "60", *arguments, **variables)


@pytest.fixture
def source(platform: Platform) -> Callable[[str], str]:
    """Return the URL of a file of its own, whose name chooses its fate."""
    return lambda name: platform.source(name.replace(".mp3", f",n=cli-{next(_numbers)}.mp3"))


@pytest.fixture
def talk(platform: Platform, tmp_path: Path) -> Path:
    """A file of the sandbox's: of high risk, wherever it goes."""
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(platform.source("high,slices=4,flagged=1.mp3"), timeout=30)
    path = tmp_path / 'höre "dies".mp3'
    path.write_bytes(answer.content)
    return path


def submitted(err: str) -> str:
    """Return the id that was told."""
    found = re.search(r"^submitted: (\S+)$", err, re.MULTILINE)
    assert found, err
    return found[1]


@pytest.mark.parametrize(("risk", "expected"), [("none", 0), ("low", 0), ("medium", 10), ("high", 20)])
def test_the_exit_status_is_the_risk_level_s(
    submit: RunCommand, running: Running, source: Callable[[str], str], risk: str, expected: int
) -> None:
    status, out, err = submit(source(f"{risk},slices=3.mp3"), "--data-id", f"cli-{risk}")
    assert status == expected, err
    task = running.shown(f"/v1/tasks/{submitted(err)}")
    assert task["data_id"] == f"cli-{risk}"
    assert re.search(rf"^ *risk → action +{risk} → {task['action']} *$", out, re.MULTILINE)
    assert re.search(r"^ *0 +10 +20 *$", out, re.MULTILINE), "the timeline's axis"
    assert "\x1b" not in out + err


@pytest.mark.parametrize(
    ("state", "risk", "expected"),
    [
        ("queued", None, 40),
        ("processing", "high", 40),
        ("completed", None, 40),
        ("completed", "purple", 10),
        ("failed", None, 30),
        ("expired", None, 30),
        ("canceled", "high", 30),
    ],
)
def test_what_is_no_clean_verdict_is_no_exit_status_0(state: str, risk: str | None, expected: int) -> None:
    assert exit_status({"state": state, "risk_level": risk}) == expected


def test_a_file_is_uploaded_and_its_verdict_shown(submit: RunCommand, running: Running, talk: Path) -> None:
    status, out, err = submit(str(talk), "--crypt-type", "SM3", "--referer", "https://example.com/ä")
    assert status == 20, err
    task = running.shown(f"/v1/tasks/{submitted(err)}")
    size = talk.stat().st_size
    assert task["source"]["file"]["size"] == size
    assert (task["crypt_type"], task["referer"]) == ("SM3", "https://example.com/ä")
    assert task["slice_count"] == 4, "the platform got these bytes: what they ask for is in them"
    assert "höre" in out
    assert re.search(r"0-10 s +high +political_entity", out)


def test_a_task_that_fails_is_told_with_its_reason(submit: RunCommand, source: Callable[[str], str]) -> None:
    status, out, err = submit(source("404.mp3"))
    assert (status, out) == (30, "")
    assert re.search(r"^webhook: task_\w+ failed: The platform could not download the source", err, re.MULTILINE)


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"state": "queued", "queue_position": None, "slice_count": 0}, "queued"),
        ({"state": "queued", "queue_position": 1, "slice_count": 0}, "queued"),
        ({"state": "queued", "queue_position": 4, "slice_count": 0}, "queued, 3 before it"),
        ({"state": "processing", "queue_position": None, "slice_count": 0}, "processing"),
        ({"state": "processing", "queue_position": None, "slice_count": 7}, "processing, 7 slices so far"),
    ],
)
def test_it_is_told_how_a_task_stands(task: dict[str, Any], told: str) -> None:
    assert standing(task) == told


def test_what_keeps_a_task_queued_is_told_once(submit: RunCommand, stub: Stub) -> None:
    error = {"code": 408, "reason": "not_authorized", "message": "Activate the service."}
    task = {"id": "task_1", "source": {"url": "http://x/a.mp3"}, "queue_position": 2, "slice_count": 0, "error": None}
    queued = {**task, "state": "queued", "risk_level": None}
    over = {**task, "state": "failed", "risk_level": None}
    verdict = {"task_id": "task_1", "risk_level": None}
    trouble = answers(200, {**queued, "error": error})
    stub.will(answers(201, queued), answers(200, queued), trouble, trouble, answers(200, over), answers(200, verdict))
    status, out, err = submit("http://x/a.mp3", WEBHOOK_API_URL=stub.url)
    assert (status, out) == (30, "")
    assert err.count("Activate the service.") == 1
    assert err.count("queued, 1 before it") == 2


def test_when_the_time_is_over_the_task_goes_on(
    submit: RunCommand, running: Running, source: Callable[[str], str]
) -> None:
    status, out, err = submit(source("high.mp3") + "?delay=600", "--timeout", "0")
    assert (status, out) == (40, "")
    assert f"`webhook verdicts {submitted(err)}` shows it later" in err
    assert running.shown(f"/v1/tasks/{submitted(err)}")["state"] != "canceled"


def test_who_does_not_wait_gets_the_id_alone(
    submit: RunCommand, running: Running, source: Callable[[str], str]
) -> None:
    status, out, err = submit(source("high.mp3"), "--no-wait")
    assert (status, err) == (0, "")
    assert running.shown(f"/v1/tasks/{out.strip()}")["kind"] == "audio"
    status, out, err = submit(source("high.mp3"), "--no-wait", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["verdict"]["task_id"] == json.loads(out)["task"]["id"]


def test_json_is_the_api_s_task_and_verdict_in_one_line(
    submit: RunCommand, running: Running, source: Callable[[str], str]
) -> None:
    status, out, err = submit(source("medium.mp3"), "--json")
    assert (status, err) == (10, "")
    [line] = out.splitlines()
    shown = json.loads(line)
    assert shown.keys() == {"task", "verdict"}
    task_id = shown["task"]["id"]
    assert shown["task"] == running.shown(f"/v1/tasks/{task_id}")
    assert shown["verdict"] == running.shown(f"/v1/verdicts/{task_id}")


@pytest.mark.usefixtures("_no_pauses")
def test_an_answer_that_is_lost_on_the_way_does_not_submit_twice(
    submit: RunCommand, running: Running, stub: Stub, talk: Path
) -> None:
    def forward(got: Got) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                got.method, running.url + got.path, headers=dict(got.headers.items()), data=got.body, timeout=60
            )

    def passes(handler: Any, got: Got) -> None:
        answer = forward(got)
        handler.send_response(answer.status_code)
        handler.send_header("Content-Type", answer.headers.get("Content-Type", PROBLEM))
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        handler.wfile.write(answer.content)

    stub.will(cuts(forward), cuts(forward), passes)
    status, _, err = submit(str(talk), "--data-id", "cli-lost", WEBHOOK_API_URL=stub.url)
    assert status == 20, err
    assert [got.method for got in stub.got[:4]] == ["POST", "POST", "POST", "GET"]
    [task] = running.items("/v1/tasks", data_id="cli-lost")
    assert task["id"] == submitted(err)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.mp3"], "No such file"),
        (["rtmp://127.0.0.1/live/1"], "--live-id"),
        (["a.mp3", "--live-id", "room"], "--live-id"),
        (["a.mp3", "--crypt-type", "MD5"], "--crypt-type"),
        ([], "FILE|URL"),
    ],
)
def test_wrong_usage_is_exit_status_1(submit: RunCommand, arguments: list[str], says: str) -> None:
    status, out, err = submit(*arguments)
    assert (status, out) == (1, "")
    assert says in err
    assert "Traceback" not in err


def test_the_help_tells_the_exit_statuses(webhook: RunCommand) -> None:
    status, out, _ = webhook("submit", "--help")
    assert status == 0
    assert [int(number) for number in re.findall(r"^ +(\d+)  \S", out, re.MULTILINE)] == [0, 10, 20, 30, 40, 1]


def test_a_terminal_gets_bars_and_colours(running: Running, talk: Path, tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "webhook", "submit", str(talk), "--timeout", "60"],
        env=environment(tmp_path, WEBHOOK_API_URL=running.url, TERM="xterm-256color", COLUMNS="80"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        shown = b""
        try:
            while piece := screen.read(65536):
                shown += piece
        except OSError:  # the other side is closed: the end of a terminal
            pass
        assert process.wait(30) == 20, shown
    text = shown.decode()
    assert "━" in text
    size = talk.stat().st_size / 1000
    assert f"{size:.1f}/{size:.1f} kB" in text
    assert "\x1b[31m█" in text
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown again"
