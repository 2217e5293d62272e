"""The program as a whole: what people see of it, how it starts and stops, and that it stands alone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import requests
from darabonba.exceptions import UnretryableException

from tests.waiting import until
from webhook.sandbox import tasks
from webhook.sandbox.server import MAGIC, SandboxConfig, start

from .vendor import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import LoopThread, Sandbox
    from .receiver import Receiver

URL = "http://example.com/talk.mp3"


def test_it_imports_nothing_of_the_service() -> None:
    script = (
        "import sys, webhook.sandbox.server; print(*sorted(m for m in sys.modules if m.split('.')[0] == 'webhook'))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "webhook.sandbox.server" in loaded
    assert [name for name in loaded if name != "webhook" and not name.startswith("webhook.sandbox")] == []


def test_the_whole_command_line_loads_no_server_of_it() -> None:
    script = "import sys, webhook.cli; print('aiohttp' in sys.modules, 'webhook.sandbox.server' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert loaded.split() == ["False", "False"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_says_its_address_and_stops_on_a_signal(number: signal.Signals) -> None:
    script = "from webhook.sandbox.server import SandboxConfig, run; run(SandboxConfig(port=0))"
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("sandbox: http://127.0.0.1:")
        assert requests.get(line.split()[1], timeout=5).status_code == 200
        process.send_signal(number)
        rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_the_page_lists_the_magic_inputs(sandbox: Sandbox) -> None:
    page = sandbox.get("/").text
    assert MAGIC in page
    assert sandbox.url in page


def test_samples_are_sounds(sandbox: Sandbox) -> None:
    answer = sandbox.get("/samples/high.mp3?slices=2")
    assert answer.headers["Content-Type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as sound:
        assert (sound.getnchannels(), sound.getnframes()) == (1, 8000)


def test_segments_exist_as_long_as_their_link_is_good(start_sandbox: Callable[..., Sandbox]) -> None:
    ahead = [0.0]
    sandbox = start_sandbox(clock=lambda: time.time() + ahead[0], public_url="http://sandbox.test/")
    live = sandbox.vendor.submit(service=LIVE, url="rtmp://x.test/endless?slices=1&interval=0.01")["Data"]["TaskId"]
    audio = sandbox.vendor.submit(url=URL)["Data"]["TaskId"]
    until(lambda: sandbox.vendor.query(live, service=LIVE)["Data"]["SliceDetails"])
    until(lambda: sandbox.vendor.query(audio)["Code"] == 200)
    shown = sandbox.vendor.query(live, service=LIVE)["Data"]["SliceDetails"][0]["Url"]
    assert shown == f"http://sandbox.test/segments/{live}/0.wav"
    there = f"http://{sandbox.address}/segments"
    assert requests.get(f"{there}/{live}/0.wav", timeout=5).content.startswith(b"RIFF")
    for missing in (f"{live}/1.wav", f"{audio}/0.wav", "unknown/0.wav"):
        assert requests.get(f"{there}/{missing}", timeout=5).status_code == 404
    ahead[0] = 1900
    assert requests.get(f"{there}/{live}/0.wav", timeout=5).status_code == 403


def test_the_ledger_counts_what_was_accepted_and_answered(sandbox: Sandbox, receiver: Receiver) -> None:
    sandbox.vendor.submit(url=URL, callback=receiver.url, seed="s")
    sandbox.vendor.submit(url="ftp://x.test/")
    sandbox.vendor.upload_token()
    requests.post(sandbox.url, timeout=5)
    receiver.next()
    totals = until(lambda: next((t for t in [sandbox.ledger()] if t["callbacks_acknowledged"]), None))
    assert totals == {
        "accepted": 1,
        "running_streams": 0,
        "answers": {
            "DescribeUploadToken": {"200": 1},
            "VoiceModeration": {"200": 1, "401": 1},
            "unknown": {"InvalidAction.NotFound": 1},
        },
        "callback_attempts": 1,
        "callbacks_acknowledged": 1,
        "faults": {},
    }


def test_tasks_are_listed_newest_first_with_what_was_asked(sandbox: Sandbox) -> None:
    ids = [sandbox.vendor.submit(url=URL, dataId=str(at), seed="shown")["Data"]["TaskId"] for at in range(3)]
    listed = sandbox.tasks()
    assert [task["task_id"] for task in listed] == ids[::-1]
    assert listed[0]["parameters"] == {"url": URL, "dataId": "2", "seed": "shown"}
    assert listed[0]["charged"] == 1
    assert listed[0]["submitted_at"].endswith("Z")
    assert requests.get(f"{sandbox.url}/sandbox/tasks/unknown", timeout=5).status_code == 404


def test_old_tasks_make_room(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAX_TASKS", 2)

    def submit(delay: int) -> str:
        task_id: str = sandbox.vendor.submit(url=f"{URL}?delay={delay}")["Data"]["TaskId"]
        return task_id

    running = submit(60)
    finished = submit(0)
    until(lambda: sandbox.task(finished)["state"] == "finished")
    others = [submit(60), submit(60)]
    assert {task["task_id"] for task in sandbox.tasks()} == {running, *others}


def test_a_port_in_use_is_said_so(sandbox: Sandbox, loop: LoopThread) -> None:
    with pytest.raises(OSError, match="in use"):
        loop.run(start(SandboxConfig(port=sandbox.running.port)))


@pytest.mark.parametrize(
    ("host", "seen"), [("0.0.0.0", "http://127.0.0.1:"), ("::1", "http://[::1]:"), ("localhost", "http://localhost:")]
)
def test_it_listens_where_it_is_told(start_sandbox: Callable[..., Sandbox], host: str, seen: str) -> None:
    sandbox = start_sandbox(host=host)
    assert sandbox.url.startswith(seen)
    assert sandbox.get("/").status_code == 200


def test_a_client_of_localhost_uploads_to_its_number(sandbox: Sandbox) -> None:
    # object storage SDKs put the bucket before a name (bucket.localhost), which resolves nowhere
    sandbox.vendor.client._endpoint = f"localhost:{sandbox.running.port}"
    assert sandbox.vendor.upload_token()["Data"]["OssInternetEndPoint"] == sandbox.url


def test_it_stops_with_everything_still_under_way(start_sandbox: Callable[..., Sandbox], receiver: Receiver) -> None:
    sandbox = start_sandbox(resend_interval_seconds=60)
    receiver.statuses.append(503)
    asks = {"callback": receiver.url, "seed": "s"}
    sandbox.vendor.submit(url=f"{URL}?delay=60")
    sandbox.vendor.submit(url=f"{URL}?delay=0", **asks)
    sandbox.vendor.submit(url=f"{URL}?delay=0&callback=late:60", **asks)
    sandbox.vendor.submit(service=LIVE, url="rtmp://x.test/endless", **asks)
    receiver.next()

    def hang() -> None:
        with suppress(UnretryableException):
            sandbox.vendor.submit(url=f"{URL}?http=hang")

    waiting = threading.Thread(target=hang)
    waiting.start()
    until(lambda: sandbox.ledger()["accepted"] == 5)
    # the fixtures stop it, and find nothing running and nothing complained of
