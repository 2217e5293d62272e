"""The rate of callbacks with a million slices stored, beside that with ten thousand: `python -m tests.bench.full`.

The databases are filled by the service's own functions, with callbacks about tasks of their own; the fuller one takes
some minutes. Both grow alike while they are measured in turn.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from tests.bench import stage
from tests.bench.load import Job, Load, Outcome, requests
from webhook import bootstrap, clock, forms
from webhook.quarantine import Claim
from webhook.store import tasks as task_store
from webhook.tokens import token_digest

if TYPE_CHECKING:
    from webhook.ingest import Arrival
    from webhook.settings import Settings

_SLICES = 10
_FEW_SLICES = 10_000
_ROUNDS = 6
_BATCH = 500
_MOST_PER_SECOND = 4000  # more callbacks than the service takes
_FIRST = 10_000_000  # number of the callbacks that are stored before, beyond those that are sent
_TARGET = 0.8


def fill(loaded: Settings, *, slices: int) -> None:
    """Store callbacks that came to the receiver, each about a task of its own, with so many slices together."""
    service = bootstrap.build(loaded)
    with service.database.read() as session:
        [address] = task_store.addresses(session, [token_digest(stage.RECEIVER_TOKEN)]).values()
    count = slices // _SLICES
    job = Job(port=0, path="/", seed=stage.RECEIVER_SEED, first=_FIRST, count=count, seconds=0, slices=_SLICES)
    arrivals: list[Arrival] = []
    for number, request in enumerate(requests(job), start=1):
        form = forms.decode(request.partition(b"\r\n\r\n")[2], forms.URLENCODED)
        claim = Claim(
            address=address,
            checksum=form.checksum,
            content=form.content,
            stated_task_id=form.task_id,
            received_at=clock.now(),
        )
        arrival = service.quarantine.verify(claim)
        assert arrival is not None
        arrivals.append(arrival)
        if len(arrivals) == _BATCH or number == count:
            with service.database.transaction() as session:
                service.ingest.accept(session, arrivals)
            arrivals.clear()
    service.database.close()


@click.command(help=__doc__)
@click.option("--seconds", default=40.0, show_default=True, help="How long it is measured, once all is stored.")
@click.option("--slices", default=1_000_000, show_default=True, help="How many are stored in the fuller database.")
def main(seconds: float, slices: int) -> None:
    """Fill, measure in alternating rounds, and print one table."""
    each = seconds / (_ROUNDS + 1) / 2
    most = int(each * _MOST_PER_SECOND)
    total = most * (_ROUNDS + 1)
    names = {slices: f"{slices} slices stored", _FEW_SLICES: f"{_FEW_SLICES} slices stored"}
    rates: dict[int, list[Outcome]] = {stored: [] for stored in names}
    numbers = dict.fromkeys(names, 0)
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        servers = {}
        for stored in names:
            directory = Path(temporary) / str(stored)
            directory.mkdir()
            prepare = functools.partial(fill, slices=stored)
            service = stage.service(directory, tasks=total, processes=stage.PROCESSES, prepare=prepare)
            servers[stored] = stack.enter_context(service)
        load = stack.enter_context(Load())
        for round_ in range(_ROUNDS + 1):
            for stored, server in list(servers.items())[:: 1 if round_ % 2 else -1]:
                first = numbers[stored]
                job = Job(
                    port=server.port,
                    path="/callbacks/tNUMBER",
                    seed="sNUMBER",
                    first=first,
                    count=min(most, total - first),
                    seconds=each,
                    slices=_SLICES,
                )
                outcome = load.run(job)
                if outcome.refused:
                    raise click.ClickException(f"{outcome.refused} of {len(outcome.latencies)} were refused.")
                numbers[stored] = outcome.next
                if round_:  # the first warms up
                    rates[stored].append(outcome)
    found = {stored: [outcome.rate for outcome in outcomes] for stored, outcomes in rates.items()}
    stage.show(
        f"Callbacks of {_SLICES} slices, 32 connections, {_ROUNDS} alternating rounds of {each:.1f} s, medians",
        ("", "measured", "target", ""),
        [
            *[(f"{name}: callbacks/s", f"{median(found[stored]):.0f}", "", "") for stored, name in names.items()],
            ("ratio", *stage.judged(stage.ratio(found[slices], found[_FEW_SLICES]), _TARGET)),
        ],
    )


if __name__ == "__main__":
    main()
