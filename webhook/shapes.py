"""The JSON shapes of tasks, verdicts and slices, as the API and the events show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from webhook.clock import rfc3339, rfc3339_or_none
from webhook.payloads import slice_key

if TYPE_CHECKING:
    from webhook.payloads import Slice
    from webhook.store.tasks import Task

# What to do about a risk level: vendor-docs/voice-moderation, the note under "Table 3. Data".
ACTIONS = {"high": "block", "medium": "review", "low": "pass", "none": "pass"}
UNKNOWN_ACTION = "review"  # a level that is not documented is never clean


def action(risk_level: str | None) -> str | None:
    """Return what to do about a risk level; None where there is no result yet."""
    return None if risk_level is None else ACTIONS.get(risk_level, UNKNOWN_ACTION)


def task_shape(task: Task, *, queue_position: int | None = None) -> dict[str, Any]:
    """Return the contract's Task; seeds and tokens are not in it.

    Args:
        queue_position: 1 for the next one to be submitted; None where it does not wait, or nobody looked.
    """
    return {
        "id": task.id,
        "origin": task.origin,
        "kind": task.kind,
        "service": task.service,
        "state": task.state,
        "source": task.source,
        "data_id": task.data_id,
        "live_id": task.live_id,
        "referer": task.referer,
        "crypt_type": task.crypt_type,
        "platform_task_id": task.platform_task_id,
        "error": task.error,
        "risk_level": task.risk_level,
        "action": action(task.risk_level),
        "slice_count": task.slice_count,
        "flagged_slice_count": task.flagged_slice_count,
        "created_at": rfc3339(task.created_at),
        "submitted_at": rfc3339_or_none(task.submitted_at),
        "finished_at": rfc3339_or_none(task.finished_at),
        "queue_position": queue_position,
    }


def stream_shape(task: Task, *, queue_position: int | None = None) -> dict[str, Any]:
    """Return a task of kind `live` with what only streams have."""
    return task_shape(task, queue_position=queue_position) | {
        "last_slice_at": rfc3339_or_none(task.last_slice_at),
        "silent_since": rfc3339_or_none(task.silent_since),
    }


def verdict_shape(task: Task) -> dict[str, Any]:
    """Return the contract's Verdict: a task's results seen together."""
    return {
        "task_id": task.id,
        "platform_task_id": task.platform_task_id,
        "kind": task.kind,
        "service": task.service,
        "state": task.state,
        "data_id": task.data_id,
        "live_id": task.live_id,
        "url": task.source.get("url"),
        "risk_level": task.risk_level,
        "action": action(task.risk_level),
        "labels": [msgspec.structs.asdict(label) for label in task.labels],
        "slice_count": task.slice_count,
        "flagged_slice_count": task.flagged_slice_count,
        "updated_at": rfc3339(task.updated_at),
    }


def slice_shape(piece: Slice, *, evidence: str | None) -> dict[str, Any]:
    """Return the contract's Slice: what was stored, and what to do about it.

    Args:
        evidence: the state of its audio, None where none is wanted.
    """
    shape: dict[str, Any] = {"id": slice_key(piece).hex()}
    for name, value in msgspec.to_builtins(piece).items():
        shape[name] = value
        if name == "risk_level":
            shape["action"] = action(value)
        if name == "url":
            shape["evidence"] = evidence
    return shape
