"""Tasks and streams: submitted, shown, listed, canceled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.api.routing import Answer, Request, Role, Route
from webhook.api.schemas import tasks as schemas
from webhook.clock import from_microseconds, to_microseconds
from webhook.errors import NotFound
from webhook.shapes import stream_shape, task_shape
from webhook.store import tasks as task_store
from webhook.store.tasks import ACTIVE_STATES, Task, TaskQuery
from webhook.tasks import NewTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from webhook.db import Session

FINAL_STATES = ("completed", "failed", "canceled", "expired")


def found_task(session: Session, task_id: str, *, kind: str | None = None) -> Task:
    """Return a task.

    Raises:
        NotFound: there is none of this id and kind.
    """
    task = task_store.task(session, task_id)
    if task is None or kind not in {None, task.kind}:
        raise NotFound("There is no such task." if kind is None else "There is no such stream.")
    return task


def page_of_tasks(session: Session, query: TaskQuery, shape: Callable[[Task], dict[str, Any]]) -> Answer:
    """Answer with one stretch of a list of tasks."""
    found = task_store.list_tasks(session, query)
    cursor = None
    if len(found) == query.limit:
        last = found[-1]
        sorted_by = last.updated_at if query.order_by_update else last.created_at
        cursor = f"{to_microseconds(sorted_by)}_{last.id}"
    return Answer(body={"items": [shape(task) for task in found], "next_cursor": cursor})


def after_cursor(cursor: str | None) -> tuple[datetime, str] | None:
    """Return the time and id that a cursor of tasks stands for."""
    if cursor is None:
        return None
    microseconds, _, task_id = cursor.partition("_")
    return from_microseconds(int(microseconds)), task_id


def _create(request: Request, session: Session) -> Answer:
    body: schemas.TaskIn = request.body
    source: dict[str, Any] = {"url": body.url} if body.oss is None else {"oss": body.oss.model_dump()}
    task, _ = request.service.tasks.submit(
        session,
        NewTask(
            kind="audio",
            service=body.service,
            source=source,
            data_id=body.data_id,
            referer=body.referer,
            crypt_type=body.crypt_type,
        ),
    )
    return _made(request, task, path=f"/v1/tasks/{task.id}", shape=task_shape, status=201)


def _register(request: Request, session: Session) -> Answer:
    body: schemas.StreamIn = request.body
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
    return _made(request, task, path=f"/v1/streams/{task.id}", shape=stream_shape, status=201 if new else 200)


def _made(request: Request, task: Task, *, path: str, shape: Callable[[Task], dict[str, Any]], status: int) -> Answer:
    """Answer with a task; where the client prefers to wait, with the state after the platform's word."""

    def again(session: Session) -> Answer:
        return _made(request, found_task(session, task.id), path=path, shape=shape, status=status)

    waits = task.state == "queued"
    return Answer(
        status=status,
        body=shape(task),
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
        task_shape,
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
        stream_shape,
    )


def _show_task(request: Request, session: Session) -> Answer:
    return Answer(body=task_shape(found_task(session, request.path["task_id"])))


def _show_stream(request: Request, session: Session) -> Answer:
    return Answer(body=stream_shape(found_task(session, request.path["task_id"], kind="live")))


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
        role=Role.SUBMITTER,
        summary="Submit an audio file",
        call=_create,
        body=schemas.TaskIn,
        answers={201: schemas.TaskOut},
        creates=True,
        waits=True,
    ),
    Route(
        method="GET",
        path="/v1/tasks",
        tag="Tasks",
        role=Role.READER,
        summary="List tasks, newest first",
        call=_list_tasks,
        query=schemas.TaskQuery,
        answers={200: schemas.TaskPage},
    ),
    Route(
        method="GET",
        path="/v1/tasks/{task_id}",
        tag="Tasks",
        role=Role.READER,
        summary="Show a task",
        call=_show_task,
        answers={200: schemas.TaskOut},
    ),
    Route(
        method="POST",
        path="/v1/tasks/{task_id}/cancel",
        tag="Tasks",
        role=Role.SUBMITTER,
        summary="Cancel a live task",
        call=_cancel_task,
        answers={202: schemas.TaskOut, 200: schemas.TaskOut},
        errors=(409,),
    ),
    Route(
        method="POST",
        path="/v1/streams",
        tag="Streams",
        role=Role.SUBMITTER,
        summary="Register a live stream, or get the active one of its live_id",
        call=_register,
        body=schemas.StreamIn,
        answers={201: schemas.StreamOut, 200: schemas.StreamOut},
        errors=(409,),
        creates=True,
        waits=True,
    ),
    Route(
        method="GET",
        path="/v1/streams",
        tag="Streams",
        role=Role.READER,
        summary="List streams, newest first",
        call=_list_streams,
        query=schemas.StreamQuery,
        answers={200: schemas.StreamPage},
    ),
    Route(
        method="GET",
        path="/v1/streams/{task_id}",
        tag="Streams",
        role=Role.READER,
        summary="Show a stream",
        call=_show_stream,
        answers={200: schemas.StreamOut},
    ),
    Route(
        method="DELETE",
        path="/v1/streams/{task_id}",
        tag="Streams",
        role=Role.SUBMITTER,
        summary="Cancel a stream's moderation on the platform",
        call=_end_stream,
        answers={202: schemas.StreamOut, 200: schemas.StreamOut},
        errors=(409,),
    ),
)
