"""`webhook verdicts`: a list with the API's filters, and one verdict with its timeline."""

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

from tests.running import environment
from tests.waiting import until
from webhook.cli import client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import RunCommand
    from tests.platform import Platform
    from tests.running import Running

MARK = "cli-verdicts"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def tasks(running: Running, platform: Platform) -> list[Any]:
    """Three files that are moderated, the newest last: high, medium, none."""

    def moderated(name: str) -> Any:
        source = platform.source(f"{name},n={MARK}-{next(_numbers)}.mp3")
        task = running.made("/v1/tasks", {"url": source, "data_id": MARK})
        return until(
            lambda: found if (found := running.shown(f"/v1/tasks/{task['id']}"))["state"] == "completed" else None
        )

    return [moderated(name) for name in ("high,label=political_entity+customized", "medium,slices=30", "none")]


def listed(out: str) -> list[str]:
    """Return the ids in lines of fields."""
    return [line.split("\t")[6] for line in out.splitlines()]


def test_each_verdict_is_a_line_of_fields_the_newest_first(ask: RunCommand, tasks: list[Any]) -> None:
    status, out, err = ask("verdicts", "--data-id", MARK)
    assert (status, err) == (0, "")
    assert listed(out) == [task["id"] for task in reversed(tasks)]
    time, *fields = out.splitlines()[-1].split("\t")
    assert re.fullmatch(r"[-\d]{10}T[:.\d]+Z", time)
    assert fields[:5] == ["high", "block", "audio", "completed", "1/3"]
    assert fields[6].endswith(".mp3")
    assert {"political_entity", "customized"} <= set(fields[7].split(", "))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--risk-level", "high,medium"], [1, 0]),
        (["--action", "review"], [1]),
        (["--label", "custom*"], [0]),
        (["--kind", "live"], []),
        (["--kind", "audio", "--limit", "2"], [2, 1]),
        (["--service", "nobody_s"], []),
        (["--live-id", "nobody-s"], []),
        (["--since", "2999-01-01T00:00:00Z"], []),
        (["--until", "2999-01-01T00:00:00Z", "--since", "2001-01-01T00:00:00Z"], [2, 1, 0]),
    ],
)
def test_the_filters_are_the_api_s(ask: RunCommand, tasks: list[Any], filters: list[str], expected: list[int]) -> None:
    status, out, err = ask("verdicts", "--data-id", MARK, *filters)
    assert (status, err) == (0, "")
    assert listed(out) == [tasks[index]["id"] for index in expected]


def test_json_is_the_api_s_verdict_a_line(
    ask: RunCommand, running: Running, tasks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PAGE_ITEMS", 2)
    status, out, err = ask("verdicts", "--data-id", MARK, "--json", "--limit", "3")
    assert (status, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        running.shown(f"/v1/verdicts/{task['id']}") for task in reversed(tasks)
    ]


def test_one_is_shown_with_its_timeline(ask: RunCommand, running: Running, tasks: list[Any]) -> None:
    task_id = tasks[1]["id"]
    status, out, err = ask("verdicts", task_id)
    assert (status, err) == (0, "")
    assert "medium → review" in out
    assert len(re.findall("░{3,}", out)) == 29, "a block for each slice that is clean"
    assert max(map(len, out.splitlines())) <= 80
    status, out, _ = ask("verdicts", task_id, "--json")
    assert status == 0
    shown = json.loads(out)
    assert shown.pop("slices") == running.items(f"/v1/verdicts/{task_id}/slices")
    assert shown == running.shown(f"/v1/verdicts/{task_id}")


def test_hours_of_slices_are_shown_at_a_glance(ask: RunCommand, running: Running, platform: Platform) -> None:
    source = platform.source(f"high,slices=400,flagged=30,n={MARK}-{next(_numbers)}.mp3")
    task = running.made("/v1/tasks", {"url": source})
    until(lambda: running.shown(f"/v1/tasks/{task['id']}")["state"] == "completed")
    out = ask("verdicts", task["id"])[1]
    assert "slice by slice, 7 in a block, in seconds, from an hour on in h:mm:ss" in out
    assert len(re.findall("█{3,}", out)) == 5, "30 flagged slices, 7 in a block"
    assert f"and 10 more: webhook verdicts {task['id']} --json" in out
    assert len(out.splitlines()) < 80


def test_one_that_failed_is_shown_with_its_reason(ask: RunCommand, running: Running, platform: Platform) -> None:
    task = running.made("/v1/tasks", {"url": platform.source(f"404,n={MARK}-{next(_numbers)}.mp3")})
    until(lambda: running.shown(f"/v1/tasks/{task['id']}")["state"] == "failed")
    status, out, err = ask("verdicts", task["id"])
    assert status == 0
    assert "no result yet" in out
    assert "could not download the source" in err


def test_filters_do_not_go_with_one(ask: RunCommand) -> None:
    status, out, err = ask("verdicts", "task_1", "--data-id", "x")
    assert (status, out) == (1, "")
    assert "--data-id filters a list" in err


def test_a_terminal_gets_a_table_in_its_width(running: Running, tasks: list[Any], tmp_path: Path) -> None:
    def shown(*filters: str) -> str:
        terminal, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "webhook", "verdicts", "--data-id", MARK, *filters],
            env=environment(tmp_path, WEBHOOK_API_URL=running.url, TERM="xterm-256color", COLUMNS="80"),
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        text = b""
        with os.fdopen(terminal, "rb", buffering=0) as screen:
            try:
                while piece := screen.read(65536):
                    text += piece
            except OSError:  # the other side is closed: the end of a terminal
                pass
        assert process.wait(30) == 0, text
        return text.decode()

    table = shown()
    assert "\x1b[1;31mhigh" in table
    plain = re.sub(r"\x1b\[[0-9;]*m", "", table)
    assert max(map(len, plain.splitlines())) <= 80
    for task in tasks:
        assert task["id"] in plain
    assert "3 in all." in plain
    assert "The newest 1; --limit shows more." in shown("--limit", "1")
    assert "No verdict fits." in shown("--kind", "live")
