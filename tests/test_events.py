"""The packages `cloudevents` and `standardwebhooks` are the judges of the bodies; the types are the contract's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from webhook import signatures
from webhook.events import (
    EVENT_TYPES,
    FORMATS,
    Event,
    Filter,
    cloudevents_body,
    encode,
    standard_body,
    wants,
)

TASK = {"id": "task_1", "service": "audio_detection_byllm_global", "kind": "audio", "data_id": "room-7.a"}
FINDINGS = [{"label": "political_entity"}, {"label": "customized"}]
SLICE_DATA = {"task": TASK, "slice": {"risk_level": "high", "results": FINDINGS}}
TASK_DATA = {"task": TASK, "verdict": {"risk_level": "medium", "labels": [{"label": "ad"}]}}


def event(**changes: Any) -> Event:
    fields = {"id": "evt_1", "type": "slice.flagged", "timestamp": "2026-11-21T07:41:00.123456Z", "data": SLICE_DATA}
    return Event(**{**fields, **changes})


def wanted(filter: Filter = Filter(), *, type: str = "slice.flagged", data: Any = SLICE_DATA, types: Any = ()) -> bool:  # noqa: A002, B008
    return wants(event_types=types, filter=filter, type=type, data=data)


def test_the_standard_body_has_the_contracts_fields_in_their_order() -> None:
    body = standard_body(event(data={"a": "日"}))
    assert (
        body
        == '{"id":"evt_1","type":"slice.flagged","timestamp":"2026-11-21T07:41:00.123456Z","data":{"a":"日"}}'.encode()
    )


def test_raw_data_goes_out_byte_for_byte() -> None:
    raw = b'{"task": {"id":"t"},  "big": 18446744073709551616123, "x": 1.0}'
    assert raw in standard_body(event(data=msgspec.Raw(raw)))
    assert raw in cloudevents_body(event(data=msgspec.Raw(raw)), source="/")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_signed_body_passes_the_check_of_standard_webhooks(format_: str) -> None:
    _, body = encode(event(), format=format_, source="https://moderation.example")
    secret, now = bytes(range(32)), int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": signatures.sign(secrets=[secret], message_id="evt_1", timestamp=now, body=body),
    }
    assert Webhook(signatures.encode_secret(secret)).verify(body, headers) == json.loads(body)


def test_the_content_type_is_the_formats() -> None:
    assert encode(event(), format="standard", source="/") == ("application/json", standard_body(event()))
    assert encode(event(), format="cloudevents", source="/")[0] == "application/cloudevents+json"
    with pytest.raises(KeyError):
        encode(event(), format="xml", source="/")


@pytest.mark.parametrize("raw", [False, True])
def test_cloudevents_reads_what_we_write(*, raw: bool) -> None:
    data = msgspec.Raw(json.dumps(SLICE_DATA).encode()) if raw else SLICE_DATA
    content_type, body = encode(event(data=data), format="cloudevents", source="https://moderation.example")
    read = from_structured_event(HTTPMessage({"content-type": content_type}, body))
    assert read.get_specversion() == "1.0"
    assert read.get_id() == "evt_1"
    assert read.get_source() == "https://moderation.example"
    assert read.get_type() == "slice.flagged"
    assert read.get_subject() == "task_1"
    assert read.get_datacontenttype() == "application/json"
    assert read.get_time() == datetime(2026, 11, 21, 7, 41, 0, 123456, tzinfo=UTC)
    assert read.get_data() == SLICE_DATA


@pytest.mark.parametrize(
    "data", [{}, {"task": None}, {"task": {}}, {"task": {"id": 7}}, {"task": "x"}, {"task": {"id": ""}}]
)
def test_an_event_without_a_task_has_no_subject(data: dict[str, Any]) -> None:
    for given_data in (data, msgspec.Raw(json.dumps(data).encode())):
        body = cloudevents_body(event(type="callback.rejected", data=given_data), source="/")
        assert "subject" not in json.loads(body)
        assert from_structured_event(HTTPMessage({}, body)).get_subject() is None


def test_event_types_are_patterns_and_none_means_all() -> None:
    assert wanted(types=None)
    assert wanted(types=[])
    assert wanted(types=["*"])
    assert wanted(types=["slice.*"])
    assert wanted(types=["task.completed", "slice.flagged"])
    assert wanted(types=["sl*ed"])
    assert wanted(types=["*.f*"])
    assert not wanted(types=["slice.c*"])
    assert not wanted(types=["task.*"])
    assert not wanted(types=["slice"])
    assert not wanted(types=["slice.flag"])


def test_a_subscriptions_test_is_for_that_subscription_alone() -> None:
    for types in (None, ["*"], ["subscription.test"]):
        assert not wanted(type="subscription.test", types=types, data={})


@pytest.mark.parametrize(
    ("filter_", "matches"),
    [
        (Filter(risk_levels=("high",)), True),
        (Filter(risk_levels=("low", "high")), True),
        (Filter(risk_levels=("medium",)), False),
        (Filter(labels=("customized",)), True),
        (Filter(labels=("political_*",)), True),
        (Filter(labels=("political",)), False),
        (Filter(labels=("ad", "*_entity")), True),
        (Filter(services=("audio_detection_byllm_global",)), True),
        (Filter(services=("live_detection_byllm_global",)), False),
        (Filter(kinds=("live", "audio")), True),
        (Filter(kinds=("live",)), False),
        (Filter(data_id_prefix="room-"), True),
        (Filter(data_id_prefix="lobby-"), False),
        (Filter(risk_levels=("high",), labels=("political_*",), kinds=("audio",), data_id_prefix="room-7"), True),
        (Filter(risk_levels=("high",), labels=("political_*",), kinds=("live",), data_id_prefix="room-7"), False),
        (Filter(risk_levels=(), labels=(), services=(), kinds=(), data_id_prefix=""), True),
    ],
)
def test_a_filter_asks_for_all_its_criteria_of_a_slice(filter_: Filter, *, matches: bool) -> None:
    assert wanted(filter_) is matches


def test_findings_without_a_label_are_passed_over() -> None:
    findings = [{"label": None}, {}, "customized", {"label": "ad"}]
    data = {"task": TASK, "slice": {"risk_level": "high", "results": findings}}
    assert wanted(Filter(labels=("ad",)), data=data)
    assert not wanted(Filter(labels=("customized",)), data=data)


def test_risk_levels_and_labels_look_at_the_verdict_in_tasks() -> None:
    assert wanted(Filter(risk_levels=("medium",), labels=("a*",)), type="task.completed", data=TASK_DATA)
    assert not wanted(Filter(risk_levels=("high",)), type="task.completed", data={**TASK_DATA, **SLICE_DATA})
    assert not wanted(Filter(labels=("political_*",)), type="task.completed", data={**TASK_DATA, **SLICE_DATA})
    assert not wanted(Filter(risk_levels=("medium",)), type="slice.flagged", data={**TASK_DATA, **SLICE_DATA})


@pytest.mark.parametrize("type_", [type_ for type_ in EVENT_TYPES if not type_.startswith(("slice.", "task."))])
def test_other_events_have_no_risk_and_no_labels(type_: str) -> None:
    data = {**SLICE_DATA, **TASK_DATA}
    assert not wanted(Filter(risk_levels=("high", "medium")), type=type_, data=data)
    assert not wanted(Filter(labels=("*",)), type=type_, data=data)


CRITERIA = (
    Filter(risk_levels=("none", "high")),
    Filter(labels=("*",)),
    Filter(services=("s",)),
    Filter(kinds=("audio",)),
    Filter(data_id_prefix="r"),
)


@pytest.mark.parametrize("filter_", CRITERIA)
def test_an_event_that_lacks_what_a_criterion_looks_at_does_not_match(filter_: Filter) -> None:
    nothing: dict[str, Any] = {
        "risk_level": None,
        "labels": [],
        "service": None,
        "kind": None,
        "data_id": None,
        "results": [],
    }
    for type_ in ("slice.flagged", "task.submitted"):
        assert not wanted(filter_, type=type_, data={})
        assert not wanted(filter_, type=type_, data={"task": nothing, "verdict": nothing, "slice": nothing})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["task", "slice", "verdict", "risk_level", "labels", "results", "label", "data_id", "id"]),
            inner,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["task", "slice", "verdict"]), json_values), st.sampled_from(EVENT_TYPES))
def test_data_of_any_shape_never_raises(data: dict[str, Any], type_: str) -> None:
    for filter_ in CRITERIA:
        wanted(filter_, type=type_, data=data)
    assert json.loads(cloudevents_body(event(type=type_, data=data), source="/"))["data"] == data


def test_a_filter_reads_and_writes_as_json() -> None:
    filter_ = Filter(labels=("a*",), data_id_prefix="r")
    assert msgspec.convert({"labels": ["a*"], "data_id_prefix": "r"}, Filter) == filter_
    assert msgspec.convert(msgspec.to_builtins(filter_), Filter) == filter_
