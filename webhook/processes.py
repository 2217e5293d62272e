"""The processes of the service: web, worker, and both under one command.

`serve` forks them from one parent, so that the code is loaded once, and starts again one that ends. A child
whose parent is gone ends too, and frees the port: nothing survives a kill -9 of the parent.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import structlog

from webhook import bootstrap
from webhook.db import Database
from webhook.errors import DatabaseError, ServiceError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from webhook.settings import Settings

log = structlog.get_logger()

_SETTLED_SECONDS = 5.0  # a process that lived so long is worth starting again


def migrate(settings: Settings) -> Path | None:
    """Bring the database to this version's schema, and make a key file where there is no key.

    Returns:
        The key file, if it was made.

    Raises:
        DatabaseError: the database cannot be made or changed.
    """
    database = Database(settings.database_url)
    try:
        if not database.path.parent.is_dir():
            raise DatabaseError(
                f"The directory {database.path.parent} does not exist. Make it, or change WEBHOOK_DATABASE_URL."
            )
        bootstrap.upgrade(database)
    finally:
        database.close()
    try:
        return bootstrap.create_key_file(settings)
    except OSError as error:
        raise DatabaseError(f"The key file beside {database.path} cannot be written: {error.strerror}.") from error


def check_bind(settings: Settings) -> None:
    """Refuse an address that cannot be listened on, before anything is started.

    Raises:
        SettingError: with what stands in the way.
    """
    host, port = settings.bind
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise SettingError(
            "WEBHOOK_BIND",
            f"{host}:{port} cannot be listened on ({error.strerror})",
            "End the program that listens there, or set another address.",
        ) from error


def run_web(settings: Settings) -> None:
    """Run the web process until SIGTERM or SIGINT."""
    from webhook.app import create_app
    from webhook.web import Web

    bootstrap.build(settings).database.close()  # refuse what is wrong here, before workers are started again and again
    check_bind(settings)
    web = Web(settings, lambda: create_app(bootstrap.build(settings)))
    web.run()  # type: ignore[no-untyped-call] # gunicorn's


def run_worker(settings: Settings) -> None:
    """Run the worker process until SIGTERM or SIGINT."""
    from webhook.workers import run_until_signal

    service = bootstrap.build(settings)
    make_client = bootstrap.platform_client(settings)
    if make_client is None:
        log.warning("ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET are not set: tasks stay queued.")
    asyncio.run(run_until_signal(service, make_client))
    service.database.close()


def serve(settings: Settings) -> int:
    """Run web and worker until SIGTERM or SIGINT; one that ends by itself is started again.

    Returns:
        The exit status: 0 when told to stop, 1 when a process ends as soon as it is started.
    """
    # loaded here, once, for both: forked processes share the memory
    import webhook.app
    import webhook.web
    import webhook.workers  # noqa: F401

    gc.collect()
    gc.freeze()  # what is loaded stays shared: the collector does not touch it
    return _Family({"web": lambda: run_web(settings), "worker": lambda: run_worker(settings)}).run()


class _Child(NamedTuple):
    name: str
    started_at: float
    lifeline: int  # our end of a pipe: it closes with us, which the child notices


class _Family:
    """Forked processes that live and end together."""

    def __init__(self, runs: Mapping[str, Callable[[], None]]) -> None:
        self._runs = runs
        self._children: dict[int, _Child] = {}
        self._stopping = False

    def run(self) -> int:
        """Start all and wait for their end; return the exit status."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        for name in self._runs:
            self._start(name)
        status = 0
        while self._children:
            pid, ended = os.wait()
            child = self._children.pop(pid, None)
            if child is None:
                continue
            os.close(child.lifeline)
            if self._stopping:
                continue
            if time.monotonic() - child.started_at >= _SETTLED_SECONDS:
                log.error("A process ended by itself; it is started again.", process=child.name, status=ended)
                self._start(child.name)
            else:
                log.error("A process ended as soon as it was started; the service stops.", process=child.name)
                status = 1
                self._stop()
        return status

    def _stop(self, _number: int = 0, _frame: object = None) -> None:
        self._stopping = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)

    def _start(self, name: str) -> None:
        theirs, ours = os.pipe()
        pid = os.fork()
        if pid == 0:
            for child in self._children.values():
                os.close(child.lifeline)
            os.close(ours)
            os._exit(_run_child(self._runs[name], theirs))
        os.close(theirs)
        self._children[pid] = _Child(name, time.monotonic(), ours)
        if self._stopping:  # told so in between
            os.kill(pid, signal.SIGTERM)


def _run_child(run: Callable[[], None], lifeline: int) -> int:
    """Run a child's function, and return its exit status."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.Thread(target=_end_with_parent, args=(lifeline,), name="lifeline", daemon=True).start()
        run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except ServiceError as error:
        log.error(str(error))  # noqa: TRY400 - the sentence is for people
        return 1
    except Exception:
        log.exception("The process failed.")
        return 1
    return 0


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
