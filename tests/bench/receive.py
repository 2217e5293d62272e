"""Durable callbacks per second, beside an empty handler, the plain design and Express: `python -m tests.bench.receive`.

With TEST_POSTGRESQL_URL in the environment all of them but the empty handler store on that server, each in a database
of its own, with two processes of each.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from statistics import median

import click

from tests import databases
from tests.bench import peers, stage
from tests.bench.load import Job, Load, Outcome, requests

_ROUNDS = 8
_MOST_PER_SECOND = 6000  # more callbacks than any of them takes
_UNTIMED_SHARE = 0.35  # of the time given: starting, stopping, making requests
_EMPTY, _PLAIN, _EXPRESS = "empty handler", "plain design", "Express"
_TASKS, _RECEIVER = "service, own tasks", "service, receiver"
_OURS = (_TASKS, _RECEIVER)
# the empty handler waits for no disk, and on PostgreSQL for no server either
_LEAST = (
    {_EMPTY: 1.2, _PLAIN: 5.0, _EXPRESS: 1.15}
    if databases.SERVER is None
    else {_EMPTY: 0.5, _PLAIN: 4.0, _EXPRESS: 1.0}
)
_P99_OF_PLAIN = 0.1 if databases.SERVER is None else None  # where many wait for one file's lock


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it may take altogether.")
def main(seconds: float) -> None:
    """Measure in alternating rounds, and print the tables."""
    paths = dict.fromkeys((_EMPTY, _PLAIN, _EXPRESS, _TASKS), ("/callbacks/tNUMBER", "sNUMBER"))
    paths[_RECEIVER] = (f"/callbacks/{stage.RECEIVER_TOKEN}", stage.RECEIVER_SEED)
    each = seconds * (1 - _UNTIMED_SHARE) / _ROUNDS / len(paths)
    most = int(each * _MOST_PER_SECOND)
    numbers = dict.fromkeys(paths, 0)
    outcomes: dict[str, list[Outcome]] = {}
    cpu = dict.fromkeys(paths, 0.0)
    total = most * (_ROUNDS + 1)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        directory = Path(temporary)
        ours = stack.enter_context(stage.service(directory, tasks=total, processes=stage.PROCESSES))
        servers = {
            _TASKS: ours,
            _EMPTY: stack.enter_context(peers.empty()),
            _RECEIVER: ours,
            _PLAIN: stack.enter_context(peers.plain(directory, tasks=total)),
        }
        express = stack.enter_context(peers.express(directory, tasks=total))
        if express is not None:
            servers[_EXPRESS] = express
        outcomes = {name: [] for name in paths if name in servers}
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
    rows = [
        (f"{name}: rate to {other}'s", *stage.judged(stage.ratio(rates[name], rates[other]), least))
        for name in _OURS
        for other, least in _LEAST.items()
        if other in rates
    ]
    if _P99_OF_PLAIN is not None:
        rows += [
            (
                f"{name}: p99 to {_PLAIN}'s",
                *stage.judged(stage.ratio(p99[name], p99[_PLAIN]), _P99_OF_PLAIN, at_most=True, digits=3),
            )
            for name in _OURS
        ]
    stage.show("Ratios, medians over rounds", ("", "ratio", "target", ""), rows)


if __name__ == "__main__":
    main()
