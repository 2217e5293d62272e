"""What a call is answered: the vendor's JSON, the gateway's error, or something that is neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .codes import HttpRefusal
from .moderation import envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .outcomes import Fault
    from .tasks import Task

Json = dict[str, Any]

# The gateway's own words for the HTTP faults that magic asks for.
GATEWAY_CODES: Mapping[int, str] = {
    400: "InvalidParameter",
    403: "Forbidden.RAM",
    429: "Throttling.User",
    500: "InternalError",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "ServiceTimeout",
}
PAGE = "<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        body: the JSON.
        how: `json`; `html` for an HTTP 502 that is no JSON, as proxies in between send it; `cut` and `drop` for a
            closed connection, the latter after the submit was accepted; `hang` for none at all, likewise.
        refusal: the HTTP error, where it is one.
        task: the task it is about, where there is one.
    """

    body: Json = field(default_factory=dict)
    how: str = "json"
    refusal: HttpRefusal | None = None
    task: Task | None = None

    @property
    def name(self) -> str:
        """The word that it is counted by: the code in it, or what became of it."""
        if self.how != "json":
            return self.how
        return self.refusal.code if self.refusal is not None else str(self.body["Code"])


def faulty(fault: Fault, *, task: Task | None = None) -> Answer:
    """Return the answer that a fault asks for.

    Args:
        fault: what goes wrong.
        task: what the call is about.
    """
    if fault.kind == "code":
        return Answer(body=envelope(fault.value), task=task)
    if fault.kind == "throttle":
        refusal = HttpRefusal(
            429,
            "Throttling.User",
            "Request was denied due to user flow control.",
            headers={"x-acs-retry-after": str(fault.value)},
        )
        return Answer(refusal=refusal, task=task)
    if fault.kind == "status":
        code = GATEWAY_CODES.get(fault.value, "UnknownError")
        refusal = HttpRefusal(fault.value, code, "The request has failed, as the sandbox was asked to let it.")
        return Answer(refusal=refusal, task=task)
    return Answer(how=fault.kind, task=task)
