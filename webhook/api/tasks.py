"""Tasks and streams: submitted, shown, listed, canceled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import tasks as schemas
from webhook.clock import from_microseconds, rfc3339, to_microseconds
from webhook.errors import Gone, Invalid, NotFound
from webhook.roles import Permission
from webhook.shapes import stream_shape, task_shape
from webhook.store import lists as list_store
from webhook.store import tasks as task_store
from webhook.store import tombstones as tombstone_store
from webhook.store.lists import TaskQuery
from webhook.store.tasks import ACTIVE_STATES, FINAL_STATES, Task
from webhook.tasks import NewTask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from webhook.db import Session


def found_task(session: Session, task_id: str, *, kind: str | None = None) -> Task:
    """Return a task.

    Raises:
        NotFound: there is none of this id and kind.
        Gone: it was erased.
    """
    task = task_store.task(session, task_id)
    if task is None and (erased := tombstone_store.tombstone(session, task_id)) is not None:
        raise Gone(f"It was erased at {rfc3339(erased.erased_at)}.")
    if task is None or kind not in {None, task.kind}:
        raise NotFound("There is no such task." if kind is None else "There is no such stream.")
    return task


def page_of_tasks(
    session: Session, query: TaskQuery, shapes: Callable[[Sequence[Task]], list[dict[str, Any]]]
) -> Answer:
    """Answer with one stretch of a list of tasks."""
    found = list_store.list_tasks(session, query)
    cursor = None
    if len(found) == query.limit:
        last = found[-1]
        sorted_by = last.updated_at if query.order_by_update else last.created_at
        cursor = f"{to_microseconds(sorted_by)}_{last.id}"
    return Answer(body={"items": shapes(found), "next_cursor": cursor})


def _placed(session: Session, found: Sequence[Task], shape: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the shapes of tasks, those that wait with their place in the queue."""
    places = list_store.queue_places(session, [task for task in found if task.state == "queued"])
    return [shape(task, queue_position=places.get(task.id)) for task in found]


def after_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """Return the time and id that a cursor of tasks stands for."""
    if cursor is None:
        return None
    microseconds, _, task_id = cursor.partition("_")
    return from_microseconds(int(microseconds)), task_id


def _create(request: Request, session: Session) -> Answer:
    body: schemas.TaskIn | schemas.UploadIn = request.body
    upload = request.upload
    source: dict[str, Any]
    if isinstance(body, schemas.UploadIn):
        source = {"file": {"name": upload.name, "size": upload.size}} if upload else {}
    else:
        source = {"url": body.url} if body.oss is None else {"oss": body.oss.model_dump()}
    _check_service(request, body.service, kind="audio")
    task, _ = request.service.tasks.submit(
        session,
        NewTask(
            kind="audio",
            service=body.service,
            source=source,
            file=upload.path if upload else None,
            data_id=body.data_id or None,
            referer=body.referer or None,
            crypt_type=body.crypt_type,
        ),
    )
    return _made(request, session, task, path=f"/v1/tasks/{task.id}", shape=task_shape, status=201)


def _check_service(request: Request, name: str, *, kind: str) -> None:
    if request.service.services.get(name) != kind:
        raise Invalid(("service", f"is no {kind} service that is known; WEBHOOK_SERVICES can name more"))


def _register(request: Request, session: Session) -> Answer:
    body: schemas.StreamIn = request.body
    _check_service(request, body.service, kind="live")
    task, new = request.service.tasks.submit(
        session,
        NewTask(
            kind="live",
            service=body.service,
            source={"url": body.url},
            data_id=body.data_id,
            live_id=body.live_id,
            referer=body.referer,
            crypt_type=body.crypt_type,
        ),
    )
    return _made(request, session, task, path=f"/v1/streams/{task.id}", shape=stream_shape, status=201 if new else 200)


def _made(
    request: Request,
    session: Session,
    task: Task,
    *,
    path: str,
    shape: Callable[..., dict[str, Any]],
    status: int,
) -> Answer:
    """Answer with a task; where the client prefers to wait, with the state after the platform's word."""

    def again(later: Session) -> Answer:
        return _made(request, later, found_task(later, task.id), path=path, shape=shape, status=status)

    waits = task.state == "queued"
    return Answer(
        status=status,
        body=_placed(session, [task], shape)[0],
        headers={"Location": path},
        wait_seconds=request.prefer_wait_seconds if waits else 0,
        again=again if waits else None,
    )


def _list_tasks(request: Request, session: Session) -> Answer:
    query: schemas.TaskQuery = request.query
    return page_of_tasks(
        session,
        TaskQuery(
            states=None if query.state is None else (query.state,),
            kind=query.kind,
            data_id=query.data_id,
            live_id=query.live_id,
            since=query.since,
            until=query.until,
            after=after_cursor(query.cursor),
            limit=query.limit,
        ),
        lambda found: _placed(session, found, task_shape),
    )


def _list_streams(request: Request, session: Session) -> Answer:
    query: schemas.StreamQuery = request.query
    states: tuple[str, ...] | None = None
    if query.active is not None:
        states = ACTIVE_STATES if query.active else FINAL_STATES
    if query.state is not None:
        states = tuple(state for state in states or (query.state,) if state == query.state)
    return page_of_tasks(
        session,
        TaskQuery(
            states=states,
            kind="live",
            data_id=query.data_id,
            live_id=query.live_id,
            since=query.since,
            until=query.until,
            after=after_cursor(query.cursor),
            limit=query.limit,
        ),
        lambda found: _placed(session, found, stream_shape),
    )


def _show_task(request: Request, session: Session) -> Answer:
    return Answer(body=_placed(session, [found_task(session, request.path["task_id"])], task_shape)[0])


def _show_stream(request: Request, session: Session) -> Answer:
    stream = found_task(session, request.path["task_id"], kind="live")
    return Answer(body=_placed(session, [stream], stream_shape)[0])


def _refresh(request: Request, session: Session) -> Answer:
    task = found_task(session, request.path["task_id"])
    return Answer(status=202, body=task_shape(request.service.tasks.refresh(session, task)))


def _cancel_task(request: Request, session: Session) -> Answer:
    task = found_task(session, request.path["task_id"])
    after = request.service.tasks.cancel(session, task)
    return Answer(status=202 if task.state in ACTIVE_STATES else 200, body=task_shape(after))


def _end_stream(request: Request, session: Session) -> Answer:
    task = found_task(session, request.path["task_id"], kind="live")
    after = request.service.tasks.cancel(session, task)
    return Answer(status=202 if task.state in ACTIVE_STATES else 200, body=stream_shape(after))


ROUTES = (
    Route(
        method="POST",
        path="/v1/tasks",
        tag="Tasks",
        permission=Permission.SUBMIT,
        summary="Submit an audio file",
        call=_create,
        body=schemas.TaskIn,
        form=schemas.UploadIn,
        answers={201: schemas.TaskOut},
        creates=True,
        waits=True,
        audit="task.created",
    ),
    Route(
        method="GET",
        path="/v1/tasks",
        tag="Tasks",
        permission=Permission.SEE_STATES,
        summary="List tasks, newest first",
        call=_list_tasks,
        query=schemas.TaskQuery,
        answers={200: schemas.TaskPage},
    ),
    Route(
        method="GET",
        path="/v1/tasks/{task_id}",
        tag="Tasks",
        permission=Permission.SEE_STATES,
        summary="Show a task",
        call=_show_task,
        answers={200: schemas.TaskOut},
        errors=(410,),
    ),
    Route(
        method="POST",
        path="/v1/tasks/{task_id}/refresh",
        tag="Tasks",
        permission=Permission.REFRESH,
        summary="Ask the platform for a task now",
        call=_refresh,
        answers={202: schemas.TaskOut},
        errors=(409, 410),
        audit="task.refreshed",
    ),
    Route(
        method="POST",
        path="/v1/tasks/{task_id}/cancel",
        tag="Tasks",
        permission=Permission.SUBMIT,
        summary="Cancel a live task",
        call=_cancel_task,
        answers={202: schemas.TaskOut, 200: schemas.TaskOut},
        errors=(409, 410),
        audit="task.canceled",
    ),
    Route(
        method="POST",
        path="/v1/streams",
        tag="Streams",
        permission=Permission.SUBMIT,
        summary="Register a live stream, or get the active one of its live_id",
        call=_register,
        body=schemas.StreamIn,
        answers={201: schemas.StreamOut, 200: schemas.StreamOut},
        errors=(409,),
        creates=True,
        waits=True,
        audit="stream.created",
    ),
    Route(
        method="GET",
        path="/v1/streams",
        tag="Streams",
        permission=Permission.SEE_STATES,
        summary="List streams, newest first",
        call=_list_streams,
        query=schemas.StreamQuery,
        answers={200: schemas.StreamPage},
    ),
    Route(
        method="GET",
        path="/v1/streams/{task_id}",
        tag="Streams",
        permission=Permission.SEE_STATES,
        summary="Show a stream",
        call=_show_stream,
        answers={200: schemas.StreamOut},
        errors=(410,),
    ),
    Route(
        method="DELETE",
        path="/v1/streams/{task_id}",
        tag="Streams",
        permission=Permission.SUBMIT,
        summary="Cancel a stream's moderation on the platform",
        call=_end_stream,
        answers={202: schemas.StreamOut, 200: schemas.StreamOut},
        errors=(409, 410),
        audit="stream.canceled",
    ),
)
