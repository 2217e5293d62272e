"""The fast way: the shape that the vendor prints, declared, so that msgspec checks it in C.

It refuses all else, which then takes the tolerant way. Both give the same result, this one several times faster.
Source: voice-moderation.txt, tables 3 to 7.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from webhook.payloads.results import (
    FARTHEST,
    LONGEST_WORD,
    SURE,
    CustomHit,
    Finding,
    Result,
    RiskPosition,
    Slice,
    level_of,
    presumed_level,
    words_of,
)

_Integer = Annotated[int, Meta(ge=-FARTHEST, le=FARTHEST)]
_Percent = Annotated[float, Meta(ge=0, le=SURE)]
_Word = Annotated[str, Meta(max_length=LONGEST_WORD)]


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
    label: _Word | None = None
    description: str | None = None
    confidence: _Percent | None = None
    risk_level: _Word | None = None
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
    risk_level: _Word | None = None
    text: str | None = None
    url: str | None = None
    result: list[_PrintedFinding] | None = None


class _PrintedData(_Printed):
    slice_details: list[_PrintedSlice]
    risk_level: _Word | None = None
    task_id: str | None = None
    live_id: _Word | None = None
    data_id: _Word | None = None
    url: str | None = None


class _PrintedEnvelope(_Printed):
    code: _Integer
    data: _PrintedData
    message: str | None = None
    request_id: str | None = None


_PRINTED: Final = msgspec.json.Decoder(_PrintedEnvelope)


def as_printed(content: bytes) -> _PrintedEnvelope | None:
    """Return the content if it has just the shape that the vendor prints, else None."""
    if b"\\u0000" in content:
        return None
    try:
        return _PRINTED.decode(content)
    except (ValueError, RecursionError):
        return None


def from_printed(envelope: _PrintedEnvelope) -> Result:
    """Return the result that a printed shape holds."""
    data = envelope.data
    return Result(
        code=envelope.code,
        task_id=data.task_id,
        live_id=data.live_id,
        data_id=data.data_id,
        url=data.url,
        risk_level=level_of(data.risk_level),
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
        risk_level=level_of(raw.risk_level) or presumed_level(results),
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
        risk_level=level_of(raw.risk_level),
        risk_words=words_of(raw.risk_words or raw.riskwords),
        custom_hits=tuple([_printed_hit(each) for each in hits]) if hits else (),
        risk_positions=tuple([_printed_position(each) for each in positions]) if positions else (),
    )


def _printed_hit(raw: _PrintedHit) -> CustomHit:
    return CustomHit(library=raw.lib_name, keywords=words_of(raw.keywords))


def _printed_position(raw: _PrintedPosition) -> RiskPosition:
    return RiskPosition(risk_word=raw.risk_word, start=raw.start_pos, end=raw.end_pos)
