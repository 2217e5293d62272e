"""Submission through the service beside a bare loop of the SDK: `python -m tests.bench.submit`."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import click

from tests.bench import stage
from tests.bench.usage import cpu_seconds
from tests.bench.wire import Http, connect
from tests.clients import ADMIN_KEY
from tests.running import Running, sandbox_variables
from tests.sandbox.vendor import Vendor
from tests.sandbox_process import SandboxProcess
from tests.waiting import until

_ROUNDS = 5
_PER_SECOND = 100  # the platform's limit for an account
_OK = 200
_MILLISECONDS = 1000
_CONNECTIONS = 16
_FORGOTTEN_SECONDS = 1.5  # after which one's submissions do not count against the other's at the platform
_UNTIMED_SHARE = 0.5  # of the time given: starting, and letting the rest of each round through
_RATE_TARGET = 0.8
_P99_TARGET_MS = 10.0
# no result comes meanwhile: this is about submissions
_SETTINGS = {"WEBHOOK_POLL_DELAY_SECONDS": "3600", "WEBHOOK_LOG_LEVEL": "error"}


def bare_rate(vendor: Vendor, source: str, seconds: float) -> float:
    """Submit one after the other, as fast as it goes and the platform allows; return how many were taken a second."""
    start, taken = time.perf_counter(), 0
    for number in range(int(_PER_SECOND * seconds)):
        time.sleep(max(start + number / _PER_SECOND - time.perf_counter(), 0))
        if time.perf_counter() - start > seconds:
            break
        taken += vendor.submit(url=f"{source}?n=bare-{number}-{start}")["Code"] == _OK
    return taken / max(time.perf_counter() - start, seconds)


async def post(port: int, source: str, *, count: int) -> list[float]:
    """Post so many tasks at the platform's limit; return the milliseconds until each was answered, sorted."""
    idle: asyncio.Queue[Http] = asyncio.Queue()
    began: dict[Http, float] = {}
    times: list[float] = []
    refused: list[bytes] = []

    def answered(connection: Http, head: bytes, _body: bytes) -> None:
        times.append((time.perf_counter() - began.pop(connection)) * _MILLISECONDS)
        if not head.startswith(b"HTTP/1.1 201"):
            refused.append(head)
        idle.put_nowait(connection)

    connections = await connect(port, _CONNECTIONS, answered)
    for connection in connections:
        idle.put_nowait(connection)
    start = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(start + number / _PER_SECOND - time.perf_counter())
        connection = await idle.get()
        began[connection] = time.perf_counter()
        connection.transport.write(request(f"{source}?n={number}-{start}"))
    for _ in connections:
        (await idle.get()).transport.close()
    if refused:
        raise click.ClickException(f"{len(refused)} of {count} tasks were refused: {refused[0]!r}")
    return sorted(times)


def request(url: str) -> bytes:
    """Return the request that submits a file."""
    body = json.dumps({"url": url}).encode()
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it may take altogether.")
def main(seconds: float) -> None:
    """Measure in alternating rounds, and print one table."""
    each = seconds * (1 - _UNTIMED_SHARE) / _ROUNDS / 2
    count = int(each * _PER_SECOND)
    bare: list[float] = []
    ours: list[float] = []
    p50: list[float] = []
    p99: list[float] = []
    cpu = 0.0
    turned_away = 0
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with SandboxProcess(directory, moderation_delay_seconds=3600) as platform:
            vendor, source = Vendor(platform.url.partition("://")[2]), platform.source("none.mp3")
            service = Running(directory, **sandbox_variables(platform.url), **_SETTINGS)
            service.start()
            port = int(service.url.rpartition(":")[2])

            def accepted() -> int:
                return int(platform.ledger()["accepted"])

            def too_fast() -> int:
                return int(platform.ledger()["answers"]["VoiceModeration"].get("403", 0))

            def through(count: int) -> tuple[float, list[float]]:
                """Return how many tasks the platform got a second while they were posted, and their latencies."""
                before, start = accepted(), time.perf_counter()
                latencies = asyncio.run(post(port, source, count=count))
                rate = (accepted() - before) / (time.perf_counter() - start)
                until(lambda: accepted() == before + count, seconds=60)
                return rate, latencies

            try:
                pids = service.command.pids()
                through(_PER_SECOND)  # the first loads what both need
                bare_rate(vendor, source, 1)
                for _ in range(_ROUNDS):
                    time.sleep(_FORGOTTEN_SECONDS)
                    bare.append(bare_rate(vendor, source, each))
                    time.sleep(_FORGOTTEN_SECONDS)
                    cpu -= cpu_seconds(pids)
                    turned_away -= too_fast()
                    rate, latencies = through(count)
                    turned_away += too_fast()
                    cpu += cpu_seconds(pids)
                    ours.append(rate)
                    p50.append(latencies[count // 2])
                    p99.append(latencies[int(count * 0.99)])
            finally:
                service.command.kill()
    stage.show(
        f"{_PER_SECOND} tasks posted a second, {_ROUNDS} alternating rounds of {each:.1f} s, medians",
        ("", "measured", "target", ""),
        [
            ("bare loop of the SDK: accepted/s", f"{median(bare):.1f}", "", ""),
            ("service: accepted/s", f"{median(ours):.1f}", "", ""),
            ("ratio of the rates", *stage.judged(stage.ratio(ours, bare), _RATE_TARGET)),
            ("service: POST /v1/tasks, p50 ms", f"{median(p50):.1f}", "", ""),
            ("service: POST /v1/tasks, p99 ms", *stage.judged(median(p99), _P99_TARGET_MS, at_most=True, digits=1)),
            ("service: CPU ms each", f"{cpu / count / _ROUNDS * _MILLISECONDS:.1f}", "", ""),
            ("service: turned away as too fast", *stage.judged(turned_away, 0, at_most=True, digits=0)),
        ],
    )


if __name__ == "__main__":
    main()
