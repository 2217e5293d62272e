"""What is sent to a subscriber, and what became of it."""

from __future__ import annotations

import msgspec

from webhook.connections import PERMANENT


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is sent, once more at each attempt.

    Attributes:
        id: the event's; the same at each attempt, so that whoever gets it twice can tell.
        type: the event's.
        timestamp: of the attempt, seconds since 1970.
        signature: over id, timestamp and body, after Standard Webhooks 1.0.
    """

    id: str
    type: str
    timestamp: int
    signature: str
    content_type: str
    body: bytes

    def __post_init__(self) -> None:
        """Refuse what would begin another header, or another command of a broker.

        Raises:
            ValueError: an id, a type or a signature has a line break, another control or a character beyond ASCII.
        """
        headers = f"{self.id}{self.type}{self.signature}{self.content_type}"
        if not (headers.isascii() and headers.isprintable()):
            raise ValueError("What goes into a header has a control character, or one that is not of ASCII.")

    @property
    def headers(self) -> dict[str, str]:
        """What goes beside the body, over HTTP and wherever a broker's messages have headers."""
        return {
            "content-type": self.content_type,
            "webhook-id": self.id,
            "webhook-timestamp": str(self.timestamp),
            "webhook-signature": self.signature,
        }


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one attempt.

    Attributes:
        status: HTTP status of the answer, or None where none came.
        error: None where the attempt succeeded, else a stable word: `http_<status>` where there was an answer, else
            `timeout`, `dns`, `tls`, `connection_refused`, `connection_reset`, `connection_failed`, `unreachable`,
            `address_not_allowed`, `invalid_response`, `invalid_url`, or `certificate_expired`, `certificate_misnamed`,
            `certificate_untrusted` and `certificate_invalid`; of a broker also `unauthorized`,
            `no_destination` (no stream, exchange or queue takes it), `too_large`, `refused` and `not_installed`.
        retry_after: the answer's `Retry-After` as it came.
        duration_ms: milliseconds from the call of `send` to its return.
    """

    status: int | None = None
    error: str | None = None
    retry_after: str | None = None
    duration_ms: int

    @property
    def delivered(self) -> bool:
        """Whether the subscriber has taken it: 2xx and nothing else, or the broker's confirmation."""
        return self.error is None

    @property
    def gone(self) -> bool:
        """Whether the subscriber wants nothing more: 410."""
        return self.status == 410  # noqa: PLR2004

    @property
    def permanent(self) -> bool:
        """Whether another attempt would only fail again until the subscriber's owner has mended something."""
        return self.error in PERMANENT
