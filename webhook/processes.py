"""The processes of the service: web, worker, and both under one command.

`serve` forks them from one parent, so that the code is loaded once, and ends when it is told to or when one
of them ends. A child whose parent is gone ends too, and frees the port: nothing survives a kill -9 of the parent.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import structlog

from webhook import bootstrap, logs
from webhook.db import Database
from webhook.errors import DatabaseError, ServiceError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from webhook.settings import Settings

log = structlog.get_logger()

_STOP_SECONDS = 40  # more than gunicorn's grace for requests


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
    """Run web and worker until SIGTERM or SIGINT, or until one of them ends.

    Returns:
        The exit status: 0 when told to stop.
    """
    # loaded here, once, for both: forked processes share the memory
    import webhook.app
    import webhook.web
    import webhook.workers  # noqa: F401

    gc.collect()
    gc.freeze()  # what is loaded stays shared: the collector does not touch it
    children = {
        _fork(lambda: run_web(settings), settings): "web",
        _fork(lambda: run_worker(settings), settings): "worker",
    }
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    status = 0
    while children:
        child, ended = os.wait()
        name = children.pop(child, None)
        if name is not None and not stopping:
            log.error("A process ended by itself; the service stops.", process=name, status=ended)
            status = 1
            stop(0, None)
            signal.alarm(_STOP_SECONDS)
    return status


def _fork(run: Callable[[], None], settings: Settings) -> int:
    """Run a function in a child that ends with its parent; return the child's pid."""
    lifeline, held = os.pipe()
    child = os.fork()
    if child:
        os.close(lifeline)
        os.set_inheritable(held, False)
        _HELD.append(held)
        return child
    os.close(held)
    for other in _HELD:
        os.close(other)
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.Thread(target=_end_with_parent, args=(lifeline,), name="lifeline", daemon=True).start()
        logs.configure(settings.log_level)
        run()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except ServiceError as error:
        log.error(str(error))  # noqa: TRY400 - the sentence is for people
    except Exception:
        log.exception("The process failed.")
    finally:
        sys.stderr.flush()
        os._exit(status)


_HELD: list[int] = []  # the parent's ends of the lifelines; its death closes them


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
