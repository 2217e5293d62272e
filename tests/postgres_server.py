"""A PostgreSQL server of our own, which may be killed; nothing is asked of the one that the other tests use."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
    """

    def __init__(self, directory: Path) -> None:
        self._data = directory / "data"
        self._log = directory / "server.log"
        self._port = free_port()
        # the server does not run as root, and Debian's packages make this user
        self._as = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups") if os.geteuid() == 0 else ()
        if self._as:
            shutil.chown(directory, "postgres", "postgres")
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", _FAST_SETUP)
        options = f"-c port={self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={directory}"
        self._control("start", "-o", options, "-l", str(self._log))

    @property
    def url(self) -> str:
        """SQLAlchemy URL of its only database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/postgres"

    def crash(self) -> None:
        """End it without a word to anybody, as kill -9 of all its processes does, and start it again."""
        self._control("restart", "-m", "immediate", "-l", str(self._log))

    def stop(self) -> None:
        """End it for good."""
        self._control("stop", "-m", "immediate")

    def _control(self, command: str, *arguments: str) -> None:
        self._run("pg_ctl", command, "--wait", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        directory = programs()
        assert directory, "PostgreSQL is not installed"
        command: Sequence[str] = (*self._as, str(directory / program), *arguments, "--pgdata", str(self._data))
        ended = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert ended.returncode == 0, f"{program}: {ended.stderr}"
