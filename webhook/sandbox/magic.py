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

from . import values
from .codes import IN_PROGRESS, MESSAGES, OK
from .outcomes import RISKS, Outcome
from .values import MagicError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

RESULT = "The result"
ERRORS = "Codes and faults; xK is for the first K times with this source, task or link"
CALLBACKS = "Callbacks"
STREAMS = "Streams"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One magic parameter: how it is written, what it does, how it is read into which fields."""

    group: str
    name: str
    syntax: str
    meaning: str
    read: Callable[[str], Mapping[str, Any]]


def _option(
    group: str, name: str, syntax: str, meaning: str, read: Callable[[str], Any], *, field: str | None = None
) -> Option:
    return Option(
        group=group, name=name, syntax=syntax, meaning=meaning, read=lambda value: {field or name: read(value)}
    )


OPTIONS = (
    _option(RESULT, "risk", "none|low|medium|high", "risk level of the flagged slices", values.one_of(*RISKS)),
    _option(RESULT, "label", "A[,B…]", "their labels (risk is then high)", values.labels, field="labels"),
    _option(RESULT, "slices", "N", "number of slices (3)", values.count),
    _option(RESULT, "flagged", "N", "the first N slices are flagged (1)", values.count),
    _option(RESULT, "silence", "K|all", "every Kth slice is silent", values.silence),
    _option(RESULT, "silent_from", "N", "from the Nth on all slices are silent", values.positive),
    _option(RESULT, "text", "TEXT", "transcript of every slice", str),
    _option(RESULT, "delay", "SECONDS", "how long the moderation takes", values.seconds, field="delay_seconds"),
    _option(ERRORS, "code", "N[xK]", "tasks end with this code, without Data", values.code_fault),
    _option(ERRORS, "submit_code", "N[xK]", "submits are answered with this code", values.code_fault),
    _option(ERRORS, "query_code", "N[xK]", "queries are answered with this code", values.code_fault),
    _option(ERRORS, "cancel_code", "N[xK]", "cancellations are answered with this code", values.code_fault),
    _option(
        ERRORS,
        "http",
        "(STATUS|html|throttle[:MS]|drop|cut|hang)[xK]",
        "submits fail in HTTP: a JSON error; one that is no JSON; throttled; accepted, then cut off; "
        "cut off, not accepted; accepted, never answered",
        values.http_fault,
    ),
    _option(
        ERRORS, "query_http", "(STATUS|html|throttle[:MS]|cut|hang)[xK]", "likewise for queries", values.http_fault
    ),
    _option(
        ERRORS,
        "segment",
        "(STATUS|slow[:SECONDS]|huge[:MB]|html|redirect)[xK]",
        "streams' audio: an error such as 404; byte by byte for so long; endless and of no declared length; "
        "a page instead; elsewhere",
        values.segment_fault,
    ),
    _option(ERRORS, "faults", "P", "random faults of this probability (that of --faults)", values.probability),
    _option(
        CALLBACKS,
        "callback",
        "lost|lostxK|late:SECONDS|twice|double|overtake|reordered|echo",
        "never sent; the first K tries get lost; sent late; again after its 200; two at once; before the submit is "
        "answered; streams: each second one before the one before it; each once more after its successor",
        values.way,
    ),
    _option(
        CALLBACKS,
        "checksum",
        "wrong",
        "they are forged",
        lambda value: bool(values.one_of("wrong")(value)),
        field="forged",
    ),
    _option(
        CALLBACKS, "shape", "envelope|bare|camel", "what content holds", values.one_of("envelope", "bare", "camel")
    ),
    _option(
        CALLBACKS, "encoding", "form|multipart|json", "how they are encoded", values.one_of("form", "multipart", "json")
    ),
    _option(STREAMS, "interval", "SECONDS", "one slice every so often (1)", values.seconds, field="interval_seconds"),
    _option(STREAMS, "batch", "K", "slices in a callback (1)", values.positive),
    _option(STREAMS, "gap", "N:SECONDS", "after N slices there are none for so long", values.gap),
    Option(
        group=STREAMS,
        name="end",
        syntax="finish|break[:CODE]|never",
        meaning="over after the slices; source lost (404) after them; open until canceled",
        read=lambda value: dict(zip(("end", "end_code"), values.end(value), strict=True)),
    ),
)

# A word in a file name stands for these options; what follows a dash makes names distinct (high-2.mp3).
WORDS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        **{risk: (("risk", risk),) for risk in RISKS},
        **{label: (("label", label),) for label in LABELS},
        "silence": (("silence", "all"),),
        **{str(code): (("code", str(code)),) for code in MESSAGES if code not in {OK, IN_PROGRESS}},
        **{word: (("callback", word),) for word in ("lost", "twice", "double", "overtake", "reordered", "echo")},
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


def _rows(group: str) -> list[str]:
    return [
        line
        for option in OPTIONS
        if option.group == group
        for line in (
            f"    {option.name}={option.syntax}",
            *textwrap.wrap(option.meaning, width=96, initial_indent=" " * 8, subsequent_indent=" " * 8),
        )
    ]


def _magic_text() -> str:
    words = sorted(set(WORDS) - set(LABELS))
    return "\n".join(
        [
            "The source chooses the outcome. In the query of its URL (…/talk.mp3?risk=high&slices=10),",
            "or in its file name, separated by commas (…/high,slices=10.mp3):",
            *(line for group in (RESULT, ERRORS, CALLBACKS, STREAMS) for line in ("", f"  {group}", *_rows(group))),
            "",
            "File names of one word:",
            *textwrap.wrap(", ".join(words), width=80, initial_indent="  ", subsequent_indent="  "),
            "and every label (political_entity.mp3). A dash makes names distinct: high-2.mp3.",
            "An uploaded file chooses by a comment in its bytes: those under /samples/ have it.",
        ]
    )


MAGIC = _magic_text()
