"""How one task is to go: its result, and the faults on its way."""

from __future__ import annotations

import math
from dataclasses import dataclass

RISKS = ("none", "low", "medium", "high")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong, at most so many times (None: every time).

    Attributes:
        kind: `code` for one of the vendor's, `status` for one of HTTP's, or a word of its own.
        value: the code or status; for `throttle` milliseconds, for `slow` seconds, for `huge` megabytes.
    """

    kind: str
    value: int = 0
    times: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch in which a stream makes no slices.

    Attributes:
        after: how many slices come before it.
    """

    after: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a task's callbacks travel.

    Attributes:
        kind: `sent`; `lost` for never; `twice` and `double` for again after the 200 and again at once;
            `overtake` for before the submit is answered; `reordered` and `echo` for streams: each second one
            before the one before it, and each one once more after its successor.
        lost_tries: so many tries get lost first.
        late_seconds: the first try is so late.
    """

    kind: str = "sent"
    lost_tries: int = 0
    late_seconds: float = 0.0

    def __str__(self) -> str:
        if self.lost_tries:
            return f"lostx{self.lost_tries}"
        return f"late:{self.late_seconds:g}" if self.late_seconds else self.kind


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one task is to go; None leaves it to the sandbox's configuration or to the default."""

    risk: str | None = None
    labels: tuple[str, ...] = ()
    slices: int | None = None
    flagged: int | None = None
    silence: int | None = None
    silent_from: int | None = None
    text: str | None = None
    delay_seconds: float | None = None
    code: Fault | None = None
    submit_code: Fault | None = None
    query_code: Fault | None = None
    cancel_code: Fault | None = None
    http: Fault | None = None
    query_http: Fault | None = None
    callback: Way = Way()
    forged: bool = False
    shape: str | None = None
    encoding: str | None = None
    interval_seconds: float = 1.0
    batch: int = 1
    gap: Gap | None = None
    end: str = "finish"
    end_code: int = 404
    segment: Fault | None = None
    faults: float | None = None

    @property
    def risk_level(self) -> str:
        """The level of a flagged slice: what was asked for, else high where a label was."""
        return self.risk or ("high" if self.labels else "none")

    @property
    def flagged_slices(self) -> int:
        """How many slices, from the first on, carry findings."""
        if self.flagged is not None:
            return self.flagged
        return 0 if self.risk_level == "none" and not self.labels else 1

    def is_silent(self, index: int) -> bool:
        """Say whether the slice at an index from 0 on is silent.

        Where only every Kth one is, a flagged one never is; where all are from one on, findings end there.
        """
        if self.silent_from is not None and index + 1 >= self.silent_from:
            return True
        return self.silence is not None and index >= self.flagged_slices and (index + 1) % self.silence == 0

    @property
    def step_milliseconds(self) -> int:
        """How long a stream's slice is; never nothing, for no two may have the same times."""
        return max(1, math.floor(self.interval_seconds * 1000))

    def starts_after_milliseconds(self, index: int) -> int:
        """Return how long after its stream's start a slice starts."""
        paused = self.gap.seconds if self.gap is not None and index >= self.gap.after else 0.0
        return index * self.step_milliseconds + math.floor(paused * 1000)
