"""Transactions are whole, writers take turns, changes are noticed, and troubles are told in words."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from webhook.db import claim_web, sqlite
from webhook.db.sqlite import SqliteDatabase
from webhook.errors import DatabaseBusy, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    one = SqliteDatabase(f"sqlite:///{tmp_path}/test.db")
    with one.transaction() as session:
        session.exec_driver_sql("CREATE TABLE numbers (value INTEGER)")
    yield one
    one.close()


def numbers(database: SqliteDatabase) -> list[int]:
    with database.read() as session:
        return list(session.execute(sa.text("SELECT value FROM numbers ORDER BY value")).scalars())


def add(database: SqliteDatabase, value: int) -> None:
    with database.transaction() as session:
        session.exec_driver_sql("INSERT INTO numbers VALUES (?)", (value,))


def test_a_transaction_that_fails_leaves_nothing(database: SqliteDatabase) -> None:
    def fail() -> None:
        with database.transaction() as session:
            session.exec_driver_sql("INSERT INTO numbers VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert numbers(database) == []


def test_a_commit_is_synced_to_disk_through_the_write_ahead_log(database: SqliteDatabase) -> None:
    for durable, synchronous in ((True, 2), (False, 1), (True, 2)):  # FULL, NORMAL
        with database.transaction(durable=durable, keep=True) as session:
            assert session.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert session.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous


def test_a_thread_keeps_its_connection_until_a_transaction_fails_on_it(database: SqliteDatabase) -> None:
    used: list[object] = []

    def use() -> None:
        with database.transaction(keep=True) as session:
            used.append(session.connection.dbapi_connection)
            session.exec_driver_sql("INSERT INTO numbers VALUES (1)")

    def fail() -> None:
        with database.transaction(keep=True) as session:
            used.append(session.connection.dbapi_connection)
            with database.read(keep=True) as other:
                used.append(other.connection.dbapi_connection)
            raise ZeroDivisionError

    use()
    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as session, database.read() as other:
        given_back = {id(session.connection.dbapi_connection), id(other.connection.dbapi_connection)}
    elsewhere = threading.Thread(target=use)
    elsewhere.start()
    elsewhere.join()
    first, again, inside, others = used
    assert first is again
    assert inside is not again
    assert id(first) in given_back
    assert id(inside) not in given_back
    assert others is not inside
    assert numbers(database) == [1, 1]


def test_writers_of_many_threads_and_connections_all_get_their_turn(database: SqliteDatabase, tmp_path: Path) -> None:
    other = SqliteDatabase(f"sqlite:///{tmp_path}/test.db")  # as of another process: a lock file of its own

    def write(start: int) -> None:
        for value in range(start, start + 20):
            add(other if start % 40 else database, value)

    threads = [threading.Thread(target=write, args=(start,)) for start in range(0, 160, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert numbers(database) == list(range(160))


def test_who_is_not_to_wait_for_another_writer_is_told_so_and_writes_as_soon_as_that_has_ended(
    database: SqliteDatabase,
) -> None:
    def write() -> None:
        with database.transaction(wait=False, keep=True) as session:
            session.exec_driver_sql("INSERT INTO numbers VALUES (1)")

    def refused() -> None:
        with pytest.raises(DatabaseBusy):
            write()

    write()
    ours = SqliteDatabase(f"sqlite:///{database.path}")
    for other in (database, ours):  # in this process, and by its lock as from another one
        with ThreadPoolExecutor(1) as threads, other.transaction():
            threads.submit(refused).result()
    ours.close()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as foreign:  # which knows of no turns
        foreign.execute("BEGIN IMMEDIATE")
        refused()
    write()
    assert numbers(database) == [1, 1]
    assert database.trouble is None
    with database.transaction(wait=False, keep=True) as session:
        assert session.exec_driver_sql("PRAGMA busy_timeout").scalar() == sqlite._BUSY_SECONDS * 1000


def test_a_commit_of_anyone_is_seen_once(database: SqliteDatabase, tmp_path: Path) -> None:
    changes = database.watch()
    assert not changes.seen()
    other = SqliteDatabase(f"sqlite:///{tmp_path}/test.db")
    add(other, 1)
    assert changes.seen()
    assert not changes.seen()
    add(database, 2)
    assert changes.seen()
    changes.close()
    other.close()


def test_the_bell_rings_in_the_process_that_listens_when_another_commits(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    listener = SqliteDatabase(f"sqlite:///{tmp_path}/test.db")
    bell = listener.bell()
    if bell is None:
        pytest.skip("the path of the test's directory is too long for a socket")
    add(listener, 1)
    with pytest.raises(BlockingIOError):
        bell.recv(1)
    with database.transaction(durable=False) as session:
        session.exec_driver_sql("INSERT INTO numbers VALUES (2)")
    with pytest.raises(BlockingIOError):
        bell.recv(1)
    add(database, 2)
    assert bell.recv(1)
    listener.close()
    add(database, 3)  # nobody listens: no error


def test_a_directory_too_deep_for_a_socket_has_no_bell_and_commits_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    database = SqliteDatabase(f"sqlite:///{deep}/test.db")
    assert database.bell() is None
    with database.transaction() as session:
        session.exec_driver_sql("CREATE TABLE numbers (value INTEGER)")
    add(database, 1)
    assert numbers(database) == [1]
    database.close()


def test_without_file_locks_writers_wait_by_sqlite_s_own_means(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr("webhook.db.sqlite.fcntl", None)
    with claim_web(database.path), claim_web(database.path):
        add(database, 1)
    assert numbers(database) == [1]


def test_only_one_web_process_has_a_database_until_it_lets_go(database: SqliteDatabase) -> None:
    with claim_web(database.path), pytest.raises(DatabaseError, match="Another web process serves"):
        claim_web(database.path)
    claim_web(database.path).close()


def test_a_checkpoint_brings_what_was_committed_into_the_file_itself(database: SqliteDatabase) -> None:
    add(database, 12345)
    before = database.path.read_bytes()
    database.checkpoint()
    assert database.path.read_bytes() != before
    assert numbers(database) == [12345]


def test_a_constraint_that_does_not_hold_is_no_trouble_of_the_database(database: SqliteDatabase) -> None:
    with database.transaction() as session:
        session.exec_driver_sql("CREATE UNIQUE INDEX one ON numbers (value)")
    add(database, 1)
    with pytest.raises(IntegrityError):
        add(database, 1)
    assert database.trouble is None


def test_what_goes_past_sqlalchemy_fails_as_what_does_not(database: SqliteDatabase) -> None:
    with database.transaction() as session:
        sqlite.execute(session, "CREATE UNIQUE INDEX one ON numbers (value)")
        assert sqlite.execute(session, "INSERT INTO numbers VALUES (?)", [(1,), (2,)]).rowcount == 2
    with pytest.raises(IntegrityError), database.transaction() as session:
        sqlite.execute(session, "INSERT INTO numbers VALUES (?)", [(3,), (1,)])
    with pytest.raises(DatabaseError, match="no such table"), database.read() as session:
        sqlite.execute(session, "SELECT * FROM letters")
    assert numbers(database) == [1, 2]


def test_more_readers_than_connections_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.db.sqlite._POOL", 1)
    small = SqliteDatabase(f"sqlite:///{tmp_path}/test.db")
    small._engine.pool._timeout = 0.01  # type: ignore[attr-defined] # of the pool that it has, QueuePool
    with small.read(), small.read(), pytest.raises(DatabaseError, match="all connections are in use"), small.read():
        pass
    small.close()


def test_a_locked_database_is_told_in_words(database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.db.sqlite._BUSY_SECONDS", 0.01)
    impatient = SqliteDatabase(f"sqlite:///{database.path}")
    holder = sqlite3.connect(database.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError, match="another program holds the database locked"):
        add(impatient, 1)
    holder.execute("ROLLBACK")
    holder.close()
    impatient.close()


def test_a_full_disk_is_told_in_words_and_loses_nothing(database: SqliteDatabase) -> None:
    add(database, 1)

    def fill() -> None:
        with database.transaction() as session:
            session.exec_driver_sql("PRAGMA max_page_count = 2")
            session.exec_driver_sql("CREATE TABLE more (value)")

    with pytest.raises(DatabaseError, match="the disk is full"):
        fill()
    assert numbers(database) == [1]


def test_a_read_only_database_is_told_in_words(database: SqliteDatabase) -> None:
    read_only = SqliteDatabase(f"sqlite:///file:{database.path}?mode=ro&uri=true")
    read_only.path = database.path
    with pytest.raises(DatabaseError, match="read-only"):
        add(read_only, 1)
    read_only.close()


def test_a_directory_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    lost = SqliteDatabase(f"sqlite:///{tmp_path}/nowhere/test.db")
    with pytest.raises(DatabaseError, match="does its directory exist"), lost.read():
        pass
    with pytest.raises(DatabaseError, match="mend the permissions"), lost.transaction():
        pass
    with pytest.raises(DatabaseError, match="does its directory exist"):
        lost.watch()
    with pytest.raises(DatabaseError, match="mend the database's directory"):
        claim_web(lost.path)
    lost.close()


def test_a_file_that_is_no_database_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "test.db").write_bytes(b"this is a text, and a long one, not a database" * 50)
    broken = SqliteDatabase(f"sqlite:///{tmp_path}/test.db")
    with pytest.raises(DatabaseError, match="not an SQLite database"), broken.read():
        pass
    with pytest.raises(DatabaseError, match="not an SQLite database"):
        broken.watch()
    broken.close()
