"""`python -m tests.fuzz --cases 1000000 --seed 7 [--target parser]`: garbage of all kinds, and what it found."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.processes import in_a_process, quiet
from tests.fuzz.runs import read_case
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from tests.fuzz.runs import Tally


def main() -> int:
    """Run what the command line asks for; the exit status is 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="of all targets together, or of those that are named")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be given again")
    parser.add_argument("--first", type=int, default=0, help="number of each target's first case")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where cases go that find something")
    parser.add_argument("--replay", type=Path, help="ask a case again that was kept")
    asked = parser.parse_args()
    quiet()
    if asked.replay:
        return _replay(asked.replay)
    names = asked.target or list(TARGETS)
    shares = sum(TARGETS[name].share for name in names)
    asked.keep.mkdir(parents=True, exist_ok=True)
    tallies = []
    for name in names:
        count = round(asked.cases * TARGETS[name].share / shares)
        tallies.append(in_a_process(name, cases=count, seed=asked.seed, first=asked.first, keep=asked.keep))
        print(_told(tallies[-1]), flush=True)
    findings = [finding for tally in tallies for finding in tally.findings.values()]
    print(f"seed {asked.seed}: {sum(tally.cases for tally in tallies)} cases, {len(findings)} findings")
    return 1 if findings else 0


def _replay(path: Path) -> int:
    target, case = read_case(path, {name: make() for name, make in TARGETS.items()})
    print(case)
    with target.ready():
        print(target.ask(case))
    return 0


def _told(tally: Tally) -> str:
    """Return a tally in lines."""
    rate = tally.cases / tally.seconds if tally.seconds else 0.0
    slowest, number = tally.slowest
    said = f"{tally.target}: {tally.cases} cases in {tally.seconds:.0f} s ({rate:.0f}/s), "
    said += f"{slowest * 1000:.0f} ms of processor time at the most (case {number}), "
    lines = [f"{said}{tally.peak_bytes / 1024**2:.0f} MiB at the peak"]
    lines.append("  " + ", ".join(f"{answer}: {count}" for answer, count in tally.answers.most_common()))
    for finding in tally.findings.values():
        lines.append(f"  FOUND {finding.count} times: {finding.what}")
        lines += [f"    again: python -m tests.fuzz --replay {file}" for file in finding.files]
        lines.append(f"    cases {', '.join(map(str, finding.numbers))}")
        lines += [f"    {line}" for line in finding.trace.splitlines()[-8:]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
