"""What a source's name asks for: every magic input in one table, the text that lists them, their reading.

A source is a URL, or the name of an object in a bucket. Its query may hold the options
(`…/a.mp3?risk=high&slices=10`), and so may its file name, as words or as `key=value`, separated by
commas (`high,slices=10.mp3`): names of objects have no query. Of two the query wins. What is not
known is ignored, since real URLs carry parameters of their own; a known one with a wrong value is not.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RISKS = ("none", "low", "medium", "high")
MAX_SLICES = 100_000
MAX_SECONDS = 86_400.0
SILENCE = "specified_nontalk"

# text-moderation-plus.txt, the table of risk labels; voice-moderation.txt, "Audio-specific labels"
LABELS = (
    *("contraband_act", "contraband_drug", "contraband_entity", "contraband_gambling", "customized"),
    *("inappropriate_discrimination", "inappropriate_ethics", "inappropriate_nonsense", "inappropriate_oral"),
    *("inappropriate_profanity", "inappropriate_superstition", "political_a", "political_entity"),
    *("political_figure", "political_n", "political_p", "political_prompts", "pornographic_adult"),
    *("privacy_b", "privacy_p", "pt_by_recruitment", "pt_to_contact", "pt_to_sites", "religion_b", "religion_c"),
    *("religion_h", "religion_i", "religion_t", "sexual_prompts", "sexual_sounds", "sexual_suggestive"),
    *("sexual_terms", "specified_nontalk", "specified_speaking", "violent_extremists", "violent_incidents"),
    *("violent_prompts", "violent_weapons"),
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault to answer with, at most so many times for one source (None: every time)."""

    kind: str
    value: int
    times: int | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one task is to go; None leaves it to the sandbox's configuration or to the default."""

    risk: str | None = None
    labels: tuple[str, ...] = ()
    slices: int | None = None
    flagged: int | None = None
    silence: int | None = None
    text: str | None = None
    delay_seconds: float | None = None
    code: int | None = None
    submit_code: Fault | None = None
    query_code: Fault | None = None
    http: Fault | None = None
    callback: str = "sent"
    late_seconds: float = 0.0
    forged: bool = False
    shape: str | None = None
    encoding: str | None = None
    interval_seconds: float = 1.0
    batch: int = 1
    end: str = "finish"

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


class MagicError(ValueError):
    """A magic input has a value that means nothing; the message says which are right."""


def _one_of(*choices: str) -> Callable[[str], str]:
    def read_choice(value: str) -> str:
        if value not in choices:
            raise MagicError(f"is one of {', '.join(choices)}")
        return value

    return read_choice


def _count(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) > MAX_SLICES:
        raise MagicError(f"is a number up to {MAX_SLICES}")
    return int(value)


def _positive(value: str) -> int:
    if _count(value) == 0:
        raise MagicError("is a number from 1 on")
    return int(value)


def _seconds(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", value) or float(value) > MAX_SECONDS:
        raise MagicError(f"is a number of seconds up to {MAX_SECONDS:.0f}")
    return float(value)


def _code(value: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{2}", value):
        raise MagicError("is a code of three digits")
    return int(value)


def _code_times(value: str) -> Fault:
    found = re.fullmatch(r"([1-9][0-9]{2})(?:x([1-9][0-9]{0,3}))?", value)
    if not found:
        raise MagicError("is a code of three digits, and perhaps xN for the first N times only")
    return Fault(kind="code", value=int(found[1]), times=int(found[2]) if found[2] else None)


def _http_fault(value: str) -> Fault:
    found = re.fullmatch(
        r"(?:(?P<status>[45][0-9]{2})|throttle(?::(?P<after>[0-9]{1,6}))?|(?P<kind>html|drop|cut|hang))"
        r"(?:x(?P<times>[1-9][0-9]{0,3}))?",
        value,
    )
    if not found:
        raise MagicError("is 400 to 599, html, throttle, throttle:MILLISECONDS, drop, cut or hang, perhaps with xN")
    times = int(found["times"]) if found["times"] else None
    if found["status"]:
        return Fault(kind="status", value=int(found["status"]), times=times)
    if found["kind"]:
        return Fault(kind=found["kind"], value=0, times=times)
    return Fault(kind="throttle", value=int(found["after"] or 1000), times=times)


def _labels(value: str) -> tuple[str, ...]:
    labels = tuple(label for label in re.split(r"[,+ ]", value) if label)
    if not labels or not all(re.fullmatch(r"[A-Za-z0-9_]{1,64}", label) for label in labels):
        raise MagicError("is a list of labels, separated by a comma (in file names by a plus)")
    return labels


def _silence(value: str) -> int:
    return 1 if value == "all" else _positive(value)


def _callback(value: str) -> Mapping[str, Any]:
    if value.startswith("late:"):
        return {"callback": "sent", "late_seconds": _seconds(value.removeprefix("late:"))}
    return {"callback": _one_of("sent", "lost", "none", "twice", "overtake")(value)}


@dataclass(frozen=True, kw_only=True)
class Option:
    """One magic parameter: how it is written, what it does, how it is read into which fields."""

    name: str
    syntax: str
    meaning: str
    read: Callable[[str], Mapping[str, Any]]


def _option(name: str, syntax: str, meaning: str, *, field: str, read: Callable[[str], Any]) -> Option:
    return Option(name=name, syntax=syntax, meaning=meaning, read=lambda value: {field: read(value)})


OPTIONS = (
    _option("risk", "none|low|medium|high", "risk level of the flagged slices", field="risk", read=_one_of(*RISKS)),
    _option("label", "A[,B…]", "labels of the flagged slices (risk is then high)", field="labels", read=_labels),
    _option("slices", "N", "number of slices (3)", field="slices", read=_count),
    _option("flagged", "N", "the first N slices are flagged (1)", field="flagged", read=_count),
    _option("silence", "K|all", "every Kth slice is silent", field="silence", read=_silence),
    _option("text", "TEXT", "transcript of every slice", field="text", read=str),
    _option("delay", "SECONDS", "how long the moderation takes", field="delay_seconds", read=_seconds),
    _option("code", "N", "the task ends with this code, without Data", field="code", read=_code),
    _option("submit_code", "N[xK]", "the submit is answered with this code", field="submit_code", read=_code_times),
    _option("query_code", "N[xK]", "queries are answered with this code", field="query_code", read=_code_times),
    Option(
        name="callback",
        syntax="lost|twice|overtake|late:SECONDS",
        meaning="never sent; sent again after its 200; sent before the submit is answered; sent late",
        read=_callback,
    ),
    _option("checksum", "wrong", "callbacks are forged", field="forged", read=lambda v: bool(_one_of("wrong")(v))),
    _option(
        "shape", "envelope|bare|camel", "what content holds", field="shape", read=_one_of("envelope", "bare", "camel")
    ),
    _option(
        "encoding",
        "form|multipart|json",
        "how callbacks are encoded",
        field="encoding",
        read=_one_of("form", "multipart", "json"),
    ),
    _option(
        "http",
        "(STATUS|html|throttle[:MS]|drop|cut|hang)[xK]",
        "the submit fails in HTTP: a JSON error; one that is no JSON; throttled; accepted, then cut off; "
        "cut off, not accepted; accepted, never answered",
        field="http",
        read=_http_fault,
    ),
    _option("interval", "SECONDS", "live: one slice every so often (1)", field="interval_seconds", read=_seconds),
    _option("batch", "K", "live: slices in a callback (1)", field="batch", read=_positive),
    _option(
        "end",
        "finish|break|never",
        "live: over after the slices; source lost (code 404) after them; open until canceled",
        field="end",
        read=_one_of("finish", "break", "never"),
    ),
)

# A word in a file name stands for these options; what follows a dash makes names distinct (high-2.mp3).
WORDS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        **{risk: (("risk", risk),) for risk in RISKS},
        **{label: (("label", label),) for label in LABELS},
        "silence": (("silence", "all"),),
        **{code: (("code", code),) for code in ("404", "405", "406", "407", "500")},
        **{word: (("callback", word),) for word in ("lost", "twice", "overtake")},
        "forged": (("checksum", "wrong"),),
        "endless": (("end", "never"),),
        "broken": (("end", "break"),),
    }
)

_READERS = MappingProxyType({option.name: option.read for option in OPTIONS})


def file_name(source: str) -> str:
    """Return the last segment of a source's path, decoded, without query and fragment."""
    path = source.partition("#")[0].partition("?")[0]
    return unquote(path.rpartition("/")[2])


def extension(source: str) -> str:
    """Return the file name's extension in lower case, or the empty string."""
    name = file_name(source)
    return name.rpartition(".")[2].lower() if "." in name else ""


def read(source: str) -> Outcome:
    """Return the outcome that a source's name asks for.

    Raises:
        MagicError: a known option has a wrong value.
    """
    name = file_name(source)
    # a dot may stand in a value (interval=0.5), so only something like an extension is cut off
    stem = re.sub(r"\.[A-Za-z][A-Za-z0-9]{0,5}$", "", name)
    pairs: list[tuple[str, str]] = []
    for piece in stem.split(","):
        key, sign, value = piece.partition("=")
        pairs += [(key, value)] if sign else WORDS.get(piece.partition("-")[0], ())
    query = source.partition("#")[0].partition("?")[2]
    pairs += parse_qsl(query, keep_blank_values=True)
    outcome = Outcome()
    for key, value in pairs:
        if key in _READERS:
            try:
                outcome = replace(outcome, **_READERS[key](value))
            except MagicError as error:
                raise MagicError(f"magic input {key}={value[:40]!r}: {key} {error}") from error
    return outcome


_MARK = re.compile(rb"sandbox:([\x21-\x7e]{1,500})")


def mark(source: str) -> bytes:
    """Return the comment by which an audio file carries a source's name along with it."""
    return b"sandbox:" + source.encode("ascii", "replace").replace(b" ", b"+")[:500]


def marked_source(start: bytes) -> str | None:
    """Return the name that a file's first bytes carry, so that an upload keeps its magic; or None."""
    found = _MARK.search(start)
    return found[1].decode("ascii") if found else None


def _magic_text() -> str:
    rows = [f"  {option.name}={option.syntax}\n      {option.meaning}" for option in OPTIONS]
    words = sorted(set(WORDS) - set(LABELS))
    return "\n".join(
        [
            "The source chooses the outcome. In the query of its URL (…/talk.mp3?risk=high&slices=10),",
            "or in its file name, separated by commas (…/high,slices=10.mp3):",
            "",
            *rows,
            "",
            "File names of one word:",
            *textwrap.wrap(", ".join(words), width=80, initial_indent="  ", subsequent_indent="  "),
            "and every label (political_entity.mp3). A dash makes names distinct: high-2.mp3.",
            "xK means: for the first K times with this source, then as usual.",
            "An uploaded file chooses by a comment in its bytes: those under /samples/ have it.",
        ]
    )


MAGIC = _magic_text()
