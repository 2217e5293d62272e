"""The audit log's rows."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from webhook.api.schemas.base import In, Out, Text, Time
from webhook.api.schemas.lists import Limit, Page

AuditCursor = Annotated[str, Field(pattern=r"^[0-9]{1,16}_[0-9]{1,18}$", description="`next_cursor` of the last page.")]


class AuditQuery(In):
    """Which rows to list."""

    actor: Text | None = None
    action: Text | None = None
    object_id: Text | None = None
    since: Time | None = None
    until: Time | None = None
    limit: Limit = 50
    cursor: AuditCursor | None = None


class AuditOut(Out):
    """What somebody did, or read."""

    number: int
    at: datetime
    actor: Annotated[
        str,
        Field(description="Id of the API key; `bootstrap`, `cli:USER` of a command, or `service` where it is none."),
    ]
    actor_name: str | None
    role: str | None
    address: str | None
    request_id: str | None
    action: str
    object_id: str | None
    status: Annotated[
        int | None,
        Field(description="Of the answer; null for commands, and for what is done after it is written down."),
    ]
    details: dict[str, Any]
    hash: Annotated[str, Field(description="SHA-256 over the hash before it and this row, in hex.")]


class AuditPage(Page):
    """Rows, newest first."""

    items: list[AuditOut]
