"""The platform's results: from JSON, however it is spelled, to slices and findings; the unknown is kept."""

from __future__ import annotations

import json
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
)
from webhook.payloads.tolerant import from_document

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
            return msgspec.json.decode(_SURROGATE.sub(REPLACEMENT, whole))
    except (ValueError, RecursionError) as fault:
        raise Unreadable("The content is not one JSON document in UTF-8.") from fault
