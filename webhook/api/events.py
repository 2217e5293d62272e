"""The pull feed of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook import events
from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import events as schemas
from webhook.labels import matches
from webhook.roles import Permission
from webhook.store import events as event_store

if TYPE_CHECKING:
    from webhook.db import Session
    from webhook.events import Event
    from webhook.store.events import EventRow


def _pull(request: Request, session: Session) -> Answer:
    query: schemas.EventQuery = request.query
    return _page(request, session, seq=int(query.after or 0), types=_types(query.types))


def _types(patterns: str | None) -> tuple[str, ...] | None:
    """Return the types of today that fit one of these patterns, perhaps none; None is every type."""
    if patterns is None:
        return None
    wanted = patterns.split(",")
    return tuple(name for name in events.EVENT_TYPES if any(matches(pattern, name) for pattern in wanted))


def _page(request: Request, session: Session, *, seq: int, types: tuple[str, ...] | None) -> Answer:
    query: schemas.EventQuery = request.query
    rows = [] if types == () else event_store.events_after(session, seq, types=types, limit=query.limit)
    waits = not rows and query.wait > 0
    return Answer(
        body={
            "items": [_shape(request, row) for row in rows],
            "next_cursor": str(rows[-1].seq if rows else seq),
        },
        wait_seconds=query.wait if waits else 0,
        again=(lambda later: _page(request, later, seq=seq, types=types)) if waits else None,
    )


def _shape(request: Request, row: EventRow) -> Event:
    return request.service.deliveries.open_event(row)


ROUTES = (
    Route(
        method="GET",
        path="/v1/events",
        tag="Events",
        permission=Permission.SEE_CONTENT,
        summary="Read the feed of events, oldest first, waiting for new ones",
        call=_pull,
        query=schemas.EventQuery,
        answers={200: schemas.EventPage},
        audit="events.read",
    ),
)
