"""The platform's results: from JSON, however it is spelled, to slices and findings; the unknown is kept."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import msgspec

from webhook.errors import Unreadable
from webhook.payloads.printed import as_printed, from_printed
from webhook.payloads.results import (
    REPLACEMENT,
    CustomHit,
    Extra,
    Finding,
    Result,
    RiskPosition,
    Slice,
    better,
    highest,
    risk_rank,
    slice_key,
    slice_key_of,
    without_words,
)
from webhook.payloads.tolerant import from_document, whole_number

__all__ = [
    "CustomHit",
    "Extra",
    "Finding",
    "Result",
    "RiskPosition",
    "Slice",
    "better",
    "highest",
    "parse",
    "risk_rank",
    "slice_key",
    "slice_key_of",
    "whole_number",
    "without_words",
]


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
    envelope = as_printed(content)
    return from_document(_decode(content)) if envelope is None else from_printed(envelope)


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LONGEST_NUMBER: Final = 300
"""Digits of an integer that a double can hold about; a longer one is kept as a text."""


def _decode(content: bytes) -> Any:
    """Return the document, tolerant of what is JSON by its grammar and yet more than most readers take.

    Half a surrogate pair, as of a transcript cut within an emoji, becomes U+FFFD; a number too great becomes a
    text. A result is not lost for either.
    """
    try:
        try:
            return msgspec.json.decode(content)
        except (msgspec.DecodeError, msgspec.ValidationError):
            document = json.loads(content.decode(), parse_float=_number, parse_int=_number, parse_constant=_no_constant)
            return msgspec.json.decode(_SURROGATE.sub(REPLACEMENT, json.dumps(document, ensure_ascii=False)))
    except (ValueError, RecursionError) as fault:
        raise Unreadable("The content is not one JSON document in UTF-8.") from fault


def _number(text: str) -> int | float | str:
    if len(text) > _LONGEST_NUMBER:
        return text
    if text.lstrip("-").isdecimal():
        return int(text)
    number = float(text)
    return number if math.isfinite(number) else text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON.")
