"""`webhook verdicts`: the verdicts there are, or one with its timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook import pictures
from webhook.cli.client import connect
from webhook.cli.following import slices_path, task_path, verdict_path
from webhook.cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.settings import Settings

Json = dict[str, Any]

_LIMIT = 50


def show_list(settings: Settings, filters: Mapping[str, Any], *, as_json: bool) -> None:
    """Show verdicts, newest first.

    Args:
        filters: the API's; `limit` may be more than a page of it.

    Raises:
        ServiceError: the service cannot be asked.
    """
    screen = Screen(as_json=as_json)
    limit = filters.get("limit", _LIMIT)
    found = connect(settings, note=screen.say).items("/v1/verdicts", **{"limit": limit, **filters})
    if as_json:
        for verdict in found:
            screen.json(verdict)
    elif screen.is_terminal:
        verdicts = list(found)
        if verdicts:
            screen.show(pictures.verdict_list(verdicts))
        screen.say(_how_many(len(verdicts), limit))
    else:
        for verdict in found:
            screen.raw_line(_fields(verdict))


def _how_many(shown: int, limit: int) -> str:
    if shown == 0:
        return "No verdict fits."
    return f"The newest {shown}; --limit shows more." if shown == limit else f"{shown} in all."


def _fields(verdict: Json) -> str:
    fields = (
        verdict["updated_at"],
        verdict["risk_level"] or "-",
        verdict["action"] or "-",
        verdict["kind"],
        verdict["state"],
        f"{verdict['flagged_slice_count']}/{verdict['slice_count']}",
        verdict["task_id"],
        pictures.name_of(verdict),
        pictures.labels_of(verdict),
    )
    return "\t".join(map(pictures.plain, fields))


def show_one(settings: Settings, task_id: str, *, as_json: bool) -> None:
    """Show a task's verdict and its slices.

    Raises:
        ServiceError: there is no such task, or the service cannot be asked.
    """
    screen = Screen(as_json=as_json)
    client = connect(settings, note=screen.say)
    verdict = client.get(verdict_path(task_id))
    slices = list(client.items(slices_path(task_id)))
    if as_json:
        screen.json({**verdict, "slices": slices})
        return
    task = client.get(task_path(task_id))
    screen.verdict(verdict, slices, source=task["source"])
    if task["error"] is not None:
        screen.say(f"{task['error']['message']} ({task['error']['reason']})")
