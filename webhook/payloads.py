"""The platform's results: from JSON, however it is spelled, to slices and findings; the unknown is kept."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from webhook.errors import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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


# voice-moderation.txt, "Codes"
_OK: Final = 200
_WITHOUT_RESULT: Final = frozenset({280, 400, 401, 402, 403, 404, 405, 406, 407, 408, 480, 500})

_NONE, _MEDIUM = "none", "medium"
_RANKS: Final = {_NONE: 0, "low": 1, _MEDIUM: 2, "high": 3}
_LEVELS: Final = {level: level for level in _RANKS}

# `nonLabel`: text-moderation-plus.txt, examples. `normal`: Content Moderation 1.0.
_CLEAN_LABELS: Final = frozenset({"nonlabel", "normal"})

_SURE: Final = 100
"""The greatest confidence."""

_FARTHEST: Final = 2**53
"""Greatest integer that every reader of JSON keeps exactly; a time beyond it is no time."""

_DEEPEST: Final = 32
"""Levels of nesting that an unknown field may have: what is kept must be writable again, on any stack."""

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


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


_TIME_KEY: Final = struct.Struct(">BQ")


def slice_key(slice_: Slice) -> bytes:
    """Return what a slice is known by within its task: its four times, as bytes that sort in time order.

    A time is a tag and 8 bytes, an absent one the lowest tag alone. One of the wrong type is a tag and a
    digest of the value as sent, so that two odd slices do not become one.
    """
    times = (slice_.start_timestamp, slice_.start_time, slice_.end_timestamp, slice_.end_time)
    if slice_.extra is UNSET:
        return b"".join([b"\0" if time is None else _TIME_KEY.pack(2, time + 2**63) for time in times])
    odd = [_as_sent(name, slice_.extra) for name in ("starttimestamp", "starttime", "endtimestamp", "endtime")]
    return b"".join([_time_key(*pair) for pair in zip(times, odd, strict=True)])


def _time_key(time: int | None, odd: Any) -> bytes:
    if time is not None:
        return _TIME_KEY.pack(2, time + 2**63)
    if odd is UNSET:
        return b"\0"
    return b"\1" + hashlib.blake2b(msgspec.json.encode(odd, order="sorted"), digest_size=16).digest()


def _as_sent(name: str, extra: Extra) -> Any:
    """Return a value that was kept as sent, by its field's name in lower case; UNSET where there is none."""
    if extra is UNSET:
        return UNSET
    return next((extra[key] for key in sorted(extra) if key.lower() == name), UNSET)


def parse(content: bytes) -> Result:
    """Understand one content: the envelope, a bare `Data`, or a task object of Content Moderation 1.0.

    It must be one whole, strict JSON document in UTF-8, which no suffix forged by length extension is.
    Inside, keys are matched without regard to case, and what is unknown or of the wrong type is kept in
    `extra`. A risk that cannot be told is never `none`.

    Args:
        content: the signed bytes.

    Raises:
        Unreadable: it is not that, or says nothing that we know; the message repeats none of it.
    """
    envelope = _as_printed(content)
    return _from_document(_decode(content)) if envelope is None else _from_printed(envelope)


_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _decode(content: bytes) -> Any:
    """Return the document, with U+FFFD for half a surrogate pair: a transcript cut within an emoji is a result."""
    try:
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError:
            if not _SURROGATE_ESCAPE.search(content):
                raise
            whole = json.dumps(json.loads(content.decode()), ensure_ascii=False, allow_nan=False)
            return msgspec.json.decode(_SURROGATE.sub(_REPLACEMENT, whole))
    except (ValueError, RecursionError) as fault:
        raise Unreadable("The content is not one JSON document in UTF-8.") from fault


# The fast way: the shape that the vendor prints, declared, so that msgspec checks it in C. It refuses all
# else, which then takes the tolerant way below. Both give the same result, this one several times faster.
# voice-moderation.txt, tables 3 to 7.

_Integer = Annotated[int, Meta(ge=-_FARTHEST, le=_FARTHEST)]
_Percent = Annotated[float, Meta(ge=0, le=_SURE)]


class _Printed(Struct, rename="pascal", forbid_unknown_fields=True, gc=False):
    pass


class _PrintedHit(_Printed):
    lib_name: str | None = None
    keywords: str | None = None


class _PrintedPosition(_Printed):
    risk_word: str | None = None
    start_pos: _Integer | None = None
    end_pos: _Integer | None = None


class _PrintedFinding(_Printed):
    label: str | None = None
    description: str | None = None
    confidence: _Percent | None = None
    risk_level: str | None = None
    risk_words: str | None = None
    riskwords: str | None = None  # so in table 5, `RiskWords` in the example
    customized_hit: list[_PrintedHit] | None = None
    risk_positions: list[_PrintedPosition] | None = None

    def __post_init__(self) -> None:
        if self.riskwords is not None and self.risk_words is not None:
            raise ValueError  # which of them is kept as sent, the tolerant way decides


class _PrintedSlice(_Printed):
    start_time: _Integer | None = None
    end_time: _Integer | None = None
    start_timestamp: _Integer | None = None
    end_timestamp: _Integer | None = None
    risk_level: str | None = None
    text: str | None = None
    url: str | None = None
    result: list[_PrintedFinding] | None = None


class _PrintedData(_Printed):
    slice_details: list[_PrintedSlice]
    risk_level: str | None = None
    task_id: str | None = None
    live_id: str | None = None
    data_id: str | None = None
    url: str | None = None


class _PrintedEnvelope(_Printed):
    code: _Integer
    data: _PrintedData
    message: str | None = None
    request_id: str | None = None


_PRINTED: Final = msgspec.json.Decoder(_PrintedEnvelope)


def _as_printed(content: bytes) -> _PrintedEnvelope | None:
    """Return the content if it has just the shape that the vendor prints, else None."""
    if b"\\u0000" in content:
        return None
    try:
        return _PRINTED.decode(content)
    except (ValueError, RecursionError):
        return None


def _from_printed(envelope: _PrintedEnvelope) -> Result:
    data = envelope.data
    return Result(
        code=envelope.code,
        task_id=data.task_id,
        live_id=data.live_id,
        data_id=data.data_id,
        url=data.url,
        risk_level=_level(data.risk_level),
        slices=tuple([_printed_slice(each) for each in data.slice_details]),
        has_data=True,
    )


def _printed_slice(raw: _PrintedSlice) -> Slice:
    results = tuple([_printed_finding(each) for each in raw.result]) if raw.result else ()
    return Slice(
        start_time=raw.start_time,
        end_time=raw.end_time,
        start_timestamp=raw.start_timestamp,
        end_timestamp=raw.end_timestamp,
        risk_level=_level(raw.risk_level) or _presumed(results),
        text=raw.text,
        url=raw.url,
        results=results,
    )


def _printed_finding(raw: _PrintedFinding) -> Finding:
    hits, positions = raw.customized_hit, raw.risk_positions
    return Finding(
        label=raw.label,
        description=raw.description,
        confidence=raw.confidence,
        risk_level=_level(raw.risk_level),
        risk_words=_words(raw.risk_words or raw.riskwords),
        custom_hits=tuple([_printed_hit(each) for each in hits]) if hits else (),
        risk_positions=tuple([_printed_position(each) for each in positions]) if positions else (),
    )


def _printed_hit(raw: _PrintedHit) -> CustomHit:
    return CustomHit(library=raw.lib_name, keywords=_words(raw.keywords))


def _printed_position(raw: _PrintedPosition) -> RiskPosition:
    return RiskPosition(risk_word=raw.risk_word, start=raw.start_pos, end=raw.end_pos)


# What both ways share.


def _level(word: str | None) -> str | None:
    """Return a risk level in lower case, None for none and for an empty one."""
    return None if word is None else _LEVELS.get(word) or word.strip().lower() or None


def _words(text: str | None) -> tuple[str, ...]:
    """Split a list that the platform joined by commas, ASCII's or full-width."""
    if not text:
        return ()
    return tuple([word for part in text.replace("\N{FULLWIDTH COMMA}", ",").split(",") if (word := part.strip())])


def _presumed(findings: Iterable[Finding], extra: Extra = UNSET) -> str | None:
    """Return the level of a slice that bears none that we can read: the highest that its findings suggest.

    For a risk without a level, and for a level that we cannot read, that is `medium`: a person looks.
    """
    suggested = [finding.risk_level or _unread(finding.extra) or _feared(finding.label) for finding in findings]
    return highest([*suggested, _unread(extra)])


def _unread(extra: Extra) -> str | None:
    """Return `medium` where a risk level was kept as sent, since it could not be read."""
    return None if _as_sent("risklevel", extra) is UNSET else _MEDIUM


def _feared(label: str | None) -> str | None:
    """Return `medium` for a label that names a risk."""
    return _MEDIUM if label and label.lower() not in _CLEAN_LABELS else None


# The tolerant way: any spelling, any types, and the older shapes.
# Flat slices: `VoiceModerationResultResponseBody` of the official SDK. Scenes and details: Content
# Moderation 1.0, help.aliyun.com document 89630 ("/green/voice/results").


def _names(*printed: str, **others: str) -> dict[str, str]:
    """Return the names of fields by the vendor's spelling and by all known ones in lower case."""
    return {name: name for name in printed} | {name.lower(): name for name in printed} | others


_IDS: Final = ("TaskId", "LiveId", "DataId", "Url")
_RESULT_FIELDS: Final = frozenset({"RiskLevel", "SliceDetails", "Results"})
_DATA_FIELDS: Final = _RESULT_FIELDS.union(_IDS)
_DATA: Final = _names("Code", "Message", "RequestId", *sorted(_DATA_FIELDS), msg="Message")
_ENVELOPE: Final = _DATA | _names("Data")
_TIMES: Final = ("StartTime", "EndTime", "StartTimestamp", "EndTimestamp")
_SLICE: Final = _names(
    *(*_TIMES, "RiskLevel", "Text", "Url", "Result", "Labels", "Descriptions", "Score", "RiskWords"),
    label="Labels",
    description="Descriptions",
    risktips="Descriptions",
    keywords="RiskWords",
    keyword="RiskWords",
)
_FINDING: Final = _names(
    *("Label", "Description", "Confidence", "RiskLevel", "RiskWords", "CustomizedHit", "RiskPositions")
)
_HIT: Final = _names("LibName", "Keywords")
_POSITION: Final = _names("RiskWord", "StartPos", "EndPos")
_SCENE: Final = _names("Label", "Suggestion", "Rate", "Details")
_SUGGESTIONS: Final = {"block": "high", "review": _MEDIUM, "pass": _NONE}

_WHOLE: Final = re.compile(r"-?[0-9]{1,16}")
_DECIMAL: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,20})?")

_T = TypeVar("_T")


class _Fields:
    """The fields of one object of the platform's.

    A reader takes the fields that it knows; all that is not taken, or not understood, is the `rest`. A
    null is as good as absent. Of two spellings of one field the one that the vendor prints wins.
    """

    __slots__ = ("_rest", "_sent", "_values")

    def __init__(self, raw: Mapping[str, Any], names: Mapping[str, str]) -> None:
        values: dict[str, Any] = {}
        sent: dict[str, str] = {}
        self._values, self._sent, self._rest = values, sent, dict[str, Any]()
        for key, value in raw.items():
            name = names.get(key) or names.get(key.lower())
            if name is None:
                self._keep(key, value)
            elif value is None:
                continue
            elif name not in values:
                values[name], sent[name] = value, key
            elif key != name:
                self._keep(key, value)
            else:
                self._keep(sent[name], values[name])
                values[name], sent[name] = value, key

    def _keep(self, key: str, value: Any) -> None:
        self._rest[key] = _writable(value)

    def has(self, names: frozenset[str]) -> bool:
        """Return whether any of the fields is there."""
        return not names.isdisjoint(self._values)

    def drop(self, *names: str) -> None:
        """Forget fields that must not be kept."""
        for name in names:
            self._values.pop(name, None)

    def take(self, name: str, understand: Callable[[Any], _T | None]) -> _T | None:
        """Return the value of a field as understood, None where it is absent or not understood."""
        value = self._values.pop(name, None)
        if value is None:
            return None
        understood = understand(value)
        if understood is None:
            self._keep(self._sent[name], value)
        return understood

    def level(self) -> str | None:
        """Return the risk level."""
        return _level(self.take("RiskLevel", _string))

    def words(self, name: str) -> tuple[str, ...]:
        """Return a list of words, sent as such or joined by commas."""
        words: Any = self.take(name, _string_or_list)
        if type(words) is not list:
            return _words(words)
        texts = [_string(word) for word in words]
        if None in texts:
            self._keep(self._sent[name], [word for word, text in zip(words, texts, strict=True) if text is None])
        return tuple([bare for text in texts if text and (bare := text.strip())])

    def each(self, name: str, read: Callable[[dict[str, Any]], tuple[_T, Any]]) -> tuple[_T, ...]:
        """Return the objects of a list, each read by a function that also gives what to keep of it as sent."""
        things: list[_T] = []
        odd: list[Any] = []
        for value in self.take(name, _list) or ():
            if type(value) is dict:
                thing, kept = read(value)
                things.append(thing)
            else:
                kept = value
            if kept is not UNSET:
                odd.append(kept)
        if odd:
            self._keep(self._sent[name], odd)
        return tuple(things)

    @property
    def rest(self) -> Extra:
        """All fields that were not taken or not understood, as sent; UNSET for none."""
        for name, value in self._values.items():
            self._keep(self._sent[name], value)
        self._values = {}
        return self._rest or UNSET


def _writable(value: Any) -> Any:
    """Return the value, if it can be written again on any stack."""
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [inner for outer in layer if type(outer) in (dict, list) for inner in _inside(outer)]
        if not layer:
            return value
    raise Unreadable(f"An unknown field is nested more than {_DEEPEST} levels deep.")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if type(value) is dict else value


def _list(value: Any) -> list[Any] | None:
    return value if type(value) is list else None


def _string(value: Any) -> str | None:
    """Return a string, with U+FFFD for NUL, which databases refuse."""
    return value.replace("\0", _REPLACEMENT) if type(value) is str else None


def _string_or_list(value: Any) -> str | list[Any] | None:
    return _list(value) if type(value) is list else _string(value)


def _integer(value: Any) -> int | None:
    """Return a whole number however it was written; None for all else, also for one too great to be kept exactly."""
    if type(value) is str and _WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -_FARTHEST <= value <= _FARTHEST else None


def _confidence(value: Any) -> float | None:
    """Return a number from 0 to 100, also out of a string; None for all else."""
    if type(value) is str and _DECIMAL.fullmatch(value):
        value = float(value)
    return float(value) if type(value) in (int, float) and 0 <= value <= _SURE else None


def _from_document(document: Any) -> Result:
    envelope = _sole(document)
    if envelope is None:
        raise Unreadable("The content is not an object.")
    outer = _Fields(envelope, _ENVELOPE)
    inner = outer.take("Data", _data)
    parts = [outer] if inner is None else [inner, outer]
    code = outer.take("Code", _integer)
    if inner is not None and code in (None, _OK):
        own = inner.take("Code", _integer)
        code = code if own is None else own
    has_data = any(part.has(_RESULT_FIELDS) for part in parts)
    if not (has_data or code in _WITHOUT_RESULT or (code == _OK and inner is not None)):
        raise Unreadable("The content has neither a result nor a code that tells why.")
    return _task(parts, code=code, has_data=has_data)


def _sole(value: Any) -> dict[str, Any] | None:
    """Return an object, also one that is alone in a list."""
    if type(value) is list and len(value) == 1:
        value = value[0]
    return value if type(value) is dict else None


def _data(value: Any) -> _Fields | None:
    """Return `Data`, if there is anything in it that we know."""
    if value in ({}, []):
        return None
    raw = _sole(value)
    if raw is None:
        raise Unreadable("Data is neither an object nor a list of one.")
    fields = _Fields(raw, _DATA)
    return fields if fields.has(_DATA_FIELDS) else None


def _task(parts: list[_Fields], *, code: int | None, has_data: bool) -> Result:
    """Put the result together from `Data` and the envelope around it, in this order."""
    ids: dict[str, str | None] = dict.fromkeys(_IDS)
    slices: list[Slice] = []
    levels: list[str | None] = []
    suggested: list[str | None] = []
    extra: dict[str, Any] = {}
    for part in parts:
        part.drop("Message", "RequestId")
        for name in _IDS:
            ids[name] = part.take(name, _string) if ids[name] is None else ids[name]
        levels.append(part.level())
        slices += part.each("SliceDetails", _slice)
        for level, details in part.each("Results", _scene):
            suggested.append(level)
            slices += details
        extra = (part.rest or {}) | extra
    return Result(
        code=code,
        task_id=ids["TaskId"],
        live_id=ids["LiveId"],
        data_id=ids["DataId"],
        url=ids["Url"],
        risk_level=highest(levels) or _unread(extra) or highest(suggested),
        slices=tuple(slices),
        has_data=has_data,
        extra=extra or UNSET,
    )


def _slice(raw: dict[str, Any]) -> tuple[Slice, UnsetType]:
    fields = _Fields(raw, _SLICE)
    level = fields.level()
    results = fields.each("Result", _finding) or _flat(fields, level)
    start_time, end_time, start_timestamp, end_timestamp = [fields.take(name, _integer) for name in _TIMES]
    text, url = fields.take("Text", _string), fields.take("Url", _string)
    extra = fields.rest
    return Slice(
        start_time=start_time,
        end_time=end_time,
        start_timestamp=start_timestamp,
        end_timestamp=end_timestamp,
        risk_level=level or _presumed(results, extra),
        text=text,
        url=url,
        results=results,
        extra=extra,
    ), UNSET


def _flat(fields: _Fields, level: str | None) -> tuple[Finding, ...]:
    """Return a finding for each label of a slice without `Result`; what is said of the slice is said of each."""
    labels = fields.words("Labels")
    if not labels:
        return ()
    first = Finding(
        label=None,
        description=fields.take("Descriptions", _string),
        confidence=fields.take("Score", _confidence),
        risk_level=level,
        risk_words=fields.words("RiskWords"),
        custom_hits=(),
        risk_positions=(),
    )
    return tuple([msgspec.structs.replace(first, label=label) for label in labels])


def _finding(raw: dict[str, Any]) -> tuple[Finding, UnsetType]:
    fields = _Fields(raw, _FINDING)
    return Finding(
        label=fields.take("Label", _string),
        description=fields.take("Description", _string),
        confidence=fields.take("Confidence", _confidence),
        risk_level=fields.level(),
        risk_words=fields.words("RiskWords"),
        custom_hits=fields.each("CustomizedHit", _hit),
        risk_positions=fields.each("RiskPositions", _position),
        extra=fields.rest,
    ), UNSET


def _hit(raw: dict[str, Any]) -> tuple[CustomHit, Any]:
    fields = _Fields(raw, _HIT)
    hit = CustomHit(library=fields.take("LibName", _string), keywords=fields.words("Keywords"))
    return hit, UNSET if fields.rest is UNSET else raw


def _position(raw: dict[str, Any]) -> tuple[RiskPosition, Any]:
    fields = _Fields(raw, _POSITION)
    position = RiskPosition(
        risk_word=fields.take("RiskWord", _string),
        start=fields.take("StartPos", _integer),
        end=fields.take("EndPos", _integer),
    )
    return position, UNSET if fields.rest is UNSET else raw


def _scene(raw: dict[str, Any]) -> tuple[tuple[str | None, tuple[Slice, ...]], dict[str, Any]]:
    """Return the level and the slices of one of version 1.0's results; but for its details it is kept as sent."""
    fields = _Fields(raw, _SCENE)
    label, rate = fields.take("Label", _string), fields.take("Rate", _confidence)
    level = fields.take("Suggestion", _suggested) or _feared(label)
    slices = fields.each("Details", lambda detail: _slice(_completed(detail, label=label, level=level, rate=rate)))
    if not slices and risk_rank(level) > 0:
        slices = (_slice({"Labels": label, "RiskLevel": level, "Score": rate if label else None})[0],)
    said = {key: value for key, value in raw.items() if key.lower() != "details"}
    return (level, slices), said | (fields.rest or {})


def _suggested(value: Any) -> str | None:
    """Return the level for a suggestion, None for an empty one."""
    word = _level(_string(value))
    return _SUGGESTIONS.get(word, word) if word else None if value == "" else _MEDIUM


def _completed(detail: dict[str, Any], *, label: str | None, level: str | None, rate: float | None) -> dict[str, Any]:
    """Return a detail of version 1.0 with what its scene says, as a flat slice."""
    keys = {key.lower(): key for key in detail}
    own = detail.get(keys.get("label", ""))
    clean = type(own) is str and own != "" and _feared(own) is None
    said = {"RiskLevel": _NONE if clean else level, "Score": rate if own and own == label else None}
    return {key: value for key, value in said.items() if key.lower() not in keys} | detail
