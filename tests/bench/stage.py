"""What benchmarks stand on: servers on free ports, databases with tasks, their CPU time and memory, one table."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from tests import databases
from tests.bench.load import UID
from tests.bench.usage import cpu_seconds
from tests.running import ENCRYPTION_KEYS
from webhook import bootstrap, clock, models, settings
from webhook.store import receivers as receiver_store
from webhook.store import tasks as task_store
from webhook.store.receivers import Receiver
from webhook.store.tasks import Task
from webhook.tokens import Secrets, seal_secrets, token_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
RECEIVER_TOKEN, RECEIVER_SEED = "r", "seed-of-the-receiver"
PROCESSES = 1 if databases.SERVER is None else 2  # of each that is measured: SQLite has one writer
PYTHON = (sys.executable, "-m")
_START_SECONDS = 60
_STOP_SECONDS = 10


class Server:
    """A server's processes.

    Args:
        pid: of the first; the others are its children.
    """

    def __init__(self, *, pid: int, port: int) -> None:
        self.port = port
        self._pid = pid

    def cpu_seconds(self) -> float:
        """Return the CPU time that its processes have used."""
        return cpu_seconds(self._pids())

    def peak_bytes(self) -> int:
        """Return the peak resident memory of its largest process."""
        return max(_status(pid, "VmHWM") for pid in self._pids())

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return [self._pid, *map(int, children)]


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def server(command: Sequence[str], *, port: int, environ: Mapping[str, str]) -> Iterator[Server]:
    """Run a server, from its first answer to the end of the block."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environ)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not start: its error is above.")
            time.sleep(0.02)
        yield Server(pid=process.pid, port=port)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        process.kill()
        process.wait()


def gunicorn(
    app: str, *, port: int, processes: int = 1, environ: Mapping[str, str] | None = None
) -> contextlib.AbstractContextManager[Server]:
    """Run an application as most would: gunicorn, processes of 32 threads."""
    command = [
        *PYTHON,
        "gunicorn",
        "--worker-class=gthread",
        "--threads=32",
        f"--workers={processes}",
        "--keep-alive=75",
    ]
    command += [f"--bind=127.0.0.1:{port}", "--log-level=warning", "--no-control-socket", app]
    return server(command, port=port, environ=environ or {})


@contextmanager
def service(
    directory: Path,
    *,
    tasks: int,
    processes: int = 1,
    prepare: Callable[[settings.Settings], None] = lambda _: None,
    module: str = "tests.bench.serve",
) -> Iterator[Server]:
    """Run the service's web processes over a database of so many tasks, with tokens and seeds t0, s0, and so on.

    Args:
        prepare: is given the settings when the database is there, before the processes are.
        module: what they run.
    """
    port = free_port()
    environ = {
        "WEBHOOK_DATABASE_URL": databases.url_of(directory),
        "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "WEBHOOK_BIND": f"127.0.0.1:{port}",
        "WEBHOOK_PLATFORM_UID": UID,
        "WEB_CONCURRENCY": str(processes),
    }
    loaded = settings.load(environ)
    create_database(loaded, tasks=tasks)
    prepare(loaded)
    with server([*PYTHON, module], port=port, environ=environ) as running:
        yield running


def create_database(loaded: settings.Settings, *, tasks: int) -> None:
    """Make a database with so many submitted tasks, and one receiver."""
    engine = sa.create_engine(loaded.database_url)
    models.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR NOT NULL)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": models.REVISION})
    engine.dispose()
    made = bootstrap.build(loaded)
    now = clock.now()

    def secrets(table: str, row: str, token: str, seed: str) -> bytes:
        return seal_secrets(made.keyring, Secrets(token=token, seed=seed), table=table, row=row)

    def task(number: int) -> Task:
        task_id = clock.new_id("task", now)
        return Task(
            id=task_id,
            origin="submitted",
            kind="audio",
            service="audio_detection_byllm_global",
            state="processing",
            source={"url": f"https://audio.example.com/{number}.mp3"},
            crypt_type="SHA256",
            token_digest=token_digest(f"t{number}"),
            secrets=secrets("tasks", task_id, f"t{number}", f"s{number}"),
            platform_task_id=f"vm_{number}",
            created_at=now,
            submitted_at=now,
            updated_at=now,
        )

    receiver_id = clock.new_id("rcv", now)
    receiver = Receiver(
        id=receiver_id,
        name="bench",
        crypt_type="SHA256",
        uid=None,
        token_digest=token_digest(RECEIVER_TOKEN),
        secrets=secrets("receivers", receiver_id, RECEIVER_TOKEN, RECEIVER_SEED),
        created_at=now,
        deleted_at=None,
    )
    with made.database.transaction() as session:
        task_store.insert_tasks(session, [task(number) for number in range(tasks)])
        receiver_store.insert_receiver(session, receiver)
    made.database.close()


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as probe:
        probe.settimeout(_START_SECONDS)
        probe.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return probe.recv(1) != b""
    return False


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over rounds of ours to theirs: neighbours in time share the machine's mood."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def judged(value: float, target: float, *, at_most: bool = False, digits: int = 2) -> tuple[str, str, str]:
    """Return a figure, its target, and whether it is met, for the table."""
    met = value <= target if at_most else value >= target
    return f"{value:.{digits}f}", f"{'≤' if at_most else '≥'} {target:g}", "met" if met else "MISSED"
