"""The platform's codes: what each means, and what is to be done about it.

Source: vendor-docs/voice-moderation, "Codes"; what to do is `platform.md`'s.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Remedy(Enum):
    """What a code asks of us."""

    PROCEED = "proceed"
    ASK_LATER = "ask later"
    FAIL = "fail"
    RETRY = "retry"
    STOP = "stop"  # no submission will pass: raise the alarm, keep the queue


class Code(msgspec.Struct, frozen=True):
    """One row of the table.

    Attributes:
        remedy: as the answer of a call.
        reason: a stable word of ours, shown in a task's `error`.
        message: what its owner can do about it.
        of_task: as the answer of a query it speaks of the task, not of the query.
    """

    remedy: Remedy
    reason: str
    message: str
    of_task: bool = False


OK = 200
IN_PROGRESS = 280

CODES = {
    OK: Code(Remedy.PROCEED, "ok", "The request succeeded.", of_task=True),
    IN_PROGRESS: Code(Remedy.ASK_LATER, "in_progress", "The moderation is in progress.", of_task=True),
    400: Code(
        Remedy.FAIL,
        "parameter_missing",
        "The platform misses a parameter. Check the task's source and service.",
    ),
    401: Code(
        Remedy.FAIL,
        "parameter_invalid",
        "The platform finds a parameter invalid. Check the task's source and service.",
    ),
    402: Code(
        Remedy.FAIL,
        "parameter_too_long",
        "A parameter is too long for the platform. Shorten the URL or the ids.",
    ),
    403: Code(
        Remedy.RETRY,
        "rate_limited",
        "The platform's limit of requests a second is reached. It is tried again.",
    ),
    404: Code(
        Remedy.RETRY,
        "source_unreachable",
        "The platform could not download the source. Check that the URL is public and not expired, and its referer.",
        of_task=True,
    ),
    405: Code(
        Remedy.RETRY,
        "source_unreachable",
        "The platform's download of the source timed out. Check that the URL is public and its server fast enough.",
        of_task=True,
    ),
    406: Code(
        Remedy.FAIL,
        "source_too_large",
        "The source is too large for the platform: the limit is 500 MB.",
        of_task=True,
    ),
    407: Code(Remedy.FAIL, "format_not_supported", "The platform does not support the source's format.", of_task=True),
    408: Code(
        Remedy.STOP,
        "not_authorized",
        "The account may not use the service: it is not activated, overdue, or the RAM user lacks "
        "AliyunYundunGreenWebFullAccess.",
    ),
    480: Code(
        Remedy.RETRY,
        "concurrency_limited",
        "The platform's limit of concurrent streams is reached. It is tried again.",
    ),
    500: Code(Remedy.RETRY, "platform_error", "The platform had an internal error."),
}
UNKNOWN = Code(Remedy.RETRY, "platform_error", "The platform answered with a code that is not in its documentation.")


def code_of(code: int | None) -> Code:
    """Return the row of a code, or the one for unknown codes."""
    return CODES.get(code, UNKNOWN) if code is not None else UNKNOWN
