"""The database: engine, transactions and the check whether anything changed.

A `Session` is one open transaction. Functions that take one never commit; whoever opened it does, by
leaving `Database.transaction()`.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from webhook.errors import DatabaseError

try:
    import fcntl
except ImportError:  # Windows has no flock: writers then wait for each other by SQLite's own polling
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

Session = sa.Connection

_BUSY_SECONDS = 2.0  # how long a writer waits for another that holds no flock, such as the sqlite3 shell
_POOL = 16

# https://sqlite.org/rescode.html: what went wrong, in words for whoever is on call
_TROUBLES = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space, nothing that was answered 200 is lost",
    sqlite3.SQLITE_READONLY: "the database or its directory is read-only: mend its permissions",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened: does its directory exist, and may we write there?",
    sqlite3.SQLITE_BUSY: "another program holds the database locked: end it, or wait for it",
    sqlite3.SQLITE_LOCKED: "another program holds the database locked: end it, or wait for it",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged: restore it from a backup",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
}
_PRIMARY_CODE = 0xFF


def path_of(url: str) -> Path:
    """Return the file that a database's URL names."""
    return Path(sa.make_url(url).database or "").absolute()


class Database:
    """One SQLite file. Make it after a fork, never before: neither connections nor locks survive one.

    Args:
        url: SQLAlchemy URL of the file.

    Attributes:
        trouble: why the last transaction could not be written, None where it could.

    Writers queue on a file lock beside the database: the kernel wakes the next one at once and in turn,
    where SQLite's own waiting sleeps for up to 100 ms and lets a busy writer starve the others.
    """

    def __init__(self, url: str) -> None:
        self.path = path_of(url)
        self._engine = sa.create_engine(url, pool_size=_POOL, max_overflow=_POOL)
        sa.event.listen(self._engine, "connect", _prepare_connection)
        sa.event.listen(self._engine, "begin", _begin)
        self._writing = self._engine.execution_options(writing=True)
        self._turn = threading.Lock()
        self._lock_file: Any = None
        self.trouble: str | None = None
        self._bell = Bell(self.path)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that reads one consistent state.

        Raises:
            DatabaseError: the database cannot be read.
        """
        with _translated(self.path), self._engine.begin() as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a transaction that writes; leaving it commits to disk.

        Raises:
            DatabaseError: it could not be begun or committed; nothing of it was kept.
        """
        try:
            with _translated(self.path), self._turn, self._flock(), self._writing.begin() as session:
                yield session
        except DatabaseError as error:
            self.trouble = str(error)
            raise
        self.trouble = None
        self._bell.ring()

    def revision(self) -> str | None:
        """Return the migration that the database is at, None where there was none yet."""
        with self.read() as session:
            if not sa.inspect(session).has_table("alembic_version"):
                return None
            return session.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()

    def watch(self) -> Changes:
        """Return a check of whether anyone changed the database.

        Raises:
            DatabaseError: the database cannot be read.
        """
        return Changes(self.path)

    def bell(self) -> socket.socket | None:
        """Return a socket that becomes readable when any process commits; None where there can be none.

        One process at a time has it: the last that asked.
        """
        return self._bell.hang()

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the database file, as far as readers allow."""
        with _translated(self.path), self._engine.connect() as session:
            session.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._bell.close()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    @contextmanager
    def _flock(self) -> Iterator[None]:
        if fcntl is None:
            yield
            return
        try:
            if self._lock_file is None:
                self._lock_file = Path(f"{self.path}-lock").open("ab")  # noqa: SIM115 - kept open for life
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        except OSError as error:
            raise DatabaseError(
                f"{self.path}-lock cannot be written ({error.strerror}): mend the permissions of the database's "
                "directory, or free its disk."
            ) from error
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)


def claim_web(path: Path) -> BinaryIO:
    """Take the one place of a web process at a database; it is held until the file is closed, or the process ends.

    Two of them on one SQLite file make each other's callbacks wait for seconds.

    Raises:
        DatabaseError: another has it.
    """
    try:
        place = Path(f"{path}-web").open("ab")  # noqa: SIM115 - it is the caller's
        if fcntl is not None:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        place.close()
        raise DatabaseError(
            f"Another web process serves {path}: end it first, or set another WEBHOOK_DATABASE_URL."
        ) from None
    except OSError as error:
        raise DatabaseError(
            f"{path}-web cannot be written ({error.strerror}): mend the database's directory."
        ) from error
    return place


class Bell:
    """Rings in another process when this one has committed: a datagram to a socket beside the database.

    It only saves waiting. A ring that is lost, or has nobody to hear it, is made up for by looking (`Changes`).
    """

    def __init__(self, path: Path) -> None:
        self._address = f"{path}-wake"
        self._sender: socket.socket | None = None
        self._hung: socket.socket | None = None

    def ring(self) -> None:
        """Tell the listener, if it is another process and there is one, that something was committed."""
        if self._hung is not None:
            return
        with contextlib.suppress(OSError, AttributeError):
            if self._sender is None:
                self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._sender.setblocking(False)
            self._sender.sendto(b"\0", self._address)

    def hang(self) -> socket.socket | None:
        """Listen; None where the system has no such sockets, or the path is too long for one."""
        if self._hung is not None:
            return self._hung
        try:
            Path(self._address).unlink(missing_ok=True)
            self._hung = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._hung.setblocking(False)
            self._hung.bind(self._address)
        except (OSError, AttributeError):
            self.close()
        return self._hung

    def close(self) -> None:
        """Close the sockets, and take the bell down if it hangs here."""
        for one in (self._sender, self._hung):
            if one is not None:
                one.close()
        if self._hung is not None:
            Path(self._address).unlink(missing_ok=True)
        self._sender = self._hung = None


class Changes:
    """Tells whether any connection, of any process, committed since the last look (3 µs a look)."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise DatabaseError(f"{path}: {_sentence(error)}") from error
        self._seen = self._version()

    def seen(self) -> bool:
        """Return True once for all commits since the last call.

        Raises:
            DatabaseError: the database cannot be read.
        """
        version = self._version()
        changed = version != self._seen
        self._seen = version
        return changed

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _version(self) -> int:
        try:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise DatabaseError(_sentence(error)) from error


def _prepare_connection(connection: sqlite3.Connection, _record: object) -> None:
    # pysqlite's own transaction control begins too late and never IMMEDIATE: `_begin` does it instead
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(session: Session) -> None:
    writing = session.get_execution_options().get("writing", False)
    session.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise DatabaseError(f"{path}: {_sentence(error.orig)}") from error
    except sa.exc.TimeoutError as error:
        raise DatabaseError(f"{path}: all connections are in use for too long") from error


def _sentence(error: BaseException | None) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    return _TROUBLES.get(code, str(error))
