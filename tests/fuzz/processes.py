"""A target's run in a process of its own, whose end is a finding like any other."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from typing import TYPE_CHECKING, Any

import structlog

from tests.fuzz.runs import Tally, run
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path


def in_a_process(name: str, *, first: int, keep: Path, **asked: int) -> Tally:
    """Run a target in a process of its own; a crash or a hang of that is a finding, too."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_run, args=(name, theirs), kwargs=asked | {"first": first, "keep": keep})
    process.start()
    theirs.close()
    tally = Tally(target=name)
    try:
        while True:
            tally = ours.recv()
            print(f"{name}: {tally.cases} cases, {len(tally.findings)} findings", file=sys.stderr)
    except EOFError:
        process.join()
    if process.exitcode != 0:
        position = keep / f"{name}.position"
        number = int(position.read_text()) if position.exists() else first
        tally.note(f"the process ended by {process.exitcode}: its error is above", "", number)
    return tally


def _run(name: str, tell: Connection, **asked: Any) -> None:
    quiet()
    tell.send(run(TARGETS[name](), after=tell.send, **asked))


def quiet() -> None:
    """Log nothing: garbage gives much to tell."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
