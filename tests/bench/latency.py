"""From the callback being sent to the event at the subscriber, beside the floor of a bare POST; and the idle service.

`python -m tests.bench.latency` starts the real `webhook serve`, posts signed callbacks to a receiver at a steady
rate, and takes the time until `slice.flagged` arrives at a subscriber in this very process: one clock for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import click
from rich.console import Console
from rich.table import Table
from typing_extensions import override

from tests.bench.load import UID, content

ADMIN_KEY = "bench-" * 8
SEED = "benchmark"
RATES = (50, 200)
P95_TARGET_MS = {50: 10.0, 200: 5.0}
IDLE_CPU_TARGET = 0.5  # percent of one core
IDLE_MEMORY_TARGET = 160 * 1024 * 1024
READY_TARGET_SECONDS = 1.5
_SLICES = 10


class Http(asyncio.Protocol):
    """One connection: whole messages in, by Content-Length, whichever side it is."""

    def __init__(self, received: Any) -> None:
        self._received = received
        self._buffer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = 0 if at < 0 else int(lower[at + 15 :].split(b"\r\n", 1)[0])
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._received(self, head, rest[:length])


class Subscriber:
    """Notes when the event about each task arrived."""

    def __init__(self) -> None:
        self.arrived: dict[str, float] = {}
        self.changed = asyncio.Event()

    def take(self, connection: Http, _head: bytes, body: bytes) -> None:
        """Answer a delivery."""
        now = time.perf_counter()
        connection.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        event = json.loads(body)
        self.arrived.setdefault(event["data"]["task"]["platform_task_id"], now)
        self.changed.set()


async def measure(port: int, path: str, subscriber: Subscriber, *, rate: int, count: int, first: int) -> list[float]:
    """Send callbacks at a rate and return the milliseconds until each one's event arrived, sorted."""
    loop = asyncio.get_running_loop()
    idle: asyncio.Queue[Http] = asyncio.Queue()
    refused: list[bytes] = []

    def answered(connection: Http, head: bytes, _body: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 200"):
            refused.append(head)
        idle.put_nowait(connection)

    connections = [(await loop.create_connection(lambda: Http(answered), "127.0.0.1", port))[1] for _ in range(32)]
    for connection in connections:
        idle.put_nowait(connection)
    bodies = [callback(path, number) for number in range(first, first + count)]
    sent: dict[str, float] = {}
    start = time.perf_counter()
    for index, body in enumerate(bodies):
        await asyncio.sleep(start + index / rate - time.perf_counter())
        connection = await idle.get()
        sent[f"vm_{first + index}"] = time.perf_counter()
        connection.transport.write(body)
    deadline = time.perf_counter() + 10
    while not sent.keys() <= subscriber.arrived.keys() and time.perf_counter() < deadline:
        subscriber.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(subscriber.changed.wait(), 1)
    for connection in connections:
        connection.transport.close()
    if refused or not sent.keys() <= subscriber.arrived.keys():
        raise click.ClickException(f"{len(refused)} callbacks were refused, or events did not arrive.")
    return sorted((subscriber.arrived[name] - at) * 1000 for name, at in sent.items())


def callback(path: str, number: int) -> bytes:
    """Return the request of one callback, about a task of its own."""
    text = content(number, _SLICES)
    checksum = hashlib.sha256(f"{UID}{SEED}{text}".encode()).hexdigest()
    body = f"checksum={checksum}&content={quote_plus(text)}".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def floor(port: int, *, count: int) -> list[float]:
    """Return the milliseconds of a bare POST of an event to the subscriber, sorted."""
    body = json.dumps({"data": {"task": {"platform_task_id": "floor"}, "padding": "x" * 1500}}).encode()
    request = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Http(lambda *_: answered.set()), "127.0.0.1", port)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        connection.transport.write(request)
        await answered.wait()
        answered.clear()
        times.append((time.perf_counter() - start) * 1000)
    connection.transport.close()
    return sorted(times)


class Service:
    """The real `webhook serve` on a free port and a database in a temporary directory."""

    def __init__(self, directory: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environ = os.environ | {
            "WEBHOOK_DATABASE_URL": f"sqlite:///{directory}/webhook.db",
            "WEBHOOK_BIND": f"127.0.0.1:{self.port}",
            "WEBHOOK_PLATFORM_UID": UID,
            "WEBHOOK_ADMIN_KEY": ADMIN_KEY,
            "WEBHOOK_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
            "WEBHOOK_LOG_LEVEL": "error",
        }
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "webhook", "serve"], env=environ, stderr=subprocess.DEVNULL
        )
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1),
            ):
                break
            if self.process.poll() is not None or time.perf_counter() - started > 30:
                raise click.ClickException("The service did not start.")
            time.sleep(0.01)
        self.ready_seconds = time.perf_counter() - started

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call the REST API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            shape: dict[str, Any] = json.load(answer)
            return shape

    def processes(self) -> list[int]:
        """Return the pids of all its processes."""
        found = [self.process.pid]
        for pid in found:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """Return the processor time that all of it has used."""
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Return the proportional set size of all of it."""
        total = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@click.command()
@click.option("--seconds", default=10, show_default=True, help="Of each rate, and of watching the idle service.")
def main(seconds: int) -> None:
    """Print the latencies and the idle figures against their targets."""
    with tempfile.TemporaryDirectory() as directory:
        service = Service(directory)
        try:
            time.sleep(2)
            cpu, start = service.cpu_seconds(), time.perf_counter()
            time.sleep(seconds)
            idle = (service.cpu_seconds() - cpu) / (time.perf_counter() - start) * 100
            memory = service.memory_bytes()
            latencies, bare = asyncio.run(_latencies(service, seconds))
        finally:
            service.stop()
    _print(service, latencies, bare, idle=idle, memory=memory)


async def _latencies(service: Service, seconds: int) -> tuple[dict[int, list[float]], list[float]]:
    subscriber = Subscriber()
    server = await asyncio.get_running_loop().create_server(lambda: Http(subscriber.take), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    service.post("/v1/subscriptions", {"url": f"http://127.0.0.1:{port}/", "event_types": ["slice.flagged"]})
    receiver = service.post("/v1/receivers", {"name": "bench", "seed": SEED})
    path = "/callbacks/" + receiver["callback_url"].rpartition("/")[2]
    await measure(service.port, path, subscriber, rate=50, count=50, first=0)  # warm
    latencies, first = {}, 1000
    for rate in RATES:
        latencies[rate] = await measure(service.port, path, subscriber, rate=rate, count=rate * seconds, first=first)
        first += rate * seconds
    bare = await floor(port, count=500)
    server.close()
    return latencies, bare


def _print(service: Service, latencies: dict[int, list[float]], bare: list[float], *, idle: float, memory: int) -> None:
    table = Table("measure", "p50", "p95", "p99", "target", "reached")

    def row(name: str, times: list[float], target: float | None) -> None:
        p50, p95, p99 = (times[min(int(len(times) * share), len(times) - 1)] for share in (0.5, 0.95, 0.99))
        reached = "" if target is None else ("yes" if p95 <= target else "no")
        goal = "" if target is None else f"p95 ≤ {target:g} ms"
        table.add_row(name, f"{p50:.2f} ms", f"{p95:.2f} ms", f"{p99:.2f} ms", goal, reached)

    row("bare POST to the subscriber", bare, None)
    for rate, times in latencies.items():
        row(f"callback sent → event there, {rate}/s", times, P95_TARGET_MS[rate])
    for name, figure, goal, reached in (
        ("idle processor", f"{idle:.2f} %", f"≤ {IDLE_CPU_TARGET} %", idle <= IDLE_CPU_TARGET),
        ("idle memory (PSS)", f"{memory / 2**20:.0f} MB", "≤ 160 MB", memory <= IDLE_MEMORY_TARGET),
        ("ready after", f"{service.ready_seconds:.2f} s", "≤ 1.5 s", service.ready_seconds <= READY_TARGET_SECONDS),
    ):
        table.add_row(name, figure, "", "", goal, "yes" if reached else "no")
    Console().print(table)


if __name__ == "__main__":
    main()
