"""The values of magic inputs: each reader takes what was written and returns what it means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .codes import UNREACHABLE
from .outcomes import Fault, Gap, Way

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SLICES = 100_000
MAX_SECONDS = 86_400.0
# What a fault's value is where none is written.
THROTTLE_MILLISECONDS = 1000
SLOW_SECONDS = 60
HUGE_MEGABYTES = 1024

_TIMES = r"(?:x(?P<times>[1-9][0-9]{0,3}))?"
_CODE = re.compile(r"(?P<code>[1-9][0-9]{2})" + _TIMES)
_HTTP = re.compile(
    r"(?:(?P<status>[45][0-9]{2})|(?P<kind>throttle)(?::(?P<value>[0-9]{1,6}))?|(?P<bare>html|drop|cut|hang))" + _TIMES
)
_SEGMENT = re.compile(
    r"(?:(?P<status>[45][0-9]{2})|(?P<kind>slow|huge)(?::(?P<value>[0-9]{1,5}))?|(?P<bare>html|redirect))" + _TIMES
)


class MagicError(ValueError):
    """A magic input has a value that means nothing; the message says which are right."""


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a reader of one of these words."""

    def read_choice(value: str) -> str:
        if value not in choices:
            raise MagicError(f"is one of {', '.join(choices)}")
        return value

    return read_choice


def count(value: str) -> int:
    """Read a number from 0 on."""
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) > MAX_SLICES:
        raise MagicError(f"is a number up to {MAX_SLICES}")
    return int(value)


def positive(value: str) -> int:
    """Read a number from 1 on."""
    if count(value) == 0:
        raise MagicError("is a number from 1 on")
    return int(value)


def seconds(value: str) -> float:
    """Read a duration."""
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", value) or float(value) > MAX_SECONDS:
        raise MagicError(f"is a number of seconds up to {MAX_SECONDS:.0f}")
    return float(value)


def probability(value: str) -> float:
    """Read a number from 0 to 1."""
    if not re.fullmatch(r"0(\.[0-9]{1,6})?|1(\.0{1,6})?", value):
        raise MagicError("is a probability from 0 to 1")
    return float(value)


def code_fault(value: str) -> Fault:
    """Read one of the vendor's codes."""
    found = _CODE.fullmatch(value)
    if not found:
        raise MagicError("is a code of three digits, and perhaps xK for the first K times only")
    return Fault(kind="code", value=int(found["code"]), times=_times(found))


def http_fault(value: str) -> Fault:
    """Read what goes wrong with a call in HTTP."""
    found = _HTTP.fullmatch(value)
    if not found:
        raise MagicError("is 400 to 599, html, throttle, throttle:MILLISECONDS, drop, cut or hang, perhaps with xK")
    return _fault(found, default=THROTTLE_MILLISECONDS)


def segment_fault(value: str) -> Fault:
    """Read what goes wrong with the audio of a slice."""
    found = _SEGMENT.fullmatch(value)
    if not found:
        raise MagicError("is 400 to 599, html, redirect, slow, slow:SECONDS, huge or huge:MB, perhaps with xK")
    return _fault(found, default=SLOW_SECONDS if found["kind"] == "slow" else HUGE_MEGABYTES)


def labels(value: str) -> tuple[str, ...]:
    """Read names of labels."""
    found = tuple(label for label in re.split(r"[,+ ]", value) if label)
    if not found or not all(re.fullmatch(r"[A-Za-z0-9_]{1,64}", label) for label in found):
        raise MagicError("is a list of labels, separated by a comma (in file names by a plus)")
    return found


def silence(value: str) -> int:
    """Read which slices are silent."""
    return 1 if value == "all" else positive(value)


def way(value: str) -> Way:
    """Read how callbacks travel."""
    if value.startswith("late:"):
        return Way(late_seconds=seconds(value.removeprefix("late:")))
    if value.startswith("lostx"):
        return Way(lost_tries=positive(value.removeprefix("lostx")))
    return Way(kind=one_of("sent", "lost", "twice", "double", "overtake", "reordered", "echo")(value))


def gap(value: str) -> Gap:
    """Read after how many slices a stream pauses, and how long."""
    after, _, pause = value.partition(":")
    return Gap(after=count(after), seconds=seconds(pause))


def end(value: str) -> tuple[str, int]:
    """Read how a stream ends, and with which code where it breaks."""
    word, sign, code = value.partition(":")
    if not sign:
        return one_of("finish", "break", "never")(word), UNREACHABLE
    return one_of("break")(word), code_fault(code).value


def _times(found: re.Match[str]) -> int | None:
    return int(found["times"]) if found["times"] else None


def _fault(found: re.Match[str], *, default: int) -> Fault:
    if found["status"]:
        return Fault(kind="status", value=int(found["status"]), times=_times(found))
    if found["bare"]:
        return Fault(kind=found["bare"], times=_times(found))
    value = default if found["value"] is None else int(found["value"])
    return Fault(kind=found["kind"], value=value, times=_times(found))
