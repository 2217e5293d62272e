"""Statements to PostgreSQL in one round trip: what comes back, and what is left when one fails."""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from tests import databases
from webhook.db import pipeline, postgres
from webhook.errors import DatabaseError
from webhook.models import events
from webhook.store import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.bootstrap import Service
    from webhook.db import Database
    from webhook.db.pipeline import Prepared

pytestmark = databases.needs_postgresql

MADE = "INSERT INTO made VALUES ($1) RETURNING number"
TOLD = [("SELECT 1", ())]


@pytest.fixture
def connection() -> Iterator[psycopg.Connection]:
    url = sa.make_url(os.environ["TEST_POSTGRESQL_URL"]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), prepare_threshold=None) as one:
        one.execute("CREATE TEMPORARY TABLE made (number BIGINT UNIQUE)")
        one.commit()
        yield one


def made(connection: psycopg.Connection) -> list[int]:
    """Return the numbers that were made and committed."""
    connection.rollback()
    return [number for (number,) in connection.execute("SELECT number FROM made ORDER BY number")]


def test_values_come_back_as_they_went(connection: psycopg.Connection) -> None:
    types: dict[str, list[Any]] = {
        "TEXT": ["", "内容", "a\\'\"$1%s?"],
        "BYTEA": [b"", bytes(range(256))],
        "BIGINT": [0, -(2**63), 2**63 - 1],
        "INTEGER": [7],
        "BOOLEAN": [True, False],
    }
    asked: list[pipeline.Asked] = [
        (f"SELECT CAST($1 AS {kind})", (value,)) for kind, values in types.items() for value in [*values, None]
    ]
    answers = pipeline.ask(connection, asked, prepared={})
    assert [answer.rows for answer in answers] == [[values] for _, values in asked]


def test_rows_are_counted_that_are_not_shown(connection: psycopg.Connection) -> None:
    asked: list[pipeline.Asked] = [
        ("INSERT INTO made SELECT generate_series(1, 5)", ()),
        ("UPDATE made SET number = number + 10 WHERE number > $1", (2,)),
        ("SELECT number FROM made WHERE number = $1", (99,)),
    ]
    assert [(len(answer.rows), answer.rowcount) for answer in pipeline.ask(connection, asked, prepared={})] == [
        *((0, 5), (0, 3), (0, 0)),
    ]


def test_what_is_asked_stands_in_one_transaction(connection: psycopg.Connection) -> None:
    prepared: Prepared = {}
    pipeline.ask(connection, [(MADE, (1,)), (MADE, (2,))], prepared=prepared)
    pipeline.ask(connection, [(MADE, (3,))], prepared=prepared)
    connection.rollback()
    assert made(connection) == []
    connection.rollback()
    pipeline.ask(connection, [(MADE, (4,))], prepared=prepared)
    pipeline.ask(connection, [(MADE, (5,))], prepared=prepared, commits=True)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    connection.commit()
    assert made(connection) == [4, 5]


def test_of_what_fails_nothing_is_left_and_the_connection_goes_on(connection: psycopg.Connection) -> None:
    prepared: Prepared = {}
    with pytest.raises(psycopg.errors.UniqueViolation, match="made_number_key"):
        pipeline.ask(connection, [(MADE, (1,)), (MADE, (1,)), *TOLD], prepared=prepared, commits=True)
    assert list(prepared) == [MADE]  # all after it was passed over
    assert made(connection) == []
    for _ in range(2):
        with pytest.raises(psycopg.errors.SyntaxError) as caught:
            pipeline.ask(connection, [("SELEKT 1", ())], prepared=prepared)
        assert caught.value.sqlstate == "42601"
        connection.rollback()
    assert list(prepared) == [MADE]
    pipeline.ask(connection, [*TOLD, (MADE, (2,))], prepared=prepared, commits=True)
    assert made(connection) == [2]


def test_a_statement_is_prepared_once_and_so_many_at_the_most(connection: psycopg.Connection) -> None:
    prepared: Prepared = {}
    asked: list[pipeline.Asked] = [(f"SELECT {number}, $1::text", ("x",)) for number in range(400)]
    for _ in range(2):
        answers = pipeline.ask(connection, asked, prepared=prepared)
        assert [answer.rows for answer in answers] == [[(number, "x")] for number in range(400)]
        connection.rollback()  # which the server's prepared statements outlive
    known = [name for (name,) in connection.execute("SELECT name FROM pg_prepared_statements")]
    assert sorted(known) == sorted(name.decode() for name in prepared.values())
    assert len(known) == pipeline._MOST_PREPARED


def test_more_than_the_buffers_hold_goes_both_ways(connection: psycopg.Connection) -> None:
    blocks = [random.Random(seed).randbytes(3_000_000) for seed in range(6)]
    answers = pipeline.ask(connection, [("SELECT $1::bytea", (block,)) for block in blocks], prepared={})
    assert [answer.rows for answer in answers] == [[(block,)] for block in blocks]


def test_other_threads_run_while_the_server_works(connection: psycopg.Connection) -> None:
    asking = threading.Thread(
        target=pipeline.ask,
        args=(connection, [("SELECT pg_advisory_lock($1), pg_advisory_unlock($1)", (7_001,))]),
        kwargs={"prepared": {}},
    )
    with psycopg.connect(connection.info.dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(7001)")
        asking.start()
        other.execute("SELECT pg_advisory_unlock(7001)")  # would not come to it if the interpreter were held
        asking.join()


def test_a_connection_that_the_server_ends_in_the_middle_says_what_that_said(connection: psycopg.Connection) -> None:
    ending: pipeline.Asked = ("SELECT pg_terminate_backend(pg_backend_pid())", ())
    with pytest.raises(psycopg.errors.AdminShutdown):
        pipeline.ask(connection, [*TOLD, ending, *TOLD], prepared={})
    assert connection.closed


def test_a_connection_that_is_lost_says_so_and_is_closed(connection: psycopg.Connection) -> None:
    with psycopg.connect(connection.info.dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        pipeline.ask(connection, TOLD, prepared={})
    assert connection.closed


ROW = ("id", "type", "created_at", "data")


def numbers(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.execute(sa.select(events.c.id).order_by(events.c.seq)).scalars())


def test_what_is_run_together_is_there_for_what_is_asked_next_and_committed(service: Service) -> None:
    database = service.database
    with database.transaction(keep=True) as session:
        for name in ("evt_1", "evt_2"):
            with text.together(session):
                assert text.insert_rows(session, events, ROW, [(name, "t", 0, b"")]) == -1
        assert session.execute(sa.select(sa.func.count()).select_from(events)).scalar() == 2
        with text.together(session):
            text.insert_rows(session, events, ROW, [("evt_3", "t", 0, b"")])
        assert text.fetch(session, "SELECT count(*) FROM events") == [(3,)]
        with text.together(session):
            text.insert_rows(session, events, ROW, [("evt_4", "t", 0, b"")])
    assert numbers(database) == ["evt_1", "evt_2", "evt_3", "evt_4"]


def test_what_is_run_together_is_gone_with_its_transaction(service: Service) -> None:
    database = service.database
    with suppress(ZeroDivisionError), database.transaction(keep=True) as session, text.together(session):
        text.insert_rows(session, events, ROW, [("evt_1", "t", 0, b"")])
        raise ZeroDivisionError
    with suppress(ZeroDivisionError), database.transaction(keep=True) as session:
        with text.together(session):
            text.insert_rows(session, events, ROW, [("evt_2", "t", 0, b"")])
        raise ZeroDivisionError
    for _ in range(2):
        with database.transaction(keep=True) as session:
            text.fetch(session, "SELECT 1")
    assert numbers(database) == []


def test_what_fails_at_the_commit_is_told_and_not_kept(service: Service) -> None:
    database = service.database
    with pytest.raises(sa.exc.IntegrityError), database.transaction(keep=True) as session, text.together(session):
        text.insert_rows(session, events, ROW, [("evt_1", "t", 0, b""), ("evt_1", "t", 0, b"")])
    with pytest.raises(DatabaseError), database.transaction(keep=True) as session:
        postgres.ask_later(session, [("SELECT 1 / 0", ())])
    assert numbers(database) == []
    with database.transaction(keep=True) as session:
        text.insert_rows(session, events, ROW, [("evt_2", "t", 0, b"")])
    assert numbers(database) == ["evt_2"]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 63, 64, 65, 300])
def test_rows_are_inserted_and_changed_in_their_order_however_many(service: Service, count: int) -> None:
    ids = [f"evt_{number:03}" for number in range(count)]
    with service.database.transaction() as session:
        rows = [(one, "t", number, bytes([number % 256])) for number, one in enumerate(ids)]
        assert text.insert_rows(session, events, ROW, rows) == count
        assert text.insert_rows(session, events, ROW, rows, known=True) == 0
    assert numbers(service.database) == ids
    with service.database.transaction() as session:
        text.update_rows(session, events, ("type", "data"), [(f"t{one}", b"new", one) for one in ids])
        among, values = text.one_of("id", ids)
        found = text.fetch(session, f"SELECT id, type, data FROM events WHERE {among} ORDER BY seq", values)  # noqa: S608
    assert found == [(one, f"t{one}", b"new") for one in ids]
