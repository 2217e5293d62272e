"""`python -m tests.faults --rounds 300 --seed 7 [--server postgres]`: rounds of faults, and what they found."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.faults import laps
from tests.faults.kinds import KINDS, family
from tests.postgres_server import PostgresServer


def main() -> int:
    """Run what the command line asks for; the exit status is 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--server", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to run a part again")
    parser.add_argument("--only", action="append", help="a fault, or a kind of them; may be given again")
    parser.add_argument("--list", action="store_true", help="name the faults")
    parser.add_argument("--logs", type=Path, help="where the logs go of what has failed")
    asked = parser.parse_args()
    kinds = laps.available(on=asked.server)
    if asked.only:
        kinds = [name for name in kinds if {name, family(name)} & set(asked.only)]
    if asked.list or not kinds:
        print("\n".join(kinds or KINDS))
        return 0 if asked.list else 2
    logging.getLogger("aiohttp.server").disabled = True  # the sandbox, on calls that were cut off
    with ExitStack() as stack:
        server = None
        if asked.server == "postgres":
            server = PostgresServer(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(server.stop)
        tally = laps.run(
            rounds=asked.rounds,
            seed=asked.seed,
            kinds=kinds,
            server=server,
            first=asked.first,
            logs=asked.logs,
            after_lap=lambda so_far: print(
                f"{so_far.rounds} rounds, {len(so_far.violations)} violations", file=sys.stderr
            ),
        )
    print(f"seed {asked.seed}, {asked.server}: {tally}")
    for violation in tally.violations:
        print(f"  {violation}")
    if tally.violations:
        only = "".join(f" --only {name}" for name in asked.only or ())
        print(f"again: python -m tests.faults --seed {asked.seed} --server {asked.server}{only} and what stands above")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
