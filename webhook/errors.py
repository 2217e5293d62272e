"""Every error the service raises on purpose, in one tree; each message says what to do.

::

    ServiceError
    ├── SettingError           a setting is wrong: the process must not start
    ├── DatabaseError          our own trouble with the database: 503 to the platform
    │   └── Overloaded         the writer's queue is full: 503 as well
    ├── NotConfigured          a setting is missing without which this cannot be done: 503
    ├── DecryptionError        a stored value does not open with the keys we have
    ├── MalformedBody          a callback's body is no form with checksum and content: 400
    ├── BodyTooLarge           a request's body is over the limit: 413
    ├── Unreadable             authentic content that we do not understand: kept, 200
    ├── AddressRefused         a subscriber's address that we never connect to
    ├── EvidenceError          a slice's audio could not be saved, or cannot be shown
    │   ├── SegmentRefused     it is never saved: too large, no audio, at a private address
    │   ├── SegmentUnavailable it cannot be fetched now: again while its link lives
    │   ├── StoreUnavailable   the store cannot be read or written: our own trouble
    │   └── EvidenceLost       the store has it no longer
    ├── PlatformError          the platform refused a call, or could not be asked
    │   ├── PlatformRefused    for good: the same call fails again
    │   ├── PlatformBusy       for now: the same call may work later
    │   └── OutcomeUnknown     the call went out and its answer was lost
    └── RequestError           a client's request to the REST API, answered as problem+json
        ├── Unauthorized, Forbidden, NotFound, Conflict, Gone, Invalid, TooManyRequests
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping


class ServiceError(Exception):
    """The root of the tree."""


class SettingError(ServiceError):
    """A setting is missing or wrong.

    Args:
        variable: name of the environment variable.
        problem: what is wrong with it; never the value of a secret.
        mend: what to set instead.
    """

    def __init__(self, variable: str, problem: str, mend: str) -> None:
        super().__init__(f"{variable}: {problem}. {mend}")
        self.variable = variable


class DatabaseError(ServiceError):
    """The database could not be read or written; the message says which of its usual troubles it was."""


class DatabaseBusy(DatabaseError):
    """Another transaction is being written, for which this one was not to wait."""


class Overloaded(DatabaseError):
    """More callbacks are waiting for the disk than the queue holds; the platform will resend."""


class NotConfigured(ServiceError):
    """A setting is missing without which this cannot be done; the message names it."""


class DecryptionError(ServiceError):
    """A stored value does not open: its key is missing from WEBHOOK_ENCRYPTION_KEYS or destroyed, or it was altered."""


class MalformedBody(ServiceError):
    """The body of a callback is not what the platform sends; the message names the fault, never a value."""


class BodyTooLarge(ServiceError):
    """The body of a request is larger than the limit."""


class Unreadable(ServiceError):
    """The content is authentic, but not a moderation result that we understand."""


class AddressRefused(ServiceError):
    """The address is private, link-local or a metadata service, and not among the allowed networks."""


class EvidenceError(ServiceError):
    """A slice's audio could not be saved, or cannot be shown.

    Args:
        reason: a stable word, such as `too_large`.
        message: what to do about it, where the word does not say so.
    """

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__(message or f"The audio of a slice cannot be saved: {reason}.")
        self.reason = reason


class SegmentRefused(EvidenceError):
    """The audio is too large, of a type that is none, or at an address that is not to be reached or trusted."""


class SegmentUnavailable(EvidenceError):
    """The audio cannot be fetched now; its link may work later."""


class StoreUnavailable(EvidenceError):
    """The evidence store cannot be read or written; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__("store_unavailable", message)


class EvidenceLost(EvidenceError):
    """The store no longer has audio that was saved: somebody, or a rule of the store's own, removed it."""

    def __init__(self) -> None:
        super().__init__("lost")


class PlatformError(ServiceError):
    """A call of the platform failed.

    Args:
        code: the platform's `Code`, or an HTTP status, or None where there was no answer.
        reason: a stable word of ours, such as `source_unreachable`.
        message: what to do about it, in our words (the platform's own may echo a seed).
    """

    def __init__(self, *, code: int | None, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


class PlatformRefused(PlatformError):
    """The platform refused for good: asking again changes nothing."""


class PlatformBusy(PlatformError):
    """The platform cannot do it now: asking later may work."""


class OutcomeUnknown(PlatformError):
    """The call was sent and no answer came back: it may have been carried out, and charged."""


class RequestError(ServiceError):
    """A request to the REST API that cannot be met.

    Attributes:
        status: HTTP status of the answer.
        title: the status in words, `title` of the problem document.
    """

    status = 400
    title = "Bad request"

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's header says beside its body."""
        return {}


class Unauthorized(RequestError):
    """The request carries no valid API key."""

    status = 401
    title = "Unauthorized"

    @property
    @override
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestError):
    """The API key's role, or the networks that it is for, do not allow this."""

    status = 403
    title = "Forbidden"


class NotFound(RequestError):
    """There is no such thing, or no longer."""

    status = 404
    title = "Not found"


class Conflict(RequestError):
    """The thing's present state does not allow this."""

    status = 409
    title = "Conflict"


class Gone(RequestError):
    """The thing is not to be had any more, or never was."""

    status = 410
    title = "Gone"


class Invalid(RequestError):
    """Fields of the request are wrong.

    Args:
        errors: pairs of a field's name and what is wrong with it.
    """

    status = 422
    title = "Invalid request"

    def __init__(self, *errors: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in errors))
        self.errors = errors


class TooManyRequests(RequestError):
    """The client asks more often than it may.

    Args:
        wait_seconds: after which it may ask again.
        headers: what else the answer's header says.
    """

    status = 429
    title = "Too many requests"

    def __init__(self, message: str, *, wait_seconds: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self._headers = {"Retry-After": str(wait_seconds), **headers}

    @property
    @override
    def headers(self) -> dict[str, str]:
        return self._headers
