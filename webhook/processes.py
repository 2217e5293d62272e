"""The processes of the service: web, worker, and both under one command.

They are forked from one parent (`arbiter`), which has loaded what they need and is prepared meanwhile.
"""

from __future__ import annotations

import gc
import os
import socket
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import structlog

from webhook import arbiter, bootstrap
from webhook.db import claim_web, open_database, path_of
from webhook.errors import DatabaseError, ServiceError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from webhook.settings import Settings

log = structlog.get_logger()

T = TypeVar("T")

_FREED_SECONDS = 10.0  # gunicorn's workers look for their parent every second, and then finish what they do
_ENDED_SECONDS = 3.0  # an idle service that was killed whole has ended by then
_FREED_LOOK_SECONDS = 0.1


def migrate(settings: Settings) -> Path | None:
    """Bring the database to this version's schema, and make a key file where there is no key.

    Returns:
        The key file, if it was made.

    Raises:
        DatabaseError: the database cannot be made or changed.
    """
    path = path_of(settings.database_url)
    if path is not None and not path.parent.is_dir():
        raise DatabaseError(f"The directory {path.parent} does not exist. Make it, or change WEBHOOK_DATABASE_URL.")
    if path is not None and path.exists() and not path.is_file():
        raise DatabaseError(f"{path} is not a file. Change WEBHOOK_DATABASE_URL.")
    if path is None:
        bootstrap.encryption_keys(settings)  # no key can be made for it: better said before anything is changed
    database = open_database(settings.database_url)
    try:
        bootstrap.upgrade(database)
        sealed = bootstrap.is_sealed(database)
    finally:
        database.close()
    if sealed:  # a new key would open nothing of it, and be taken for the right one
        return None
    try:
        return bootstrap.create_key_file(settings)
    except OSError as error:
        raise DatabaseError(f"The key file beside {database.name} cannot be written: {error.strerror}.") from error


def check_free(settings: Settings) -> None:
    """Refuse to start where another service runs, but not where one that was killed is about to end.

    Raises:
        SettingError: the address cannot be listened on.
        DatabaseError: another web process serves the database.
    """
    _awaited(lambda: check_bind(settings), seconds=_ENDED_SECONDS)
    check_alone(settings)


def check_bind(settings: Settings) -> None:
    """Refuse addresses that cannot be listened on, before anything is started.

    Raises:
        SettingError: with what stands in the way.
    """
    with ExitStack() as probes:  # all at once: one of them may be part of another, as those of 0.0.0.0 are
        for variable, bind in (("WEBHOOK_BIND", settings.bind), ("WEBHOOK_CALLBACK_BIND", settings.callback_bind)):
            if bind is not None:
                probes.enter_context(closing(_listening(variable, *bind)))


def _listening(variable: str, host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as undone:
            probe = undone.enter_context(closing(socket.socket(family, kind, protocol)))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            undone.pop_all()
            return probe
    except OSError as error:
        raise SettingError(
            variable,
            f"{host}:{port} cannot be listened on ({error.strerror})",
            "End the program that listens there, or set another address.",
        ) from error


def check_alone(settings: Settings) -> None:
    """Refuse an SQLite database that another web process serves.

    Raises:
        DatabaseError: there is another.
    """
    path = path_of(settings.database_url)
    if path is not None and path.parent.is_dir():  # `migrate` says what is wrong where it is not
        _awaited(lambda: claim_web(path), seconds=_ENDED_SECONDS).close()


def check_uploads(settings: Settings) -> None:
    """Refuse a directory for uploads that cannot be one; it is made when the first one comes.

    Raises:
        SettingError: it, or what is nearest to it, is no directory that we may write to.
    """
    wanted = bootstrap.upload_path(settings)
    nearest = next(path for path in (wanted, *wanted.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise SettingError(
            "WEBHOOK_UPLOAD_DIRECTORY",
            f"{nearest} is not a directory that the service may write to",
            "Set it to one, or mend its permissions.",
        )


def _awaited(take: Callable[[], T], *, seconds: float) -> T:
    """Take what the workers of a web process that was killed keep until they notice.

    Raises:
        ServiceError: it is still taken after so long.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return take()
        except ServiceError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_FREED_LOOK_SECONDS)


@contextmanager
def _shared_counters(settings: Settings) -> Iterator[None]:
    """Have several web processes count together (`metrics`)."""
    if settings.web_concurrency == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="webhook-counters-") as directory:
        os.environ[_COUNTERS] = directory
        try:
            yield
        finally:
            del os.environ[_COUNTERS]


_COUNTERS = "PROMETHEUS_MULTIPROC_DIR"


def run_web(settings: Settings) -> int:
    """Run the web processes until SIGTERM or SIGINT; return the exit status, as `serve` does."""
    return _run(settings, prepare=None, with_worker=False)


def serve(settings: Settings, *, prepare: Callable[[], None]) -> int:
    """Run web and worker until SIGTERM or SIGINT; one that ends by itself is started again.

    Args:
        prepare: what must be done before they begin; their code is loaded meanwhile.

    Returns:
        The exit status: 0 when told to stop, 1 when one of them cannot start.

    Raises:
        ServiceError: `prepare` did, or they cannot be started.
    """
    return _run(settings, prepare=prepare, with_worker=True)


def run_worker(settings: Settings, beat: Callable[[], None] = lambda: None) -> None:
    """Run the worker process until SIGTERM or SIGINT.

    Args:
        beat: called every second, to show that it does not hang.
    """
    import uvloop

    from webhook.workers import run_until_signal

    service = bootstrap.build(settings)
    make_client = bootstrap.platform_client(settings)
    if make_client is None:
        log.warning("ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET are not set: tasks stay queued.")
    uvloop.run(run_until_signal(service, make_client, beat))
    service.database.close()


def _run(settings: Settings, *, prepare: Callable[[], None] | None, with_worker: bool) -> int:
    # what raises out of a handler may be lost, as in the collector's callbacks: the parent heeds them once it can
    with arbiter.heedless(), _shared_counters(settings):
        with nullcontext() if prepare is None else _in_fork(prepare):
            from webhook.app import create_apps
            from webhook.web import Web
        bootstrap.build(settings).database.close()  # refuse what is wrong here, before processes are started
        path = path_of(settings.database_url)
        with nullcontext() if path is None else _awaited(lambda: claim_web(path), seconds=_FREED_SECONDS) as place:

            def work(beat: Callable[[], None]) -> None:
                if place is not None:
                    place.close()  # this process may outlive the web's by what it has begun
                run_worker(settings, beat)

            _awaited(lambda: check_bind(settings), seconds=_FREED_SECONDS)
            web = Web(settings, lambda: create_apps(bootstrap.build(settings)), work if with_worker else None)
            gc.collect()
            gc.freeze()  # what is loaded stays shared with the children: their collectors leave it alone
            try:
                web.run()
            except SystemExit as ended:
                return 1 if ended.code else 0
            raise AssertionError("gunicorn ends by SystemExit")


@contextmanager
def _in_fork(call: Callable[[], None]) -> Iterator[None]:
    """Call beside the block, in a process of its own, so that what it loads, such as Alembic, is gone with it.

    Raises:
        ServiceError: it did.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            call()
            status = 0
        except ServiceError as error:
            os.write(writer, str(error).encode())
        except Exception:
            log.exception("The process failed.")
        finally:
            os._exit(status)
    os.close(writer)
    try:
        yield
    finally:
        with open(reader, "rb") as said:  # noqa: PTH123 - a pipe
            sentence = said.read().decode()
        _, ended = os.waitpid(pid, 0)
    if ended != 0:
        raise ServiceError(sentence or "The service could not be prepared; the reason stands above.")
