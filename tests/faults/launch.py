"""`python -m tests.faults.launch DIRECTORY COMMAND…` is `webhook COMMAND…`, whose steps and clock obey `DIRECTORY`.

A process that comes to the point that the file `armed` names kills itself, or all of the service, by SIGKILL; the
file is then called `fired`. The file `clock` holds the seconds by which its clock is ahead. It imports nothing of the
service before its clock is replaced, since defaults of arguments are bound by then.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import mmap
import os
import signal
import struct
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.points import ALL_POINTS, HURRIED

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tests.faults.points import Point

ARMED, FIRED, CLOCK = "armed", "fired", "clock"
ALL, OWN = "all", "own"  # who is killed
AHEAD = struct.Struct("d")  # seconds
LYING = "--lying"


class Trap:
    """Kills at the point that is armed in a directory."""

    def __init__(self, directory: Path) -> None:
        self._armed, self._fired = directory / ARMED, directory / FIRED

    def reach(self, name: str) -> None:
        """Come to a point, and go no further where it is armed."""
        try:
            if not self._armed.exists():  # which needs no descriptor, of which there may be none left
                return
            armed, _, scope = self._armed.read_text().partition(" ")
            if armed != name:
                return
            self._armed.rename(self._fired)  # of several that come at once the first one
        except FileNotFoundError:
            return
        if scope == ALL:
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def find(target: str) -> tuple[Any, str, Any]:
    """Return what `module:name` is an attribute of, the attribute's name, and its value."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    return owner, name, inspect.getattr_static(owner, name)


def wrap(name: str, point: Point, reach: Callable[[str], None]) -> None:
    """Have a function come to a point."""
    owner, attribute, function = find(point.target)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if point.side == "enter":
            reach(name)
        result = function(*args, **kwargs)
        if point.side == "leave":
            reach(name)
        return result

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        if point.side == "enter":
            reach(name)
        result = await function(*args, **kwargs)
        if point.side == "leave":
            reach(name)
        return result

    setattr(owner, attribute, awaited if inspect.iscoroutinefunction(function) else called)


def _hurry() -> None:
    for target, value in HURRIED.items():
        owner, name, before = find(target)
        hurried = eval(value, {"timedelta": timedelta})  # noqa: S307 - our own table
        assert type(hurried) is type(before), target
        setattr(owner, name, hurried)


def _set_clock(path: Path) -> None:
    """Have the service's clock be ahead by what a file says, in all its processes and at once."""
    clock = importlib.import_module("webhook.clock")
    assert not {"webhook.ingest", "webhook.tasks"} & sys.modules.keys()
    with path.open("r+b") as file:
        ahead = mmap.mmap(file.fileno(), AHEAD.size)
    true_now = clock.now

    def now() -> datetime:
        time: datetime = true_now() + timedelta(seconds=AHEAD.unpack_from(ahead)[0])
        return time

    setattr(clock, "now", now)  # noqa: B010 - mypy knows no such attribute of a module that may be any


def _lie() -> None:
    """Answer callbacks 200 before they are stored: what a check that finds nothing must not overlook."""
    import gevent

    callbacks = importlib.import_module("webhook.callbacks")
    honest = callbacks.CallbackReceiver._outcome

    def outcome(receiver: Any, arrival: Any) -> tuple[int, str]:
        if isinstance(arrival, callbacks.Claim):
            found: tuple[int, str] = honest(receiver, arrival)
            return found
        gevent.spawn_later(0.2, honest, receiver, arrival)
        return 200, "accepted"

    callbacks.CallbackReceiver._outcome = outcome


def main() -> None:
    """Run the command."""
    directory = Path(sys.argv.pop(1))
    lying = LYING in sys.argv
    if lying:
        sys.argv.remove(LYING)
    os.setsid()  # so that all of it can be killed, and nobody else
    _set_clock(directory / CLOCK)
    _hurry()
    if lying:
        _lie()
    trap = Trap(directory)
    for name, point in ALL_POINTS.items():
        wrap(name, point, trap.reach)
    importlib.import_module("webhook.cli").main()


if __name__ == "__main__":
    main()
