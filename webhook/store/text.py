"""SQL as text for the statements of the hot path, where SQLAlchemy's own execution costs more than the database's.

Rows go in and come out as plain tuples, so whoever uses it translates times and JSON as `models` does.
Placeholders are `?`, whatever the database.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from webhook.db import is_postgresql, sqlite, without_nul

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa

    from webhook.db import Session
    from webhook.db.pipeline import Answer, Asked


def fetch(session: Session, statement: str, values: Sequence[Any] = ()) -> Sequence[tuple[Any, ...]]:
    """Return all rows that a statement has."""
    [rows] = fetch_all(session, [(statement, values)])
    return rows


def fetch_all(session: Session, asked: Sequence[Asked]) -> list[Sequence[tuple[Any, ...]]]:
    """Return the rows of each of several statements, none of which needs another's; a server gets them all at once."""
    if not is_postgresql(session):
        return [sqlite.execute(session, statement, values).fetchall() for statement, values in asked]
    return [answer.rows for answer in _ask(session, asked)]


def run(session: Session, statement: str, values: Sequence[Any] = ()) -> int:
    """Execute a statement once, or once for each of a list of rows; return how many rows it was about.

    What runs `together` with others does not know it yet.
    """
    if not is_postgresql(session):
        return sqlite.execute(session, statement, values).rowcount
    return _run(session, [(statement, row) for row in (values if isinstance(values, list) else [values])])


@contextmanager
def together(session: Session) -> Iterator[None]:
    """Have what a block runs, whose results nobody needs, go to a server with what it is asked next, or the commit."""
    if not is_postgresql(session):
        yield
        return
    session.info[_TOGETHER] = True
    try:
        yield
    finally:
        session.info[_TOGETHER] = False


_TOGETHER = "together"


def _run(session: Session, asked: Sequence[Asked]) -> int:
    if session.info.get(_TOGETHER):
        from webhook.db import postgres

        postgres.ask_later(session, _native(asked))
        return -1
    return sum(answer.rowcount for answer in _ask(session, asked))


def _ask(session: Session, asked: Sequence[Asked]) -> Sequence[Answer]:
    if not asked:
        return ()
    from webhook.db import postgres  # it needs the extra `postgres`

    return postgres.ask(session, _native(asked))


def _native(asked: Sequence[Asked]) -> list[Asked]:
    return [(_numbered(statement), without_nul(values)) for statement, values in asked]


@lru_cache(maxsize=512)
def _numbered(statement: str) -> str:
    """Return a statement with PostgreSQL's placeholders; none of ours has a literal `?`."""
    first, *others = statement.split("?")
    return first + "".join(f"${number}{text}" for number, text in enumerate(others, 1))


def marks(count: int) -> str:
    """Return so many placeholders."""
    return ", ".join("?" * count)


def room_for(count: int) -> int:
    """Return for how many of something a statement is to have room: each number makes another one to be prepared."""
    return next((size for size in _AT_ONCE if size >= count), count)


def one_of(column: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """Return the condition that a column has one of some values, and what stands for its placeholders."""
    if len(values) == 1:
        return f"{column} = ?", tuple(values)
    given = (*values, *[values[-1]] * (room_for(len(values)) - len(values)))
    return f"{column} IN ({marks(len(given))})", given


def merged(
    session: Session, ranges: Sequence[str], *, order: str, limit: int, orders: Sequence[str] = (), once: bool = False
) -> str:
    """Return the statement for the first rows of some selects together, each of which an index has in this order.

    Each is read no further than its rows are needed. SQLite does so by itself; PostgreSQL sees the order of a part of
    a union only where it is asked for there.

    Args:
        orders: of each select on PostgreSQL, where it has to name more of the index to have it used.
        once: rows that several selects have come once; otherwise none may.
    """
    end = f" ORDER BY {order} LIMIT {limit:d}"
    if not is_postgresql(session):
        return f"{(' UNION ' if once else ' UNION ALL ').join(ranges)}{end}"
    parts = zip(ranges, orders or [order] * len(ranges), strict=True)
    union = " UNION ALL ".join(f"({each} ORDER BY {own} LIMIT {limit:d})" for each, own in parts)
    return f"SELECT {'DISTINCT ' if once else ''}* FROM ({union}) AS merged{end}"  # noqa: S608 - our own words


def insert_rows(
    session: Session, table: sa.Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, known: bool = False
) -> int:
    """Insert rows, and return how many there were inserted.

    Args:
        known: whether some may be there already; they stay as they are.
    """
    if not rows:
        return 0
    if not is_postgresql(session):
        return run(session, _insert(table.name, tuple(columns), 1) + (_UNLESS_KNOWN if known else ""), list(rows))
    return _run(session, ask_insert(table, columns, rows, known=known))


def ask_insert(
    table: sa.Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, known: bool, returning: str = ""
) -> list[Asked]:
    """Return what to ask PostgreSQL to insert rows, as `insert_rows` does, and in their order: events are numbered so.

    Args:
        returning: a column whose values are wanted of those inserted.
    """
    tail = (_UNLESS_KNOWN if known else "") + (f" RETURNING {returning}" if returning else "")
    most = max(size for size in _AT_ONCE if size == 1 or size * len(columns) <= _MOST_VALUES)
    asked: list[Asked] = []
    start = 0
    while start < len(rows):
        count = max(size for size in _AT_ONCE if size <= min(most, len(rows) - start))
        values = tuple(chain.from_iterable(rows[start : start + count]))
        asked.append((_insert(table.name, tuple(columns), count) + tail, values))
        start += count
    return asked


_UNLESS_KNOWN = " ON CONFLICT DO NOTHING"
_AT_ONCE = (1, 4, 16, 64, 256, 1024)  # of something in a statement: each is prepared by itself
_MOST_VALUES = 700


@lru_cache(maxsize=256)
def _insert(table: str, columns: tuple[str, ...], count: int) -> str:
    rows = ", ".join([f"({marks(len(columns))})"] * count)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {rows}"  # noqa: S608 - our own names


def update_rows(session: Session, table: sa.Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """Set columns of many rows.

    Args:
        rows: the columns' values of each, and its `id` last; in the order of the ids where others may write them too.
    """
    if rows:
        run(session, f"UPDATE {table.name} SET {' = ?, '.join(columns)} = ? WHERE id = ?", list(rows))  # noqa: S608


def upsert(session: Session, table: sa.Table, values: dict[str, Any], *, keep: bool = False) -> bool:
    """Insert a row in place of one with the same primary key; return whether it was written.

    Args:
        keep: leave what is there as it is.
    """
    insert = (postgresql.insert if is_postgresql(session) else sqlite_insert)(table).values(values)
    insert = insert.execution_options(preserve_rowcount=True)
    if keep:
        return session.execute(insert.on_conflict_do_nothing()).rowcount == 1
    key = [column.name for column in table.primary_key]
    return session.execute(insert.on_conflict_do_update(index_elements=key, set_=values)).rowcount == 1
