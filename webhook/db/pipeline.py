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

Asked = tuple[str, "Sequence[Any]"]
"""A statement with `$1` and so on for values, and these: None, texts, bytes, whole numbers, truth values."""

Prepared = dict[str, bytes]
"""The statements that a connection has prepared, and under which names."""

_MOST_PREPARED = 300  # of one connection: each takes the server some ten times its length
_LONGEST_PREPARED = 20_000
_BINARY = pq.Format.BINARY


class Answer(NamedTuple):
    """What a statement gave.

    Attributes:
        rowcount: of those that it was about, shown or not.
    """

    rows: Sequence[tuple[Any, ...]]
    rowcount: int


def ask(
    connection: psycopg.Connection,
    asked: Sequence[Asked],
    *,
    prepared: Prepared,
    commits: bool = False,
) -> list[Answer]:
    """Have statements executed in the order given, in a transaction unless the connection has none.

    Args:
        prepared: what the connection has prepared; it is kept up.
        commits: whether the transaction is to end by them.

    Raises:
        psycopg.Error: of the first that failed; none after it was executed.
    """
    link = connection.pgconn
    begins = not connection.autocommit and link.transaction_status == pq.TransactionStatus.IDLE
    link.enter_pipeline_mode()
    try:
        sent = [_send(link, "BEGIN")] if begins else []
        known = dict(prepared)
        for statement, values in asked:
            name = known.get(statement)
            if name is None and len(known) < _MOST_PREPARED and len(statement) <= _LONGEST_PREPARED:
                name = known[statement] = b"webhook_%d" % len(known)
                link.send_prepare(name, statement.encode())
                sent.append(_Sent(prepares=statement))
            sent.append(_send(link, statement, values, name=name, is_asked=True))
        if commits:
            sent.append(_send(link, "COMMIT"))
        link.pipeline_sync()
        results = _results(link)
        link.exit_pipeline_mode()
    except BaseException:  # nobody knows any more what it would answer to whom
        connection.close()
        raise
    for one, result in zip(sent, results, strict=True):
        _check(result)
        if one.prepares is not None:
            prepared[one.prepares] = known[one.prepares]
    reader = Transformer(connection)
    answers = []
    for one, result in zip(sent, results, strict=True):
        if one.is_asked:
            reader.set_pgresult(result)
            answers.append(Answer(reader.load_rows(0, result.ntuples, tuple), result.command_tuples or 0))
    return answers


class _Sent(NamedTuple):
    """Something that the server gives a result of.

    Attributes:
        prepares: the statement that is only prepared.
        is_asked: whether somebody wants the result.
    """

    prepares: str | None = None
    is_asked: bool = False


def _send(
    link: pq.abc.PGconn,
    statement: str,
    values: Sequence[Any] = (),
    *,
    name: bytes | None = None,
    is_asked: bool = False,
) -> _Sent:
    """Have a statement executed, by the name that it was prepared under if there is one."""
    given = [_given(value) for value in values]
    formats = [_BINARY if type(value) is bytes else pq.Format.TEXT for value in values]
    if name is None:
        link.send_query_params(statement.encode(), given, None, formats, _BINARY)
    else:
        link.send_query_prepared(name, given, formats, _BINARY)
    return _Sent(is_asked=is_asked)


def notices(connection: psycopg.Connection, *, seconds: float) -> list[str]:
    """Return what was said on the channels that are listened to; wait for it for so long.

    Raises:
        psycopg.Error: the connection is lost.
    """
    link = connection.pgconn
    poll = select.poll()
    poll.register(link.socket, select.POLLIN)
    if poll.poll(seconds * 1000):
        link.consume_input()
    return [notice.extra.decode() for notice in iter(link.notifies, None)]


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
            _take_in(link, results)
        ends = 0  # one after the last result of each statement; another says that nothing more has come
        while ends < _NOTHING and not link.is_busy():
            result = link.get_result()
            if result is None:
                ends += 1
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            else:
                ends = 0
                results.append(result)


_NOTHING = 2


def _take_in(link: pq.abc.PGconn, results: Sequence[pq.abc.PGresult]) -> None:
    """Read what the server has sent; where it has ended the connection, raise what it said last."""
    try:
        link.consume_input()
    except psycopg.OperationalError:
        for result in results:
            _check(result)
        raise


def _check(result: pq.abc.PGresult) -> None:
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
