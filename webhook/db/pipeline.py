"""Several statements to PostgreSQL in one round trip, by psycopg's libpq.

What is asked on the hot path goes past psycopg's cursors. They take some 80 µs for a statement, in a pipeline too, most
of it for waiting on the socket before and after each; here all goes out at once.
https://www.psycopg.org/psycopg3/docs/api/pq.html, https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

if TYPE_CHECKING:
    from collections.abc import Sequence

Prepared = dict[str, bytes]
"""The statements that a connection has prepared, and under which names."""

_MOST_PREPARED = 300  # of one connection: each takes the server some 20 KB
_BINARY = pq.Format.BINARY


class Answer(NamedTuple):
    """What a statement gave.

    Attributes:
        rowcount: of those that it was about, shown or not.
    """

    rows: Sequence[tuple[Any, ...]]
    rowcount: int


def ask(
    connection: psycopg.Connection, asked: Sequence[tuple[str, Sequence[Any]]], *, prepared: Prepared
) -> list[Answer]:
    """Have statements executed in the order given, in a transaction unless the connection has none.

    Args:
        asked: statements with `$1` and so on for values, and these: None, texts, bytes, whole numbers, truth values.
        prepared: what the connection has prepared; it is kept up.

    Raises:
        psycopg.Error: of the first that failed; none after it was executed.
    """
    link = connection.pgconn
    fresh: Prepared = {}
    sent: list[str | None] = []  # what is sent: a statement that is prepared, or None for one that is executed
    begins = not connection.autocommit and link.transaction_status == pq.TransactionStatus.IDLE
    link.enter_pipeline_mode()
    try:
        if begins:
            link.send_query_params(b"BEGIN", None)
        for statement, values in asked:
            name = prepared.get(statement) or fresh.get(statement)
            if name is None and len(prepared) + len(fresh) < _MOST_PREPARED:
                name = fresh[statement] = b"webhook_%d" % (len(prepared) + len(fresh))
                link.send_prepare(name, statement.encode())
                sent.append(statement)
            given = [_given(value) for value in values]
            formats = [_BINARY if type(value) is bytes else pq.Format.TEXT for value in values]
            if name is None:
                link.send_query_params(statement.encode(), given, None, formats, _BINARY)
            else:
                link.send_query_prepared(name, given, formats, _BINARY)
            sent.append(None)
        link.pipeline_sync()
        results = _results(link)
        link.exit_pipeline_mode()
    except BaseException:  # nobody knows any more what it would answer to whom
        connection.close()
        raise
    answers = []
    reader = Transformer(connection)
    if begins:
        _check(results.pop(0))
    for statement_prepared, result in zip(sent, results, strict=True):
        _check(result)
        if statement_prepared is not None:
            prepared[statement_prepared] = fresh[statement_prepared]
            continue
        reader.set_pgresult(result)
        answers.append(Answer(reader.load_rows(0, result.ntuples, tuple), result.command_tuples or 0))
    return answers


def _given(value: Any) -> bytes | None:
    """Return a value as the server reads it."""
    if value is None or type(value) is bytes:
        return value
    return (value if type(value) is str else str(value)).encode()


def _results(link: pq.abc.PGconn) -> list[pq.abc.PGresult]:
    """Return what has come of each thing that was sent, once all has come; other threads run meanwhile."""
    results: list[pq.abc.PGresult] = []
    poll = select.poll()
    is_flushed = False
    while True:
        if not is_flushed:
            is_flushed = link.flush() == 0
            poll.register(link.socket, select.POLLIN if is_flushed else select.POLLIN | select.POLLOUT)
        [(_, events)] = poll.poll()
        if events & ~select.POLLOUT:
            link.consume_input()
        while not link.is_busy():
            result = link.get_result()
            if result is None:  # after all of one statement
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)


def _check(result: pq.abc.PGresult) -> None:
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
