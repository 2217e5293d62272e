"""The real thing: `webhook serve` as a process, the sandbox that it calls, a subscriber that it delivers to."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests import databases
from tests.clients import ADMIN_KEY, NO_KEY, HttpClient
from tests.signed import UID
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENCRYPTION_KEYS = f"k1:{base64.b64encode(bytes(range(32))).decode()}"
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
_STOP_SECONDS = 30


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def environment(directory: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a command that works in a directory; nothing of ours leaks in."""
    return {name: value for name, value in os.environ.items() if name in _INHERITED} | {
        "WEBHOOK_DATABASE_URL": databases.url_of(directory),
        **databases.directories(directory),
        "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "WEBHOOK_ADMIN_KEY": ADMIN_KEY,
        "WEBHOOK_PLATFORM_UID": UID,
        "WEBHOOK_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        **variables,
    }


def tracing() -> dict[str, str]:
    """Return the variables by which a command's processes count for coverage, where it is measured: they are slow."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}


def sandbox_variables(url: str) -> dict[str, str]:
    """Return the settings that point at a sandbox."""
    return {
        "WEBHOOK_PLATFORM_ENDPOINT": url,
        "ALIBABA_CLOUD_ACCESS_KEY_ID": "sandbox",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "sandbox-secret",
    }


def run(
    directory: Path, *arguments: str, under: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of `webhook` to its end, under another command perhaps."""
    return subprocess.run(
        [*under, sys.executable, "-m", "webhook", *arguments],
        env=environment(directory, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Command:
    """A command of `webhook` that goes on until it is told to stop; its log is a file.

    Args:
        module: what is run in place of `webhook`, with arguments of its own.
    """

    def __init__(
        self, *arguments: str, env: Mapping[str, str], log: Path, module: Sequence[str] = ("webhook",)
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *module, *arguments], env=dict(env), stdout=output, stderr=output
            )
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """Return its own pid and those of its children and theirs."""
        found = [self.pid]
        for pid in found:
            found += children(pid)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop, and return its exit status."""
        if self.is_alive():
            self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return its exit status once it has ended."""
        return self._process.wait(_STOP_SECONDS)

    def kill(self) -> list[int]:
        """End every process of it by SIGKILL, as a machine that loses its power does; return their pids."""
        pids = self.pids() if self.is_alive() else []  # the pid of one that has ended may be another's by now
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        until(lambda: not any(map(is_running, pids)))
        return pids


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, none where it has ended."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def web_and_worker(pid: int) -> tuple[int, int]:
    """Return the pids of the web process and of the worker process of a `webhook serve`, once both are there."""

    def look() -> tuple[int, int] | None:
        with suppress(KeyError, OSError):  # one has just ended
            alive = filter(is_running, children(pid))
            found = {Path(f"/proc/{child}/comm").read_text().strip(): child for child in alive}
            return found["webhook-web"], found["webhook-worker"]
        return None

    return until(look)


def is_running(pid: int) -> bool:
    """Return whether there is such a process, dead ones that nobody has waited for aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Running(HttpClient):
    """`webhook serve` and a client of it.

    Args:
        directory: where the database and the log are.
        module: what is run in place of `webhook`, with arguments of its own.
        variables: settings beside those of `environment`.
    """

    def __init__(self, directory: Path, *, module: Sequence[str] = ("webhook",), **variables: str) -> None:
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}")
        self.directory = directory
        self._module = module
        self.variables: dict[str, str] = {
            "WEBHOOK_BIND": f"127.0.0.1:{port}",
            "WEBHOOK_PUBLIC_URL": self.url,
            **variables,
        }
        self.command: Command

    def start(self, **variables: str) -> None:
        """Start it, with other settings perhaps, and wait until it takes callbacks."""
        self.variables |= variables
        self.launch()
        until(self._is_ready, seconds=30)

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        env = environment(self.directory, **self.variables)
        self.command = Command("serve", env=env, log=self.directory / "log", module=self._module)

    def _is_ready(self) -> bool:
        assert self.command.is_alive(), self.command.log
        try:
            reply = self.get("/readyz", key=NO_KEY)
        except OSError:
            return False
        return reply.status == 200 and reply.json["dependencies"]["worker"] == "ok"
