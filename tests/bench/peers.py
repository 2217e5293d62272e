"""What the service is compared with: an empty handler, the plain design, a Node Express service.

The last two have the same tables, each in a database of its own, beside the service's. Express needs node and npm;
its packages are installed once, into the directory for temporary files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
import sqlalchemy as sa

from tests import databases
from tests.bench import plain_app, stage
from tests.bench.load import UID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.bench.stage import Server

_EXPRESS = Path(__file__).parent / "express"
_INSTALL_SECONDS = 1800  # better-sqlite3 may have to be compiled


def empty() -> AbstractContextManager[Server]:
    """Run the handler that stores nothing."""
    return stage.gunicorn("tests.bench.empty_app:app", port=stage.free_port(), processes=stage.PROCESSES)


@contextmanager
def plain(directory: Path, *, tasks: int) -> Iterator[Server]:
    """Run the plain design over so many tasks."""
    url = database_url(directory, "plain")
    plain_app.create_database(url, tasks)
    with stage.gunicorn(
        "tests.bench.plain_app:create_app()",
        port=stage.free_port(),
        processes=stage.PROCESSES,
        environ={"PLAIN_DATABASE": url},
    ) as server:
        yield server


@contextmanager
def express(directory: Path, *, tasks: int) -> Iterator[Server | None]:
    """Run the Express service over so many tasks; None, and a word about it, where it cannot be had."""
    modules = _modules()
    if modules is None:
        yield None
        return
    url = sa.make_url(database_url(directory, "express"))
    plain_app.create_database(url.render_as_string(hide_password=False), tasks)
    server_url = url.set(drivername="postgresql").render_as_string(hide_password=False)
    port = stage.free_port()
    environ = {
        "DATABASE": server_url if databases.SERVER else str(url.database),
        "NODE_ENV": "production",
        "NODE_PATH": str(modules),
        "PORT": str(port),
        "UID_OF_ACCOUNT": UID,
        "WEB_CONCURRENCY": str(stage.PROCESSES),
    }
    with stage.server(["node", str(_EXPRESS / "server.js")], port=port, environ=environ) as server:
        yield server


def database_url(directory: Path, name: str) -> str:
    """Return the URL of a peer's database."""
    own = directory / name
    own.mkdir(exist_ok=True)
    return databases.url_of(own)


@cache
def _modules() -> Path | None:
    """Return where Express's packages are, installed if they are not there yet."""
    packages = (_EXPRESS / "package.json").read_bytes()
    home = Path(tempfile.gettempdir()) / f"webhook-bench-express-{hashlib.sha256(packages).hexdigest()[:16]}"
    modules = home / "node_modules"
    if shutil.which("node") is None or shutil.which("npm") is None:
        click.echo("There is no node, or no npm: Express is left out.", err=True)
        return None
    if modules.is_dir():
        return modules
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as temporary:
        own = Path(temporary) / "packages"
        own.mkdir()
        (own / "package.json").write_bytes(packages)
        click.echo("Express's packages are being installed, which may take minutes.", err=True)
        try:
            subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", "--omit=dev"],
                cwd=own,
                env=_headers() | os.environ,
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
            )
        except subprocess.SubprocessError as error:
            told = getattr(error, "stderr", None) or ""
            click.echo(f"Express is left out, since its packages cannot be installed: {error} {told}", err=True)
            return None
        own.rename(home)
    return modules


def _headers() -> dict[str, str]:
    """Return what names node's own headers, so that what is compiled need not fetch them."""
    installation = Path(shutil.which("node") or "").resolve().parents[1]
    return {"npm_config_nodedir": str(installation)} if (installation / "include/node/node.h").exists() else {}
