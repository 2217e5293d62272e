"""The audit log, shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import audit as schemas
from webhook.audit import shape
from webhook.clock import from_microseconds, to_microseconds
from webhook.roles import Permission
from webhook.store import audit as audit_store
from webhook.store.audit import AuditQuery

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.db import Session


def _after(cursor: str | None) -> tuple[datetime, int] | None:
    if cursor is None:
        return None
    microseconds, _, number = cursor.partition("_")
    return from_microseconds(int(microseconds)), int(number)


def _list(request: Request, session: Session) -> Answer:
    query: schemas.AuditQuery = request.query
    found = audit_store.newest(
        session,
        AuditQuery(
            actor=query.actor,
            action=query.action,
            object_id=query.object_id,
            since=query.since,
            until=query.until,
            after=_after(query.cursor),
            limit=query.limit,
        ),
    )
    cursor = f"{to_microseconds(found[-1].at)}_{found[-1].number}" if len(found) == query.limit else None
    return Answer(body={"items": [shape(row) for row in found], "next_cursor": cursor})


ROUTES = (
    Route(
        method="GET",
        path="/v1/audit",
        tag="Audit",
        permission=Permission.SEE_AUDIT,
        summary="List what was changed, and who read what was said, newest first",
        call=_list,
        query=schemas.AuditQuery,
        answers={200: schemas.AuditPage},
        audit="audit.read",
    ),
)
