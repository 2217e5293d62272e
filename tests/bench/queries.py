"""Lists and the worker's own questions with much in the database, beside little: `python -m tests.bench.queries`.

Of 10 slices a task, in the tasks' own counts. Of a list as many rows are asked for as the smaller database has. With
TEST_POSTGRESQL_URL in the environment it is on that server.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Sized
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from tests import databases, history, looked_for
from tests.bench import stage
from tests.clients import ADMIN_KEY, AppClient
from tests.running import ENCRYPTION_KEYS
from webhook import bootstrap, settings
from webhook.app import create_app
from webhook.db import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLICES_A_TASK = 10
_TARGET = 1.5
_ROUNDS = 15
_MOST_ROWS = 50


class _Undone(Exception):
    pass


class Stored:
    """A service with so many tasks behind it."""

    def __init__(self, directory: Path, *, tasks: int) -> None:
        url = databases.url_of(directory)
        with contextlib.closing(open_database(url)) as database:
            bootstrap.upgrade(database)
        history.fill(url, tasks=tasks, analyze=False)
        variables = {"WEBHOOK_DATABASE_URL": url, "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS}
        variables |= {"WEBHOOK_ADMIN_KEY": ADMIN_KEY} | databases.directories(directory)
        self._service = bootstrap.build(settings.load(variables))
        self._client = AppClient(create_app(self._service))
        self._routes = list(looked_for.routes(tasks).values())
        self._own = functools.cache(functools.partial(looked_for.own, tasks))
        self.names = [*self._own(limit=_MOST_ROWS), *looked_for.routes(tasks)]

    def ask(self, number: int, *, limit: int = _MOST_ROWS) -> tuple[float, int]:
        """Return the seconds that one question took, and how many rows it had; what it changes is undone."""
        own = self._own(limit=limit)
        started = time.perf_counter()
        if number < len(own):
            answer: object = None
            with contextlib.suppress(_Undone), self._service.database.transaction() as session:
                answer = own[self.names[number]](session)
                raise _Undone
            rows = len(answer) if isinstance(answer, Sized) else limit
        else:
            path = self._routes[number - len(own)]
            rows = looked_for.asked(self._client, f"{path}&limit={limit}" if "?" in path else path)
        return time.perf_counter() - started, rows

    def close(self) -> None:
        """Close its database."""
        self._service.database.close()


@contextlib.contextmanager
def _stored(tasks: int) -> Iterator[Stored]:
    with tempfile.TemporaryDirectory() as directory, contextlib.closing(Stored(Path(directory), tasks=tasks)) as one:
        yield one


@click.command(help=__doc__)
@click.option("--slices", default=1_000_000, show_default=True, help="How many there are in the larger database.")
@click.option("--beside", default=10_000, show_default=True, help="How many there are in the smaller one.")
def main(slices: int, beside: int) -> None:
    """Measure in alternating rounds, and print one table."""
    with _stored(beside // _SLICES_A_TASK) as few, _stored(slices // _SLICES_A_TASK) as many:
        rows = []
        for number, name in enumerate(many.names):
            limit = max(1, min(one.ask(number)[1] for one in (few, many)))  # the same number of rows
            pairs = [tuple(one.ask(number, limit=limit)[0] for one in (few, many)) for _ in range(_ROUNDS)]
            small, large = (median(times) for times in zip(*pairs, strict=True))
            milliseconds = (f"{small * 1000:.2f}", f"{large * 1000:.2f}")
            rows.append((name, *milliseconds, *stage.judged(large / small, _TARGET, at_most=True)))
    stage.show(
        f"Medians of {_ROUNDS} alternating rounds",
        ("", f"{beside:,} slices: ms", f"{slices:,}: ms", "ratio", "target", ""),
        rows,
    )


if __name__ == "__main__":
    main()
