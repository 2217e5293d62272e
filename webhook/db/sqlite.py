"""SQLite: one file, one machine, one writer at a time."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from webhook.db.base import Database, prepare_engine, without_nul
from webhook.errors import DatabaseBusy, DatabaseError

try:
    import fcntl
except ImportError:  # Windows has no flock: writers then wait for each other by SQLite's own polling
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.db.base import Session

_BUSY_SECONDS = 2.0  # how long a writer waits for another that holds no flock, such as the sqlite3 shell
_WAIT = f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}"
_SCRUB_SECONDS = 0.1  # how long all writers wait for readers so that the log can be emptied
_POOL = 16
_TAKEN = "another writer has its turn"

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


class SqliteDatabase(Database):
    """One SQLite file.

    Args:
        url: SQLAlchemy URL of the file.

    Writers queue on a file lock beside the database: the kernel wakes the next one at once and in turn,
    where SQLite's own waiting sleeps for up to 100 ms and lets a busy writer starve the others.
    """

    path: Path

    def __init__(self, url: str) -> None:
        super().__init__()
        self.path = self.path_of(url)
        self.name = str(self.path)
        self._engine = self._reading = sa.create_engine(url, pool_size=_POOL, max_overflow=_POOL, hide_parameters=True)
        prepare_engine(self._engine)
        sa.event.listen(self._engine, "connect", _prepare_connection)
        sa.event.listen(self._engine, "begin", _begin)
        self._writing = self._engine.execution_options(writing=True)
        self._hasty = self._writing.execution_options(wait=False)
        self._lax = self._writing.execution_options(durable=False)
        self._queue = threading.Lock()
        self._lock_file: Any = None
        self._bell = DatagramBell(self.path)

    @staticmethod
    def path_of(url: str) -> Path:
        """Return the file that a database's URL names."""
        return Path(sa.make_url(url).database or "").absolute()

    @override
    def exists(self) -> bool:
        return self.path.exists()

    @override
    def watch(self) -> DataVersion:
        return DataVersion(self.path)

    @override
    def bell(self) -> socket.socket | None:
        """Return a socket; one process at a time has it: the last that asked."""
        return self._bell.hang()

    @override
    def link(self) -> None:
        """Return None: a file has no server."""

    @override
    def size(self) -> int:
        return self.path.stat().st_size

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the database file, as far as readers allow."""
        with self._translated(), self._engine.connect() as session:
            session.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

    @override
    def scrub(self) -> bool:
        """Empty the write-ahead log, whose old frames hold deleted rows; not while somebody reads by it."""
        self.checkpoint()  # of most of it, while others write
        try:
            with self._turn(wait=True), contextlib.closing(self._alone()) as connection:
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise DatabaseError(f"{self.path}: {_sentence(error)}") from error
        return not busy

    def _alone(self) -> sqlite3.Connection:
        """Return a connection of its own, which waits for others no longer than all may wait for it."""
        return sqlite3.connect(self.path, isolation_level=None, timeout=_SCRUB_SECONDS)

    @override
    def close(self) -> None:
        super().close()
        self._bell.close()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    @override
    def _has_ended(self, session: Session) -> bool:
        return False  # there is none

    @override
    @contextmanager
    def _turn(self, *, wait: bool) -> Iterator[None]:
        if not self._queue.acquire(blocking=wait):
            raise DatabaseBusy(_TAKEN)
        try:
            with self._flock(wait=wait):
                yield
        finally:
            self._queue.release()

    @override
    def _ring(self) -> None:
        self._bell.ring()

    @override
    def _sentence(self, error: BaseException | None) -> str:
        return _sentence(error)

    @contextmanager
    def _flock(self, *, wait: bool) -> Iterator[None]:
        if fcntl is None:
            yield
            return
        try:
            if self._lock_file is None:
                self._lock_file = Path(f"{self.path}-lock").open("ab")  # noqa: SIM115 - kept open for life
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise DatabaseBusy(_TAKEN) from None
        except OSError as error:
            raise DatabaseError(
                f"{self.path}-lock cannot be written ({error.strerror}): mend the permissions of the database's "
                "directory, or free its disk."
            ) from error
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)


def execute(session: Session, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
    """Execute a statement once, or once for each of a list of rows; past SQLAlchemy, which takes longer than SQLite.

    Raises:
        DBAPIError: what SQLAlchemy raises.
    """
    connection: sqlite3.Connection = session.connection.dbapi_connection  # type: ignore[assignment] # it is SQLite's
    try:
        if isinstance(values, list):
            return connection.executemany(statement, [without_nul(row) for row in values])
        return connection.execute(statement, without_nul(values))
    except sqlite3.Error as error:
        raise DBAPIError.instance(statement, None, error, sqlite3.Error, hide_parameters=True) from error


@contextmanager
def undecodable(session: Session) -> Iterator[None]:
    """Have a block read texts also where somebody has put bytes that are not UTF-8; these become surrogates."""
    connection: sqlite3.Connection = session.connection.dbapi_connection  # type: ignore[assignment] # it is SQLite's
    connection.text_factory = lambda text: text.decode(errors="surrogateescape")
    try:
        yield
    finally:
        connection.text_factory = str


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
            f"{path}-web cannot be written ({error.strerror}): mend the database's directory, or WEBHOOK_DATABASE_URL."
        ) from error
    return place


class DatagramBell:
    """Rings in another process when this one has committed: a datagram to a socket beside the database.

    It only saves waiting. A ring that is lost, or has nobody to hear it, is made up for by looking (`DataVersion`).
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


class DataVersion:
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
    connection.execute(_WAIT)
    connection.execute("PRAGMA journal_mode = WAL")
    # https://sqlite.org/pragma.html#pragma_secure_delete: what is deleted or replaced is overwritten
    connection.execute("PRAGMA secure_delete = ON")


def _begin(session: Session) -> None:
    options = session.get_execution_options()
    if options.get("writing", False):
        # https://sqlite.org/pragma.html#pragma_synchronous: NORMAL leaves the log to the next commit that is FULL
        execute(session, f"PRAGMA synchronous = {'FULL' if options.get('durable', True) else 'NORMAL'}")
        if options.get("wait", True):
            execute(session, "BEGIN IMMEDIATE")
        else:
            _begin_at_once(session)
    else:
        execute(session, "BEGIN")


def _begin_at_once(session: Session) -> None:
    execute(session, "PRAGMA busy_timeout = 0")
    try:
        execute(session, "BEGIN IMMEDIATE")
    except DBAPIError as error:
        if _code(error.orig) == sqlite3.SQLITE_BUSY:
            raise DatabaseBusy(_TROUBLES[sqlite3.SQLITE_BUSY]) from error
        raise
    finally:
        execute(session, _WAIT)


def _sentence(error: BaseException | None) -> str:
    return _TROUBLES.get(_code(error), str(error))


def _code(error: BaseException | None) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & _PRIMARY_CODE
