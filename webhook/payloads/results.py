"""A result and its slices, as we keep them; which of two is graver, better, earlier."""

from __future__ import annotations

import hashlib
import re
import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterable

Extra = dict[str, Any] | UnsetType
"""Fields that we do not know and values of the wrong type, each as sent; left out of JSON when there are none."""


class CustomHit(Struct, frozen=True, kw_only=True, gc=False):
    """Keywords that were found, of one of the account's own libraries."""

    library: str | None
    keywords: tuple[str, ...]


class RiskPosition(Struct, frozen=True, kw_only=True, gc=False):
    """Where a risk word stands in the text: a hint, since the vendor defines neither base nor order."""

    risk_word: str | None
    start: int | None
    end: int | None


class Finding(Struct, frozen=True, kw_only=True, gc=False):
    """One label on a slice.

    Attributes:
        confidence: 0 to 100; None where the platform gave none, which is not 0.
        risk_level: `none`, `low`, `medium`, `high`, or a word that we do not know, in lower case.
    """

    label: str | None
    description: str | None
    confidence: float | None
    risk_level: str | None
    risk_words: tuple[str, ...]
    custom_hits: tuple[CustomHit, ...]
    risk_positions: tuple[RiskPosition, ...]
    extra: Extra = UNSET


class Slice(Struct, frozen=True, kw_only=True, gc=False):
    """One moderated stretch of a task; its JSON is the API's, but for `action`.

    Attributes:
        start_time: in the platform's unit: seconds, says the vendor, whose example shows 4065.
        start_timestamp: Unix time in milliseconds.
        risk_level: as said by the platform or, where it says none, the highest of the findings.
        url: for a stream, a link to the stretch that works for 30 minutes.
    """

    start_time: int | None
    end_time: int | None
    start_timestamp: int | None
    end_timestamp: int | None
    risk_level: str | None
    text: str | None
    url: str | None
    results: tuple[Finding, ...]
    extra: Extra = UNSET


class Result(Struct, frozen=True, kw_only=True, gc=False):
    """One content, understood.

    Attributes:
        code: the platform's `Code`; None for a bare `Data`, or where it is no number.
        risk_level: what the platform says of the task as a whole, None where it says nothing.
        has_data: whether there is a result in it, were it one without slices; if not, the content only
            says how the task stands.
        extra: of the envelope and of `Data`; the vendor's messages, which may echo a seed, are dropped.
    """

    code: int | None
    task_id: str | None
    live_id: str | None
    data_id: str | None
    url: str | None
    risk_level: str | None
    slices: tuple[Slice, ...]
    has_data: bool
    extra: Extra = UNSET


NONE, MEDIUM = "none", "medium"
_RANKS: Final = {NONE: 0, "low": 1, MEDIUM: 2, "high": 3}
_LEVELS: Final = {level: level for level in _RANKS}

# `nonLabel`: text-moderation-plus.txt, examples. `normal`: Content Moderation 1.0.
_CLEAN_LABELS: Final = frozenset({"nonlabel", "normal"})

SURE: Final = 100
"""The greatest confidence."""

FARTHEST: Final = 2**53
"""Greatest integer that every reader of JSON keeps exactly; a time beyond it is no time."""

LONGEST_WORD: Final = 256
"""Characters of a level, a label or an id that is looked for: a PostgreSQL index takes no more than 2,704 bytes."""

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def risk_rank(level: str | None) -> int:
    """Return the place of a level in the order of risk: an unknown word ranks with `medium`, never as clean."""
    return -1 if level is None else _RANKS.get(level, 2)


def highest(levels: Iterable[str | None]) -> str | None:
    """Return the gravest of the levels, the same whatever their order; None for none at all."""
    return max(levels, key=_gravity, default=None)


def _gravity(level: str | None) -> tuple[int, bool, str]:
    return risk_rank(level), level in _RANKS, level or ""


def better(a: Slice, b: Slice) -> Slice:
    """Return the one to keep of two versions of a slice, whichever came first.

    The higher risk wins, then the one with more findings, then the greater in byte order of its JSON.
    """
    weight_a, weight_b = (risk_rank(a.risk_level), len(a.results)), (risk_rank(b.risk_level), len(b.results))
    if weight_a == weight_b:
        return a if msgspec.json.encode(a) >= msgspec.json.encode(b) else b
    return a if weight_a > weight_b else b


_TIMES: Final = ("starttimestamp", "starttime", "endtimestamp", "endtime")


def without_words(slice_: Slice) -> Slice:
    """Return a slice of which only risk, labels and times are left: nothing that was said, and no link to it.

    Of times of the wrong type, by which the slice is known too, a digest is left.
    """
    sent = {} if slice_.extra is UNSET else slice_.extra
    extra = {name: {_DIGEST: _digest(value).hex()} for name, value in sent.items() if _is_time(name)}
    results = tuple([_without_words(finding) for finding in slice_.results])
    return msgspec.structs.replace(slice_, text=None, url=None, results=results, extra=extra or UNSET)


def _is_time(name: str) -> bool:
    return name.lower() in _TIMES


def _without_words(finding: Finding) -> Finding:
    return Finding(
        label=finding.label,
        description=None,
        confidence=finding.confidence,
        risk_level=finding.risk_level,
        risk_words=(),
        custom_hits=(),
        risk_positions=(),
    )


_TIME_KEY: Final = struct.Struct(">BQ")
_TIMES_KEY: Final = struct.Struct(">BQBQBQBQ")


def slice_key(slice_: Slice) -> bytes:
    """Return what a slice is known by within its task: its four times, as bytes that sort in time order.

    A time is a tag and 8 bytes, an absent one the lowest tag alone. One of the wrong type is a tag and a
    digest of the value as sent, so that two odd slices do not become one.
    """
    a, b, c, d = times = (slice_.start_timestamp, slice_.start_time, slice_.end_timestamp, slice_.end_time)
    if a is not None and b is not None and c is not None and d is not None:  # as nearly always: in one call
        return _TIMES_KEY.pack(2, a + 2**63, 2, b + 2**63, 2, c + 2**63, 2, d + 2**63)
    odd = [as_sent(name, slice_.extra) for name in _TIMES]
    return b"".join([_time_key(*pair) for pair in zip(times, odd, strict=True)])


def slice_key_of(slice_id: str) -> bytes | None:
    """Return the key that a slice's id in the API stands for, None where it stands for none."""
    try:
        key = bytes.fromhex(slice_id)
    except ValueError:
        return None
    return key if key.hex() == slice_id else None


def _time_key(time: int | None, odd: Any) -> bytes:
    if time is not None:
        return _TIME_KEY.pack(2, time + 2**63)
    if odd is UNSET:
        return b"\0"
    return b"\1" + _digest(odd)


_DIGEST: Final = "blake2b"
_DIGEST_BYTES: Final = 16
_HEX: Final = re.compile(f"[0-9a-f]{{{2 * _DIGEST_BYTES}}}")


def _digest(odd: Any) -> bytes:
    """Return the digest of a time of the wrong type, or what `without_words` left of it."""
    left = odd.get(_DIGEST) if isinstance(odd, dict) and len(odd) == 1 else None
    if isinstance(left, str) and _HEX.fullmatch(left):
        return bytes.fromhex(left)
    return hashlib.blake2b(msgspec.json.encode(odd, order="sorted"), digest_size=_DIGEST_BYTES).digest()


def as_sent(name: str, extra: Extra) -> Any:
    """Return a value that was kept as sent, by its field's name in lower case; UNSET where there is none."""
    if extra is UNSET:
        return UNSET
    return next((extra[key] for key in sorted(extra) if key.lower() == name), UNSET)


def level_of(word: str | None) -> str | None:
    """Return a risk level in lower case, None for none and for an empty one."""
    return None if word is None else _LEVELS.get(word) or word.strip().lower() or None


def words_of(text: str | None) -> tuple[str, ...]:
    """Split a list that the platform joined by commas, ASCII's or full-width."""
    if not text:
        return ()
    return tuple([word for part in text.replace("\N{FULLWIDTH COMMA}", ",").split(",") if (word := part.strip())])


def presumed_level(findings: Iterable[Finding], extra: Extra = UNSET) -> str | None:
    """Return the level of a slice that bears none that we can read: the highest that its findings suggest.

    For a risk without a level, and for a level that we cannot read, that is `medium`: a person looks.
    """
    suggested = [
        finding.risk_level or unread_level(finding.extra) or feared_level(finding.label) for finding in findings
    ]
    return highest([*suggested, unread_level(extra)])


def unread_level(extra: Extra) -> str | None:
    """Return `medium` where a risk level was kept as sent, since it could not be read."""
    return None if as_sent("risklevel", extra) is UNSET else MEDIUM


def feared_level(label: str | None) -> str | None:
    """Return `medium` for a label that names a risk."""
    return MEDIUM if label and label.lower() not in _CLEAN_LABELS else None
