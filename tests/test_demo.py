"""The demo, as somebody sees it who has just installed the package: from an empty directory, without credentials."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import requests
from rich.console import Console

from tests.databases import once
from tests.running import environment, tracing
from webhook import demo
from webhook.demo import service
from webhook.demo.service import DemoFailed
from webhook.demo.subscriber import Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = once  # its database is its own

DEMO = (sys.executable, "-m", "webhook", "demo")
URL = re.compile(r"http://127\.0\.0\.1:(\d+)")
# two are of a real service's settings, which the demo must not see
SETTINGS = {"WEBHOOK_BIND": "nonsense", "ALIBABA_CLOUD_ACCESS_KEY_ID": "real", "http_proxy": "http://127.0.0.1:1"}


class Place:
    """An empty directory to run the demo in, and another for what it keeps meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.here = directory / "here"
        self.temporary = directory / "temporary"
        self.here.mkdir()
        self.temporary.mkdir()
        self.env = {**environment(directory), **SETTINGS, "TMPDIR": str(self.temporary), **tracing()}

    def start(self, *options: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*DEMO, *options], cwd=self.here, env=self.env, stdout=stdout, stderr=subprocess.STDOUT, text=True
        )

    def assert_nothing_is_left(self, output: str) -> None:
        """Assert that the files are gone, and that nobody listens where somebody listened."""
        assert not list(self.here.iterdir())
        assert not list(self.temporary.iterdir())
        ports = {int(port) for port in URL.findall(output)}
        assert ports
        for port in ports:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0, f"somebody still listens on {port}"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Leave no process behind when a test fails."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def test_the_demo_goes_its_whole_way_and_leaves_nothing_behind(place: Place) -> None:
    process = place.start()
    with ended(process):
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "\x1b" not in output
    steps = [
        "ready in",
        "POST /v1/tasks: task_",
        "by the platform in",
        "checksum right",
        "high → block, 3 of 10 slices flagged",
        "slice.flagged   signature ok",
        "task.completed  signature ok",
        "A callback that never comes",
        "POST /v1/tasks: task_",
        "by a query, 2 s after the submit: medium → review",
        "task.completed  signature ok",
        "POST /v1/streams: task_",
        "callback 8 ",
        "task.canceled   signature ok",
        "audio, completed",
        "live, canceled",
        "medium → review",
        "██████ ██████ ██████ ░░░░░░ ▒▒▒▒▒▒",
        "webhook demo --keep",
        "nothing is left behind",
    ]
    at: list[int] = []
    for step in steps:
        at.append(output.find(step, at[-1] + 1 if at else 0))
    assert -1 not in at, f"missing: {steps[at.index(-1)]}\n{output}"
    assert output.count("slice.flagged   signature ok") == 5
    assert max(map(len, output.splitlines())) <= 80
    place.assert_nothing_is_left(output)


def test_what_is_kept_running_takes_requests_until_ctrl_c(place: Place) -> None:
    terminal, theirs = pty.openpty()
    process = place.start("--keep", stdout=theirs)
    os.close(theirs)
    with ended(process), os.fdopen(terminal, "rb", buffering=0) as screen:
        shown = read_until(screen, "from now on")
        assert "\x1b[31m" in shown, "a terminal gets colours"
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        url, key = re.findall(r"^ *(?:URL|KEY)=(\S+)", plain, re.MULTILINE)
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                f"{url}/v1/verdicts", headers={"Authorization": f"Bearer {key}", "Connection": "close"}, timeout=30
            )
        assert len(answer.json()["items"]) == 3
        process.send_signal(signal.SIGINT)
        shown += read_until(screen, "nothing is left behind")
        assert process.wait(30) == 0
    place.assert_nothing_is_left(shown)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_stops_everything_without_a_traceback(place: Place, number: signal.Signals) -> None:
    process = place.start()
    with ended(process):
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if "subscriber" in line:  # the service has just been started
                process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert "Traceback" not in output
    assert "nothing is left behind" in output
    place.assert_nothing_is_left(output)


def read_until(screen: Any, text: str) -> str:
    """Read what a terminal shows until some text came."""
    shown = b""
    while text.encode() not in shown:
        shown += screen.read(65536)
    return shown.decode(errors="replace")


def test_a_service_that_ends_by_itself_ends_the_demo_with_a_sentence_and_its_last_words() -> None:
    console = Console(record=True, width=80)
    says = (sys.executable, "-c", "print('no disk'); raise SystemExit(3)")
    with pytest.raises(DemoFailed, match=r"^The service ended by itself, with status 3\.$"):
        demo.run(keep=False, console=console, serve=says)
    assert "service: no disk" in console.export_text()


def test_a_step_that_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = (sys.executable, "-c", "import signal; signal.pause()")
    monkeypatch.setattr(demo, "READY_WITHIN_SECONDS", 0.2)
    monkeypatch.setattr(service, "STOP_WITHIN_SECONDS", 5)
    message = r"^Waiting until the service is ready took longer than 0\.2 seconds\.$"
    with pytest.raises(DemoFailed, match=message):
        demo.run(keep=False, console=Console(record=True), serve=hangs)


def test_a_service_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    says_nothing_to_sigterm = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    monkeypatch.setattr(demo, "READY_WITHIN_SECONDS", 0.5)
    monkeypatch.setattr(service, "STOP_WITHIN_SECONDS", 0.1)
    with pytest.raises(DemoFailed):
        demo.run(keep=False, console=Console(record=True), serve=(sys.executable, "-c", says_nothing_to_sigterm))


def test_the_subscriber_refuses_a_signature_that_is_not_of_its_secret() -> None:
    async def post() -> tuple[int, bool]:
        subscriber = Subscriber()
        await subscriber.start()
        subscriber.secret = "whsec_c2VjcmV0"
        headers = {"webhook-id": "evt_1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA v1a,BBBB"}
        body = b'{"type": "task.completed", "data": {}}'
        async with (
            aiohttp.ClientSession() as session,
            session.post(subscriber.url, data=body, headers=headers) as answer,
        ):
            status = answer.status
        await subscriber.stop()
        return status, subscriber.receipts.get_nowait().genuine

    assert asyncio.run(post()) == (401, False)
