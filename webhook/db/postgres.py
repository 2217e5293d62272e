"""PostgreSQL: many machines, many writers; LISTEN and NOTIFY wake whoever waits for a commit."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
import structlog
from psycopg.conninfo import make_conninfo
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from webhook.db import pipeline
from webhook.db.base import Database, Link, prepare_engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from webhook.db.base import Session
    from webhook.db.pipeline import Answer, Asked, Prepared

log = structlog.get_logger()

_POOL = 10  # the hub of a web process has as many threads
_POOL_SECONDS = 10
_CHANNEL = "webhook"
_VACUUM_SECONDS = 600.0  # between two, each of which looks at all that is new since the one before
_VACUUM = "VACUUM (SKIP_LOCKED) tasks, task_labels, callbacks, slice_pages, events, evidence, data_keys"
_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 0.5
_JOIN_SECONDS = 5.0

# https://www.postgresql.org/docs/current/runtime-config-client.html: nobody waits for, or on, a lock for ever
# https://www.postgresql.org/docs/current/jit-decision.html: what is thought to cost much is compiled first, which takes
# seconds; all of ours takes milliseconds, though what is found by recursion is thought to cost much
_OPTIONS = "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c jit=off"
# a machine that went away without a word is noticed in under a minute
_CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    "application_name": "webhook",
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 40_000,
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html, the longest match counts
_TROUBLES = {
    "08": "the connection to the server was lost",
    "25006": "the server takes no writes: it is a standby, or set to read-only",
    "28": "the server refuses our user or password: mend WEBHOOK_DATABASE_URL, or pg_hba.conf",
    "3D000": "there is no such database: make it by CREATE DATABASE, or mend WEBHOOK_DATABASE_URL",
    "55000": "the database takes no connections: ALTER DATABASE … ALLOW_CONNECTIONS true",
    "42501": "our user may not do this: let it own the database",
    "42P01": "a table is missing: run `webhook migrate`",
    "53100": "the server's disk is full: free some space, nothing that was answered 200 is lost",
    "53300": "the server has no connection left: raise max_connections, or run fewer processes",
    "55P03": "another transaction has what we need locked, for too long",
    "57P": "the server is stopping or starting",
}
# Who is not let in is told so in words alone; where the server speaks another language, they match none of these.
_REFUSALS = {
    "password authentication failed": "28",
    "no password supplied": "28",
    "pg_hba.conf": "28",
    "not currently accepting connections": "55000",
    "too many clients": "53300",
    "connection slots": "53300",
    "database system": "57P",  # is starting up, is shutting down, is in recovery mode, is not yet accepting connections
    "recovery": "57P",
    "role": "28",
    "database": "3D000",
}
_UNREACHABLE = "the server cannot be reached: is it running, and is WEBHOOK_DATABASE_URL right?"


class PostgresDatabase(Database):
    """One database of a server.

    Args:
        url: SQLAlchemy URL, `postgresql+psycopg://…`.
    """

    path = None

    def __init__(self, url: str) -> None:
        super().__init__()
        parsed = sa.make_url(url)
        self.name = parsed.set(query={}).render_as_string(hide_password=True)
        self._engine = _engine(parsed, _OPTIONS)
        # a statement is a transaction of its own: two round trips less than BEGIN and COMMIT around it
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writing = self._hasty = self._engine.execution_options(writing=True)
        self._lax = _engine(parsed, f"{_OPTIONS} -c synchronous_commit=off").execution_options(writing=True)
        conninfo = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        self._vacuum_again_at = 0.0
        self._notices = _Notices(make_conninfo(conninfo, **_CONNECTION))

    @override
    def exists(self) -> bool:
        with self.read():
            return True

    @override
    def watch(self) -> Commits:
        return Commits(self._notices)

    @override
    def bell(self) -> socket.socket:
        return self._notices.bell()

    @override
    def scrub(self) -> bool:
        """Vacuum what holds content, now and then; the server's own vacuum does the rest."""
        if time.monotonic() >= self._vacuum_again_at:
            with self.read() as session:  # which is no transaction here, as VACUUM wants it
                session.exec_driver_sql(_VACUUM)
            self._vacuum_again_at = time.monotonic() + _VACUUM_SECONDS
        return True

    @override
    def link(self) -> Link:
        with self.read() as session:
            connection: psycopg.Connection = session.connection.dbapi_connection  # type: ignore[assignment]
            modes = [option.val for option in connection.pgconn.info if option.keyword == b"sslmode"]
            tls = session.exec_driver_sql("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar()
            return Link(host=connection.info.host, tls=tls, mode=(modes[0] or b"").decode())

    @override
    def size(self) -> int:
        with self.read() as session:
            return int(session.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())

    @override
    def close(self) -> None:
        super().close()
        self._lax.dispose()
        self._notices.close()

    @override
    @contextmanager
    def _turn(self, *, wait: bool) -> Iterator[None]:
        yield

    @override
    @contextmanager
    def _begun(self, engine: sa.Engine, *, keep: bool) -> Iterator[Session]:
        with super()._begun(engine, keep=keep) as session:
            session.info[_LATER] = []
            yield session
            if session.info[_LATER]:
                ask(session, [], commits=True)  # SQLAlchemy's own commit finds nothing left to do

    @override
    def _has_ended(self, session: Session) -> bool:
        return _was_ended(_connection_of(session))

    @override
    def _ring(self) -> None:
        self._notices.send()

    @override
    def _sentence(self, error: BaseException | None) -> str:
        state = getattr(error, "sqlstate", None)
        if state is None and "FATAL:" in str(error):
            said = str(error).partition("FATAL:")[2]
            state = next((code for words, code in _REFUSALS.items() if words in said), None)
        if state is None:
            return _UNREACHABLE
        found = [sentence for code, sentence in _TROUBLES.items() if state.startswith(code)]
        return found[0] if found else f"{state}, {type(error).__name__}"


def _engine(url: sa.URL, options: str) -> sa.Engine:
    """Return an engine; of its connections those used last are used first, which know the statements already."""
    engine = sa.create_engine(
        url,
        pool_size=_POOL,
        max_overflow=_POOL,
        pool_timeout=_POOL_SECONDS,
        pool_use_lifo=True,
        hide_parameters=True,
        # we prepare (`pipeline`): psycopg would have the server forget what is prepared after a rollback
        connect_args={"options": options, "prepare_threshold": None, **_CONNECTION},
    )
    prepare_engine(engine)
    sa.event.listen(engine, "before_cursor_execute", _ask_first)
    sa.event.listen(engine, "checkout", _refuse_ended)
    return engine


def _refuse_ended(connection: psycopg.Connection, _record: object, _proxy: object) -> None:
    """Have all pooled connections made anew where the server has ended this one."""
    if _was_ended(connection):
        raise sa.exc.InvalidatePoolError


def _ask_first(session: Session, *_: Any) -> None:
    """Have what waits executed before what SQLAlchemy is about to execute."""
    if session.info.get(_LATER):
        ask(session, [])


def _was_ended(connection: psycopg.Connection) -> bool:
    """Return whether the server has ended a connection: it has said so, unasked."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def ask(session: Session, asked: Sequence[Asked], *, commits: bool = False) -> list[Answer]:
    """Have statements executed in one round trip, past SQLAlchemy, and before them what waits for that (`ask_later`).

    Args:
        asked: as for `pipeline.ask`, and so is `commits`.

    Raises:
        DBAPIError: what SQLAlchemy raises.
    """
    info = session.info
    waiting, info[_LATER] = info.get(_LATER, []), []
    asked = [*waiting, *asked]
    with _as_sqlalchemy_has_it(asked[-1][0]):
        prepared: Prepared = info.setdefault("prepared", {})
        return pipeline.ask(_connection_of(session), asked, prepared=prepared, commits=commits)[len(waiting) :]


def ask_later(session: Session, asked: Iterable[Asked]) -> None:
    """Have statements executed together with what is asked next, or with the transaction's end."""
    session.info[_LATER] += asked


_LATER = "later"


def _connection_of(session: Session) -> psycopg.Connection:
    return session.connection.dbapi_connection  # type: ignore[return-value] # it is psycopg's


@contextmanager
def _as_sqlalchemy_has_it(statement: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise DBAPIError.instance(statement, None, error, psycopg.Error, hide_parameters=True) from error


class Commits:
    """Tells whether anybody committed since the last look."""

    def __init__(self, notices: _Notices) -> None:
        self._notices = notices
        self._seen = notices.heard()

    def seen(self) -> bool:
        """Return True once for all commits since the last call."""
        heard = self._notices.heard()
        changed, self._seen = heard != self._seen, heard
        return changed

    def close(self) -> None:
        """Look no more: there is nothing to close, since all share one connection."""


class _Notices:
    """NOTIFY after commits, and LISTEN for those of others: a thread and a connection each, once they are wanted.

    A NOTIFY inside a transaction would make its commit wait for all others' (they queue for one lock); so it is
    sent after it, by itself, and one for as many commits as there were meanwhile. One that is lost with its
    process is made up for by looking every second.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._own = secrets.token_hex(8)  # tells our notices from others'
        self._to_send = threading.Event()
        self._sender: threading.Thread | None = None
        self._listener: threading.Thread | None = None
        self._heard = 0
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._closed = False

    def send(self) -> None:
        """Have it told that something was committed."""
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, name="notify", daemon=True)
            self._sender.start()
        self._to_send.set()

    def heard(self) -> int:
        """Return a number that grows with every commit, our own and others'."""
        if self._listener is None:
            self._listener = threading.Thread(target=self._listen, name="listen", daemon=True)
            self._listener.start()
        return self._heard

    def bell(self) -> socket.socket:
        """Return a socket that becomes readable at others' commits."""
        if self._ends is None:
            self._ends = socket.socketpair()
            for end in self._ends:
                end.setblocking(False)
        self.heard()
        return self._ends[0]

    def close(self) -> None:
        """Let the threads end; the sender has ended then, so that a fork finds no connection of its."""
        self._closed = True
        self._to_send.set()
        if self._sender is not None:
            self._sender.join(_JOIN_SECONDS)
        if self._ends is not None:
            for end in self._ends:
                end.close()

    def _send(self) -> None:
        connection: psycopg.Connection | None = None
        prepared: Prepared = {}
        while True:
            self._to_send.wait()
            if self._closed:
                break
            self._to_send.clear()
            try:
                if connection is None:
                    connection, prepared = self._connect(), {}
                pipeline.ask(connection, [("SELECT pg_notify($1, $2)", (_CHANNEL, self._own))], prepared=prepared)
            except psycopg.Error:
                connection = None  # those who wait look by themselves, and the next commit tries again
        if connection is not None:
            connection.close()

    def _listen(self) -> None:
        while not self._closed:
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {_CHANNEL}")
                    self._note()  # of what was committed while nobody listened
                    while not self._closed:
                        for payload in pipeline.notices(connection, seconds=_LOOK_SECONDS):
                            self._note(own=payload == self._own)
            except psycopg.Error as error:
                if self._closed:
                    break
                log.warning("The database cannot be listened to; it is tried again.", error=type(error).__name__)
                threading.Event().wait(_AGAIN_SECONDS)

    def _note(self, *, own: bool = False) -> None:
        self._heard += 1
        if not own and self._ends is not None:
            with contextlib.suppress(OSError):  # full, so it is readable anyway; or closed
                self._ends[1].send(b"\0")

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(self._conninfo, autocommit=True)
        connection.execute("SET synchronous_commit = off")  # a notice is not worth a wait for the disk
        return connection
