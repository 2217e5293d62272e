"""Events, and how their types are named in the feed and in subscriptions."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from webhook import events
from webhook.api.schemas.base import In, Out
from webhook.api.schemas.lists import FeedCursor, Limit

# A type, all of a noun, all of a verb, or all: a pattern that could match nothing is refused as a slip.
_NOUNS, _VERBS = (sorted({name.split(".")[part] for name in events.EVENT_TYPES}) for part in (0, 1))
_TYPE = "|".join(
    [
        *(name.replace(".", r"\.") for name in events.EVENT_TYPES),
        rf"({'|'.join(_NOUNS)})\.\*",
        rf"\*\.({'|'.join(_VERBS)})",
        r"\*",
    ]
)
EventType = Annotated[str, Field(pattern=f"^({_TYPE})$")]
Types = Annotated[
    str,
    Field(description="Comma separated; `*` is allowed.", pattern=f"^({_TYPE})(,({_TYPE}))*$"),
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
