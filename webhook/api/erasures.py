"""Tasks erased, by id or by `data_id`; and legal holds, which keep them from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import erasures as schemas
from webhook.api.tasks import found_task
from webhook.clock import rfc3339
from webhook.errors import Gone, NotFound
from webhook.roles import Permission
from webhook.store import tombstones as tombstone_store

if TYPE_CHECKING:
    from webhook.db import Session
    from webhook.store.tombstones import Hold


def _erase_task(request: Request, session: Session) -> Answer:
    try:
        task = found_task(session, request.path["task_id"])
    except Gone:
        return Answer(status=204)
    request.service.erasure.erase(session, task, by=request.client.id)
    return Answer(status=204)


def _erase_data(request: Request, session: Session) -> Answer:
    body: schemas.ErasureIn = request.body
    erased = request.service.erasure.erase_data(session, body.data_id, by=request.client.id)
    return Answer(body={"data_id": body.data_id} | msgspec.structs.asdict(erased))


def _shape(hold: Hold) -> dict[str, Any]:
    return {"task_id": hold.task_id, "placed_at": rfc3339(hold.placed_at), "placed_by": hold.placed_by}


def _hold(request: Request, session: Session) -> Answer:
    task = found_task(session, request.path["task_id"])
    return Answer(body=_shape(request.service.erasure.hold(session, task, by=request.client.id)))


def _show_hold(request: Request, session: Session) -> Answer:
    task = found_task(session, request.path["task_id"])
    hold = tombstone_store.hold(session, task.id)
    if hold is None:
        raise NotFound("The task is under no hold.")
    return Answer(body=_shape(hold))


def _release(request: Request, session: Session) -> Answer:
    task = found_task(session, request.path["task_id"])
    if not request.service.retention.release(session, task):
        raise NotFound("The task is under no hold.")
    return Answer(status=204)


ROUTES = (
    Route(
        method="DELETE",
        path="/v1/tasks/{task_id}",
        tag="Erasure",
        permission=Permission.ERASE,
        summary="Erase a task that is over, with all that it has brought",
        call=_erase_task,
        answers={204: None},
        errors=(409,),
        audit="task.erased",
    ),
    Route(
        method="POST",
        path="/v1/erasures",
        tag="Erasure",
        permission=Permission.ERASE,
        summary="Erase the tasks of a data_id that are over and not held, up to 20 at once",
        call=_erase_data,
        body=schemas.ErasureIn,
        answers={200: schemas.ErasureOut},
        audit="tasks.erased",
    ),
    Route(
        method="PUT",
        path="/v1/tasks/{task_id}/hold",
        tag="Erasure",
        permission=Permission.ERASE,
        summary="Keep a task from being erased, and from all retention",
        call=_hold,
        answers={200: schemas.HoldOut},
        errors=(410,),
        audit="task.held",
    ),
    Route(
        method="GET",
        path="/v1/tasks/{task_id}/hold",
        tag="Erasure",
        permission=Permission.SEE_STATES,
        summary="Show a task's hold",
        call=_show_hold,
        answers={200: schemas.HoldOut},
        errors=(410,),
    ),
    Route(
        method="DELETE",
        path="/v1/tasks/{task_id}/hold",
        tag="Erasure",
        permission=Permission.ERASE,
        summary="Release a task's hold",
        call=_release,
        answers={204: None},
        errors=(410,),
        audit="task.released",
    ),
)
