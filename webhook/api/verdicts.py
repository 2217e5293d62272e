"""Verdicts and slices: what the platform found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook import labels
from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import verdicts as schemas
from webhook.api.tasks import after_cursor, found_task, page_of_tasks
from webhook.payloads import slice_key
from webhook.roles import Permission
from webhook.shapes import ACTIONS, slice_shape, verdict_shape
from webhook.store import evidence as evidence_store
from webhook.store import slices as slice_store
from webhook.store.lists import TaskQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.db import Session
    from webhook.payloads import Slice


def _levels(text: str | None, *, action: str | None = None) -> tuple[str, ...] | None:
    """Return the risk levels that a comma list and an action leave; None is any."""
    levels = None if text is None else {word.strip().lower() for word in text.split(",")}
    if action is not None:
        acted = {level for level, meaning in ACTIONS.items() if meaning == action}
        levels = acted if levels is None else levels & acted
    return None if levels is None else tuple(sorted(levels))


def _list_verdicts(request: Request, session: Session) -> Answer:
    query: schemas.VerdictQuery = request.query
    return page_of_tasks(
        session,
        TaskQuery(
            kind=query.kind,
            service=query.service,
            data_id=query.data_id,
            live_id=query.live_id,
            risk_levels=_levels(query.risk_level, action=query.action),
            label=query.label,
            since=query.since,
            until=query.until,
            order_by_update=True,
            after=after_cursor(query.cursor),
            limit=query.limit,
        ),
        lambda found: [verdict_shape(task) for task in found],
    )


def _show_verdict(request: Request, session: Session) -> Answer:
    return Answer(body=verdict_shape(found_task(session, request.path["task_id"])))


def _list_slices(request: Request, session: Session) -> Answer:
    query: schemas.SliceQuery = request.query
    task = found_task(session, request.path["task_id"])
    after = None if query.cursor is None else bytes.fromhex(query.cursor)
    levels = _levels(query.risk_level)
    found: list[tuple[bytes, Slice]] = []
    for page in slice_store.pages(session, task.id, after=after):
        for piece in request.service.ingest.open_slices(page):
            key = slice_key(piece)
            if after is not None and key <= after:
                continue
            after = key
            if levels is not None and piece.risk_level not in levels:
                continue
            if query.label is not None and not any(
                labels.matches(query.label, finding.label) for finding in piece.results
            ):
                continue
            found.append((key, piece))
            if len(found) == query.limit:
                return _slices(session, task.id, found, next_cursor=key.hex())
    return _slices(session, task.id, found, next_cursor=None)


def _slices(session: Session, task_id: str, found: Sequence[tuple[bytes, Slice]], *, next_cursor: str | None) -> Answer:
    states = evidence_store.states(session, task_id, [key for key, _ in found])
    items = [slice_shape(piece, evidence=states.get(key)) for key, piece in found]
    return Answer(body={"items": items, "next_cursor": next_cursor})


ROUTES = (
    Route(
        method="GET",
        path="/v1/verdicts",
        tag="Verdicts",
        permission=Permission.SEE_CONTENT,
        summary="List verdicts, newest first",
        call=_list_verdicts,
        query=schemas.VerdictQuery,
        answers={200: schemas.VerdictPage},
    ),
    Route(
        method="GET",
        path="/v1/verdicts/{task_id}",
        tag="Verdicts",
        permission=Permission.SEE_CONTENT,
        summary="Show a task's verdict",
        call=_show_verdict,
        answers={200: schemas.VerdictOut},
        errors=(410,),
    ),
    Route(
        method="GET",
        path="/v1/verdicts/{task_id}/slices",
        tag="Verdicts",
        permission=Permission.SEE_CONTENT,
        summary="List a task's slices in time order",
        call=_list_slices,
        query=schemas.SliceQuery,
        answers={200: schemas.SlicePage},
        audit="slices.read",
        errors=(410,),
    ),
)
