"""The tolerant way: any spelling, any types, and the older shapes.

Flat slices: `VoiceModerationResultResponseBody` of the official SDK. Scenes and details: Content
Moderation 1.0, help.aliyun.com document 89630 ("/green/voice/results").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from webhook import codes
from webhook.errors import Unreadable
from webhook.payloads.results import (
    FARTHEST,
    LONGEST_WORD,
    MEDIUM,
    NONE,
    REPLACEMENT,
    SURE,
    CustomHit,
    Extra,
    Finding,
    Result,
    RiskPosition,
    Slice,
    feared_level,
    highest,
    level_of,
    presumed_level,
    risk_rank,
    unread_level,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_WITHOUT_RESULT: Final = frozenset(codes.CODES) - {codes.OK}

_DEEPEST: Final = 32
"""Levels of nesting that an unknown field may have: what is kept must be writable again, on any stack."""


def _names(*printed: str, **others: str) -> dict[str, str]:
    """Return the names of fields by the vendor's spelling and by all known ones in lower case."""
    return {name: name for name in printed} | {name.lower(): name for name in printed} | others


_IDS: Final = ("TaskId", "LiveId", "DataId", "Url")
_LOOKED_FOR: Final = frozenset({"LiveId", "DataId"})
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
_SUGGESTIONS: Final = {"block": "high", "review": MEDIUM, "pass": NONE}

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
        return level_of(self.take("RiskLevel", _word))

    def name(self, name: str, understand: Callable[[Any], str | None]) -> str | None:
        """Return a name to look for; of one that is too long its beginning, and the whole is kept as sent."""
        whole = self.take(name, understand)
        if whole is not None and len(whole) > LONGEST_WORD:
            self._keep(self._sent[name], whole)
            return whole[:LONGEST_WORD]
        return whole

    def labels(self) -> tuple[str, ...]:
        """Return the labels of a flat slice, each no longer than such a name."""
        whole = self.words("Labels")
        if any(len(label) > LONGEST_WORD for label in whole):
            self._keep(self._sent["Labels"], list(whole))
        return tuple([label[:LONGEST_WORD] for label in whole])

    def words(self, name: str) -> tuple[str, ...]:
        """Return a list of words, sent as such or joined by commas."""
        words: Any = self.take(name, _string_or_list)
        if type(words) is not list:
            return words_of(words)
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
    """Return the value, or its JSON as a text where it nests too deep to be written again on any stack."""
    layer = [value]
    for _ in range(_DEEPEST):
        layer = [inner for outer in layer if type(outer) in (dict, list) for inner in _inside(outer)]
        if not layer:
            return value
    return msgspec.json.encode(value).decode()  # as its JSON: a text nests nothing


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if type(value) is dict else value


def _list(value: Any) -> list[Any] | None:
    return value if type(value) is list else None


def _string(value: Any) -> str | None:
    """Return a string, with U+FFFD for NUL, which databases refuse."""
    return value.replace("\0", REPLACEMENT) if type(value) is str else None


def _word(value: Any) -> str | None:
    """Return a string, unless it is too long to be looked for."""
    text = _string(value)
    return text if text is None or len(text) <= LONGEST_WORD else None


def _id(value: Any) -> str | None:
    """Return an id, also one that was sent as a number."""
    return str(value) if type(value) is int else _string(value)


def _string_or_list(value: Any) -> str | list[Any] | None:
    return _list(value) if type(value) is list else _string(value)


def whole_number(value: Any) -> int | None:
    """Return a whole number however it was written; None for all else, also for one too great to be kept exactly."""
    if type(value) is str and _WHOLE.fullmatch(value):
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and -FARTHEST <= value <= FARTHEST else None


def _confidence(value: Any) -> float | None:
    """Return a number from 0 to 100, also out of a string; None for all else."""
    if type(value) is str and _DECIMAL.fullmatch(value):
        value = float(value)
    return float(value) if type(value) in (int, float) and 0 <= value <= SURE else None


def from_document(document: Any) -> Result:
    """Return the result that any document holds.

    Raises:
        Unreadable: it holds none that we know.
    """
    envelope = _sole(document)
    if envelope is None:
        raise Unreadable("The content is not an object.")
    outer = _Fields(envelope, _ENVELOPE)
    inner = outer.take("Data", _data)
    parts = [outer] if inner is None else [inner, outer]
    code = outer.take("Code", whole_number)
    if inner is not None and code in (None, codes.OK):
        own = inner.take("Code", whole_number)
        code = code if own is None else own
    has_data = any(part.has(_RESULT_FIELDS) for part in parts)
    if not (has_data or code in _WITHOUT_RESULT or (code == codes.OK and inner is not None)):
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
            if ids[name] is None:
                ids[name] = part.name(name, _id) if name in _LOOKED_FOR else part.take(name, _id)
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
        risk_level=highest(levels) or unread_level(extra) or highest(suggested),
        slices=tuple(slices),
        has_data=has_data,
        extra=extra or UNSET,
    )


def _slice(raw: dict[str, Any]) -> tuple[Slice, UnsetType]:
    fields = _Fields(raw, _SLICE)
    level = fields.level()
    results = fields.each("Result", _finding) or _flat(fields, level)
    start_time, end_time, start_timestamp, end_timestamp = [fields.take(name, whole_number) for name in _TIMES]
    text, url = fields.take("Text", _string), fields.take("Url", _string)
    extra = fields.rest
    return Slice(
        start_time=start_time,
        end_time=end_time,
        start_timestamp=start_timestamp,
        end_timestamp=end_timestamp,
        risk_level=level or presumed_level(results, extra),
        text=text,
        url=url,
        results=results,
        extra=extra,
    ), UNSET


def _flat(fields: _Fields, level: str | None) -> tuple[Finding, ...]:
    """Return a finding for each label of a slice without `Result`; what is said of the slice is said of each."""
    labels = fields.labels()
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
        label=fields.name("Label", _string),
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
        start=fields.take("StartPos", whole_number),
        end=fields.take("EndPos", whole_number),
    )
    return position, UNSET if fields.rest is UNSET else raw


def _scene(raw: dict[str, Any]) -> tuple[tuple[str | None, tuple[Slice, ...]], dict[str, Any]]:
    """Return the level and the slices of one of version 1.0's results; but for its details it is kept as sent."""
    fields = _Fields(raw, _SCENE)
    label, rate = fields.take("Label", _string), fields.take("Rate", _confidence)
    level = fields.take("Suggestion", _suggested) or feared_level(label)
    slices = fields.each("Details", lambda detail: _slice(_completed(detail, label=label, level=level, rate=rate)))
    if not slices and risk_rank(level) > 0:
        slices = (_slice({"Labels": label, "RiskLevel": level, "Score": rate if label else None})[0],)
    said = {key: value for key, value in raw.items() if key.lower() != "details"}
    return (level, slices), said | (fields.rest or {})


def _suggested(value: Any) -> str | None:
    """Return the level for a suggestion, None for an empty one."""
    word = level_of(_word(value))
    return _SUGGESTIONS.get(word, word) if word else None if value == "" else MEDIUM


def _completed(detail: dict[str, Any], *, label: str | None, level: str | None, rate: float | None) -> dict[str, Any]:
    """Return a detail of version 1.0 with what its scene says, as a flat slice."""
    keys = {key.lower(): key for key in detail}
    own = detail.get(keys.get("label", ""))
    clean = type(own) is str and own != "" and feared_level(own) is None
    said = {"RiskLevel": NONE if clean else level, "Score": rate if own and own == label else None}
    return {key: value for key, value in said.items() if key.lower() not in keys} | detail
