"""A run: cases drawn by a seed, put to a target, and what is found kept by where it happened."""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
HANGING_SECONDS = 120  # of one case, after which the process ends itself with a traceback
MOST_CPU_SECONDS = 5.0  # of one case
MOST_BYTES = 1024 * 1024 * 1024  # of the process, at its peak
_WATCHED_SECONDS = 5.0
_KEPT = 3  # inputs of each finding

C = TypeVar("C", bound=msgspec.Struct)


class Violation(Exception):
    """Something that must not be; the message says what, and the same for all cases of it."""


class Target(ABC, Generic[C]):
    """What cases are put to.

    Attributes:
        name: on the command line.
        case: the type of its cases, which can be kept as JSON.
        share: of all cases that are asked for.
    """

    name: ClassVar[str]
    share: ClassVar[float]
    case: type[C]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Have what it takes to be asked."""
        yield

    @abstractmethod
    def draw(self, dice: random.Random) -> C:
        """Make a case."""

    @abstractmethod
    def ask(self, case: C) -> str:
        """Put a case to it, and return what it answered, in a word.

        Raises:
            Violation: something is wrong with the answer, or with what it left behind.
            Exception: it crashed.
        """


class Finding(msgspec.Struct):
    """What is wrong, and the numbers of the first cases that it was found by."""

    what: str
    trace: str
    count: int = 0
    numbers: list[int] = msgspec.field(default_factory=list)
    files: list[str] = msgspec.field(default_factory=list)


@dataclass(kw_only=True)
class Tally:
    """What a run came to.

    Attributes:
        seconds: it took.
        answers: how often which was given.
        slowest: processor seconds, and the number, of the case that took most.
        peak_bytes: of the process's memory.
        findings: by what they are.
    """

    target: str
    cases: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    peak_bytes: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)

    def note(self, what: str, trace: str, number: int) -> Finding:
        """Count a finding."""
        finding = self.findings.setdefault(what, Finding(what=what, trace=trace))
        finding.count += 1
        if len(finding.numbers) < _KEPT:
            finding.numbers.append(number)
        return finding


def case_of(target: Target[Any], *, seed: int, number: int) -> Any:
    """Return the case of a number, which is the same whatever came before it."""
    return target.draw(random.Random(f"{target.name} {seed} {number}"))


def run(
    target: Target[Any],
    *,
    cases: int,
    seed: int,
    first: int = 0,
    keep: Path | None = None,
    after: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Put so many cases to a target.

    Args:
        first: number of the first case.
        keep: directory for the cases that find something; None in a process that has other things to do, which is
            then neither bounded in memory nor ended where a case hangs.
        after: told of the tally now and then.
    """
    tally = Tally(target=target.name)
    began = watched = time.monotonic()
    with ExitStack() as stack:
        at = _Position(None if keep is None else keep / f"{target.name}.position")
        stack.callback(at.close)
        stack.enter_context(target.ready())
        if keep is not None:
            stack.callback(faulthandler.cancel_dump_traceback_later)
            faulthandler.dump_traceback_later(HANGING_SECONDS, exit=True)
        for number in range(first, first + cases):
            at.is_(number)
            case = case_of(target, seed=seed, number=number)
            before = time.process_time()
            found = _put(target, case, tally)
            took = time.process_time() - before
            if took > MOST_CPU_SECONDS and found is None:
                found = (f"a case took more than {MOST_CPU_SECONDS:g} s of processor time", "")
            if found is not None:
                finding = tally.note(*found, number)
                if keep is not None and len(finding.files) < _KEPT:
                    finding.files.append(str(_kept(keep, target, case, number=number)))
            tally.cases += 1
            tally.slowest = max(tally.slowest, (took, number))
            if (now := time.monotonic()) - watched > _WATCHED_SECONDS:
                watched = now
                tally.seconds = now - began
                if keep is not None:
                    faulthandler.dump_traceback_later(HANGING_SECONDS, exit=True)
                after(tally)
    tally.seconds = time.monotonic() - began
    tally.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if keep is not None and tally.peak_bytes > MOST_BYTES:
        tally.note(f"more than {MOST_BYTES // 1024**2} MiB of memory", "", first)
    return tally


def _put(target: Target[Any], case: Any, tally: Tally) -> tuple[str, str] | None:
    """Put a case to a target; return what is wrong, in a line that tells it from others, and where."""
    try:
        tally.answers[target.ask(case)] += 1
    except Violation as violation:
        tally.answers["violation"] += 1
        return str(violation), traceback.format_exc()
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        tally.answers["crash"] += 1
        return f"{type(error).__name__} at {_place(error)}", traceback.format_exc()
    return None


def _place(error: BaseException) -> str:
    """Return the innermost line of ours that an error came through."""
    place = "nowhere"
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(f"{ROOT}/webhook") or place == "nowhere":
            place = f"{os.path.relpath(frame.filename, ROOT)}:{frame.lineno}"
    return place


class _Position:
    """The number of the case that is asked, in a file, where it is to be found after a crash."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def is_(self, number: int) -> None:
        if self._file is not None:
            os.pwrite(self._file, b"%-20d" % number, 0)

    def close(self) -> None:
        if self._path is not None and self._file is not None:
            os.close(self._file)
            self._path.unlink()


def _kept(directory: Path, target: Target[Any], case: Any, *, number: int) -> Path:
    path = directory / f"{target.name}-{number}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode({"target": target.name, "case": case})))
    return path


def read_case(path: Path, targets: dict[str, Target[Any]]) -> tuple[Target[Any], Any]:
    """Return a case that was kept, and its target."""
    kept = msgspec.json.decode(path.read_bytes())
    target = targets[kept["target"]]
    return target, msgspec.convert(kept["case"], target.case, builtin_types=())
