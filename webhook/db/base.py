"""What both databases have in common."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from webhook.errors import DatabaseBusy, DatabaseError

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

Session = sa.Connection
Statement = TypeVar("Statement", bound=sa.Select[Any])


class Changes(Protocol):
    """Tells whether any connection, of any process, committed since the last look; a look costs microseconds."""

    def seen(self) -> bool:
        """Return True once for all commits since the last call.

        Raises:
            DatabaseError: the database cannot be read.
        """

    def close(self) -> None:
        """Look no more."""


class Link(NamedTuple):
    """How a server is reached.

    Attributes:
        host: a name or an address; of this machine's own socket, its path.
        tls: the version that is spoken, such as `TLSv1.3`; None for none.
        mode: libpq's `sslmode`, which says whether the server's certificate is checked.
    """

    host: str
    tls: str | None
    mode: str


class Database(ABC):
    """One database.

    Attributes:
        name: what people know it by; never with a password.
        path: its file, None where it is a server's.
        trouble: why the last transaction could not be written, None where it could.
    """

    name: str
    path: Path | None
    _engine: sa.Engine
    _reading: sa.Engine
    _writing: sa.Engine
    _hasty: sa.Engine
    _lax: sa.Engine

    def __init__(self) -> None:
        self.trouble: str | None = None
        self._kept: dict[tuple[int, sa.Engine], Session] = {}  # by thread

    @contextmanager
    def read(self, *, keep: bool = False) -> Iterator[Session]:
        """Open a transaction that reads: on SQLite one state, on PostgreSQL by each statement what is committed.

        Args:
            keep: the connection, for this thread's next such transaction; to give it back and take one costs more than
                a small transaction does, and is for threads that have few.

        Raises:
            DatabaseError: the database cannot be read.
        """
        with self._translated(), self._begun(self._reading, keep=keep) as session:
            yield session

    @contextmanager
    def transaction(self, *, durable: bool = True, keep: bool = False, wait: bool = True) -> Iterator[Session]:
        """Open a transaction that writes; leaving it commits to disk.

        Args:
            durable: False for what would only be done again, and which nobody waits for: it is committed and survives
                this process, but a crash of the machine may undo it, and no other process is told.
            keep: as for `read`.
            wait: for another transaction that is being written; on PostgreSQL none is in the way, nor is any in that
                of one that need not be durable.

        Raises:
            DatabaseError: it could not be begun or committed; nothing of it was kept.
            DatabaseBusy: it would have to wait, and was not to.
        """
        try:
            engine = (self._writing if wait else self._hasty) if durable else self._lax
            with self._translated(), self._turn(wait=wait), self._begun(engine, keep=keep) as session:
                yield session
        except DatabaseBusy:
            raise
        except DatabaseError as error:
            self.trouble = str(error)
            raise
        self.trouble = None
        if durable:
            self._ring()

    def revision(self) -> str | None:
        """Return the migration that the database is at, None where there was none yet."""
        with self.read() as session:
            if not sa.inspect(session).has_table("alembic_version"):
                return None
            return session.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is such a database at all, migrated or not."""

    @abstractmethod
    def watch(self) -> Changes:
        """Return a check of whether anyone changed the database.

        Raises:
            DatabaseError: the database cannot be read.
        """

    @abstractmethod
    def bell(self) -> socket.socket | None:
        """Return a socket that becomes readable when any other process commits; None where there can be none.

        It only saves waiting: a ring may be lost, and looking (`watch`) makes up for it.
        """

    @abstractmethod
    def scrub(self) -> bool:
        """Have nothing of deleted rows left beside the tables, as far as the database can; False where it must wait.

        Raises:
            DatabaseError: it cannot be done now.
        """

    @abstractmethod
    def link(self) -> Link | None:
        """Return how its server is reached; None where it has none.

        Raises:
            DatabaseError: it cannot be reached.
        """

    @abstractmethod
    def size(self) -> int:
        """Return the bytes that it takes on disk."""

    def close(self) -> None:
        """Close all connections."""
        while self._kept:
            self._kept.popitem()[1].close()
        self._engine.dispose()

    @contextmanager
    def _begun(self, engine: sa.Engine, *, keep: bool) -> Iterator[Session]:
        """Open a transaction; a connection that failed in it is not kept."""
        if not keep:
            with engine.begin() as session:
                yield session
            return
        place = threading.get_ident(), engine
        kept = self._kept.pop(place, None)  # so that a transaction inside this one has another
        if kept is not None and self._has_ended(kept):
            kept.invalidate()
            kept.close()
            kept = None
        session = kept or engine.connect()
        try:
            with session.begin():
                yield session
        except BaseException:
            session.close()
            raise
        if self._kept.setdefault(place, session) is not session:
            session.close()

    @abstractmethod
    def _has_ended(self, session: Session) -> bool:
        """Return whether the other side has closed a connection."""

    @abstractmethod
    def _turn(self, *, wait: bool) -> AbstractContextManager[None]:
        """Wait for this writer's turn.

        Raises:
            DatabaseBusy: it was not to wait, and would have to.
        """

    @abstractmethod
    def _ring(self) -> None:
        """Tell the other processes that something was committed."""

    @abstractmethod
    def _sentence(self, error: BaseException | None) -> str:
        """Return what went wrong, in words for whoever is on call."""

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise DatabaseError(f"{self.name}: {self._sentence(error.orig)}") from error
        except sa.exc.TimeoutError as error:
            raise DatabaseError(f"{self.name}: all connections are in use for too long") from error


def prepare_engine(engine: sa.Engine) -> None:
    """Have an engine write no NUL into a text: PostgreSQL takes none, and SQLite's functions stop at it."""
    sa.event.listen(engine, "before_cursor_execute", _without_nul, retval=True)


def _without_nul(
    _session: Session,
    _cursor: Any,
    statement: str,
    parameters: Any,
    _context: Any,
    _many: bool,  # noqa: FBT001
) -> tuple[str, Any]:
    if isinstance(parameters, list):
        return statement, [without_nul(row) for row in parameters]
    return statement, without_nul(parameters)


def without_nul(row: Any) -> Any:
    """Return a statement's values with U+FFFD for each NUL in a text."""
    values = row.values() if isinstance(row, dict) else row
    if not any(type(value) is str and "\0" in value for value in values):
        return row
    if isinstance(row, dict):
        return {name: _clean(value) for name, value in row.items()}
    return type(row)([_clean(value) for value in row])


def _clean(value: Any) -> Any:
    return value.replace("\0", _REPLACEMENT) if type(value) is str else value


_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_postgresql(session: Session) -> bool:
    """Return whether a session is PostgreSQL's, and so has others beside it."""
    return session.dialect.name == "postgresql"


def is_writing(session: Session) -> bool:
    """Return whether a session may write."""
    return bool(session.get_execution_options().get("writing", False))


def for_update(session: Session, statement: Statement, *, skip_locked: bool = False) -> Statement:
    """Lock the rows that a transaction reads if it writes, so that none of what it saw is changed before it ends.

    Args:
        skip_locked: leave out what another transaction has locked, rather than wait for it.
    """
    if is_writing(session):
        return statement.with_for_update(skip_locked=skip_locked)
    return statement


def alone(session: Session, what: str, *, wait: bool = True) -> bool:
    """See to it that no other transaction does the same until this one ends.

    Args:
        what: names it.
        wait: for another to end, or return False at once.
    """
    if not is_postgresql(session):
        return True
    function = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
    taken = session.exec_driver_sql(f"SELECT {function}(%s, %s)", _lock_of(what)).scalar()
    return taken is not False


def try_alone(what: str) -> tuple[str, tuple[int, int]]:
    """Return what to ask PostgreSQL for what `alone` does without waiting."""
    return "SELECT pg_try_advisory_xact_lock(?, ?)", _lock_of(what)


def ask_alone(whats: Collection[str]) -> tuple[str, tuple[Any, ...]]:
    """Return what to ask PostgreSQL for what `alone` does, for several things at once."""
    locks = sorted(map(_lock_of, whats))  # in one order for all, or two could wait for each other
    if len(locks) == 1:
        return "SELECT pg_advisory_xact_lock(?, ?)", locks[0]
    keys = ",".join(str(key) for _, key in locks)
    return "SELECT pg_advisory_xact_lock(?, key) FROM unnest(CAST(? AS INTEGER[])) AS key", (_ALONE, f"{{{keys}}}")


def _lock_of(what: str) -> tuple[int, int]:
    return _ALONE, int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], signed=True)


_ALONE = 0x77656268  # the first of the two numbers of our advisory locks: no other program's, it is hoped
