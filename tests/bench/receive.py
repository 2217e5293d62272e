"""Durable callbacks per second, beside an empty handler and the plain design: `python -m tests.bench.receive`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from statistics import median

import click

from tests.bench import plain_app, stage
from tests.bench.load import Job, Load, Outcome, requests

_ROUNDS = 8
_MOST_PER_SECOND = 6000  # more callbacks than any of them takes
_UNTIMED_SHARE = 0.35  # of the time given: starting, stopping, making requests
_EMPTY, _PLAIN, _TASKS, _RECEIVER = "empty handler", "plain design", "service, own tasks", "service, receiver"


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it may take altogether.")
def main(seconds: float) -> None:
    """Measure in alternating rounds, and print one table."""
    each = seconds * (1 - _UNTIMED_SHARE) / _ROUNDS / 4
    most = int(each * _MOST_PER_SECOND)
    paths = {
        _EMPTY: ("/callbacks/tNUMBER", "sNUMBER"),
        _PLAIN: ("/callbacks/tNUMBER", "sNUMBER"),
        _TASKS: ("/callbacks/tNUMBER", "sNUMBER"),
        _RECEIVER: (f"/callbacks/{stage.RECEIVER_TOKEN}", stage.RECEIVER_SEED),
    }
    numbers = dict.fromkeys(paths, 0)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in paths}
    cpu = dict.fromkeys(paths, 0.0)
    total = most * (_ROUNDS + 1)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        plain_database = f"{directory}/plain.db"
        plain_app.create_database(plain_database, total)
        empty = stack.enter_context(stage.gunicorn("tests.bench.empty_app:app", port=stage.free_port()))
        plain = stack.enter_context(
            stage.gunicorn(
                "tests.bench.plain_app:create_app()",
                port=stage.free_port(),
                environ={"PLAIN_DATABASE": plain_database},
            )
        )
        ours = stack.enter_context(stage.service(Path(directory), tasks=total))
        servers = {_TASKS: ours, _EMPTY: empty, _RECEIVER: ours, _PLAIN: plain}
        load = stack.enter_context(Load())
        for round_ in range(-1, _ROUNDS):  # the first warms up
            # to and fro, so that none always follows the same one, whose dirty pages the disk still writes
            for name, server in list(servers.items())[:: 1 if round_ % 2 else -1]:
                path, seed = paths[name]
                first = numbers[name]
                count = most if name == _EMPTY else min(most, total - first)
                before = server.cpu_seconds()
                outcome = load.run(
                    Job(
                        port=server.port,
                        path=path,
                        seed=seed,
                        first=first,
                        count=count,
                        seconds=each if round_ >= 0 else each / 4,
                    )
                )
                if outcome.refused:
                    raise click.ClickException(f"{name} refused {outcome.refused} of {len(outcome.latencies)}.")
                numbers[name] = outcome.next
                if round_ >= 0:
                    outcomes[name].append(outcome)
                    cpu[name] += server.cpu_seconds() - before
    size = len(next(requests(Job(port=0, path="/", seed="", first=0, count=1, seconds=0)))) / 1000
    stage.show(
        f"Callbacks of {size:.1f} KB with 10 slices, 32 connections, {_ROUNDS} rounds of {each:.1f} s, medians",
        ("", "callbacks/s", "p50 ms", "p99 ms", "CPU ms each"),
        [
            (
                name,
                f"{median(each.rate for each in found):.0f}",
                f"{median(each.percentile(0.5) for each in found) * 1000:.1f}",
                f"{median(each.percentile(0.99) for each in found) * 1000:.1f}",
                f"{cpu[name] / sum(len(each.latencies) for each in found) * 1000:.2f}",
            )
            for name, found in outcomes.items()
        ],
    )
    rates = {name: [each.rate for each in found] for name, found in outcomes.items()}
    p99 = {name: [each.percentile(0.99) for each in found] for name, found in outcomes.items()}
    stage.show(
        "Ratios, medians over rounds",
        ("", "ratio", "target", ""),
        [
            row
            for name in (_TASKS, _RECEIVER)
            for row in (
                (f"{name}: rate to the empty handler's", *stage.judged(stage.ratio(rates[name], rates[_EMPTY]), 1)),
                (f"{name}: rate to the plain design's", *stage.judged(stage.ratio(rates[name], rates[_PLAIN]), 4)),
                (
                    f"{name}: p99 to the plain design's",
                    *stage.judged(stage.ratio(p99[name], p99[_PLAIN]), 0.1, at_most=True, digits=3),
                ),
            )
        ],
    )


if __name__ == "__main__":
    main()
