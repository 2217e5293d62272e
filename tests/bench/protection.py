"""What encryption, the audit log and limits of requests take together of callbacks: `python -m tests.bench.protection`.

The service as it is and one without all three (`bare`) are measured in turn. Callbacks are sealed, but are nobody's
requests and stand in no audit log, so the other two are to cost them nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from statistics import median

import click

from tests.bench import bare, stage
from tests.bench.load import Job, Load, Outcome

_ROUNDS = 10
_MOST_PER_SECOND = 4000  # more callbacks than either takes
_WITH, _WITHOUT = "as it is", "without all three"
_TARGET = 0.85


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it is measured.")
def main(seconds: float) -> None:
    """Measure in alternating rounds, and print one table."""
    each = seconds / (_ROUNDS + 1) / 2
    most = int(each * _MOST_PER_SECOND)
    total = most * (_ROUNDS + 1)
    outcomes: dict[str, list[Outcome]] = {_WITH: [], _WITHOUT: []}
    cpu = dict.fromkeys(outcomes, 0.0)
    numbers = dict.fromkeys(outcomes, 0)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        servers = {}
        for name in outcomes:
            directory = Path(temporary) / name.replace(" ", "-")
            directory.mkdir()
            with bare.unprotected() if name == _WITHOUT else contextlib.nullcontext():  # its database is made so, too
                module = "tests.bench.bare" if name == _WITHOUT else "tests.bench.serve"
                service = stage.service(directory, tasks=total, processes=stage.PROCESSES, module=module)
                servers[name] = stack.enter_context(service)
        load = stack.enter_context(Load())
        for round_ in range(_ROUNDS + 1):
            for name, server in list(servers.items())[:: 1 if round_ % 2 else -1]:
                before = server.cpu_seconds()
                outcome = load.run(
                    Job(
                        port=server.port,
                        path="/callbacks/tNUMBER",
                        seed="sNUMBER",
                        first=numbers[name],
                        count=min(most, total - numbers[name]),
                        seconds=each,
                    )
                )
                if outcome.refused:
                    raise click.ClickException(f"{name}: {outcome.refused} of {len(outcome.latencies)} were refused.")
                numbers[name] = outcome.next
                if round_:  # the first warms up
                    outcomes[name].append(outcome)
                    cpu[name] += server.cpu_seconds() - before
    rates = {name: [outcome.rate for outcome in found] for name, found in outcomes.items()}
    each_cpu = {name: cpu[name] / sum(len(outcome.latencies) for outcome in outcomes[name]) for name in outcomes}
    stage.show(
        f"Callbacks of 10 slices, 32 connections, {_ROUNDS} alternating rounds of {each:.1f} s, medians",
        ("", "measured", "target", ""),
        [
            *[(f"{name}: callbacks/s", f"{median(rates[name]):.0f}", "", "") for name in outcomes],
            *[(f"{name}: CPU ms each", f"{each_cpu[name] * 1000:.3f}", "", "") for name in outcomes],
            ("rate, as it is to without", *stage.judged(stage.ratio(rates[_WITH], rates[_WITHOUT]), _TARGET)),
        ],
    )


if __name__ == "__main__":
    main()
