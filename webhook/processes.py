"""The processes of the service: web, worker, and both under one command.

`serve` forks them from one parent, which has loaded what both need, and starts again one that ends. A child
whose parent is gone ends too, and frees the port: nothing survives a kill -9 of the parent.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import structlog

from webhook import bootstrap
from webhook.db import claim_web, open_database, path_of
from webhook.errors import DatabaseError, ServiceError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from webhook.settings import Settings

log = structlog.get_logger()

T = TypeVar("T")

_FREED_SECONDS = 10.0  # gunicorn's workers look for their parent every second, and then finish what they do
_ENDED_SECONDS = 3.0  # an idle service that was killed whole has ended by then
_FREED_LOOK_SECONDS = 0.1
_KILLED_PAUSE_SECONDS = 0.5  # before one that was killed as soon as it was started is started again
_SETTLED_SECONDS = 5.0  # a process that lived so long is worth starting again


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


def _share_memory() -> None:
    """Keep what is loaded shared with the processes that are forked from here: the collector leaves it alone."""
    gc.collect()
    gc.freeze()


@contextmanager
def _shared_counters(settings: Settings) -> Iterator[None]:
    """Have several web processes count together (`metrics`); where `serve` has seen to it, it is done."""
    if settings.web_concurrency == 1 or _COUNTERS in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="webhook-counters-") as directory:
        os.environ[_COUNTERS] = directory
        try:
            yield
        finally:
            del os.environ[_COUNTERS]


_COUNTERS = "PROMETHEUS_MULTIPROC_DIR"


def run_web(settings: Settings) -> None:
    """Run the web processes until SIGTERM or SIGINT."""
    with _shared_counters(settings):
        _run_web(settings)


def _run_web(settings: Settings) -> None:
    from webhook.app import create_apps
    from webhook.web import Web

    bootstrap.build(settings).database.close()  # refuse what is wrong here, before workers are started again and again
    path = path_of(settings.database_url)
    with nullcontext() if path is None else _awaited(lambda: claim_web(path), seconds=_FREED_SECONDS):
        _awaited(lambda: check_bind(settings), seconds=_FREED_SECONDS)
        web = Web(settings, lambda: create_apps(bootstrap.build(settings)))
        _share_memory()
        web.run()  # type: ignore[no-untyped-call] # gunicorn's


def run_worker(settings: Settings) -> None:
    """Run the worker process until SIGTERM or SIGINT."""
    import uvloop

    from webhook.workers import run_until_signal

    service = bootstrap.build(settings)
    make_client = bootstrap.platform_client(settings)
    if make_client is None:
        log.warning("ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET are not set: tasks stay queued.")
    uvloop.run(run_until_signal(service, make_client))
    service.database.close()


def serve(settings: Settings, *, prepare: Callable[[], None]) -> int:
    """Run web and worker until SIGTERM or SIGINT; one that ends by itself is started again.

    Args:
        prepare: what must be done before they begin; they load their code meanwhile.

    Returns:
        The exit status: 0 when told to stop, 1 when a process ends as soon as it is started.

    Raises:
        ServiceError: `prepare` did.
    """
    _share_memory()
    parts = (
        _Part("web", ("webhook.app", "webhook.web"), lambda: run_web(settings)),
        _Part("worker", ("webhook.workers",), lambda: run_worker(settings)),
    )
    with _shared_counters(settings):
        return _Family(parts).run(prepare)


class _Part(NamedTuple):
    name: str
    modules: tuple[str, ...]  # what it needs and its parent does not
    run: Callable[[], None]


class _Child(NamedTuple):
    part: _Part
    started_at: float
    lifeline: int  # our end of a pipe: it closes with us, which the child notices


class _Family:
    """Forked processes that live and end together."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts
        self._children: dict[int, _Child] = {}
        self._stopping = False

    def run(self, prepare: Callable[[], None]) -> int:
        """Start all and wait for their end; return the exit status."""
        for number in _STOPPING:
            signal.signal(number, self._stop)
        for part in self._parts:
            self._start(part)
        try:
            _in_fork(prepare)
        except ServiceError:
            self._stop()
            raise
        for child in self._children.values():
            with suppress(BrokenPipeError):  # it has ended already, which is seen below
                os.write(child.lifeline, _BEGIN)
        status = 0
        while self._children:
            pid, ended = os.wait()
            child = self._children.pop(pid)
            os.close(child.lifeline)
            if self._stopping:
                continue
            settled = time.monotonic() - child.started_at >= _SETTLED_SECONDS
            if settled or os.WIFSIGNALED(ended):
                log.error("A process ended by itself; it is started again.", process=child.part.name, status=ended)
                time.sleep(0 if settled else _KILLED_PAUSE_SECONDS)
                self._start(child.part, _BEGIN)
            else:
                log.error("A process ended as soon as it was started; the service stops.", process=child.part.name)
                status = 1
                self._stop()
        return status

    def _stop(self, _number: int = 0, _frame: object = None) -> None:
        self._stopping = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)

    def _start(self, part: _Part, word: bytes = b"") -> None:
        theirs, ours = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)  # or it could reach the child before that heeds it
        pid = os.fork()
        if pid == 0:
            for child in self._children.values():
                os.close(child.lifeline)
            os.close(ours)
            status = _run_child(part, theirs)
            os._exit(status)
        self._children[pid] = _Child(part, time.monotonic(), ours)
        if self._stopping:  # told so just before
            os.kill(pid, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        os.write(ours, word)
        os.close(theirs)


def _in_fork(call: Callable[[], None]) -> None:
    """Call in a process of its own, so that what it loads, such as Alembic, is gone with it.

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
    with open(reader, "rb") as said:  # noqa: PTH123 - a pipe
        sentence = said.read().decode()
    _, ended = os.waitpid(pid, 0)
    if ended != 0:
        raise ServiceError(sentence or "The service could not be prepared; the reason stands above.")


_BEGIN = b"!"
_STOPPING = (signal.SIGTERM, signal.SIGINT)


def _run_child(part: _Part, lifeline: int) -> int:
    """Load a part, run it when the parent says so, and return its exit status."""
    try:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        for module in part.modules:
            importlib.import_module(module)
        if os.read(lifeline, 1) != _BEGIN:
            return 1
        threading.Thread(target=_end_with_parent, args=(lifeline,), name="lifeline", daemon=True).start()
        part.run()
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
