"""The service under test and all that it talks to, with a hand on everything between them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import requests

from tests.clients import NO_KEY
from tests.faults import launch
from tests.faults.proxy import Proxy
from tests.platform import Platform
from tests.running import Running, children, free_port, sandbox_variables
from tests.subscriber import Subscriber
from tests.waiting import until

if TYPE_CHECKING:
    import random
    import signal
    from collections.abc import Sequence

    from tests.postgres_server import PostgresServer

SUBSCRIBER_PATH = "/all"
RECOVERED_SECONDS = 20
DISK_BYTES = 256 * 1024 * 1024
SETTINGS = {
    "WEBHOOK_DELIVERY_TIMEOUT_SECONDS": "1",
    "WEBHOOK_DELIVERY_LEASE_SECONDS": "2",
    "WEBHOOK_SUBMIT_OUTCOME_WAIT_SECONDS": "1",
    "WEBHOOK_POLL_DELAY_SECONDS": "1",
    "WEBHOOK_STREAM_POLL_SECONDS": "1",
    "WEBHOOK_EVIDENCE_TIMEOUT_SECONDS": "1",
}


class Disk:
    """A small file system of its own, where it may be mounted; else a mere directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.is_mounted = self._mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs") == 0
        self._filler = path / "filler"

    def fill(self, *, leave: int) -> None:
        """Take all of its room but some bytes."""
        free = os.statvfs(self.path)
        with suppress(OSError), self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free.f_bavail * free.f_frsize - leave, 1))

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def set_writable(self, *, writable: bool) -> None:
        """Let it be written or not; nobody may have a file of it open for writing."""
        until(lambda: self._mount("-o", f"remount,{'rw' if writable else 'ro'}") == 0)

    def unmount(self) -> None:
        """Take it away."""
        if self.is_mounted:
            until(lambda: subprocess.run(["umount", self.path], check=False, stderr=-1).returncode == 0)

    def _mount(self, *arguments: str) -> int:
        return subprocess.run(["mount", *arguments, self.path], check=False, capture_output=True).returncode


class World:
    """One service on a database of its own; a context manager.

    Args:
        server: that the database is on; None for SQLite.
        lying: the service answers callbacks before they are stored.

    Attributes:
        links: by the two parts that each connects.
        revived: how often the service had ended by itself, and was started again as a supervisor does it.
    """

    def __init__(self, *, server: PostgresServer | None, lying: bool = False) -> None:
        self.server = server
        self._lying = lying
        self.revived = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webhook-faults-")))
            self.disk = Disk(self.directory / "disk")
            stack.callback(self.disk.unmount)
            names = ["platform-web", "worker-platform", "worker-subscriber", "service-database"]
            self.links = {name: stack.enter_context(Proxy()) for name in names[: None if self.server else -1]}
            port, link = free_port(), self.links["worker-platform"]
            self.platform = stack.enter_context(Platform(submits_per_second=1000, port=port, public_url=link.url))
            self.platform.url = f"http://127.0.0.1:{port}"  # we ask it past the link
            link.target = ("127.0.0.1", port)
            self.subscriber = stack.enter_context(Subscriber())
            (self.directory / launch.CLOCK).write_bytes(launch.AHEAD.pack(0))
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        lying = (launch.LYING,) if self._lying else ()
        links = self.links
        self.service = Running(
            self.directory,
            module=("tests.faults.launch", str(self.directory), *lying),
            **sandbox_variables(links["worker-platform"].url),
            **SETTINGS,
            **self.database_variables("webhook"),
            WEBHOOK_PUBLIC_URL=links["platform-web"].url,
        )
        web = self.service.variables["WEBHOOK_BIND"].partition(":")
        links["platform-web"].target = (web[0], int(web[2]))
        links["worker-subscriber"].target = ("127.0.0.1", int(self.subscriber.url("").rpartition(":")[2]))
        stack.callback(self._end)
        self.service.start()
        url = links["worker-subscriber"].url + SUBSCRIBER_PATH
        self.subscription = self.service.made("/v1/subscriptions", {"url": url})["id"]

    def _end(self) -> None:
        self.service.command.kill()

    def database_variables(self, name: str) -> dict[str, str]:
        """Return the settings of a database and its files; on a server it is made anew, and reached by the link."""
        if self.server is None:
            return {"WEBHOOK_DATABASE_URL": f"sqlite:///{self.disk.path}/{name}.db"}
        self.server.make_database(name)
        self.links["service-database"].target = ("127.0.0.1", self.server.port)
        url = f"postgresql+psycopg://postgres@127.0.0.1:{self.links['service-database'].port}/{name}"
        return {
            "WEBHOOK_DATABASE_URL": url,
            "WEBHOOK_UPLOAD_DIRECTORY": f"{self.disk.path}/{name}.uploads",
            "WEBHOOK_EVIDENCE_STORE": f"file://{self.disk.path}/{name}.evidence",
        }

    def pids(self) -> list[int]:
        """Return the service's web and worker processes, without those that only watch over them."""
        return [pid for pid in self.service.command.pids() if not children(pid)]

    def limit(self, pids: Sequence[int], what: int, value: int) -> None:
        """Lower a limit of processes (`resource.RLIMIT_…`)."""
        for pid in pids:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, what)
                resource.prlimit(pid, what, (value, hard))

    def lift_limits(self, what: int) -> None:
        """Give all processes back what they may have."""
        for pid in self.service.command.pids():
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, what)
                resource.prlimit(pid, what, (hard, hard))

    def signal(self, pids: Sequence[int], number: signal.Signals) -> None:
        """Send a signal to processes, of which some may have ended."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def ahead_seconds(self) -> float:
        """By how much the service's clock is ahead."""
        found: float = launch.AHEAD.unpack((self.directory / launch.CLOCK).read_bytes())[0]
        return found

    def jump(self, seconds: float) -> None:
        """Put the service's clock forward, or back."""
        ahead = self.ahead_seconds + seconds
        with (self.directory / launch.CLOCK).open("r+b") as file:
            file.write(launch.AHEAD.pack(ahead))

    def arm(self, point: str, *, scope: str) -> None:
        """Have the next process that comes to a point kill itself, or the whole service."""
        self.disarm()
        part = self.directory / "part"
        part.write_text(f"{point} {scope}")
        part.rename(self.directory / launch.ARMED)

    def disarm(self) -> bool:
        """Have nobody killed any more; return whether somebody was."""
        (self.directory / launch.ARMED).unlink(missing_ok=True)
        fired = self.has_fired()
        (self.directory / launch.FIRED).unlink(missing_ok=True)
        return fired

    def has_fired(self) -> bool:
        """Return whether somebody came to the armed point."""
        return (self.directory / launch.FIRED).exists()

    def recover(self) -> None:
        """Wait until the service is whole again; where it has ended it is started, and nothing else is done for it.

        Raises:
            AssertionError: it is not.
        """
        until(self._is_whole, seconds=RECOVERED_SECONDS)

    def _is_whole(self) -> bool:
        if not self.service.command.is_alive():
            self.revived += 1
            self.service.launch()
        try:
            reply = self.service.get("/readyz", key=NO_KEY)
        except requests.RequestException:
            return False
        return reply.status == 200 and bool(reply.json["dependencies"]["worker"] == "ok")

    def keep_log(self, directory: Path, name: str) -> Path:
        """Copy the service's log to where it outlives us."""
        directory.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(self.directory / "log", directory / name))


def a_process(world: World, dice: random.Random) -> list[int]:
    """Return one of the service's processes."""
    pids = world.pids()
    return [dice.choice(pids)] if pids else []
