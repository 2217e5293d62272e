"""A PostgreSQL server of our own, which may be killed; nothing is asked of the one that the other tests use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEBIAN = Path("/usr/lib/postgresql")  # where its packages keep what is not in the path
_FAST_SETUP = "--no-sync"  # of what is there before the first test; commits are synced as ever


def programs() -> Path | None:
    """Return the directory of the server's programs, None where it is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    versions = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


needs_programs = pytest.mark.skipif(programs() is None, reason="PostgreSQL's programs are not installed")


class PostgresServer:
    """One server, from its first start to its end.

    Args:
        directory: an empty one that the server's user may enter.

    Attributes:
        port: of loopback.
    """

    def __init__(self, directory: Path) -> None:
        self._data = directory / "data"
        self._log = directory / "server.log"
        self.port = free_port()
        # the server does not run as root, and Debian's packages make this user
        self._as = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups") if os.geteuid() == 0 else ()
        if self._as:
            shutil.chown(directory, "postgres", "postgres")
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", _FAST_SETUP)
        self._options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={directory}"
        self.start()

    @property
    def url(self) -> str:
        """SQLAlchemy URL of its only database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def make_database(self, name: str) -> None:
        """Make an empty database, in place of one of the same name."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')

    def set_read_only(self, *, read_only: bool) -> None:
        """Let transactions that begin from now on write or not, those of connections that are open included."""
        setting = "on" if read_only else "off"
        self._execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}", "SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start it where it was stopped."""
        self._control("start", "-o", self._options, "-l", str(self._log))

    def crash(self) -> None:
        """End it without a word to anybody, as kill -9 of all its processes does, and start it again."""
        self._control("restart", "-m", "immediate", "-l", str(self._log))

    def stop(self) -> None:
        """End it without a word to anybody."""
        self._control("stop", "-m", "immediate")

    def _execute(self, *statements: str) -> None:
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()

    def _control(self, command: str, *arguments: str) -> None:
        self._run("pg_ctl", command, "--wait", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        directory = programs()
        assert directory, "PostgreSQL is not installed"
        command: Sequence[str] = (*self._as, str(directory / program), *arguments, "--pgdata", str(self._data))
        ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert ended.returncode == 0, f"{program}: {ended.stderr}"
