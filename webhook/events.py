"""The facts we publish: their types, their bodies on the wire, and which of them a filter wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import labels

if TYPE_CHECKING:
    from collections.abc import Iterator

TEST_TYPE = "subscription.test"
"""Addressed to one subscription, so no filter ever matches it."""

EVENT_TYPES = (
    "task.submitted",
    "task.completed",
    "task.failed",
    "task.canceled",
    "task.expired",
    "slice.flagged",
    "stream.started",
    "stream.silent",
    "stream.ended",
    "callback.rejected",
    "subscription.disabled",
    TEST_TYPE,
)
"""Every type of the contract, section 6."""

FORMATS = {
    "standard": "application/json",
    "cloudevents": "application/cloudevents+json",
}
"""The formats of a body, and the content type of each."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable fact.

    Attributes:
        id: opaque; also the `webhook-id` of its deliveries.
        type: one of `EVENT_TYPES`.
        timestamp: when it became true, RFC 3339 in UTC.
        data: what it is about, as a dict or as JSON that goes out byte for byte.
    """

    id: str
    type: str
    timestamp: str
    data: msgspec.Raw | dict[str, Any]


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription asks of an event beside its type; None or empty asks for nothing.

    Attributes:
        risk_levels: of the slice in `slice.*`, of the verdict in `task.*`.
        labels: likewise, as patterns in which `*` stands for anything.
        services: of the task.
        kinds: of the task.
        data_id_prefix: how the task's `data_id` begins.
    """

    risk_levels: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    services: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    data_id_prefix: str | None = None


def standard_body(event: Event) -> bytes:
    """Write an event as Standard Webhooks 1.0 has it."""
    return msgspec.json.encode(event)


def cloudevents_body(event: Event, *, source: str) -> bytes:
    """Write an event as CloudEvents 1.0 has it, in structured mode.

    Args:
        event: the event; the task it is about, if any, becomes `subject`.
        source: a URI reference that names this service.
    """
    body = {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": event.type,
        "time": event.timestamp,
        "datacontenttype": "application/json",
    }
    if subject := _task_id(event.data):
        body["subject"] = subject
    return msgspec.json.encode({**body, "data": event.data})


def encode(event: Event, *, format: str, source: str) -> tuple[str, bytes]:  # noqa: A002 - the subscription's word
    """Write an event in a format of `FORMATS`.

    Returns:
        The content type and the body.

    Raises:
        KeyError: there is no such format.
    """
    content_type = FORMATS[format]
    body = cloudevents_body(event, source=source) if format == "cloudevents" else standard_body(event)
    return content_type, body


class _Task(msgspec.Struct):
    id: str


class _Subject(msgspec.Struct):
    task: _Task | None = None


def _task_id(data: msgspec.Raw | dict[str, Any]) -> str | None:
    try:
        if isinstance(data, msgspec.Raw):
            found = msgspec.json.decode(data, type=_Subject)
        else:
            found = msgspec.convert(data, type=_Subject)
    except msgspec.ValidationError:
        return None
    return found.task.id if found.task else None


def wants(*, event_types: Sequence[str] | None, filter: Filter, type: str, data: Mapping[str, Any]) -> bool:  # noqa: A002
    """Tell whether a subscription wants an event.

    An event that lacks what a criterion looks at does not match it.

    Args:
        event_types: patterns; None or empty means every type.
        filter: what else the subscription asks for.
        type: the event's type.
        data: the event's data.
    """
    if type == TEST_TYPE:
        return False
    if event_types and not any(labels.matches(pattern, type) for pattern in event_types):
        return False
    task = _member(data, "task")
    data_id = task.get("data_id")
    return (
        (not filter.services or task.get("service") in filter.services)
        and (not filter.kinds or task.get("kind") in filter.kinds)
        and (not filter.data_id_prefix or (isinstance(data_id, str) and data_id.startswith(filter.data_id_prefix)))
        and _wants_result(filter, type=type, data=data)
    )


RESULTS = {"slice": ("slice", "results"), "task": ("verdict", "labels")}
"""By a type's first word: where the event has its risk level, and under what name its findings."""


def _wants_result(filter: Filter, *, type: str, data: Mapping[str, Any]) -> bool:  # noqa: A002
    if not filter.risk_levels and not filter.labels:
        return True
    place = RESULTS.get(type.partition(".")[0])
    if place is None:
        return False
    name, findings = place
    result = _member(data, name)
    if filter.risk_levels and result.get("risk_level") not in filter.risk_levels:
        return False
    return not filter.labels or any(
        labels.matches(pattern, label) for label in _labels(result.get(findings)) for pattern in filter.labels
    )


def _labels(findings: object) -> Iterator[str]:
    for finding in findings if isinstance(findings, Sequence) else ():
        label = finding.get("label") if isinstance(finding, Mapping) else None
        if isinstance(label, str):
            yield label


def _member(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = data.get(name)
    return member if isinstance(member, Mapping) else {}
