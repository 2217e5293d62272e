"""`webhook migrate --from … --to …`: everything of one database into another, in one transaction, and compared.

A killed transfer leaves the target as it was. What lies in files (uploads, evidence, the key) stays where it is.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import bootstrap, clock
from webhook.db import claim_web, is_postgresql, open_database
from webhook.errors import DatabaseError
from webhook.models import metadata
from webhook.store import keys as key_store
from webhook.store.text import insert_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import sqlalchemy as sa

    from webhook.db import Database, Session

_BATCH = 1000  # rows
_ALIVE = key_store.HEARTBEAT * 3


@dataclass(frozen=True, kw_only=True)
class Copied:
    """One table, as it is in both databases.

    Attributes:
        digest: SHA-256 of its rows in the order of its key.
    """

    table: str
    rows: int
    digest: str


def transfer(source_url: str, target_url: str, *, progress: Callable[[str, int, int], None]) -> list[Copied]:
    """Copy a database that no service uses into an empty one, and compare them.

    Args:
        progress: told a table, how many of its rows are copied, and how many there are.

    Raises:
        DatabaseError: one of them is not what it must be, cannot be read or written, or they differ; the target is
            then as it was, but for its schema.
    """
    with closing(open_database(source_url)) as source, closing(open_database(target_url)) as target:
        bootstrap.check_migrated(source)
        _check_idle(source)
        bootstrap.upgrade(target)
        # a server gives rows some at a time only inside a transaction
        with source.transaction() if source.path is None else source.read() as there, target.transaction() as here:
            _check_empty(here, target)
            copied = [_copy(table, there, here, progress=progress) for table in metadata.sorted_tables]
            _continue_numbers(here)
            for one in copied:
                found = _digest(_rows(metadata.tables[one.table], here))
                if found != (one.rows, one.digest):
                    raise DatabaseError(f"{one.table} is not the same in {target.name}: nothing was kept of it.")
        return copied


def _check_idle(source: Database) -> None:
    if source.path is not None:
        claim_web(source.path).close()
    with source.read() as session:
        beat = key_store.last_beat(session, key_store.WORKER)
    if beat is not None and clock.now() - beat < _ALIVE:
        raise DatabaseError(
            f"A worker used {source.name} {(clock.now() - beat).total_seconds():.0f} s ago. Stop it, and try again in "
            f"{_ALIVE.total_seconds():.0f} s."
        )


def _check_empty(session: Session, target: Database) -> None:
    for table in metadata.sorted_tables:
        if session.execute(table.select().limit(1)).first() is not None:
            raise DatabaseError(f"{target.name} is not empty: {table.name} has rows. Give it a database of its own.")


def _copy(table: sa.Table, source: Session, target: Session, *, progress: Callable[[str, int, int], None]) -> Copied:
    total = source.exec_driver_sql(f"SELECT count(*) FROM {table.name}").scalar_one()  # noqa: S608 - our own name
    columns = _columns(table)
    copied = 0

    def batches() -> Iterator[Sequence[tuple[Any, ...]]]:
        nonlocal copied
        for batch in _rows(table, source):
            insert_rows(target, table, columns, batch)
            copied += len(batch)
            progress(table.name, copied, total)
            yield batch

    rows, digest = _digest(batches())
    progress(table.name, rows, total)
    return Copied(table=table.name, rows=rows, digest=digest)


def _rows(table: sa.Table, session: Session) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Yield a table's rows as the database has them, in the order of its key, some at a time."""
    key = ", ".join(column.name for column in table.primary_key)
    statement = f"SELECT {', '.join(_columns(table))} FROM {table.name} ORDER BY {key}"  # noqa: S608 - our own names
    session = session.execution_options(stream_results=True, max_row_buffer=_BATCH)
    with session.exec_driver_sql(statement) as result:
        for part in result.partitions(_BATCH):
            yield [tuple(row) for row in part]


def _columns(table: sa.Table) -> tuple[str, ...]:
    return tuple(table.columns.keys())


def _digest(batches: Iterator[Sequence[tuple[Any, ...]]]) -> tuple[int, str]:
    """Return how many rows there are, and their SHA-256."""
    count, digest = 0, hashlib.sha256()
    for batch in batches:
        count += len(batch)
        for row in batch:
            digest.update(msgspec.msgpack.encode(row))
    return count, digest.hexdigest()


def _continue_numbers(session: Session) -> None:
    """Have the feed go on after the last number that was copied."""
    if is_postgresql(session):
        session.exec_driver_sql("SELECT setval('events_seq_seq', max(seq)) FROM events HAVING max(seq) IS NOT NULL")
