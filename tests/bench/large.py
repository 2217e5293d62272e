"""Callbacks of 10,000 and 18,000 slices, beside the floor and small callbacks: `python -m tests.bench.large`."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import msgspec
from yarl import query_to_pairs

from tests.bench import stage
from tests.bench.load import UID, Job, Load, requests

_SLICES = (10_000, 18_000)
_ROUNDS = 7
_RATIO_TARGET = 2.5
_SMALL_RATE = 50.0
_SMALL_LATENCY = 0.5  # seconds that a small callback may wait at the most beside large ones
_PEAK_MB = 300
_MB = 1_000_000


def floor_seconds(body: bytes, seed: str) -> float:
    """Return the time of what cannot be left out: unquote (in C, as the service does), hash, parse."""
    start = time.perf_counter()
    fields = dict(query_to_pairs(body.decode()))
    content = fields["content"].encode()
    assert hashlib.sha256(f"{UID}{seed}".encode() + content).hexdigest() == fields["checksum"]
    assert msgspec.json.decode(content)
    return time.perf_counter() - start


def _milliseconds(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.0f}"


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it may take altogether.")
def main(seconds: float) -> None:
    """Measure in alternating rounds, then beside small callbacks, and print one table."""
    deadline = time.monotonic() + seconds * 0.6
    beside_seconds = seconds / 6
    floors: dict[int, list[float]] = {slices: [] for slices in _SLICES}
    ours: dict[int, list[float]] = {slices: [] for slices in _SLICES}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        service = stack.enter_context(stage.service(Path(directory), tasks=2000))
        load, other = stack.enter_context(Load()), stack.enter_context(Load())

        def job(first: int, *, count: int = 1, slices: int = _SLICES[0]) -> Job:
            return Job(
                port=service.port,
                path="/callbacks/tNUMBER",
                seed="sNUMBER",
                first=first,
                count=count,
                seconds=beside_seconds,
                connections=1,
                slices=slices,
            )

        bodies = {slices: next(requests(job(0, slices=slices))).partition(b"\r\n\r\n")[2] for slices in _SLICES}
        for number in range((_ROUNDS + 1) * len(_SLICES)):
            slices = _SLICES[number % len(_SLICES)]
            floor = floor_seconds(bodies[slices], "s0")
            outcome = load.run(job(number, slices=slices))
            if outcome.refused:
                raise click.ClickException("The service refused the large callback.")
            if number >= len(_SLICES):  # the first ones warm up
                floors[slices].append(floor)
                ours[slices].append(outcome.latencies[0])
            if time.monotonic() > deadline and ours[_SLICES[-1]]:
                break
        small = msgspec.structs.replace(job(100, count=1900), connections=8, slices=10, rate=_SMALL_RATE)
        other.start(small)
        beside = load.run(job(20, count=60))
        answered = other.outcome()
        peak = service.peak_bytes() / _MB
    if beside.refused or answered.refused:
        raise click.ClickException("The service refused callbacks when large and small ones came together.")
    rows, rounds = [], len(ours[_SLICES[-1]])
    for slices in _SLICES:
        rows += [
            (f"{slices} slices, {len(bodies[slices]) / _MB:.1f} MB: floor, ms", _milliseconds(floors[slices]), "", ""),
            (f"{slices} slices: sent to answered 200, ms", _milliseconds(ours[slices]), "", ""),
            (
                f"{slices} slices: ratio",
                *stage.judged(stage.ratio(ours[slices], floors[slices]), _RATIO_TARGET, at_most=True),
            ),
        ]
    stage.show(
        f"Large callbacks; the floor unquotes, hashes and parses; medians of {rounds} alternating rounds",
        ("", "measured", "target", ""),
        [
            *rows,
            ("peak memory of the web process: MB", *stage.judged(peak, _PEAK_MB, at_most=True, digits=0)),
            (f"beside small ones: large per {beside.seconds:.0f} s", f"{len(beside.latencies)}", "", ""),
            ("beside large ones: small answered", f"{len(answered.latencies)}", "", ""),
            ("beside large ones: small, p50 ms", f"{answered.percentile(0.5) * 1000:.0f}", "", ""),
            (
                "beside large ones: small, longest s",
                *stage.judged(answered.latencies[-1], _SMALL_LATENCY, at_most=True),
            ),
        ],
    )


if __name__ == "__main__":
    main()
