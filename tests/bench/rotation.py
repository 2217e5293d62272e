"""What callbacks wait while the master key is rotated: `python -m tests.bench.rotation`.

Twice: with values under a data key, where the rotation wraps that anew and looks at every row; and with values that an
older version sealed under the master key itself, each of which is sealed anew. The values are events' data.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from tests.bench import stage
from tests.bench.load import Job, Load, Outcome
from tests.running import ENCRYPTION_KEYS
from webhook import bootstrap, clock, settings
from webhook.crypto import Keyring
from webhook.db import open_database
from webhook.rotation import rotate
from webhook.store import events as event_store
from webhook.store.events import EventRow
from webhook.store.sealed import SEALED, Head

if TYPE_CHECKING:
    from webhook.settings import Settings

_NEW = f"k2:{'A' * 43}="
_RATE = 200.0
_ROUNDS = 2
_BATCH = 5000
_MOST_TIMES = 2.0
_DATA = b'{"task": {"id": "task_01a1fe01013af1b759935c69d66e"}, "slice": {"risk_level": "high", "text": "hello"}}'


def fill(loaded: Settings, *, rows: int, directly: bool) -> None:
    """Store so many events, under the data key or as older versions did."""
    service = bootstrap.build(loaded)
    keyring = Keyring(bootstrap.encryption_keys(loaded)) if directly else service.keyring
    for first in range(0, rows, _BATCH):
        now = clock.now()
        ids = [clock.new_id("evt", now) for _ in range(min(_BATCH, rows - first))]
        events = [
            EventRow(
                id=one,
                type="slice.flagged",
                task_id=None,
                created_at=now,
                data=keyring.seal(_DATA, table="events", column="data", row=one),
            )
            for one in ids
        ]
        with service.database.transaction() as session:
            event_store.insert_events(session, events)
    service.database.close()


def measure(*, rows: int, directly: bool, seconds: float) -> list[tuple[str, ...]]:
    """Return the table's rows: callbacks' waiting without and with rotations, in turn."""
    count = int(_RATE * seconds / _ROUNDS / 2)
    found: dict[bool, list[Outcome]] = {False: [], True: []}
    kept: list[Settings] = []

    def prepare(loaded: Settings) -> None:
        fill(loaded, rows=rows, directly=directly)
        kept.append(loaded)

    with (
        tempfile.TemporaryDirectory() as temporary,
        Load() as load,
        stage.service(
            Path(temporary), tasks=2 * (_ROUNDS + 1) * count, processes=stage.PROCESSES, prepare=prepare
        ) as server,
    ):
        environ = os.environ | {
            "WEBHOOK_DATABASE_URL": kept[0].database_url,
            "WEBHOOK_ENCRYPTION_KEYS": f"{_NEW},{ENCRYPTION_KEYS}",
        }
        took = []
        for number in range(2 * (_ROUNDS + 1)):
            rotating = bool(number % 2)
            job = Job(
                port=server.port,
                path="/callbacks/tNUMBER",
                seed="sNUMBER",
                first=number * count,
                count=count,
                seconds=seconds,
                rate=_RATE,
            )
            if rotating:
                rotation = subprocess.Popen(_ROTATE, cwd=stage.ROOT, env=environ, stdout=subprocess.PIPE)
                assert rotation.stdout
                rotation.stdout.readline()
                began = time.monotonic()
            outcome = load.run(job)
            if rotating:
                rotation.kill()
                rotation.communicate()
                took.append(time.monotonic() - began)
            if outcome.refused:
                raise click.ClickException(f"{outcome.refused} of {count} callbacks were refused.")
            if number > 1:  # the first two warm up
                found[rotating].append(outcome)
        done = sealed_anew(kept[0])
    name = "sealed directly" if directly else "under a data key"
    p99 = {rotating: [outcome.percentile(0.99) * 1000 for outcome in outcomes] for rotating, outcomes in found.items()}
    return [
        (f"{rows:,} values {name}: p99 ms without, with", f"{median(p99[False]):.1f}, {median(p99[True]):.1f}", "", ""),
        ("ratio", *stage.judged(stage.ratio(p99[True], p99[False]), _MOST_TIMES, at_most=True)),
        *([("values sealed anew, a second", f"{done / sum(took):,.0f}", "", "")] if directly else []),
    ]


def sealed_anew(loaded: Settings) -> int:
    """Return how many of the events that were stored are under a data key now."""
    [column] = [one for one in SEALED if one.label == "events.data"]
    database = open_database(loaded.database_url)
    done, heads = 0, [Head(key=(0,), under=None, size=0)]
    while heads and not isinstance(heads[-1].under, str):
        with database.read() as session:
            heads = column.heads(session, after=heads[-1].key, limit=_BATCH)
        done += sum(isinstance(head.under, int) for head in heads)
    database.close()
    return done


def rotate_on_and_on() -> None:
    """Rotate until killed, as a process of its own that has its code loaded; print a line before."""
    service = bootstrap.build(settings.load(os.environ))
    click.echo("ready")
    while True:
        rotate(service, progress=lambda *_: None)


_ROTATE = (*stage.PYTHON, "tests.bench.rotation", "--rotate")


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it is measured, once all is stored.")
@click.option("--rows", default=1_000_000, show_default=True, help="How many values are stored.")
@click.option("--rotate", "rotating", is_flag=True, hidden=True)
def main(*, seconds: float, rows: int, rotating: bool) -> None:
    """Measure in alternating rounds, and print one table."""
    if rotating:
        rotate_on_and_on()
    found = [row for directly in (False, True) for row in measure(rows=rows, directly=directly, seconds=seconds / 2)]
    stage.show(
        f"{_RATE:.0f} callbacks a second, {_ROUNDS} alternating rounds, medians",
        ("", "measured", "target", ""),
        found,
    )


if __name__ == "__main__":
    main()
