"""What a callback takes on disk, beside plain tables that hold the same: `python -m tests.bench.storage`.

Express, or the plain design where there is none, and the service take the same callbacks over HTTP, about tasks that
are there, and are looked at once they have stopped: SQLite's file after a checkpoint, all tables with their indexes
after VACUUM on PostgreSQL (TEST_POSTGRESQL_URL).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
import sqlalchemy as sa

from tests import databases
from tests.bench import peers, stage
from tests.bench.load import Job, Load, requests

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tests.bench.stage import Server

_SLICES = 10
_PER_SECOND = 200  # callbacks for each second given: each server takes several times as many
_LONGEST_SECONDS = 300.0
_TARGET = 1.0 if databases.SERVER is None else 1.3


def stored_bytes(url: str) -> int:
    """Return what a database that nobody works with takes on disk."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if databases.SERVER is None:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            size = Path(sa.make_url(url).database or "").stat().st_size
        else:
            connection.exec_driver_sql("VACUUM")
            size = connection.exec_driver_sql(_ALL_TABLES).scalar_one()
    engine.dispose()
    return size


def largest_parts(url: str) -> list[tuple[str, int]]:
    """Return the tables that take the most with their indexes, and their bytes; none where SQLite cannot tell."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(_PARTS_SQLITE if databases.SERVER is None else _PARTS).all()
    except sa.exc.OperationalError:  # a build without dbstat
        return []
    finally:
        engine.dispose()
    return [(name, size) for name, size in rows]


_ALL_TABLES = """
    SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
_PARTS = """
    SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY size DESC LIMIT 5
"""
_PARTS_SQLITE = """
    SELECT m.tbl_name, sum(d.pgsize) AS size FROM dbstat AS d JOIN sqlite_master AS m ON m.name = d.name
    GROUP BY m.tbl_name ORDER BY size DESC LIMIT 5
"""


def send_all(server: AbstractContextManager[Server | None], *, count: int) -> bool:
    """Run a server and send it the callbacks; return whether it could be had."""
    with server as running, Load() as load:
        if running is None:
            return False
        job = Job(
            port=running.port,
            path="/callbacks/tNUMBER",
            seed="sNUMBER",
            first=0,
            count=count,
            seconds=_LONGEST_SECONDS,
            slices=_SLICES,
        )
        outcome = load.run(job)
        if outcome.refused or outcome.next < count:
            raise click.ClickException(f"{outcome.refused} of {outcome.next} were refused, {count} were to be sent.")
        return True


@click.command(help=__doc__)
@click.option("--seconds", default=100.0, show_default=True, help="About how long it may take altogether.")
def main(seconds: float) -> None:
    """Send them, look, and print one table."""
    count = int(seconds * _PER_SECOND)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        peer = "express"
        if not send_all(peers.express(directory, tasks=count), count=count):
            peer = "plain"
            send_all(peers.plain(directory, tasks=count), count=count)
        theirs = stored_bytes(peers.database_url(directory, peer)) / count
        send_all(stage.service(directory, tasks=count, processes=stage.PROCESSES), count=count)
        url = databases.url_of(directory)
        ours = stored_bytes(url) / count
        parts = largest_parts(url)
    content = next(requests(Job(port=0, path="/", seed="", first=0, count=1, seconds=0, slices=_SLICES)))
    stage.show(
        f"Bytes on disk for each of {count} callbacks of {_SLICES} slices, about a task of its own",
        ("", "measured", "target", ""),
        [
            ("a callback's request", f"{len(content)}", "", ""),
            (f"plain tables, {peer}", f"{theirs:.0f}", "", ""),
            ("service", f"{ours:.0f}", "", ""),
            *[(f"  of it {name}", f"{size / count:.0f}", "", "") for name, size in parts],
            ("ratio", *stage.judged(ours / theirs, _TARGET, at_most=True)),
        ],
    )


if __name__ == "__main__":
    main()
