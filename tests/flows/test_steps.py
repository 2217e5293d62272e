"""kill -9 of the worker in the middle of each of its calls: after the lease the next one settles it, charged once."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import pytest
from typing_extensions import override

from tests import leases
from tests.flows.test_flows import events_of, over
from tests.platform import Platform
from tests.running import Command, Running, environment, run, sandbox_variables
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_numbers = itertools.count()

SETTINGS = {
    "WEBHOOK_POLL_DELAY_SECONDS": "1",
    "WEBHOOK_STREAM_POLL_SECONDS": "3600",
    "WEBHOOK_SUBMIT_OUTCOME_WAIT_SECONDS": "1",
}


class Apart(Running):
    """`webhook web` and `webhook worker` as two commands, so that the worker alone is killed and started."""

    @override
    def start(self, **variables: str) -> None:
        self.variables |= variables
        assert run(self.directory, "migrate", **self.variables).returncode == 0
        self.command = self._command("web")
        self.start_worker()
        until(self._is_ready, seconds=30)

    def start_worker(self) -> None:
        self.worker = self._command("worker")

    def _command(self, name: str) -> Command:
        return Command(name, env=environment(self.directory, **self.variables), log=self.directory / f"{name}.log")


class Valve:
    """Passes everything on to the sandbox, but for a request that it is to hold: its end does not come."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._word: bytes | None = None
        self._held = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def hold(self, word: bytes) -> None:
        """Hold the next request that has a word in its head."""
        self._held.clear()
        self._word = word

    def holds(self) -> bool:
        return self._held.is_set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if self._word is not None and self._word in data:
                    self._word = None
                    target.sendall(data[:-1])
                    self._held.set()
                    return  # and nothing is read from here any more
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def stage() -> Iterator[Platform]:
    with Platform() as one:
        yield one


@pytest.fixture(scope="module")
def valve(stage: Platform) -> Iterator[Valve]:
    with Valve(int(stage.url.rpartition(":")[2])) as one:
        yield one


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, valve: Valve) -> Iterator[Apart]:
    one = Apart(tmp_path_factory.mktemp("steps"), **sandbox_variables(valve.url), **SETTINGS)
    one.start()
    yield one
    assert (one.worker.stop(), one.command.stop()) == (0, 0), one.command.log


def kill_in_the_middle(service: Apart, stage: Platform, task: Any) -> None:
    """Kill the worker in a call for a task; the next one leaves that alone, and works on, until the lease is over."""
    [lease] = leases.held(service.directory)
    assert service.worker.stop(signal.SIGKILL) == -signal.SIGKILL
    before = service.shown(f"/v1/tasks/{task['id']}")["state"]
    service.start_worker()
    other = service.made("/v1/tasks", {"url": stage.source(f"none,n={next(_numbers)}.mp3")})
    assert over(service, other)["state"] == "completed"
    assert service.shown(f"/v1/tasks/{task['id']}")["state"] == before
    assert leases.held(service.directory) == [lease]
    leases.end(service.directory, [lease])


def submit(service: Apart, stage: Platform, magic: str) -> Any:
    return service.made("/v1/tasks", {"url": stage.source(f"{magic},n={next(_numbers)}.mp3")})


def register(service: Apart, stage: Platform, magic: str) -> Any:
    number = next(_numbers)
    source = stage.source(f"{magic},n={number}.m3u8")
    return service.made("/v1/streams", {"url": source, "live_id": f"room-{number}"})


def accepted(stage: Platform, task: Any) -> list[Any]:
    """Return what the sandbox accepted, and so charged, of a task."""
    return stage.tasks(task["source"]["url"])


def hangs(stage: Platform, task: Any, action: str) -> bool:
    """Whether a call about a task is left without an answer."""
    return any(each["answers"].get(action, {}).get("hang") for each in accepted(stage, task))


def files(directory: Path) -> list[Path]:
    return list(directory.glob("*.uploads/*"))


def test_an_upload_begins_again(service: Apart, stage: Platform, valve: Valve) -> None:
    valve.hold(b"PUT ")
    sound = stage.sample("high,slices=2.wav") + bytes(2**20)
    task = service.upload(("file", "talk.wav", sound), ("data_id", None, b"an-upload")).json
    until(valve.holds)
    kill_in_the_middle(service, stage, task)
    assert over(service, task)["state"] == "completed"
    assert [each["slice_count"] for each in stage.tasks_of("an-upload")] == [2]
    assert stage.ledger()["answers"]["PutObject"] == {"200": 1}
    until(lambda: not files(service.directory))
    assert events_of(service, task) == ["task.submitted", "slice.flagged", "task.completed"]


def test_a_submit_that_was_accepted_is_not_repeated(service: Apart, stage: Platform) -> None:
    task = submit(service, stage, "high,http=hang,callback=lost")
    until(lambda: hangs(stage, task, "VoiceModeration"))
    kill_in_the_middle(service, stage, task)
    after = over(service, task)
    assert (after["state"], after["error"]["reason"]) == ("failed", "submit_outcome_unknown")
    assert len(accepted(stage, task)) == 1
    assert events_of(service, task) == ["task.failed"]


def test_a_submit_that_never_went_out_is_not_repeated_either_since_nobody_knows(
    service: Apart, stage: Platform, valve: Valve
) -> None:
    valve.hold(b"VoiceModeration\r\n")
    task = submit(service, stage, "high")
    until(valve.holds)
    kill_in_the_middle(service, stage, task)
    after = over(service, task)
    assert (after["state"], after["error"]["reason"]) == ("failed", "submit_outcome_unknown")
    assert accepted(stage, task) == []


def test_a_submit_s_callback_completes_it_while_there_is_no_worker(service: Apart, stage: Platform) -> None:
    task = submit(service, stage, "high,slices=2,delay=1,http=hang")
    until(lambda: hangs(stage, task, "VoiceModeration"))
    assert service.worker.stop(signal.SIGKILL) == -signal.SIGKILL
    assert over(service, task)["state"] == "completed"
    service.start_worker()
    leases.end(service.directory, leases.held(service.directory))
    assert over(service, submit(service, stage, "none"))["state"] == "completed"
    assert len(accepted(stage, task)) == 1
    assert events_of(service, task) == ["task.submitted", "slice.flagged", "task.completed"]


def test_an_upload_s_submit_is_not_repeated(service: Apart, stage: Platform) -> None:
    sound = stage.sample("high,http=hang,callback=lost.wav")
    task = service.upload(("file", "talk.wav", sound), ("data_id", None, b"a-submit")).json
    until(lambda: any(each["answers"]["VoiceModeration"] == {"hang": 1} for each in stage.tasks_of("a-submit")))
    kill_in_the_middle(service, stage, task)
    after = over(service, task)
    assert (after["state"], after["error"]["reason"]) == ("failed", "submit_outcome_unknown")
    assert len(stage.tasks_of("a-submit")) == 1
    until(lambda: not files(service.directory))


def test_a_stream_s_submit_is_repeated_and_finds_the_one_that_runs(service: Apart, stage: Platform) -> None:
    task = register(service, stage, "none,http=hangx1,callback=lost,end=never")
    until(lambda: hangs(stage, task, "VoiceModeration"))
    kill_in_the_middle(service, stage, task)
    after = until(lambda: found if (found := service.shown(f"/v1/tasks/{task['id']}"))["platform_task_id"] else None)
    [running] = accepted(stage, task)
    assert (after["state"], after["platform_task_id"]) == ("processing", running["task_id"])
    assert running["answers"]["VoiceModeration"] == {"hang": 1, "200": 1}
    assert service.delete(f"/v1/streams/{task['id']}").status == 202
    assert over(service, task)["state"] == "canceled"


def test_a_query_is_repeated(service: Apart, stage: Platform) -> None:
    task = submit(service, stage, "high,slices=2,callback=lost,query_http=hangx1")
    until(lambda: hangs(stage, task, "VoiceModerationResult"))
    kill_in_the_middle(service, stage, task)
    after = over(service, task)
    assert (after["state"], after["slice_count"]) == ("completed", 2)
    [known] = accepted(stage, task)
    assert known["answers"]["VoiceModerationResult"] == {"hang": 1, "200": 1}
    assert events_of(service, task) == ["task.submitted", "slice.flagged", "task.completed"]


@pytest.mark.parametrize("when", ["before the platform heard of it", "after it"])
def test_a_cancel_is_repeated(service: Apart, stage: Platform, valve: Valve, when: str) -> None:
    heard = when == "after it"
    task = register(service, stage, "none,interval=0.1,end=never" + (",query_http=hangx1" if heard else ""))
    until(lambda: service.shown(f"/v1/tasks/{task['id']}")["platform_task_id"])
    if not heard:
        valve.hold(b"VoiceModerationCancel")
    assert service.delete(f"/v1/streams/{task['id']}").status == 202
    until((lambda: hangs(stage, task, "VoiceModerationResult")) if heard else valve.holds)
    [known] = accepted(stage, task)
    assert known["state"] == ("canceled" if heard else "running")
    kill_in_the_middle(service, stage, task)
    assert over(service, task)["state"] == "canceled"
    [known] = accepted(stage, task)
    assert known["state"] == "canceled"
    assert events_of(service, task).count("task.canceled") == 1
