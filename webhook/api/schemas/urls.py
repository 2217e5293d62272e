"""Addresses: those that the platform fetches, and those that we deliver to."""

from typing import Annotated

from pydantic import Field

from webhook.api.schemas.base import Text

LONGEST_URL = 2048

# The platform fetches what these name, not we: so a pattern that the document can show is all they must match.
_USER = r"([^\x00-\x20\x7f/?#@\[\]\\]*@)?"
_HOST = r"[^\x00-\x20\x7f/?#@:\[\]\\]+"
_PORT = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_REST = r"([/?#][^\x00-\x20\x7f]*)?"


def _source_pattern(schemes: str) -> str:
    return f"^({schemes})://{_USER}{_HOST}{_PORT}{_REST}$"


FileUrl = Annotated[
    str,
    Field(pattern=_source_pattern("https?"), max_length=LONGEST_URL, examples=["https://example.com/a.mp3"]),
]
StreamUrl = Annotated[
    str,
    Field(
        pattern=_source_pattern("https?|rtmps?|rtsps?"), max_length=LONGEST_URL, examples=["rtmp://example.com/live/1"]
    ),
]

# We deliver to these. What else is refused is for `addresses` to say: it depends on the settings.
_NAME = r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?"
SubscriberUrl = Annotated[
    Text,
    Field(
        max_length=LONGEST_URL,
        description="An https URL, as the pattern has it. Beyond it, `http://` and addresses are taken where they lie "
        "in the networks that WEBHOOK_ALLOWED_PRIVATE_NETWORKS names, and brokers: `nats://host:4222/subject`, "
        "`amqp://host:5672/vhost?exchange=name&routing_key=key` or `?queue=name`, `redis://host:6379/0?stream=name`; "
        "with TLS `tls://`, `amqps://`, `rediss://`; `{type}` in their names stands for the event's type.",
        json_schema_extra={"pattern": f'^https://{_NAME}{_PORT}([/?][!-"$-\\[\\]-~]*)?$'},
        examples=["https://example.com/hook"],
    ),
]
