"""Group work: what many requests wait for, one thread does in batches.

A commit to disk costs about as much for one callback as for fifty, so while one batch is being
committed the next one gathers. The web process is cooperative (gevent): a waiting request costs a
greenlet, and the thread is a real one, so that a slow disk never stops the others.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import gevent
from gevent.hub import Waiter

from webhook.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Runs what waits as one batch in a thread of its own.

    Args:
        run: takes a batch, returns a result or an error to raise for each item, in order. It must not raise.
        name: of the thread.
        capacity: how many items may wait; one more is refused.
        largest: items of one batch.

    Belongs to the hub of the thread that made it: only greenlets of that thread may submit.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[Exception | R]],
        *,
        name: str,
        capacity: int,
        largest: int = 64,
    ) -> None:
        self._run = run
        self._capacity = capacity
        self._largest = largest
        self._waiting: queue.SimpleQueue[tuple[T, Waiter]] = queue.SimpleQueue()
        self._loop = gevent.get_hub().loop
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, item: T) -> R:
        """Hand an item over and wait, cooperatively, for its result.

        Raises:
            Overloaded: too many wait already.
            Exception: what `run` returned for the item.
        """
        if self._waiting.qsize() >= self._capacity:
            raise Overloaded("More callbacks are waiting for the disk than WEBHOOK_CALLBACK_QUEUE allows.")
        waiter = Waiter()
        self._waiting.put((item, waiter))
        result: Exception | R = waiter.get()
        if isinstance(result, Exception):
            raise result
        return result

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < self._largest:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            results = self._run([item for item, _ in batch])
            self._loop.run_callback_threadsafe(_wake, [waiter for _, waiter in batch], results)


def _wake(waiters: Sequence[Waiter], results: Sequence[object]) -> None:
    for waiter, result in zip(waiters, results, strict=True):
        waiter.switch(result)
