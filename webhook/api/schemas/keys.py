"""API keys: made, shown, listed."""

from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from webhook.api.schemas.base import IS_NUMBER, In, Out, Text
from webhook.api.schemas.lists import Page
from webhook.roles import Role

_LONGEST_LIFETIME_SECONDS = 10 * 365 * 86_400
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"


def _network(value: str) -> str:
    """Return the network in its one spelling: what lies beyond its mask is none of it."""
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 or 2001:db8::/32") from None


Network = Annotated[
    str,
    AfterValidator(_network),
    Field(
        description="A network, as the pattern has it, or likewise of IPv6.",
        json_schema_extra={"pattern": rf"^{_BYTE}(\.{_BYTE}){{3}}/(3[0-2]|[12]?[0-9])$"},
        examples=["10.0.0.0/8"],
    ),
]


class KeyIn(In):
    """A key for a client; one that has two live ones already gets no third."""

    name: Annotated[Text, Field(min_length=1, max_length=128, description="The client's.")]
    role: Role
    expires_in_seconds: Annotated[int, Field(ge=60, le=_LONGEST_LIFETIME_SECONDS), IS_NUMBER] | None = None
    networks: (
        Annotated[list[Network], Field(min_length=1, max_length=32, description="From which alone it may be used.")]
        | None
    ) = None


class KeyOut(Out):
    """An API key; the key itself is not kept. `last_used_at` is true to the minute."""

    id: str
    name: str
    role: Role
    state: Literal["live", "expired", "revoked"]
    networks: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class KeyMadeOut(KeyOut):
    """A new API key; it is shown this once."""

    key: str


class KeyPage(Page):
    """API keys, newest first, the dead ones too."""

    items: list[KeyOut]
