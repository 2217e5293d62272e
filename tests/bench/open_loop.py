"""What callbacks wait that come at fixed times, whoever is still waiting: `python -m tests.bench.open_loop`.

Each latency counts from when the callback was to be sent: one that a slow answer kept from being sent has waited, too.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from statistics import median

import click

from tests.bench import peers, stage
from tests.bench.load import Job, Load, Outcome

_RATE = 500.0
_ROUNDS = 5
_CONNECTIONS = 64
_WARM_SECONDS = 1.0
_UNTIMED_SHARE = 0.35  # of the time given: starting, stopping, making requests
_EMPTY, _EXPRESS, _OURS = "empty handler", "Express", "service"
_P50_OF_EMPTY = 1.8
_P95_OF_EXPRESS = 1.0


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it may take altogether.")
def main(seconds: float) -> None:
    """Measure in alternating rounds, and print one table."""
    each = seconds * (1 - _UNTIMED_SHARE) / _ROUNDS / 3
    warm, count = int(_WARM_SECONDS * _RATE), int(each * _RATE)
    total = warm + _ROUNDS * count
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        directory = Path(temporary)
        servers = {
            _EMPTY: stack.enter_context(peers.empty()),
            _OURS: stack.enter_context(stage.service(directory, tasks=total, processes=stage.PROCESSES)),
        }
        express = stack.enter_context(peers.express(directory, tasks=total))
        if express is not None:
            servers[_EXPRESS] = express
        load = stack.enter_context(Load())
        outcomes: dict[str, list[Outcome]] = {name: [] for name in servers}
        for round_ in range(_ROUNDS + 1):
            for name, server in list(servers.items())[:: 1 if round_ % 2 else -1]:
                job = Job(
                    port=server.port,
                    path="/callbacks/tNUMBER",
                    seed="sNUMBER",
                    first=warm + (round_ - 1) * count if round_ else 0,
                    count=count if round_ else warm,
                    seconds=each + _WARM_SECONDS,
                    connections=_CONNECTIONS,
                    rate=_RATE,
                )
                outcome = load.run(job)
                if outcome.refused or len(outcome.latencies) < job.count:
                    raise click.ClickException(f"{name} refused {outcome.refused} of {job.count}, or was too slow.")
                if round_:  # the first warms up
                    outcomes[name].append(outcome)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    found = {
        (name, word): [outcome.percentile(share) * 1000 for outcome in outcomes[name]]
        for name in outcomes
        for word, share in shares.items()
    }
    rows = [
        (f"{name}: p50, p95, p99 ms", ", ".join(f"{median(found[name, word]):.2f}" for word in shares), "", "")
        for name in outcomes
    ]
    to_empty = stage.ratio(found[_OURS, "p50"], found[_EMPTY, "p50"])
    rows.append((f"p50 to {_EMPTY}'s", *stage.judged(to_empty, _P50_OF_EMPTY, at_most=True)))
    if express is not None:
        to_express = stage.ratio(found[_OURS, "p95"], found[_EXPRESS, "p95"])
        rows.append((f"p95 to {_EXPRESS}'s", *stage.judged(to_express, _P95_OF_EXPRESS, at_most=True)))
    stage.show(
        f"{_RATE:.0f} callbacks a second at fixed times, {_ROUNDS} alternating rounds of {each:.1f} s, medians",
        ("", "measured", "target", ""),
        rows,
    )


if __name__ == "__main__":
    main()
