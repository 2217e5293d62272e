"""A sandbox and a receiver of callbacks in a loop of their own, and the vendor's SDKs beside them."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import requests
from darabonba.core import DaraCore

from webhook.sandbox.server import RunningSandbox, SandboxConfig, start

from .receiver import Receiver
from .vendor import Vendor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

# Quick enough for tests, slow enough that a submit is answered before its callback goes out.
QUICK: dict[str, Any] = {"port": 0, "moderation_delay_seconds": 0.05, "resend_interval_seconds": 0.02}


class LoopThread:
    """An event loop that runs in a thread, so that tests and the SDK can block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.faults: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _, fault: self.faults.append(fault))
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=15)

    def close(self) -> None:
        left = self.run(self._left())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        assert not left, f"still running after the stop: {left}"
        assert not self.faults

    @staticmethod
    async def _left() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - {asyncio.current_task()}


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A running sandbox as a test sees it: over HTTP, and by the vendor's SDK."""

    running: RunningSandbox
    vendor: Vendor

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.running.port}"

    def get(self, path: str) -> requests.Response:
        answer = requests.get(f"{self.url}{path}", timeout=5)
        assert answer.status_code == 200, answer.text
        return answer

    def tasks(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.get("/sandbox/tasks").json()["items"]
        return items

    def task(self, task_id: str) -> dict[str, Any]:
        task: dict[str, Any] = self.get(f"/sandbox/tasks/{task_id}").json()
        return task

    def control(self, **changes: Any) -> requests.Response:
        return requests.patch(f"{self.url}/sandbox/control", json=changes, timeout=5)

    def ledger(self) -> dict[str, Any]:
        totals: dict[str, Any] = self.get("/sandbox/ledger").json()
        return totals


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    # the SDK honours http_proxy even for loopback
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _close_sdk() -> Iterator[None]:
    """Close the connections that the SDK keeps for ever, and take its DEBUG handler away."""
    logging.getLogger("darabonba-core").handlers.clear()
    yield
    while DaraCore._sessions:
        DaraCore._sessions.popitem()[1].close()


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def start_sandbox(loop: LoopThread) -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes with other settings than the quick ones; `clock` is the wall clock's stand-in."""
    running: list[RunningSandbox] = []

    def start_one(*, clock: Callable[[], float] | None = None, **settings: Any) -> Sandbox:
        config = SandboxConfig(**{**QUICK, **settings})
        one = loop.run(start(config) if clock is None else start(config, clock=clock))
        running.append(one)
        return Sandbox(running=one, vendor=Vendor(f"127.0.0.1:{one.port}"))

    yield start_one
    for one in running:
        loop.run(one.stop())


@pytest.fixture
def sandbox(start_sandbox: Callable[..., Sandbox]) -> Sandbox:
    return start_sandbox()


@pytest.fixture
def receiver(loop: LoopThread) -> Iterator[Receiver]:
    one = Receiver()
    loop.run(one.start())
    yield one
    loop.run(one.stop())
