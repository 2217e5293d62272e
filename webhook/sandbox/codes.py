"""The vendor's codes, and the two ways to refuse: a code in an HTTP 200 body, or an HTTP error.

Codes and meanings: voice-moderation.txt, "Codes". HTTP errors are the API gateway's, not the
moderation's: `{Recommend, Message, RequestId, HostId, Code}` as its clients' bug reports print them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

OK = 200
IN_PROGRESS = 280
MISSING = 400
INVALID = 401
TOO_LONG = 402
TOO_FAST = 403
UNREACHABLE = 404
UNSUPPORTED = 407
TOO_MANY_STREAMS = 480
SYSTEM_ERROR = 500

MESSAGES: Mapping[int, str] = MappingProxyType(
    {
        OK: "OK",
        IN_PROGRESS: "PROCESSING",
        MISSING: "A required request parameter is missing or empty",
        INVALID: "A request parameter is invalid",
        TOO_LONG: "A request parameter value exceeds the length limit",
        TOO_FAST: "The request rate exceeds the QPS limit",
        UNREACHABLE: "An error occurred while downloading the input file",
        405: "The file download timed out",
        406: "The input file is too large",
        UNSUPPORTED: "The input file format is not supported",
        408: "The account is not authorized to call this API",
        TOO_MANY_STREAMS: "The number of concurrent requests exceeds the limit",
        SYSTEM_ERROR: "A system error occurred",
    }
)


def message(code: int) -> str:
    """Return the vendor's sentence for a code, also for one that the vendor does not list."""
    return MESSAGES.get(code, f"code {code}")


class Refusal(Exception):
    """A call is answered HTTP 200 with a code that is not 200.

    Args:
        code: the vendor's code.
        detail: what in particular is wrong; without it the vendor's sentence stands alone.
    """

    def __init__(self, code: int, detail: str | None = None) -> None:
        super().__init__(message(code) if detail is None else f"{message(code)}: {detail}")
        self.code = code


class HttpRefusal(Exception):
    """A call is answered with an HTTP error by the gateway before the moderation sees it.

    Args:
        status: HTTP status.
        code: the gateway's word, such as `SignatureDoesNotMatch`.
        message: its sentence.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
