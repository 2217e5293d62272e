"""The sandbox in an event loop of its own, and what it tells of itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

import requests

from webhook.sandbox.server import SandboxConfig, start

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Platform:
    """A running sandbox; a context manager.

    Args:
        settings: of `SandboxConfig`; by default it is quick, and patient with a service that is away.
    """

    def __init__(self, **settings: Any) -> None:
        quick: dict[str, Any] = {"port": 0, "moderation_delay_seconds": 0.05, "resend_interval_seconds": 0.1}
        self._config = SandboxConfig(**quick | settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox")

    def __enter__(self) -> Self:
        self._thread.start()
        self._sandbox = self._run(start(self._config))
        self.url = self._sandbox.url
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._sandbox.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def source(self, name: str) -> str:
        """Return the URL of a file or stream; its name chooses the outcome (`webhook sandbox --magic`)."""
        return f"{self.url}/samples/{name}"

    def sample(self, name: str) -> bytes:
        """Return an audio file whose bytes choose its outcome as its name does, for uploading it."""
        return self._got(f"/samples/{name}").content

    def control(self, **settings: Any) -> None:
        """Change how it behaves while it runs."""
        with requests.Session() as session:
            session.trust_env = False
            session.patch(self.url + "/sandbox/control", json=settings, timeout=30).raise_for_status()

    def tasks(self, source: str) -> list[Any]:
        """Return what was accepted of a source, the newest first."""
        return [task for task in self._shown("/sandbox/tasks")["items"] if task["parameters"].get("url") == source]

    def tasks_of(self, data_id: str) -> list[Any]:
        """Return what was accepted under a `data_id`, as an upload is, whose source is not known before."""
        return list(self._shown(f"/sandbox/tasks?data_id={data_id}")["items"])

    def all_tasks(self) -> list[Any]:
        """Return everything that was accepted, with its slices."""
        return list(self._shown("/sandbox/tasks?slices=true")["items"])

    def ledger(self) -> Any:
        """Return what was accepted, answered and called back."""
        return self._shown("/sandbox/ledger")

    def _shown(self, path: str) -> Any:
        return self._got(path).json()

    def _got(self, path: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(self.url + path, timeout=30)
            answer.raise_for_status()
            return answer
