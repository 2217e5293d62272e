"""Group work: what many requests wait for is done in batches, by one thread.

A commit to disk costs about as much for one callback as for fifty, so while one batch is being
committed the next one gathers. The web process is cooperative (gevent): a waiting request costs a
greenlet, and the thread is a real one, so that a slow disk never stops the others.

Two threads that both want the interpreter slow each other down: each system call gives it away, and
getting it back takes a wake-up of the other (measured: twice the processor time for a callback). So while a
batch of more than a few computes the hub stands aside, but for a twentieth of a second at the most, and goes
on at once when the thread says that only waiting for the disk is left. What neither computes for long nor
waits for the disk needs no thread: its batches run in the hub.

Where little waits, going to the thread and back is an eighth of what a callback waits for at 500 a second, and more of
the longest waits. So a batch of a few runs in the hub as long as such ones are quick: a disk that stalls holds up the
hub once, and not again until it is quick again.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

import gevent
import structlog
from gevent.hub import Waiter

from webhook.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")
N = TypeVar("N")

log = structlog.get_logger()

_FEW = 2  # compute for less time than it takes to be woken after them
_QUICK_SECONDS = 0.005  # for a few of them, the disk included
_QUICK_IN_A_ROW = 20  # before the hub runs any itself
_ASIDE_SECONDS = 0.05  # a full batch computes for 15 to 30 ms; what takes longer shares the interpreter


class Batcher(Generic[T, R]):
    """Runs what waits as one batch, in a thread of its own unless told otherwise.

    Args:
        run: takes a batch, returns a result or an error to raise for each item, in order; what it raises itself
            is raised for all. Its second argument is to be called when only waiting, as for the disk, is left to do.
        name: of the thread; None runs batches in the hub.
        capacity: how many items may wait; one more is refused.
        largest: items of one batch.
        run_at_once: is tried in the hub for a few items, while these are quick; it returns None where it would have to
            wait for others, or would compute for long. None where the hub is to run nothing.

    Belongs to the hub of the thread that made it: only greenlets of that thread may submit.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T], Callable[[], None]], Sequence[Exception | R]],
        *,
        name: str | None,
        capacity: int,
        largest: int = 64,
        run_at_once: Callable[[Sequence[T]], Sequence[Exception | R] | None] | None = None,
    ) -> None:
        self._run = run
        self._capacity = capacity
        self._largest = largest
        self._run_at_once = run_at_once or _decline
        self._quick_in_a_row = 0
        self._waiting: deque[tuple[T, Waiter[Exception | R]]] = deque()
        self._busy = False
        self._batches: queue.SimpleQueue[tuple[list[tuple[T, Waiter[Exception | R]]], threading.Event]] = (
            queue.SimpleQueue()
        )
        self._loop = gevent.get_hub().loop
        self._has_thread = name is not None
        if self._has_thread:
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, item: T) -> R:
        """Hand an item over and wait, cooperatively, for its result.

        Raises:
            Overloaded: too many wait already.
            Exception: what `run` returned for the item.
        """
        if len(self._waiting) >= self._capacity:
            raise Overloaded("More callbacks are waiting for the disk than WEBHOOK_CALLBACK_QUEUE allows.")
        waiter: Waiter[Exception | R] = Waiter()
        self._waiting.append((item, waiter))
        if not self._busy:
            # The hub comes to it after all requests that can be read now: their items go together.
            self._busy = True
            self._loop.run_callback(functools.partial(self._hand_over, was_idle=True))
        result = waiter.get()
        if isinstance(result, Exception):
            raise result
        return result

    def _hand_over(self, *, was_idle: bool) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]
        results: Sequence[Exception | R] | None = None
        if not self._has_thread:
            results = self._results(lambda items: self._run(items, _nothing), batch)
        elif was_idle and len(batch) <= _FEW and self._quick_in_a_row >= _QUICK_IN_A_ROW:
            results = self._results(self._run_at_once, batch)
        if results is not None:
            self._settle([waiter for _, waiter in batch], results)
            return
        computed = threading.Event()
        self._batches.put((batch, computed))
        if len(batch) > _FEW:
            computed.wait(_ASIDE_SECONDS)

    def _work(self) -> None:
        try:
            while True:
                batch, computed = self._batches.get()
                results = self._results(lambda items: self._run(items, computed.set), batch)  # noqa: B023 - called here
                computed.set()
                self._loop.run_callback_threadsafe(self._settle, [waiter for _, waiter in batch], results)
        except BaseException:  # memory ran out just here, say: without this thread nobody would be answered any more
            log.critical("A batch could not be handed back; the process ends, to be started again.", exc_info=True)
            os._exit(1)

    def _results(
        self, run: Callable[[Sequence[T]], N], batch: Sequence[tuple[T, Waiter[Exception | R]]]
    ) -> N | Sequence[Exception]:
        """Run a batch, and note of one of a few items whether that was quick."""
        started = time.perf_counter()
        try:
            return run([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised again where each item waits
            return [error] * len(batch)
        finally:
            if len(batch) <= _FEW:
                is_quick = time.perf_counter() - started < _QUICK_SECONDS
                self._quick_in_a_row = self._quick_in_a_row + 1 if is_quick else 0

    def _settle(self, waiters: Sequence[Waiter[Exception | R]], results: Sequence[Exception | R]) -> None:
        if self._waiting:
            # The next batch first: the disk works on it while the hub answers the last one's requests.
            self._hand_over(was_idle=False)
        else:
            self._busy = False
        for waiter, result in zip(waiters, results, strict=True):
            waiter.switch(result)


def _nothing() -> None:
    pass


def _decline(_batch: object) -> None:
    return None
