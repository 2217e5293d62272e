"""From the callback being sent to the event at the subscriber, beside a bare POST; and what the idle service takes.

`python -m tests.bench.latency` starts the real `webhook serve`, posts signed callbacks to a receiver at a steady
rate, and takes the time until `slice.flagged` arrives at a subscriber in this very process: one clock for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import click

from tests.bench import stage
from tests.bench.load import UID, Job, requests
from tests.bench.usage import cpu_seconds, proportional_bytes
from tests.bench.wire import Http, connect
from tests.running import Running

SEED = "benchmark"
_RATES = (50, 200)
_P95_TARGETS_MS = {50: 8.0, 200: 4.0}
_IDLE_CPU_TARGET = 0.3  # percent of one core
_IDLE_MEMORY_TARGET = 140.0  # MB
_READY_TARGET_SECONDS = 1.0
_SETTLE_SECONDS = 2.0
_UNTIMED_SECONDS = 8.0  # of the time given: starting, warming up, stopping
_CONNECTIONS = 32
_WARM = 50
_BARE = 500
_ARRIVAL_SECONDS = 10.0
_MB = 1024 * 1024


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


async def send(port: int, path: str, *, rate: int, count: int, first: int) -> dict[str, float]:
    """Send callbacks at a rate, each about a task of its own; return when each task's was sent."""
    idle: asyncio.Queue[Http] = asyncio.Queue()
    refused: list[bytes] = []

    def answered(connection: Http, head: bytes, _body: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 200"):
            refused.append(head)
        idle.put_nowait(connection)

    for connection in await connect(port, _CONNECTIONS, answered):
        idle.put_nowait(connection)
    made = list(requests(Job(port=port, path=path, seed=SEED, first=first, count=count, seconds=0)))
    sent: dict[str, float] = {}
    start = time.perf_counter()
    for index, request in enumerate(made):
        await asyncio.sleep(start + index / rate - time.perf_counter())
        connection = await idle.get()
        sent[f"vm_{first + index}"] = time.perf_counter()
        connection.transport.write(request)
    for _ in range(_CONNECTIONS):
        (await idle.get()).transport.close()
    if refused:
        raise click.ClickException(f"{len(refused)} callbacks were refused: {refused[0]!r}")
    return sent


async def measure(port: int, path: str, subscriber: Subscriber, *, rate: int, count: int, first: int) -> list[float]:
    """Send callbacks at a rate and return the milliseconds until each one's event arrived, sorted."""
    sent = await send(port, path, rate=rate, count=count, first=first)
    deadline = time.perf_counter() + _ARRIVAL_SECONDS
    while not sent.keys() <= subscriber.arrived.keys() and time.perf_counter() < deadline:
        subscriber.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(subscriber.changed.wait(), 1)
    if not sent.keys() <= subscriber.arrived.keys():
        raise click.ClickException("Events did not arrive.")
    return sorted((subscriber.arrived[name] - at) * 1000 for name, at in sent.items())


async def bare_posts(port: int, *, count: int) -> list[float]:
    """Return the milliseconds of a bare POST of an event to the subscriber, sorted."""
    body = json.dumps({"data": {"task": {"platform_task_id": "bare"}, "padding": "x" * 1500}}).encode()
    request = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    answered = asyncio.Event()
    [connection] = await connect(port, 1, lambda *_: answered.set())
    times = []
    for _ in range(count):
        start = time.perf_counter()
        connection.transport.write(request)
        await answered.wait()
        answered.clear()
        times.append((time.perf_counter() - start) * 1000)
    connection.transport.close()
    return sorted(times)


def register(service: Running) -> tuple[int, str]:
    """Register a receiver; return the service's port, and the path that its callbacks come to."""
    receiver = service.made("/v1/receivers", {"name": "bench", "seed": SEED})
    return urlsplit(service.url).port or 0, urlsplit(receiver["callback_url"]).path


async def _latencies(service: Running, seconds: float) -> tuple[dict[int, list[float]], list[float]]:
    subscriber = Subscriber()
    server = await asyncio.get_running_loop().create_server(lambda: Http(subscriber.take), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    service.made("/v1/subscriptions", {"url": f"http://127.0.0.1:{port}/", "event_types": ["slice.flagged"]})
    web, path = register(service)
    await measure(web, path, subscriber, rate=_RATES[0], count=_WARM, first=0)
    latencies, first = {}, _WARM
    for rate in _RATES:
        count = int(rate * seconds)
        latencies[rate] = await measure(web, path, subscriber, rate=rate, count=count, first=first)
        first += count
    bare = await bare_posts(port, count=_BARE)
    server.close()
    return latencies, bare


def _percentile(times: list[float], share: float) -> float:
    return times[min(int(len(times) * share), len(times) - 1)]


@click.command(help=__doc__)
@click.option("--seconds", default=40.0, show_default=True, help="How long it may take altogether.")
def main(seconds: float) -> None:
    """Print the latencies and the idle figures against their targets."""
    each = max((seconds - _UNTIMED_SECONDS) / (len(_RATES) + 1), 1.0)
    with tempfile.TemporaryDirectory() as directory:
        service = Running(Path(directory), WEBHOOK_PLATFORM_UID=UID, WEBHOOK_LOG_LEVEL="error")
        try:
            began = time.perf_counter()
            service.start()
            ready = time.perf_counter() - began
            time.sleep(_SETTLE_SECONDS)
            pids = service.command.pids()
            cpu, start = cpu_seconds(pids), time.perf_counter()
            time.sleep(each)
            idle = (cpu_seconds(pids) - cpu) / (time.perf_counter() - start) * 100
            memory = proportional_bytes(pids) / _MB
            latencies, bare = asyncio.run(_latencies(service, each))
        finally:
            service.command.stop()
    rows: list[tuple[str, ...]] = [
        (
            f"callback sent → event there, {rate}/s: ms",
            f"{_percentile(times, 0.5):.2f}",
            f"{_percentile(times, 0.99):.2f}",
            *stage.judged(_percentile(times, 0.95), _P95_TARGETS_MS[rate], at_most=True),
        )
        for rate, times in latencies.items()
    ]
    shares = (_percentile(bare, share) for share in (0.5, 0.99, 0.95))
    rows.append(("bare POST to the subscriber: ms", *(f"{each:.2f}" for each in shares), "", ""))
    for name, figure, target in (
        ("idle: percent of one core", idle, _IDLE_CPU_TARGET),
        ("idle: memory, PSS, MB", memory, _IDLE_MEMORY_TARGET),
        ("ready after s", ready, _READY_TARGET_SECONDS),
    ):
        rows.append((name, "", "", *stage.judged(figure, target, at_most=True)))
    stage.show(
        f"webhook serve, {each:.0f} s of each rate and of doing nothing",
        ("", "p50", "p99", "p95, or it", "target", ""),
        rows,
    )


if __name__ == "__main__":
    main()
