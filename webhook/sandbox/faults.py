"""When things go wrong: faults asked for so many times are counted, random ones are drawn.

A draw depends on the seed, the source's name, what is done to it and for the how-manieth time, and on
nothing else: neither on the time nor on what happens to other sources.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .codes import SYSTEM_ERROR, TOO_FAST
from .outcomes import Fault, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .control import Control

T = TypeVar("T")

# Beyond it the oldest records go, so that long soaks fit into memory; the counts stay.
MAX_DRAWN = 100_000
THROTTLE_MILLISECONDS = 200

_CALL_FAULTS = (
    Fault(kind="code", value=TOO_FAST),
    Fault(kind="code", value=SYSTEM_ERROR),
    Fault(kind="status", value=500),
    Fault(kind="throttle", value=THROTTLE_MILLISECONDS),
)
SUBMIT = "VoiceModeration"
CALL_FAULTS: Mapping[str, Sequence[Fault]] = {
    SUBMIT: (*_CALL_FAULTS, Fault(kind="drop")),
    "VoiceModerationResult": (*_CALL_FAULTS, Fault(kind="cut")),
    "VoiceModerationCancel": (*_CALL_FAULTS, Fault(kind="cut")),
    "DescribeUploadToken": (*_CALL_FAULTS, Fault(kind="cut")),
}
WAYS = (
    Way(kind="lost"),
    *(Way(lost_tries=tries) for tries in (1, 2, 3)),
    *(Way(late_seconds=seconds) for seconds in (0.1, 0.5, 2.0)),
    Way(kind="twice"),
    Way(kind="double"),
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A random fault that happened.

    Attributes:
        point: the action, or `callback`.
        source: name of the source, empty for DescribeUploadToken.
        task_id: the task, where there was one already.
        number: it was the how-manieth time, from 1 on.
    """

    at: float
    point: str
    source: str
    task_id: str | None
    number: int
    fault: str


class Faults:
    """Says which fault is due, and remembers the random ones.

    Args:
        control: the probability and the seed.
        clock: seconds since 1970, for the record.
    """

    def __init__(self, control: Control, *, clock: Callable[[], float]) -> None:
        self._control = control
        self._clock = clock
        self._happened: Counter[tuple[str, str, Fault]] = Counter()
        self._asked: Counter[tuple[str, str]] = Counter()
        self.drawn: deque[Drawn] = deque(maxlen=MAX_DRAWN)
        self.counts: Counter[tuple[str, str]] = Counter()

    def due(self, point: str, fault: Fault | None, whose: str) -> Fault | None:
        """Return a fault if it is still to happen, and count it.

        Args:
            point: what it happens to, since one source may ask for the same at several points.
            fault: what was asked for.
            whose: the source, task or link whose times are counted.
        """
        if fault is None or fault.times is None:
            return fault
        self._happened[point, whose, fault] += 1
        return fault if self._happened[point, whose, fault] <= fault.times else None

    def draw(
        self,
        point: str,
        choices: Sequence[T],
        *,
        source: str,
        probability: float | None,
        task_id: str | None = None,
    ) -> T | None:
        """Return a random fault, or None.

        Args:
            point: what it happens to: an action, or `callback`.
            choices: the faults there are.
            source: where the task's sound is; its host and port do not count.
            probability: the source's own; None for that of the configuration.
            task_id: for the record.
        """
        config = self._control.config
        probability = config.faults if probability is None else probability
        if not probability:
            return None
        name = _name(source)
        self._asked[point, name] += 1
        number = self._asked[point, name]
        dice = random.Random(f"{config.seed}\n{point}\n{name}\n{number}")  # noqa: S311 - to be foreseen is its purpose
        if dice.random() >= probability:
            return None
        fault = dice.choice(choices)
        self.counts[point, str(fault)] += 1
        self.drawn.append(
            Drawn(at=self._clock(), point=point, source=name, task_id=task_id, number=number, fault=str(fault))
        )
        return fault


def _name(source: str) -> str:
    """Return what of a source is the same in every run: its path and query."""
    _, sign, rest = source.partition("://")
    return rest.partition("/")[2] if sign else source
