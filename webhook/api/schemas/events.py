"""Events, and how their types are named in the feed and in subscriptions."""

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from webhook import events
from webhook.api.schemas.base import In, Out
from webhook.api.schemas.lists import FeedCursor, Limit

# A name without a star is one that we know. A pattern may fit none of today's types and one to come: which
# patterns fit a type is more than the document could say.
_TYPE = "|".join([*map(re.escape, events.EVENT_TYPES), r"[a-z0-9_.]*\*[a-z0-9_.*]*"])
EventType = Annotated[
    str,
    Field(
        pattern=f"^({_TYPE})$",
        max_length=64,
        description="A type, or a pattern in which `*` stands for any characters.",
        examples=["slice.*"],
    ),
]
Types = Annotated[
    str,
    Field(
        pattern=f"^({_TYPE})(,({_TYPE}))*$",
        description="One or more, comma separated; `*` stands for any characters.",
    ),
]


class EventQuery(In):
    """From where to read the feed, what, and how long to wait for it."""

    after: FeedCursor | None = None
    types: Types | None = None
    limit: Limit = 100
    wait: Annotated[int, Field(ge=0, le=60)] = 0


class EventOut(Out):
    """An immutable fact."""

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]


class EventPage(Out):
    """Events, oldest first; `next_cursor` goes on behind the last one."""

    items: list[EventOut]
    next_cursor: str
