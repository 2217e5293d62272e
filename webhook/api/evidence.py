"""Evidence: the audio of flagged slices of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.content import Content
from webhook.api.routing import Answer, Request, Route
from webhook.api.tasks import found_task
from webhook.errors import Conflict, EvidenceLost, Gone, NotFound
from webhook.payloads import slice_key_of
from webhook.roles import Permission
from webhook.store import evidence as evidence_store
from webhook.store.evidence import EXPIRED, FAILED, PENDING

if TYPE_CHECKING:
    from webhook.db import Session

_AUDIO = ("audio/*", "video/*", "application/octet-stream")
_NOT_TO_BE_HAD = {
    EXPIRED: "The audio could not be had before its link ended",
    FAILED: "The audio could not be saved",
}


def _show_evidence(request: Request, session: Session) -> Answer:
    task = found_task(session, request.path["task_id"])
    slice_id = request.path["slice_id"]
    key = slice_key_of(slice_id)
    row = None if key is None else evidence_store.find_evidence(session, task.id, key)
    if row is None:
        raise NotFound("There is no evidence of such a slice.")
    if row.state == PENDING:
        raise Conflict("The audio is on its way; ask again in a while.")
    if row.state in _NOT_TO_BE_HAD:
        raise Gone(f"{_NOT_TO_BE_HAD[row.state]} ({row.reason}).")
    saved = row

    def load() -> Content:
        try:
            audio = request.service.evidence.load(saved)
        except EvidenceLost:
            raise Gone("The audio was saved, and is no longer in its store.") from None
        content_type = saved.content_type or "application/octet-stream"
        return Content.of(audio, content_type=content_type, name=f"{task.id}-{slice_id}")

    return Answer(load=load)


ROUTES = (
    Route(
        method="GET",
        path="/v1/tasks/{task_id}/evidence/{slice_id}",
        tag="Verdicts",
        permission=Permission.SEE_CONTENT,
        summary="Get the saved audio of a flagged slice of a stream",
        call=_show_evidence,
        answers={200: _AUDIO, 206: _AUDIO, 304: None},
        errors=(409, 410, 412, 416),
        audit="evidence.read",
    ),
)
