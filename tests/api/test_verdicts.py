"""Verdicts and slices: what the platform found, field by field, and how it is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.signed import content, form, piece

if TYPE_CHECKING:
    from tests.clients import AppClient

# voice-moderation.txt, the response example, with the fields of tables 4 to 7 that it leaves out
PRINTED = {
    "StartTime": 0,
    "EndTime": 4065,
    "Text": "Disgusting",
    "Url": "http://oss.example.com/slice.wav",
    "RiskLevel": "high",
    "Result": [
        {
            "Label": "political_entity",
            "Description": "Suspected political entity",
            "Confidence": 100.0,
            "RiskLevel": "high",
            "RiskWords": "WordA,WordB",
            "CustomizedHit": [{"LibName": "CustomLibrary1", "Keywords": "CustomKeyword1,CustomKeyword2"}],
            "RiskPositions": [{"RiskWord": "WordA", "StartPos": 16, "EndPos": 14}],
        }
    ],
}


@pytest.fixture
def tell(client: AppClient) -> Any:
    """Let the platform tell of tasks elsewhere."""
    receiver = client.receiver()

    def one(*slices: dict[str, Any], **data: Any) -> None:
        assert client.callback(receiver["callback_url"], form(content(*slices, **data), seed=receiver["seed"])) == 200

    return one


def of(client: AppClient, data_id: str) -> Any:
    [verdict] = client.items("/v1/verdicts", data_id=data_id)
    return verdict


def test_the_vendor_s_printed_answer_is_given_back_field_by_field(client: AppClient, tell: Any) -> None:
    tell(PRINTED, TaskId="p-1", DataId="printed", Url="http://example.com/a.mp3", RiskLevel="high")
    verdict = of(client, "printed")
    assert verdict == {
        "task_id": verdict["task_id"],
        "platform_task_id": "p-1",
        "kind": "audio",
        "service": "audio_detection_byllm_global",
        "state": "completed",
        "data_id": "printed",
        "live_id": None,
        "url": "http://example.com/a.mp3",
        "risk_level": "high",
        "action": "block",
        "labels": [{"label": "political_entity", "risk_level": "high", "confidence": 100.0, "slices": 1}],
        "slice_count": 1,
        "flagged_slice_count": 1,
        "updated_at": verdict["updated_at"],
    }
    assert client.shown(f"/v1/verdicts/{verdict['task_id']}") == verdict
    [only] = client.items(f"/v1/verdicts/{verdict['task_id']}/slices")
    assert only == {
        "id": only["id"],
        "start_time": 0,
        "end_time": 4065,
        "start_timestamp": None,
        "end_timestamp": None,
        "risk_level": "high",
        "action": "block",
        "text": "Disgusting",
        "url": "http://oss.example.com/slice.wav",
        "evidence": None,
        "results": [
            {
                "label": "political_entity",
                "description": "Suspected political entity",
                "confidence": 100.0,
                "risk_level": "high",
                "risk_words": ["WordA", "WordB"],
                "custom_hits": [{"library": "CustomLibrary1", "keywords": ["CustomKeyword1", "CustomKeyword2"]}],
                "risk_positions": [{"risk_word": "WordA", "start": 16, "end": 14}],
            }
        ],
    }


def test_lists_within_a_finding_are_lists_also_where_the_platform_sends_none(client: AppClient, tell: Any) -> None:
    tell({"StartTime": 0, "EndTime": 1, "RiskLevel": "low", "Result": [{"Label": "x"}]}, DataId="bare")
    [only] = client.items(f"/v1/verdicts/{of(client, 'bare')['task_id']}/slices")
    [finding] = only["results"]
    assert (finding["risk_words"], finding["custom_hits"], finding["risk_positions"]) == ([], [], [])
    assert finding["confidence"] is None


@pytest.mark.parametrize(
    ("level", "action"),
    [("high", "block"), ("medium", "review"), ("low", "pass"), ("none", "pass"), ("terrible", "review")],
)
def test_the_action_follows_the_risk_and_what_is_unknown_is_never_clean(
    client: AppClient, tell: Any, level: str, action: str
) -> None:
    tell(piece(0, risk=level), DataId="d")
    verdict = of(client, "d")
    assert (verdict["risk_level"], verdict["action"]) == (level, action)


def test_the_risk_is_the_highest_of_the_slices_and_of_what_the_platform_says_of_all(
    client: AppClient, tell: Any
) -> None:
    tell(piece(0, risk="low"), piece(10, risk="medium"), DataId="slices", RiskLevel="none")
    assert of(client, "slices")["risk_level"] == "medium"
    tell(piece(0, risk="low"), DataId="stated", RiskLevel="high")
    assert of(client, "stated")["risk_level"] == "high"


def test_filters_choose_verdicts(client: AppClient, tell: Any) -> None:
    tell(piece(0, risk="high", label="political_entity"), TaskId="a", DataId="a")
    tell(piece(0, risk="medium", label="political_n"), TaskId="b", DataId="b", LiveId="room-1")
    tell(piece(0, risk="low", label="sexual_terms"), TaskId="c", DataId="c")
    tell(piece(0), TaskId="d", DataId="d")

    def found(**query: Any) -> str:
        return "".join(verdict["data_id"] for verdict in client.items("/v1/verdicts", **query))

    assert found() == "dcba"
    assert found(risk_level="high") == found(action="block") == found(label="political_entity") == "a"
    assert found(risk_level="High, medium") == found(label="political_*") == "ba"
    assert found(action="pass") == "dc"
    assert found(action="pass", risk_level="low,high") == "c"
    assert found(action="block", risk_level="low") == ""
    assert found(kind="live") == found(live_id="room-1") == found(service="live_detection_byllm_global") == "b"
    assert found(label="*") == "dcba"
    assert found(label="political") == ""
    assert found(data_id="c") == "c"
    assert found(limit=3) == "dcba"


def test_filters_together_choose_what_fits_them_all(client: AppClient, tell: Any) -> None:
    tell(piece(0, risk="high", label="political_entity"), piece(10, label="political_n"), TaskId="a", DataId="a")
    tell(piece(0, risk="medium", label="political_n"), TaskId="b", DataId="b", LiveId="room-1")
    tell(piece(0, risk="high", label="political_n"), TaskId="c", DataId="c")
    tell(piece(0, risk="low", label="other"), TaskId="d", DataId="d", LiveId="room-1")

    def found(**query: Any) -> str:
        return "".join(verdict["data_id"] for verdict in client.items("/v1/verdicts", **query))

    assert found(label="political_*", risk_level="high") == found(label="political_n", kind="audio") == "ca"
    assert found(label="political_*", kind="live") == found(live_id="room-1", label="political_*") == "b"
    assert found(live_id="room-1", risk_level="low,high") == found(live_id="room-1", data_id="d") == "d"
    assert found(live_id="room-1", label="unheard-of") == found(data_id="a", action="block", risk_level="low") == ""
    assert found(kind="live", action="review") == found(data_id="b", service="live_detection_byllm_global") == "b"


def test_a_label_s_list_is_in_the_order_of_last_changes_page_by_page(client: AppClient, tell: Any) -> None:
    for name in "abc":
        tell(piece(0, risk="low", label="political_n"), TaskId=name, DataId=name, LiveId=name)
    tell(piece(10, risk="high", label="political_entity"), TaskId="a", DataId="a", LiveId="a")

    def found(**query: Any) -> str:
        return "".join(verdict["data_id"] for verdict in client.items("/v1/verdicts", limit=1, **query))

    assert found(label="political_*") == found(label="political_n") == found() == "acb"
    assert found(label="political_n", risk_level="high") == found(label="political_entity") == "a"


def test_verdicts_are_ordered_and_cut_by_when_they_last_changed(client: AppClient, tell: Any) -> None:
    for name in "abc":
        tell(piece(0), TaskId=name, DataId=name)
    tell(piece(10), TaskId="a", DataId="a")
    assert [verdict["data_id"] for verdict in client.items("/v1/verdicts", limit=1)] == ["a", "c", "b"]
    since = of(client, "a")["updated_at"]
    assert [verdict["data_id"] for verdict in client.items("/v1/verdicts", since=since)] == ["a"]
    assert [verdict["data_id"] for verdict in client.items("/v1/verdicts", until=since)] == ["c", "b"]


def test_slices_are_in_time_order_however_they_came_and_are_cut(client: AppClient, tell: Any) -> None:
    starts = [at * 10 for at in range(450)]
    for part in (starts[300:], starts[:100], starts[100:300]):
        tell(*[piece(at) for at in part[::-1]], TaskId="t", DataId="d")
    path = f"/v1/verdicts/{of(client, 'd')['task_id']}/slices"
    for limit in (7, 200):
        assert [each["start_time"] for each in client.items(path, limit=limit)] == starts


def test_slices_are_filtered_by_risk_and_label(client: AppClient, tell: Any) -> None:
    tell(piece(0, risk="high", label="a_x"), piece(10, risk="low", label="a_y"), piece(20), DataId="d")
    path = f"/v1/verdicts/{of(client, 'd')['task_id']}/slices"

    def found(**query: Any) -> list[int]:
        return [each["start_time"] for each in client.items(path, **query)]

    assert found(risk_level="high") == found(label="a_x") == [0]
    assert found(risk_level="high,low") == found(label="a_*") == found(label="a_*", limit=1) == [0, 10]
    assert found(risk_level="low", label="a_x") == []


def test_a_slice_flagged_again_raises_no_second_event_and_one_flagged_later_does(client: AppClient, tell: Any) -> None:
    tell(piece(0, risk="low"), TaskId="t")
    tell(piece(0, risk="medium"), TaskId="t")
    tell(piece(0, risk="high"), TaskId="t")
    flagged = client.feed(types="slice.flagged")
    assert [event["data"]["slice"]["risk_level"] for event in flagged] == ["medium"]
    assert client.items("/v1/verdicts")[0]["flagged_slice_count"] == 1


def test_unknown_labels_pass_through(client: AppClient, tell: Any) -> None:
    tell(piece(0, risk="high", label="brand_new"), DataId="d")
    assert [label["label"] for label in of(client, "d")["labels"]] == ["brand_new"]
    assert client.items("/v1/verdicts", label="brand_*")
