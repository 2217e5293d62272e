"""All benchmarks, one after the other: `python -m tests.bench`.

Each gets its share of the time given, and a process of its own; one that fails is told of at the end. On PostgreSQL
(TEST_POSTGRESQL_URL) the same ones run but those that are about the platform or a single process's memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import NamedTuple

import click

from tests import databases
from tests.bench import stage


class _Bench(NamedTuple):
    """One benchmark.

    Attributes:
        seconds: that it takes altogether, when all of them take as long as they need.
        untimed: of these, what it takes whatever `--seconds` says; None where it has no such option.
        on_server: whether PostgreSQL makes a difference.
    """

    name: str
    seconds: float
    untimed: float | None
    on_server: bool


_BENCHES = (
    _Bench("steps", 40, 5, on_server=True),
    _Bench("receive", 120, 15, on_server=True),
    _Bench("open_loop", 80, 10, on_server=True),
    _Bench("latency", 40, 5, on_server=True),
    _Bench("deliveries", 80, 10, on_server=True),
    _Bench("storage", 100, 10, on_server=True),
    _Bench("full", 160, 120, on_server=True),
    _Bench("queries", 20, None, on_server=True),
    _Bench("rotation", 160, 100, on_server=True),
    _Bench("protection", 80, 20, on_server=True),
    _Bench("large", 60, 10, on_server=False),
    _Bench("submit", 60, 10, on_server=False),
    _Bench("idle", 120, 60, on_server=False),
    _Bench("upload", 40, None, on_server=False),
)


@click.command(help=__doc__)
@click.option("--seconds", default=1300.0, show_default=True, help="About how long all of them may take.")
def main(seconds: float) -> None:
    """Run them, and say which failed."""
    chosen = [bench for bench in _BENCHES if databases.SERVER is None or bench.on_server]
    fixed = sum(bench.seconds if bench.untimed is None else bench.untimed for bench in chosen)
    free = sum(bench.seconds for bench in chosen) - fixed
    share = (seconds - fixed) / free
    if share <= 0:
        raise click.ClickException(f"They take {fixed:.0f} s before they measure anything.")
    failed = []
    began = time.monotonic()
    for bench in chosen:
        command = [*stage.PYTHON, f"tests.bench.{bench.name}"]
        if bench.untimed is not None:
            command.append(f"--seconds={(bench.seconds - bench.untimed) * share:.1f}")
        click.echo(f"python {' '.join(command[1:])}, after {time.monotonic() - began:.0f} s")
        if subprocess.run(command, cwd=stage.ROOT, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            failed.append(bench.name)
    if failed:
        click.echo(f"Failed: {', '.join(failed)}.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
