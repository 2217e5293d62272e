"""How lists are cut: how far, and from where to go on."""

from typing import Annotated

from pydantic import Field

from webhook.api.schemas.base import In, Out

Limit = Annotated[int, Field(ge=1, le=200)]

# Cursors are for clients to give back. They name what the last item shown is sorted by; any such place is one
# to go on from, so their patterns say all there is to check.
Cursor = Annotated[str, Field(pattern=r"^[a-z]{1,8}_[0-9a-f]{28}$", description="`next_cursor` of the last page.")]
TaskCursor = Annotated[
    str, Field(pattern=r"^[0-9]{1,16}_task_[0-9a-f]{28}$", description="`next_cursor` of the last page.")
]
SliceCursor = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){4,68}$", description="`next_cursor` of the last page.")]
FeedCursor = Annotated[str, Field(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the last page.")]


class ListQuery(In):
    """Where to go on in a list, and how far."""

    limit: Limit = 50
    cursor: Cursor | None = None


class Page(Out):
    """A stretch of a list; `next_cursor` is null at its end."""

    next_cursor: str | None
