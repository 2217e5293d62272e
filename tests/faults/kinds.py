"""The faults, by name: how each is set, how long it lasts, and how it is lifted."""

from __future__ import annotations

import resource
import signal
import threading
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.faults import launch
from tests.faults.points import ALL_POINTS, MIGRATION_POINTS, POINTS, START_POINTS
from tests.faults.proxy import MODES, PASS
from tests.faults.world import a_process
from tests.running import Command, environment, run
from tests.waiting import until

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.faults.world import World

_FIRED_SECONDS = 8.0  # what the service is used for comes to every point in a second; a busy machine takes longer
_LEAST_SECONDS, _MOST_SECONDS = 0.2, 0.7  # that a fault lasts
_OFTEN = ("callback", "delivery")  # flows that are gone through again and again in a round
_MOST_AHEAD_SECONDS = 60.0  # signatures are good for minutes
KILL = "kill"
_LINKS = ("platform-web", "worker-platform", "worker-subscriber", "service-database")


class Kind(NamedTuple):
    """A fault.

    Attributes:
        set: sets it, and lifts it at the end of the context.
        quiet: whether an exception in the log that nobody foresaw is a violation.
        on: the database that it is about; None for both.
        needs_mount: whether it needs a file system of its own.
    """

    set: Callable[[World, random.Random], AbstractContextManager[object]]
    quiet: bool = True
    on: str | None = None
    needs_mount: bool = False


class NotReached(Exception):
    """Nobody came to the point in time: the fault did not happen."""


@contextmanager
def _kill(name: str, world: World, dice: random.Random) -> Iterator[None]:
    """Kill who comes to a point, alone or with all the others: at once, or not the first who comes there."""
    scope = dice.choice([launch.OWN, launch.ALL])
    often = name.partition(".")[0] in _OFTEN
    if not often:
        world.arm(name, scope=scope)
    yield
    if often:
        threading.Event().wait(dice.uniform(0, _LEAST_SECONDS))
        world.arm(name, scope=scope)
    with suppress(AssertionError):
        until(world.has_fired, seconds=_FIRED_SECONDS)
    if not world.disarm():
        raise NotReached


@contextmanager
def _kill_at_start(name: str, world: World, dice: random.Random) -> Iterator[None]:
    world.service.command.kill()
    world.arm(name, scope=dice.choice([launch.OWN, launch.ALL]))
    world.service.launch()
    with _lasting(dice):
        yield
    with suppress(AssertionError):
        until(world.has_fired, seconds=_FIRED_SECONDS)
    if not world.disarm():
        raise NotReached


@contextmanager
def _kill_migration(name: str, world: World, _dice: random.Random) -> Iterator[None]:
    """Kill the migration of another database; the next one finds nothing half-done."""
    yield
    database = world.database_variables("migrated")
    world.arm(name, scope=launch.OWN)
    env = environment(world.directory, **database)
    module = ("tests.faults.launch", str(world.directory))
    status = Command("migrate", env=env, log=world.directory / "log", module=module).wait()
    if not world.disarm():
        raise NotReached
    assert status == -signal.SIGKILL, status
    for command in (("migrate",), ("keys", "list")):
        ended = run(world.directory, *command, **database)
        assert ended.returncode == 0, ended.stderr
    if world.server is None:
        for path in world.disk.path.glob("migrated.*"):
            path.unlink()


@contextmanager
def _lasting(dice: random.Random) -> Iterator[None]:
    """Let a fault last for a while after whatever is done in it."""
    yield
    threading.Event().wait(dice.uniform(_LEAST_SECONDS, _MOST_SECONDS))


@contextmanager
def _power_cut(world: World, dice: random.Random) -> Iterator[None]:
    with _lasting(dice):
        yield
    world.service.command.kill()


@contextmanager
def _frozen(world: World, dice: random.Random) -> Iterator[None]:
    """Let a process sleep, perhaps for longer than its leases last."""
    frozen = a_process(world, dice)
    world.signal(frozen, signal.SIGSTOP)
    try:
        yield
        threading.Event().wait(dice.choice([0.3, 2.5]))
    finally:
        world.signal(frozen, signal.SIGCONT)


@contextmanager
def _disk_full(world: World, dice: random.Random) -> Iterator[None]:
    world.disk.fill(leave=dice.choice([0, 4096, 50_000, 500_000]))
    try:
        with _lasting(dice):
            yield
    finally:
        world.disk.free()


@contextmanager
def _file_size(world: World, dice: random.Random) -> Iterator[None]:
    """Let no file grow beyond a size, as a quota does."""
    world.limit(world.pids(), resource.RLIMIT_FSIZE, dice.choice([0, 100_000, 1_000_000]))
    try:
        with _lasting(dice):
            yield
    finally:
        world.lift_limits(resource.RLIMIT_FSIZE)


@contextmanager
def _read_only_disk(world: World, dice: random.Random) -> Iterator[None]:
    """Start it where nothing can be written: it must refuse, and say why."""
    with _lasting(dice):
        yield
    world.service.command.kill()
    world.disk.set_writable(writable=False)
    try:
        world.service.launch()
        status = world.service.command.wait()
        assert status == 1, f"it ended with {status}"
        said = world.service.command.log.splitlines()[-1]
        assert "cannot be written" in said or "read-only" in said or "may write" in said, said
    finally:
        world.disk.set_writable(writable=True)


@contextmanager
def _read_only_server(world: World, dice: random.Random) -> Iterator[None]:
    assert world.server
    world.server.set_read_only(read_only=True)
    try:
        with _lasting(dice):
            yield
    finally:
        world.server.set_read_only(read_only=False)


@contextmanager
def _clock_forward(world: World, dice: random.Random) -> Iterator[None]:
    seconds = dice.choice([0.5, 3.0, 20.0])
    world.jump(seconds if world.ahead_seconds + seconds < _MOST_AHEAD_SECONDS else 0.1)
    with _lasting(dice):
        yield


@contextmanager
def _clock_back(world: World, dice: random.Random) -> Iterator[None]:
    world.jump(-dice.choice([0.5, 1.0, 3.0]))
    with _lasting(dice):
        yield


@contextmanager
def _link(name: str, mode: str, world: World, dice: random.Random) -> Iterator[None]:
    world.links[name].set(mode)
    try:
        with _lasting(dice):
            yield
    finally:
        world.links[name].set(PASS)


@contextmanager
def _server_crash(world: World, dice: random.Random) -> Iterator[None]:
    assert world.server
    with _lasting(dice):
        yield
    world.server.crash()


@contextmanager
def _server_away(world: World, dice: random.Random) -> Iterator[None]:
    assert world.server
    world.server.stop()
    try:
        with _lasting(dice):
            yield
    finally:
        world.server.start()


@contextmanager
def _descriptors(world: World, dice: random.Random) -> Iterator[None]:
    """Let a process open next to nothing more."""
    for pid in a_process(world, dice):
        used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
        free = [number for number in range(max(used) + 10) if number not in used]
        world.limit([pid], resource.RLIMIT_NOFILE, free[dice.choice([0, 1, 3])])
    try:
        with _lasting(dice):
            yield
    finally:
        world.lift_limits(resource.RLIMIT_NOFILE)


@contextmanager
def _memory(world: World, dice: random.Random) -> Iterator[None]:
    """Let a process have next to no more memory."""
    for pid in a_process(world, dice):
        used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        world.limit([pid], resource.RLIMIT_AS, used + dice.choice([0, 1, 4]) * 1024 * 1024)
    try:
        with _lasting(dice):
            yield
    finally:
        world.lift_limits(resource.RLIMIT_AS)


KINDS: dict[str, Kind] = {
    **{name: Kind(partial(_kill, name)) for name in POINTS},
    **{name: Kind(partial(_kill_at_start, name)) for name in START_POINTS},
    **{name: Kind(partial(_kill_migration, name)) for name in MIGRATION_POINTS},
    "power_cut": Kind(_power_cut),
    "frozen": Kind(_frozen),
    "disk_full": Kind(_disk_full, needs_mount=True),
    "file_size": Kind(_file_size),
    "read_only_disk": Kind(_read_only_disk, on="sqlite", needs_mount=True),
    "read_only_server": Kind(_read_only_server, on="postgres"),
    "clock_forward": Kind(_clock_forward),
    "clock_back": Kind(_clock_back),
    **{
        f"{mode}.{link}": Kind(partial(_link, link, mode), on="postgres" if "database" in link else None)
        for link in _LINKS
        for mode in MODES
    },
    "server_crash": Kind(_server_crash, on="postgres"),
    "server_away": Kind(_server_away, on="postgres"),
    "descriptors": Kind(_descriptors, quiet=False),
    "memory": Kind(_memory, quiet=False),
}


def family(name: str) -> str:
    """Return what a fault is counted as."""
    return KILL if name in ALL_POINTS else name.partition(".")[0]
