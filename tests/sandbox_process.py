"""The sandbox as a process of its own, as `webhook sandbox` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from typing_extensions import override

from tests.platform import Platform
from tests.running import Command, environment
from tests.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


class SandboxProcess(Platform):
    """A running sandbox; a context manager.

    Args:
        directory: where its log lies.
        settings: its options, `time_scale=2` for `--time-scale 2`.
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        self._directory = directory
        self._words = [str(word) for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]

    @override
    def __enter__(self) -> Self:
        words = ("sandbox", "--port", "0", *self._words)
        self._command = Command(*words, env=environment(self._directory), log=self._directory / "sandbox.log")
        self.url = until(self._told_url, seconds=30)
        return self

    def pids(self) -> list[int]:
        """Return the pids of its processes."""
        return self._command.pids()

    def _told_url(self) -> str | None:
        assert self._command.is_alive(), self._command.log
        told = [line for line in self._command.log.splitlines() if line.startswith("sandbox: ")]
        return told[0].removeprefix("sandbox: ") if told else None

    @override
    def __exit__(self, *_: object) -> None:
        self._command.stop()
