"""What the service answers: the document, or what to tell people where it is an error or is missing."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from webhook.errors import ServiceError
from webhook.pictures import plain

Json = dict[str, Any]

_LONGEST_PAUSE_SECONDS = 30.0
_OURS = {"id", "task_id", "items"}  # one of them is in a task, in a verdict, in a list
_MENDS = {
    401: "Set WEBHOOK_API_KEY to a key that `webhook keys create` printed.",
    403: "Set WEBHOOK_API_KEY to a key that may; `webhook keys create` makes one.",
    404: "Check the id, and whether WEBHOOK_API_URL names the right service.",
    413: "Where the service runs, WEBHOOK_UPLOAD_LIMIT_BYTES says how large a file may be.",
    503: "Where the service runs, `webhook doctor` may say why.",
}


class Refused(ServiceError):
    """The service answered with an error; the message says what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def document_of(answer: Answer, url: str) -> Json:
    """Return what the service at a URL answers.

    Raises:
        Refused: it is an error, or not this service's.
    """
    if answer.status >= http.client.MULTIPLE_CHOICES:
        raise refusal(answer, url)
    document = _json(answer)
    if document is None or not document.keys() & _OURS:
        raise Refused(f"{url} answers, but not as this service does. Check WEBHOOK_API_URL.")
    return document


def why_lost(cause: Exception) -> str:
    """Return in a few words why there was no answer."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate does not hold: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return "it does not speak TLS as https needs it"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


def _json(answer: Answer) -> Json | None:
    """Return the body where it is a JSON object."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def retry_after(answer: Answer) -> float:
    """Return how many seconds the service asks to wait."""
    seconds = answer.headers.get("Retry-After", "")
    return min(float(seconds), _LONGEST_PAUSE_SECONDS) if seconds.isdecimal() else 0.0


def refusal(answer: Answer, url: str) -> Refused:
    """Return what to tell of an answer that is an error; what is no problem document is not our service's."""
    problem = _json(answer)
    if problem is None or not isinstance(problem.get("detail"), str):
        place = answer.headers.get("Location")
        leads = f" and leads to {plain(place)}" if place else ", not as this service does"
        return Refused(f"{url} answers {answer.status}{leads}. Check WEBHOOK_API_URL.")
    wrong = "; ".join(f"{error.get('field')}: {error.get('message')}" for error in problem.get("errors") or ())
    said = f"The request is refused: {wrong}." if wrong else problem["detail"]
    return Refused(plain(f"{said} {_MENDS.get(answer.status, '')}"))
