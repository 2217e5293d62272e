"""Batches: gathered by a hub's greenlets, run in a thread or in the hub."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import gevent
import pytest

from webhook import batching
from webhook.batching import Batcher
from webhook.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE = 10  # seconds until a test that hangs fails
IN_A_THREAD_OR_NOT = pytest.mark.parametrize("name", ["b", None])


def submit_all(batcher: Batcher[int, int], items: Sequence[int]) -> list[int | Exception]:
    def submit(item: int) -> int | Exception:
        try:
            return batcher.submit(item)
        except Exception as error:  # noqa: BLE001 - to be looked at
            return error

    greenlets = [gevent.spawn(submit, item) for item in items]
    return [greenlet.get(timeout=PATIENCE) for greenlet in greenlets]


@IN_A_THREAD_OR_NOT
def test_each_item_gets_its_own_result(name: str | None) -> None:
    def double(batch: Sequence[int], _computed: Callable[[], None]) -> list[int]:
        return [2 * item for item in batch]

    assert submit_all(Batcher(double, name=name, capacity=100), range(50)) == [2 * item for item in range(50)]


@IN_A_THREAD_OR_NOT
def test_what_can_be_submitted_at_once_goes_in_one_batch_up_to_the_largest(name: str | None) -> None:
    batches: list[list[int]] = []

    def note(batch: Sequence[int], _computed: Callable[[], None]) -> Sequence[int]:
        batches.append(list(batch))
        return batch

    submit_all(Batcher(note, name=name, capacity=100, largest=4), range(10))
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@IN_A_THREAD_OR_NOT
def test_an_error_is_raised_for_its_item_alone(name: str | None) -> None:
    fault = ValueError("two")

    def refuse_two(batch: Sequence[int], _computed: Callable[[], None]) -> list[int | Exception]:
        return [fault if item == 2 else item for item in batch]

    assert submit_all(Batcher(refuse_two, name=name, capacity=100), [1, 2, 3]) == [1, fault, 3]


@IN_A_THREAD_OR_NOT
def test_an_error_of_the_whole_batch_is_raised_for_each_and_the_next_one_runs(name: str | None) -> None:
    fault = ValueError("all")
    faults = [fault]

    def fail_once(batch: Sequence[int], _computed: Callable[[], None]) -> Sequence[int]:
        if faults:
            raise faults.pop()
        return batch

    batcher = Batcher(fail_once, name=name, capacity=100)
    assert submit_all(batcher, [1, 2]) == [fault, fault]
    assert submit_all(batcher, [3, 4]) == [3, 4]


@IN_A_THREAD_OR_NOT
def test_the_batch_runs_in_another_thread_if_that_has_a_name(name: str | None) -> None:
    def idents(batch: Sequence[int], _computed: Callable[[], None]) -> list[int]:
        return [threading.get_ident() for _ in batch]

    (ident,) = submit_all(Batcher(idents, name=name, capacity=1), [1])
    assert (ident == threading.get_ident()) == (name is None)


@pytest.mark.parametrize("items", [1, 10])
@pytest.mark.parametrize("says_so", [True, False])
def test_the_hub_goes_on_while_a_batch_waits_for_the_disk_whether_it_says_so_or_not(
    says_so: bool,  # noqa: FBT001
    items: int,
) -> None:
    disk = threading.Event()

    def wait(batch: Sequence[int], computed: Callable[[], None]) -> Sequence[int]:
        if says_so:
            computed()
        assert disk.wait(PATIENCE)
        return batch

    batcher = Batcher(wait, name="b", capacity=10)
    waiting = [gevent.spawn(batcher.submit, item) for item in range(items)]
    while batcher._waiting or not batcher._busy:
        gevent.sleep()
    assert not any(each.ready() for each in waiting)
    disk.set()  # by the hub's thread: it was not held up
    assert [each.get(timeout=PATIENCE) for each in waiting] == list(range(items))


def test_what_comes_while_a_batch_runs_goes_in_the_next_one_together() -> None:
    started, disk = threading.Event(), threading.Event()
    batches: list[list[int]] = []

    def wait(batch: Sequence[int], computed: Callable[[], None]) -> Sequence[int]:
        batches.append(list(batch))
        started.set()
        computed()
        assert disk.wait(PATIENCE)
        return batch

    batcher = Batcher(wait, name="b", capacity=10)
    first = gevent.spawn(batcher.submit, 1)
    while not started.is_set():
        gevent.sleep()
    others = [gevent.spawn(batcher.submit, item) for item in (2, 3)]
    gevent.sleep()
    disk.set()
    gevent.joinall([first, *others], timeout=PATIENCE, raise_error=True)
    assert batches == [[1], [2, 3]]


def test_one_more_than_the_capacity_is_refused_at_once_and_the_others_are_served() -> None:
    def serve(batch: Sequence[int], _computed: Callable[[], None]) -> Sequence[int]:
        return batch

    one, two, refused = submit_all(Batcher(serve, name="b", capacity=2), [1, 2, 3])
    assert (one, two) == (1, 2)
    assert isinstance(refused, Overloaded)


class Two:
    """Runs batches in a thread or at once, and notes which."""

    def __init__(self) -> None:
        self.at_once: list[int] = []
        self.in_thread: list[int] = []
        self.declines = False
        self.batcher = Batcher(self.run, name="b", capacity=100, run_at_once=self.run_at_once)

    def run(self, batch: Sequence[int], _computed: Callable[[], None]) -> Sequence[int]:
        self.in_thread += batch
        return batch

    def run_at_once(self, batch: Sequence[int]) -> Sequence[int] | None:
        if self.declines:
            return None
        self.at_once += batch
        return batch

    def submit(self, *items: int) -> None:
        """Submit items that are there together."""
        assert submit_all(self.batcher, items) == [*items]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says in how many seconds a batch of a few is quick, and that three such ones are enough."""
    monkeypatch.setattr(batching, "_QUICK_IN_A_ROW", 3)
    return lambda seconds: monkeypatch.setattr(batching, "_QUICK_SECONDS", seconds)


def test_a_few_are_run_in_the_hub_once_such_ones_were_quick(quick: Callable[[float], None]) -> None:
    quick(math.inf)
    two = Two()
    for item in range(5):
        two.submit(item)
    two.submit(5, 6)
    two.submit(7, 8, 9)
    assert two.in_thread == [0, 1, 2, 7, 8, 9]
    assert two.at_once == [3, 4, 5, 6]


def test_after_a_slow_one_the_hub_runs_none_until_they_are_quick_again(quick: Callable[[float], None]) -> None:
    two = Two()
    for seconds in (math.inf, 0, math.inf):
        quick(seconds)
        for item in range(4):
            two.submit(item)
    assert two.at_once == [3, 0, 3]


def test_what_is_declined_goes_to_the_thread(quick: Callable[[float], None]) -> None:
    quick(math.inf)
    two = Two()
    two.declines = True
    for item in range(5):
        two.submit(item)
    assert two.in_thread == [0, 1, 2, 3, 4]


def test_an_error_of_a_batch_that_is_run_in_the_hub_is_raised_for_each(quick: Callable[[float], None]) -> None:
    quick(math.inf)
    fault = ValueError("all")

    def fail(_batch: Sequence[int]) -> Sequence[int]:
        raise fault

    batcher: Batcher[int, int] = Batcher(lambda batch, _: batch, name="b", capacity=9, run_at_once=fail)
    assert [submit_all(batcher, [item]) for item in range(4)] == [[0], [1], [2], [fault]]


ENDING = """
import gevent
from webhook.batching import Batcher

batcher = Batcher(lambda batch, computed: batch, name="it", capacity=1)

class Loop:
    def __getattr__(self, name):
        return getattr(gevent.get_hub().loop, name)

    def run_callback_threadsafe(self, *args):
        raise MemoryError

batcher._loop = Loop()
gevent.spawn(gevent.sleep, 60)  # a hub with nothing to wait for ends by itself
batcher.submit(1)
"""


def test_a_process_whose_thread_cannot_hand_back_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "could not be handed back" in ended.stdout + ended.stderr
