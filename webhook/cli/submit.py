"""`webhook submit`: send a file or URL, follow its task, show the verdict."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.cli.client import JsonBody, connect
from webhook.cli.following import FINAL_STATES, follow, slices_path, standing, task_path, verdict_path
from webhook.cli.multipart import FileBody
from webhook.cli.screen import Screen
from webhook.cli.watch import watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cli.client import Client
    from webhook.settings import Settings

Json = dict[str, Any]

_OK, _REVIEW, _BLOCK, _NEVER, _NOT_YET = 0, 10, 20, 30, 40
_ENDS = {"failed": "failed", "expired": "expired", "canceled": "was canceled"}
_RISK_STATUSES = {"none": _OK, "low": _OK, "medium": _REVIEW, "high": _BLOCK}


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What to submit.

    Attributes:
        source: a URL, or the path of a file.
        live_id: where it is a stream.
        fields: the API's further fields.
    """

    source: str
    live_id: str | None
    fields: Mapping[str, str]


def run(settings: Settings, submission: Submission, *, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Submit, and wait for the verdict where that is wanted.

    Args:
        timeout: seconds to wait at most; None waits until the task is over.

    Returns:
        The exit status.

    Raises:
        ServiceError: it was not submitted, or the service can no longer be asked.
    """
    screen = Screen(as_json=as_json)
    client = connect(settings, note=screen.say)
    task = _submit(client, screen, submission)
    if not wait:
        _show_task(client, screen, task)
        return _OK
    screen.say(f"submitted: {task['id']}")
    deadline = None if timeout is None else time.monotonic() + timeout
    if submission.live_id is not None:
        task = watch(client, screen, task, from_start=True, deadline=deadline)
    else:
        task = _await(client, screen, task, deadline=deadline)
        _show_verdict(client, screen, task)
    _explain(screen, task)
    return exit_status(task)


def exit_status(task: Json) -> int:
    """Return what a task says to a script; a risk level that is not known is never clean."""
    if task["state"] not in FINAL_STATES:
        return _NOT_YET
    if task["state"] != "completed":
        return _NEVER
    return _NOT_YET if task["risk_level"] is None else _RISK_STATUSES.get(task["risk_level"], _REVIEW)


def _submit(client: Client, screen: Screen, submission: Submission) -> Json:
    if submission.live_id is not None:
        stream = {"url": submission.source, "live_id": submission.live_id, **submission.fields}
        return client.post("/v1/streams", JsonBody(stream))
    if "://" in submission.source:
        return client.post("/v1/tasks", JsonBody({"url": submission.source, **submission.fields}))
    path = Path(submission.source)
    with screen.upload(path.name) as progress:
        return client.post("/v1/tasks", FileBody(path, submission.fields, progress=progress))


def _await(client: Client, screen: Screen, task: Json, *, deadline: float | None) -> Json:
    """Follow a task, and show how it stands; return it as it was last."""
    told: tuple[str, str | None] | None = None
    with screen.waiting() as tell:
        for now in follow(client, task_path(task["id"]), deadline=deadline):
            tell(standing(now))
            trouble = now["error"]["message"] if now["error"] and now["state"] == "queued" else None
            if told != (now["state"], trouble) and now["state"] not in FINAL_STATES:
                screen.say_plainly(standing(now))
                if trouble is not None:
                    screen.say(trouble)
            told = (now["state"], trouble)
            task = now
    return task


def _show_task(client: Client, screen: Screen, task: Json) -> None:
    if screen.as_json:
        screen.json({"task": task, "verdict": client.get(verdict_path(task["id"]))})
    else:
        screen.show(task["id"])


def _show_verdict(client: Client, screen: Screen, task: Json) -> None:
    verdict = client.get(verdict_path(task["id"]))
    if screen.as_json:
        screen.json({"task": task, "verdict": verdict})
    elif verdict["risk_level"] is not None:
        screen.verdict(verdict, list(client.items(slices_path(task["id"]))), source=task["source"])


def _explain(screen: Screen, task: Json) -> None:
    """Tell of an end that is no verdict."""
    if task["state"] not in FINAL_STATES:
        screen.complain(f"The time is over without a verdict; `webhook verdicts {task['id']}` shows it later.")
    elif task["state"] != "completed":
        because = f": {task['error']['message']}" if task["error"] else "."
        screen.complain(f"{task['id']} {_ENDS[task['state']]}{because}")
    elif task["risk_level"] is None:
        screen.complain(f"{task['id']} is completed, but has no risk level.")
