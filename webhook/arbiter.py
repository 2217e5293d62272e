"""The parent of the service's processes: gunicorn's, which keeps the worker process beside the web ones.

What ends by itself is started again, and so is what hangs. One that cannot even start ends the service, but only while
that is being started: there is something to mend then, and later it may be the database's server that is away. A child
whose parent is gone ends too, and frees the port: nothing survives a kill -9 of the parent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn import arbiter, glogging
from gunicorn.errors import HaltServer
from gunicorn.workers.base import Worker

from webhook.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gunicorn.app.base import BaseApplication
    from gunicorn.config import Config

    RunWorker = Callable[[Callable[[], None]], None]
    """What the worker process does until SIGTERM; it is given what it is to call every second, or be taken for hung."""

log = structlog.get_logger()

STOPPING = (signal.SIGTERM, signal.SIGINT)
_SETTLED_SECONDS = 5.0  # a service that has run so long could start
_AGAIN_SECONDS = 0.5  # until what could not is started again


def heed() -> None:
    """Take the signals to stop that were blocked until this process could act on them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


@contextmanager
def heedless() -> Iterator[None]:
    """Block the signals to stop, to the end of the block at the latest."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        heed()


def name_process(name: str) -> None:
    """Have this process shown under a name, by `ps` and `top` (proc(5): `comm`, 15 bytes)."""
    with suppress(OSError):  # elsewhere than on Linux
        Path("/proc/self/comm").write_text(name)


class Lifeline:
    """Ends a child whose parent is gone."""

    def __init__(self) -> None:
        self._theirs, self._ours = os.pipe()  # our end closes with us, which the children notice

    def hold(self) -> None:
        """Have this process, which was forked since, end by SIGTERM as soon as its parent does."""
        os.close(self._ours)
        threading.Thread(target=self._wait, name="lifeline", daemon=True).start()

    def _wait(self) -> None:
        os.read(self._theirs, 1)
        os.kill(os.getpid(), signal.SIGTERM)


class Logger(glogging.Logger):
    """gunicorn's log, as part of ours."""

    def setup(self, cfg: Config) -> None:
        """Hand lines on (`logs`)."""
        cfg.set("errorlog", None)  # type: ignore[no-untyped-call] # gunicorn has no types
        super().setup(cfg)  # type: ignore[no-untyped-call] # gunicorn has no types
        self.error_log.propagate = True


class WorkerProcess(Worker):
    """The worker process, as a child of gunicorn's.

    Args:
        run: what it does.
        others: gunicorn's own.
    """

    def __init__(self, run: RunWorker, *others: Any) -> None:
        super().__init__(*others)  # type: ignore[no-untyped-call] # gunicorn has no types
        self._run = run

    def init_process(self) -> None:
        """Run, from here to the end of the process."""
        for number in (*Arbiter.SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        heed()
        self.app.lifeline.hold()
        name_process("webhook-worker")
        for listener in self.sockets:
            listener.close()
        try:
            self._run(self.notify)
        except ServiceError as error:
            log.error(str(error))  # noqa: TRY400 - the sentence is for people
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class Arbiter(arbiter.Arbiter):
    """gunicorn's parent process.

    Args:
        run_worker: what the worker process does; None where there is to be none.
    """

    SIGNALS = [*STOPPING, signal.SIGQUIT]  # noqa: RUF012 - gunicorn's; the others are about settings that are read again

    def __init__(self, app: BaseApplication, run_worker: RunWorker | None) -> None:
        super().__init__(app)  # type: ignore[no-untyped-call] # gunicorn has no types
        self._web_class = self.worker_class
        self._worker_class = None if run_worker is None else partial(WorkerProcess, run_worker)
        if run_worker is not None:
            self.num_workers += 1
        self._is_stopping = False
        self._settled_at = time.monotonic() + _SETTLED_SECONDS

    def init_signals(self) -> None:
        """Heed signals from here on, those too that were blocked until now."""
        super().init_signals()  # type: ignore[no-untyped-call] # gunicorn has no types
        heed()

    def handle_int(self) -> None:
        """Stop as by SIGTERM, answering what was begun."""
        self.handle_term()  # type: ignore[no-untyped-call] # gunicorn has no types

    def spawn_worker(self) -> int:
        """Start the worker process where it is missing, and else a web process."""
        has_worker = any(isinstance(child, WorkerProcess) for child in self.WORKERS.values())
        self.worker_class = self._web_class if has_worker else self._worker_class or self._web_class
        with heedless():  # or one could reach the child before that heeds it
            try:
                pid: int = super().spawn_worker()  # type: ignore[no-untyped-call] # gunicorn has no types
            except SystemExit as ended:  # the child's: it goes no further up, where its parent cleans up
                os._exit(ended.code if isinstance(ended.code, int) else 1)
        return pid

    def reap_workers(self) -> None:
        """Take note of the children that have ended."""
        while True:
            try:
                super().reap_workers()  # type: ignore[no-untyped-call] # gunicorn has no types
            except HaltServer:
                if self._is_stopping:
                    continue
                if time.monotonic() < self._settled_at:
                    raise
            else:
                return
            log.error("A process could not be started again; the next try follows.")
            time.sleep(_AGAIN_SECONDS)

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT001, FBT002 - gunicorn's
        """Stop the children, and wait for their end."""
        self._is_stopping = True
        super().stop(graceful)  # type: ignore[no-untyped-call] # gunicorn has no types
