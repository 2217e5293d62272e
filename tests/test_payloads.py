"""What the platform may send, and what must become of it.

Origins: `VENDOR_EXAMPLE` is voice-moderation.txt, "Query task results", "Successful response example";
`SDK_EXAMPLE` has the fields of `VoiceModerationResultResponseBody` of the official SDK, version 2022-03-02;
`GREEN_1` the structure of Content Moderation 1.0's "/green/voice/results" (help.aliyun.com, 89630).
"""

from __future__ import annotations

import itertools
import json
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from webhook import payloads
from webhook.errors import Unreadable
from webhook.payloads import CustomHit, Finding, Result, RiskPosition, Slice, better, highest, risk_rank, slice_key
from webhook.payloads.printed import as_printed, from_printed
from webhook.payloads.tolerant import from_document

if TYPE_CHECKING:
    import random

VENDOR_EXAMPLE = """
{
    "Code": 200,
    "Data": {
        "DataId": "voice20240307***",
        "LiveId": "liveId1****",
        "RiskLevel": "high",
        "SliceDetails": [
            {
                "StartTime": 0,
                "EndTime": 4065,
                "RiskLevel": "high",
                "Result": [
                    {
                        "Label": "political_entity",
                        "Description": "Suspected political entity",
                        "Confidence": 100.0,
                        "RiskLevel": "high",
                        "RiskWords": "WordA,WordB",
                        "RiskPositions": [
                            {
                                "EndPos": 14,
                                "RiskWord": "WordA",
                                "StartPos": 16
                            }
                        ]
                    }
                ],
                "Text": "Content Moderation product test case",
                "Url": "https://aliyundoc.com"
            }
        ]
    },
    "Message": "OK",
    "RequestId": "AAAAAA-BBBB-CCCCC-DDDD-EEEEEEEE****"
}
"""
# contract.md, section 5, less `action`, with the vendor's words in the places it leaves open
CONTRACT_SLICE = """
{"start_time": 0, "end_time": 4065, "start_timestamp": null, "end_timestamp": null,
 "risk_level": "high", "text": "Content Moderation product test case", "url": "https://aliyundoc.com",
 "results": [{"label": "political_entity", "description": "Suspected political entity", "confidence": 100.0,
   "risk_level": "high", "risk_words": ["WordA", "WordB"],
   "custom_hits": [],
   "risk_positions": [{"risk_word": "WordA", "start": 16, "end": 14}]}]}
"""
SDK_EXAMPLE = {
    "RequestId": "2881AD4F-638B-52A3-BA20-F74C5B1CEAE3",
    "Code": 200,
    "Message": "SUCCESS",
    "Data": {
        "Url": "https://aliyundoc.com",
        "LiveId": "liveId",
        "TaskId": "kw24ihd0WGkdi5nniVZM@qOj-1x5Ibb",
        "ManualTaskId": "m",
        "SliceDetails": [
            {
                "StartTime": 0,
                "EndTime": 10,
                "StartTimestamp": 0,
                "EndTimestamp": 0,
                "Url": "https://aliyundoc.com/0",
                "Text": "今天天气真不错",
                "Labels": "sexual_sounds, customized",
                "Score": 87.01,
                "Extend": '{"riskWords":"色情服务"}',
                "RiskTips": "涉政_人物",
                "RiskWords": "色情服务\uff0cB",
                "OriginAlgoResult": {"test": 1},
            }
        ],
        "DataId": "",
    },
}
GREEN_1: dict[str, Any] = {
    "code": 200,
    "msg": "OK",
    "dataId": "d",
    "taskId": "vc_f_7WP7JVSvCGnaqBr0LHJ9xT-1vWe8Q",
    "url": "https://aliyundoc.com/test.mp3",
    "results": [
        {
            "scene": "antispam",
            "label": "ad",
            "suggestion": "block",
            "rate": 99.91,
            "details": [
                {"startTime": 0, "endTime": 17, "text": "…", "label": "ad", "keyword": "A"},
                {"startTime": 17, "endTime": 40, "text": "…", "label": "normal"},
                {"startTime": 40, "endTime": 50, "text": "…", "label": "abuse", "score": 12, "new": True},
            ],
        }
    ],
}


def parse(document: Any) -> Result:
    return payloads.parse(json.dumps(document).encode())


def sliced(**fields: Any) -> Slice:
    """The slice of a callback with these fields in its only slice."""
    (piece,) = parse({"Code": 200, "Data": {"SliceDetails": [fields]}}).slices
    return piece


def found(**fields: Any) -> Finding:
    """The finding of a callback with these fields in its only finding."""
    (finding,) = sliced(Result=[fields]).results
    return finding


def a_slice(**fields: Any) -> Slice:
    absent = dict.fromkeys(("start_time", "end_time", "start_timestamp", "end_timestamp", "risk_level", "text", "url"))
    return Slice(**{**absent, "results": (), **fields})


def a_finding(**fields: Any) -> Finding:
    absent: dict[str, Any] = dict.fromkeys(("label", "description", "confidence", "risk_level"))
    return Finding(**{**absent, "risk_words": (), "custom_hits": (), "risk_positions": (), **fields})


def encoded(thing: Any) -> Any:
    return json.loads(msgspec.json.encode(thing))


# The vendor's example, and the shapes it comes in.


def test_the_vendors_example_becomes_the_contracts_slice_field_by_field() -> None:
    result = payloads.parse(VENDOR_EXAMPLE.encode())
    assert (result.code, result.has_data, result.risk_level) == (200, True, "high")
    assert (result.task_id, result.live_id, result.data_id, result.url) == (
        None,
        "liveId1****",
        "voice20240307***",
        None,
    )
    (piece,) = result.slices
    expected = json.loads(CONTRACT_SLICE)
    assert encoded(piece) == expected
    assert list(encoded(piece)) == list(expected)
    assert list(encoded(piece)["results"][0]) == list(expected["results"][0])
    assert msgspec.json.decode(msgspec.json.encode(piece), type=Slice) == piece


def test_the_vendors_message_which_may_echo_a_seed_is_not_kept() -> None:
    document = json.loads(VENDOR_EXAMPLE)
    document["Data"] |= {"Message": "seed_1", "RequestId": "r", "ManualTaskId": "m"}
    assert parse(document).extra == {"ManualTaskId": "m"}


def recased(value: Any, turn: Any) -> Any:
    if isinstance(value, dict):
        return {turn(key): recased(inner, turn) for key, inner in value.items()}
    return [recased(inner, turn) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "turn", [str.lower, str.upper, str.swapcase, lambda key: key[0].lower() + key[1:], str.capitalize]
)
def test_keys_are_matched_without_regard_to_case_at_every_level(turn: Any) -> None:
    document = json.loads(VENDOR_EXAMPLE)
    document["Data"]["SliceDetails"][0]["Result"][0]["CustomizedHit"] = [{"LibName": "l", "Keywords": "a,b"}]
    assert parse(recased(document, turn)) == parse(document)


@pytest.mark.parametrize("words", ["RiskWords", "Riskwords", "riskWords"])
@pytest.mark.parametrize("keywords", ["Keywords", "KeyWords", "keywords"])
def test_the_vendors_two_spellings_of_words_are_both_read(words: str, keywords: str) -> None:
    finding = found(**{words: "A,B", "CustomizedHit": [{"LibName": "l", keywords: "c,d"}]})
    assert finding == a_finding(risk_words=("A", "B"), custom_hits=(CustomHit(library="l", keywords=("c", "d")),))


def test_of_two_spellings_the_vendors_wins_and_the_other_is_kept() -> None:
    for fields in (
        {"RiskWords": "A", "Riskwords": "B", "riskwords": "C"},
        {"Riskwords": "B", "riskwords": "C", "RiskWords": "A"},
        {"Riskwords": "B", "RiskWords": "A", "riskwords": "C"},
    ):
        finding = found(**fields)
        assert finding.risk_words == ("A",)
        assert finding.extra == {"Riskwords": "B", "riskwords": "C"}
    assert found(riskwords="B", Riskwords="C") == a_finding(risk_words=("B",), extra={"Riskwords": "C"})
    assert found(RiskWords=None, Riskwords="B") == a_finding(risk_words=("B",))
    assert found(Riskwords="B", RiskWords="A") == a_finding(risk_words=("A",), extra={"Riskwords": "B"})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: {"Code": 200, "Data": data},
        lambda data: {"code": "200", "data": data},
        lambda data: {"code": 200.0, "data": [data]},
        lambda data: [{"Code": 200, "Data": data}],
        lambda data: {"code": 200, **data},
        lambda data: {"code": 200, "data": [{"code": 200, **data}]},
        lambda data: {"data": {"code": 200, **data}},
    ],
)
def test_the_same_result_comes_in_many_wrappings(wrap: Any) -> None:
    data = {"TaskId": "t", "DataId": "d", "RiskLevel": "low", "SliceDetails": [{"StartTime": 1, "RiskLevel": "low"}]}
    result = parse(wrap(data))
    assert result == parse({"Code": 200, "Data": data})
    assert (result.code, result.task_id, result.risk_level, len(result.slices)) == (200, "t", "low", 1)


def test_a_bare_data_has_no_code() -> None:
    result = parse({"RiskLevel": "none", "SliceDetails": []})
    assert (result.code, result.has_data, result.risk_level, result.slices) == (None, True, "none", ())


def test_ids_beside_data_count_where_data_has_none() -> None:
    result = parse({"code": 200, "taskId": "outer", "liveId": "l", "data": {"taskId": "inner", "riskLevel": "none"}})
    assert (result.task_id, result.live_id) == ("inner", "l")
    assert result.extra == {"taskId": "outer"}
    assert parse({"foo": 1, "bar": 1, "data": {"riskLevel": "none", "foo": 2}}).extra == {"foo": 2, "bar": 1}


@pytest.mark.parametrize(
    ("outer", "inner", "code"),
    [(200, 280, 280), (None, 404, 404), (404, 200, 404), (200, None, 200), (200, "odd", 200), (280, 200, 280)],
)
def test_a_task_objects_own_code_counts_where_the_envelope_reports_no_trouble(
    outer: int | None, inner: Any, code: int
) -> None:
    assert parse({"code": outer, "data": [{"code": inner, "riskLevel": "low"}]}).code == code


def test_a_level_beside_data_is_not_lost() -> None:
    assert parse({"Code": 200, "RiskLevel": "high", "Data": {"RiskLevel": "low"}}).risk_level == "high"


# Flat slices, and Content Moderation 1.0.


def test_a_flat_slice_has_a_finding_for_each_label() -> None:
    result = parse(SDK_EXAMPLE)
    assert (result.task_id, result.data_id, result.risk_level) == ("kw24ihd0WGkdi5nniVZM@qOj-1x5Ibb", "", None)
    assert result.extra == {"ManualTaskId": "m"}
    said: dict[str, Any] = {"description": "涉政_人物", "confidence": 87.01, "risk_words": ("色情服务", "B")}
    assert result.slices == (
        a_slice(
            start_time=0,
            end_time=10,
            start_timestamp=0,
            end_timestamp=0,
            risk_level="medium",
            text="今天天气真不错",
            url="https://aliyundoc.com/0",
            results=(a_finding(label="sexual_sounds", **said), a_finding(label="customized", **said)),
            extra={"Extend": '{"riskWords":"色情服务"}', "OriginAlgoResult": {"test": 1}},
        ),
    )


def test_the_level_of_a_flat_slice_is_that_of_its_findings() -> None:
    piece = sliced(Labels=["ad", "porn"], RiskLevel="low", Result=[])
    assert [(finding.label, finding.risk_level) for finding in piece.results] == [("ad", "low"), ("porn", "low")]
    assert piece.risk_level == "low"


def test_flat_fields_beside_findings_are_kept_as_unknown() -> None:
    piece = sliced(Labels="ad", Score=1, RiskTips="t", Result=[{"Label": "b", "RiskLevel": "low"}])
    assert piece.results == (a_finding(label="b", risk_level="low"),)
    assert piece.extra == {"Labels": "ad", "Score": 1, "RiskTips": "t"}


def test_words_without_a_label_are_kept_as_sent() -> None:
    piece = sliced(RiskWords="A", Labels="")
    assert (piece.results, piece.risk_level, piece.extra) == ((), None, {"RiskWords": "A"})


@pytest.mark.parametrize("wrap", [lambda task: task, lambda task: {"code": 200, "data": [task]}, lambda task: [task]])
def test_a_task_object_of_version_1_becomes_slices(wrap: Any) -> None:
    result = parse(wrap(GREEN_1))
    assert (result.code, result.has_data, result.risk_level) == (200, True, "high")
    assert (result.task_id, result.data_id) == (GREEN_1["taskId"], "d")
    assert result.url == "https://aliyundoc.com/test.mp3"
    assert result.extra == {
        "results": [{"scene": "antispam", "label": "ad", "suggestion": "block", "rate": 99.91}],
    }
    assert [(piece.start_time, piece.end_time, piece.risk_level) for piece in result.slices] == [
        (0, 17, "high"),
        (17, 40, "none"),
        (40, 50, "high"),
    ]
    assert [piece.results for piece in result.slices] == [
        (a_finding(label="ad", confidence=99.91, risk_level="high", risk_words=("A",)),),
        (a_finding(label="normal", risk_level="none"),),
        (a_finding(label="abuse", confidence=12.0, risk_level="high"),),
    ]
    assert [piece.extra for piece in result.slices] == [UNSET, UNSET, {"new": True}]


def green(*details: Any, **scene: Any) -> Result:
    return parse({"code": 200, "results": [{"details": list(details), **scene}]})


@pytest.mark.parametrize(
    ("suggestion", "level"),
    [("block", "high"), ("Review", "medium"), ("pass", "none"), ("ban", "ban"), (7, "medium"), ("", "medium")],
)
def test_a_suggestion_is_a_level_and_an_unknown_one_never_clean(suggestion: Any, level: str) -> None:
    result = green({"startTime": 1, "label": "ad"}, {"startTime": 2}, label="ad", suggestion=suggestion)
    assert result.risk_level == level
    assert [piece.risk_level for piece in result.slices] == [level, level]


def test_a_scene_that_says_nothing_has_no_level() -> None:
    result = green({"startTime": 1}, label="normal")
    assert (result.risk_level, result.slices[0].risk_level) == (None, None)


@pytest.mark.parametrize("details", [[], None, "odd"])
def test_a_scene_without_details_is_a_slice_without_times_unless_it_is_clean(details: Any) -> None:
    scene = {"label": "ad", "suggestion": "block", "rate": 90, "details": details}
    (piece,) = parse({"code": 200, "results": [scene]}).slices
    assert piece == a_slice(risk_level="high", results=(a_finding(label="ad", confidence=90.0, risk_level="high"),))
    assert parse({"code": 200, "results": [{**scene, "suggestion": "pass"}]}).slices == ()
    assert parse({"code": 200, "results": [{"suggestion": "block", "rate": 90}]}).slices == (
        a_slice(risk_level="high"),
    )


def test_odd_scenes_and_details_are_kept_as_sent() -> None:
    result = parse({"code": 200, "results": [5, {"suggestion": "pass", "details": ["odd", {"endTime": 2}]}]})
    assert result.extra == {"results": [5, {"suggestion": "pass", "details": ["odd"]}]}
    assert [piece.end_time for piece in result.slices] == [2]
    assert green({"label": {}, "riskLevel": "low", "Score": 3}, suggestion="block").slices == (
        a_slice(risk_level="low", extra={"label": {}, "Score": 3}),
    )


# Codes, with a result and without.


@pytest.mark.parametrize("code", [280, 400, 401, 402, 403, 404, 405, 406, 407, 408, 480, 500])
@pytest.mark.parametrize("data", [{}, {"Data": None}, {"Data": {}}, {"Data": []}, {"data": {"foo": 1}}])
def test_a_code_of_the_vendors_speaks_for_itself(code: int, data: dict[str, Any]) -> None:
    for spelling in (code, str(code), float(code)):
        result = parse({"Code": spelling, "Message": "m", "TaskId": "t", **data})
        assert (result.code, result.has_data, result.task_id, result.risk_level) == (code, False, "t", None)
        assert result.slices == ()


def test_ids_alone_are_no_result() -> None:
    result = parse({"Code": 200, "Data": {"TaskId": "t", "DataId": "d"}})
    assert (result.code, result.task_id, result.has_data) == (200, "t", False)


@pytest.mark.parametrize("code", ["Throttling", True, [200], {}, 200.5, "2e2", 2**60])
def test_an_odd_code_is_unknown_and_kept(code: Any) -> None:
    result = parse({"Code": code, "Data": {"RiskLevel": "high"}})
    assert (result.code, result.risk_level, result.extra) == (None, "high", {"Code": code})


def test_a_code_that_is_not_in_the_vendors_table_does_not_hide_a_result() -> None:
    result = parse({"Code": 999, "Data": {"RiskLevel": "high"}})
    assert (result.code, result.has_data, result.risk_level) == (999, True, "high")


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        True,
        0,
        "{}",
        [[]],
        [{"Code": 200}],
        {"foo": "bar"},
        {"Code": None},
        {"Code": 200},
        {"Code": 200, "Data": None},
        {"Code": 200, "Data": {}},
        {"Code": 200, "Data": []},
        {"Code": 200, "Data": {"foo": "bar"}},
        {"Code": 200, "Data": {"RiskLevel": None, "SliceDetails": None}},
        {"Code": 200, "TaskId": "t"},
        {"TaskId": "t"},
        {"Code": 999},
        {"Code": "Throttling"},
        {"Code": "Throttling", "Data": {"TaskId": "t"}},
        {"Code": 404, "Data": "text"},
        {"Code": 404, "Data": 0},
        {"Code": 404, "Data": False},
        {"Code": 200, "Data": "{}"},
        {"Code": 200, "Data": [1]},
        {"Code": 200, "Data": [{"RiskLevel": "low"}, {"RiskLevel": "low"}]},
        [{"RiskLevel": "low"}, {"RiskLevel": "low"}],
    ],
)
def test_what_says_nothing_that_we_know_is_unreadable(document: Any) -> None:
    with pytest.raises(Unreadable):
        parse(document)


# One whole, strict JSON document.

GOOD = b'{"Code":200,"Data":{"RiskLevel":"none"}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD + b"x",
        GOOD + b"\0",
        GOOD + GOOD,
        GOOD + b",",
        GOOD[:-1],
        GOOD[:-2] + b",}}",
        GOOD.replace(b'"none"', b"'none'"),
        GOOD.replace(b'"none"', b"NaN"),
        GOOD.replace(b'"none"', b"Infinity"),
        GOOD.replace(b'"none"', b"-Infinity"),
        GOOD.replace(b'"none"', b"01"),
        GOOD.replace(b'"none"', b'"\xff"'),
        GOOD.replace(b'"none"', b'"\xc0\x80"'),
        GOOD.replace(b'"none"', b'"\xed\xa0\x80"'),
        GOOD.replace(b'"none"', b'"\x01"'),
        GOOD.replace(b'"RiskLevel"', b'"Risk\xffLevel"'),
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda content: repr(content[:60]),
)
@pytest.mark.parametrize("half", [b"", b'{"cut":"\\ud83d"'])
def test_anything_but_one_strict_json_document_is_unreadable(content: bytes, half: bytes) -> None:
    with pytest.raises(Unreadable):
        payloads.parse(content)
    # half a surrogate pair sends it to another decoder, which must be as strict
    if content.startswith(b'{"Code"') and half:
        with pytest.raises(Unreadable):
            payloads.parse(half + b"," + content[1:])


def test_white_space_around_the_document_is_json() -> None:
    assert payloads.parse(b" \r\n\t" + GOOD + b"\n").risk_level == "none"


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\uDE00 cut", "\ufffd cut"),
        (rb"\ud83d\ud83d\ude00", "\ufffd😀"),
        (rb"\ud83d\ude00", "😀"),
        (rb"\\ud83d", r"\ud83d"),
    ],
)
def test_a_transcript_cut_within_an_emoji_is_not_lost(escaped: bytes, text: str) -> None:
    content = b'{"Code":200,"Data":{"SliceDetails":[{"Text":"%s","x\\ud83d":"%s","RiskLevel":"high"}]}}'
    (piece,) = payloads.parse(content % (escaped, escaped)).slices
    assert (piece.text, piece.risk_level, piece.extra) == (text, "high", {"x\ufffd": text})


def test_nul_which_databases_refuse_is_replaced_in_what_we_know() -> None:
    result = parse(
        {
            "Code": 200,
            "Data": {
                "TaskId": "t\0",
                "RiskLevel": "hi\0gh",
                "SliceDetails": [
                    {"Text": "\0", "Result": [{"Label": "\0a", "RiskWords": "a\0,b"}, {"RiskWords": ["\0", 1]}]}
                ],
            },
        }
    )
    assert (result.task_id, result.risk_level) == ("t\ufffd", "hi\ufffdgh")
    (piece,) = result.slices
    assert (piece.text, piece.results[0].label) == ("\ufffd", "\ufffda")
    assert [finding.risk_words for finding in piece.results] == [("a\ufffd", "b"), ("\ufffd",)]
    assert b"\\u0000" not in msgspec.json.encode(result)


def test_nul_is_replaced_in_the_shape_that_the_vendor_prints_too() -> None:
    document = json.loads(VENDOR_EXAMPLE.replace("Suspected", "\\u0000").replace("WordA", "\\u0000"))
    assert b"\\u0000" not in msgspec.json.encode(parse(document))


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_an_unknown_field_that_nests_too_deep_to_be_written_again_is_kept_as_a_text() -> None:
    assert sliced(foo=nested(31)).extra == {"foo": nested(31)}
    assert sliced(foo=nested(32)).extra == {"foo": json.dumps(nested(32), separators=(",", ":"))}
    assert sliced(StartTime=nested(300)).extra == {"StartTime": json.dumps(nested(300), separators=(",", ":"))}

    def deeper(frames: int, piece: Slice) -> bytes:
        return deeper(frames - 1, piece) if frames else msgspec.json.encode(piece)

    assert deeper(sys.getrecursionlimit() // 2, sliced(foo=nested(31)))


@pytest.mark.parametrize("number", ["1e999", "-1e400", "9" * 4301])
def test_a_number_that_is_too_great_is_kept_as_a_text_and_costs_no_result(number: str) -> None:
    result = payloads.parse(b'{"Data":{"RiskLevel":"high","Odd":%s}}' % number.encode())
    assert (result.risk_level, result.extra) == ("high", {"Odd": number})


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "01", "+1", ".5"])
def test_what_is_no_number_in_json_is_unreadable(constant: str) -> None:
    with pytest.raises(Unreadable):
        payloads.parse(b'{"Data":{"RiskLevel":"high","Odd":%s,"Great":1e999}}' % constant.encode())


def test_an_id_that_was_sent_as_a_number_is_that_id() -> None:
    result = payloads.parse(b'{"Data":{"RiskLevel":"none","TaskId":17,"DataId":-4}}')
    assert (result.task_id, result.data_id) == ("17", "-4")


# Values of the wrong type.

ODD = [True, False, [], {}, [1], {"a": 1}]
ODD_TIMES = [
    *ODD,
    0.5,
    -1.5,
    2**53 + 1,
    -(2**53) - 1,
    2**70,
    1e300,
    "",
    "1.5",
    "1e3",
    " 1",
    "1 ",
    "+1",
    "\u0661",
    "0x1",
]


@pytest.mark.parametrize(
    ("sent", "time"),
    [
        (0, 0),
        (-1, -1),
        (2**53, 2**53),
        (-(2**53), -(2**53)),
        (17.0, 17),
        (-0.0, 0),
        (1.678854649720e12, 1678854649720),
        ("17", 17),
        ("-3", -3),
        ("007", 7),
        (None, None),
    ],
)
def test_a_time_is_an_integer_however_it_was_written(sent: Any, time: int | None) -> None:
    piece = sliced(StartTime=sent, EndTime=sent, StartTimestamp=sent, EndTimestamp=sent)
    assert piece == a_slice(start_time=time, end_time=time, start_timestamp=time, end_timestamp=time)
    assert all(type(value) is type(time) for value in (piece.start_time, piece.end_timestamp))
    assert found(RiskPositions=[{"StartPos": sent, "EndPos": sent}]).risk_positions == (
        RiskPosition(risk_word=None, start=time, end=time),
    )


@pytest.mark.parametrize("sent", ODD_TIMES, ids=repr)
def test_an_odd_time_is_none_and_kept_under_its_key_as_sent(sent: Any) -> None:
    for key, field in (
        ("StartTime", "start_time"),
        ("endTime", "end_time"),
        ("STARTTIMESTAMP", "start_timestamp"),
        ("endtimestamp", "end_timestamp"),
    ):
        piece = sliced(**{key: sent})
        assert getattr(piece, field) is None
        assert piece.extra == {key: sent}


@pytest.mark.parametrize(
    ("sent", "confidence"),
    [(0, 0.0), (100, 100.0), (81.22, 81.22), ("81.22", 81.22), ("100", 100.0), ("0", 0.0), (None, None)],
)
def test_confidence_is_a_number_from_0_to_100_and_an_absent_one_is_not_0(sent: Any, confidence: float | None) -> None:
    assert found(Confidence=sent) == a_finding(confidence=confidence)
    assert type(found(Confidence=sent).confidence) is type(confidence)


@pytest.mark.parametrize("sent", [*ODD, -0.01, 100.01, 101, 10**400, "", "nan", "inf", "1e1", "1_0", " 5", "-1", "101"])
def test_an_odd_confidence_is_none_and_kept(sent: Any) -> None:
    assert found(Confidence=sent) == a_finding(extra={"Confidence": sent})


@pytest.mark.parametrize("sent", [*ODD, 1.5])
def test_an_odd_string_is_none_and_kept(sent: Any) -> None:
    assert found(Label=sent, Description=sent) == a_finding(extra={"Label": sent, "Description": sent})
    assert sliced(Text=sent, url=sent) == a_slice(extra={"Text": sent, "url": sent})
    ids = dict.fromkeys(("TaskId", "LiveId", "dataId", "Url"), sent)
    assert parse({"Data": {"RiskLevel": "none", **ids}}) == Result(
        code=None,
        task_id=None,
        live_id=None,
        data_id=None,
        url=None,
        risk_level="none",
        slices=(),
        has_data=True,
        extra=ids,
    )


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ("A,B", ("A", "B")),
        (" A , ,B,", ("A", "B")),
        ("A\uff0cB", ("A", "B")),
        ("", ()),
        (",", ()),
        (None, ()),
        ([], ()),
        (["A", " B ", ""], ("A", "B")),
        (["A,B"], ("A,B",)),
    ],
)
def test_words_are_always_a_list(sent: Any, words: tuple[str, ...]) -> None:
    finding = found(RiskWords=sent, CustomizedHit=[{"LibName": "l", "Keywords": sent}])
    assert finding == a_finding(risk_words=words, custom_hits=(CustomHit(library="l", keywords=words),))


@pytest.mark.parametrize("sent", [True, 0, {}, {"A": 1}, 1.5])
def test_odd_words_are_an_empty_list_and_kept(sent: Any) -> None:
    assert found(RiskWords=sent) == a_finding(extra={"RiskWords": sent})


def test_odd_entries_among_words_are_kept_beside_the_good_ones() -> None:
    assert found(Riskwords=["A", 1, None]) == a_finding(risk_words=("A",), extra={"Riskwords": [1, None]})
    assert sliced(Labels=["ad", 5]).results == (a_finding(label="ad"),)
    assert sliced(Labels=["ad", 5]).extra == {"Labels": [5]}


@pytest.mark.parametrize("sent", [True, 0, "text", {}, {"Label": "a"}, 1.5])
def test_an_odd_list_is_empty_and_kept(sent: Any) -> None:
    finding = found(CustomizedHit=sent, RiskPositions=sent)
    assert finding == a_finding(extra={"CustomizedHit": sent, "RiskPositions": sent})
    assert sliced(Result=sent) == a_slice(extra={"Result": sent})
    result = parse({"Data": {"SliceDetails": sent}})
    assert (result.slices, result.has_data, result.extra) == ((), True, {"SliceDetails": sent})


def test_odd_entries_of_a_list_are_kept_by_its_owner() -> None:
    odd: list[Any] = [None, 1, "text", []]
    result = parse({"Data": {"SliceDetails": [{"StartTime": 1}, *odd]}})
    assert (len(result.slices), result.extra) == (1, {"SliceDetails": odd})
    piece = sliced(Result=[*odd, {"Label": "nonLabel"}])
    assert piece == a_slice(results=(a_finding(label="nonLabel"),), extra={"Result": odd})


def test_a_hit_or_position_that_is_not_wholly_understood_is_also_kept_as_sent() -> None:
    hits = [{"LibName": "a", "Keywords": "b"}, {"LibName": 5, "Keywords": "c"}, {"LibName": "d", "LibId": 1}, 7]
    finding = found(CustomizedHit=hits)
    assert finding.custom_hits == (
        CustomHit(library="a", keywords=("b",)),
        CustomHit(library=None, keywords=("c",)),
        CustomHit(library="d", keywords=()),
    )
    assert finding.extra == {"CustomizedHit": hits[1:]}
    places = [{"RiskWord": "a", "StartPos": 1, "EndPos": 2}, {"RiskWord": "b", "StartPos": "x"}]
    finding = found(riskPositions=places)
    assert finding.risk_positions == (
        RiskPosition(risk_word="a", start=1, end=2),
        RiskPosition(risk_word="b", start=None, end=None),
    )
    assert finding.extra == {"riskPositions": places[1:]}


def test_unknown_fields_and_labels_are_kept_at_every_level() -> None:
    unknown = {"New": {"a": [1, None, "x"]}, "nullish": None, "": 0}
    assert found(Label="brand_new", **unknown) == a_finding(label="brand_new", extra=unknown)
    assert sliced(**unknown) == a_slice(extra=unknown)
    assert parse({"Data": {"RiskLevel": "none", **unknown}}).extra == unknown
    assert parse({"Data": {"RiskLevel": "none"}, **unknown}).extra == unknown


def test_of_a_name_too_long_to_be_looked_for_the_beginning_counts_and_the_whole_is_kept() -> None:
    long, head = "é" * 257, "é" * 256
    assert found(Label=head) == a_finding(label=head)
    assert found(label=long) == a_finding(label=head, extra={"label": long})
    assert sliced(Result=[{"Label": long}]).risk_level == "medium"
    flat = sliced(Labels=f"ad,{long}")
    assert [finding.label for finding in flat.results] == ["ad", head]
    assert flat.extra == {"Labels": ["ad", long]}
    result = parse({"Code": 200, "Data": {"TaskId": long, "LiveId": long, "DataId": long, "SliceDetails": []}})
    assert (result.task_id, result.live_id, result.data_id) == (long, head, head)
    assert result.extra == {"LiveId": long, "DataId": long}


def test_nothing_extra_is_written_where_there_is_nothing_extra() -> None:
    assert "extra" not in msgspec.json.encode(sliced(foo=None, Result=[{}])).decode().replace('"extra":{"foo"', "")
    assert encoded(sliced(foo=None))["extra"] == {"foo": None}
    assert "extra" not in encoded(sliced(StartTime=1))


# Risk.


@pytest.mark.parametrize(
    ("sent", "level"), [("high", "high"), (" High\n", "high"), ("NONE", "none"), ("Severe", "severe"), ("", None)]
)
def test_a_level_is_a_word_in_lower_case(sent: str, level: str | None) -> None:
    assert found(RiskLevel=sent).risk_level == level
    assert sliced(RiskLevel=sent).risk_level == level
    assert parse({"Data": {"RiskLevel": sent, "SliceDetails": []}}).risk_level == level


@pytest.mark.parametrize("sent", [*ODD, 0, 3, "x" * 257])
def test_a_level_that_cannot_be_read_is_never_clean(sent: Any) -> None:
    assert found(RiskLevel=sent) == a_finding(extra={"RiskLevel": sent})
    assert sliced(RiskLevel=sent) == a_slice(risk_level="medium", extra={"RiskLevel": sent})
    clean = {"Label": "nonLabel", "RiskLevel": "none"}
    assert sliced(riskLevel=sent, Result=[clean]).risk_level == "medium"
    assert sliced(Result=[clean, {"Label": "nonLabel", "RiskLevel": sent}]).risk_level == "medium"
    result = parse({"Data": {"RiskLevel": sent, "SliceDetails": [{"RiskLevel": "none"}]}})
    assert (result.risk_level, result.extra) == ("medium", {"RiskLevel": sent})


@pytest.mark.parametrize(
    ("findings", "level"),
    [
        ([], None),
        ([{}], None),
        ([{"Label": ""}], None),
        ([{"Label": "nonLabel"}], None),
        ([{"Label": "normal"}, {"Label": "NonLabel"}], None),
        ([{"Label": "ad"}], "medium"),
        ([{"Label": "ad", "RiskLevel": "none"}], "none"),
        ([{"Label": "ad", "RiskLevel": "low"}, {"Label": "b", "RiskLevel": "high"}], "high"),
        ([{"Label": "ad", "RiskLevel": "low"}, {"Label": "b"}], "medium"),
        ([{"Label": "ad", "RiskLevel": "low"}, {"Label": "nonLabel"}], "low"),
        ([{"Label": "ad", "RiskLevel": "severe"}, {"Label": "b", "RiskLevel": "low"}], "severe"),
    ],
)
def test_a_slice_without_a_level_has_the_highest_that_its_findings_suggest(
    findings: list[Any], level: str | None
) -> None:
    assert sliced(Result=findings).risk_level == level
    assert sliced(Result=findings, RiskLevel="").risk_level == level
    assert sliced(Result=findings, New=1).risk_level == level
    assert sliced(Result=findings, RiskLevel="low").risk_level == "low"


@pytest.mark.parametrize(
    ("labels", "level"), [("nonLabel", None), ("normal", None), ("", None), ("ad", "medium"), ("normal,ad", "medium")]
)
def test_a_flat_slice_with_a_label_that_names_a_risk_is_for_a_person_to_look_at(labels: str, level: str | None) -> None:
    assert sliced(Labels=labels).risk_level == level


def test_a_task_without_a_level_has_none_whatever_its_slices() -> None:
    assert parse({"Data": {"SliceDetails": [{"RiskLevel": "high"}]}}).risk_level is None


def test_an_unknown_level_ranks_with_medium() -> None:
    ranks = [risk_rank(level) for level in (None, "none", "low", "medium", "high")]
    assert ranks == sorted(set(ranks))
    assert risk_rank("severe") == risk_rank("") == risk_rank("medium")


levels = st.none() | st.sampled_from(["none", "low", "medium", "high", "severe", "odd", ""])


@given(st.lists(levels), st.randoms())
def test_the_highest_is_the_same_in_whatever_order(some: list[str | None], dice: random.Random) -> None:
    one = highest(some)
    assert risk_rank(one) == max(map(risk_rank, some), default=-1)
    shuffled = list(some)
    dice.shuffle(shuffled)
    assert highest(iter(shuffled)) == one
    cut = dice.randint(0, len(shuffled))
    assert highest([highest(shuffled[:cut]), highest(shuffled[cut:])]) == one


# What a slice is known by, and which version of it stays.

times = st.none() | st.integers(-(2**53), 2**53) | st.integers(-2, 2)
timed_slices = st.builds(a_slice, start_time=times, end_time=times, start_timestamp=times, end_timestamp=times)


def in_order(piece: Slice) -> tuple[tuple[bool, int], ...]:
    fields = (piece.start_timestamp, piece.start_time, piece.end_timestamp, piece.end_time)
    return tuple((time is not None, time or 0) for time in fields)


@given(timed_slices, timed_slices)
def test_keys_sort_as_times_do_nulls_first_and_differ_where_times_do(a: Slice, b: Slice) -> None:
    assert (slice_key(a) < slice_key(b)) is (in_order(a) < in_order(b))
    assert (slice_key(a) == slice_key(b)) is (in_order(a) == in_order(b))
    assert slice_key(a) == slice_key(msgspec.structs.replace(a, extra={"foo": 1}, text="other", risk_level="high"))


def test_keys_are_small() -> None:
    assert len(slice_key(a_slice())) == 4
    assert len(slice_key(a_slice(start_time=0, end_time=4065))) == 20


def test_slices_with_odd_times_do_not_collapse() -> None:
    fields = ("StartTime", "EndTime", "StartTimestamp", "EndTimestamp")
    keys = {slice_key(sliced(**{field: sent})) for field in fields for sent in (None, 0, 1, *ODD_TIMES)}
    # no time at all is the same in whatever field
    assert len(keys) == len(fields) * len((0, 1, *ODD_TIMES)) + 1


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=4), st.randoms())
def test_the_key_of_an_odd_time_follows_its_value_and_neither_its_spelling_nor_its_order(
    value: dict[str, int], dice: random.Random
) -> None:
    items = list(value.items())
    dice.shuffle(items)
    assert slice_key(sliced(startTime=dict(items), foo=1)) == slice_key(sliced(StartTime=value))


def test_a_key_outlives_the_store() -> None:
    for sent in (0, *ODD_TIMES):
        piece = sliced(StartTime=sent, EndTime=5)
        assert slice_key(msgspec.json.decode(msgspec.json.encode(piece), type=Slice)) == slice_key(piece)


def test_no_key_is_the_beginning_of_another() -> None:
    some = [None, 0, -1, 2**53, "odd", "ode"]
    keys = [
        slice_key(sliced(StartTime=a, EndTime=b, StartTimestamp=c)) for a, b, c in itertools.product(some, repeat=3)
    ]
    assert len(set(keys)) == len(some) ** 3
    assert not any(b.startswith(a) for a, b in itertools.permutations(keys, 2))


findings = st.builds(
    a_finding, label=st.sampled_from(["a", "b"]), confidence=st.none() | st.sampled_from([0.0, -0.0, 1.0])
)
versions = st.builds(
    a_slice,
    risk_level=levels,
    text=st.none() | st.sampled_from(["a", "b", "é", "\U0001f600", "\uffff"]),
    results=st.lists(findings, max_size=2).map(tuple),
    extra=st.just(UNSET) | st.dictionaries(st.sampled_from("ab"), st.sampled_from([1, 1.0, True, "1"]), min_size=1),
)


def same(a: Slice, b: Slice) -> bool:
    return msgspec.json.encode(a) == msgspec.json.encode(b)


@settings(max_examples=200, deadline=None)
@given(versions, versions, versions)
def test_the_better_version_is_the_same_in_whatever_order_and_however_often(a: Slice, b: Slice, c: Slice) -> None:
    assert same(better(a, b), better(b, a))
    assert same(better(better(a, b), c), better(a, better(b, c)))
    assert same(better(a, a), a)
    assert same(better(better(a, b), b), better(a, b))
    stays = better(a, b)
    assert stays is a or stays is b
    assert risk_rank(stays.risk_level) == max(risk_rank(a.risk_level), risk_rank(b.risk_level))


def test_the_higher_risk_wins_then_more_findings_then_the_greater_bytes() -> None:
    finding = a_finding(label="a")
    high, low = a_slice(risk_level="high"), a_slice(risk_level="low", results=(finding, finding), text="z")
    assert better(high, low) is better(low, high) is high
    few, many = a_slice(risk_level="low", text="z"), a_slice(risk_level="low", results=(finding,), text="a")
    assert better(few, many) is better(many, few) is many
    small, great = a_slice(text="a"), a_slice(text="b")
    assert better(small, great) is better(great, small) is great


def test_the_better_version_is_the_same_before_and_after_the_store() -> None:
    a, b = sliced(RiskLevel="low", Text="a", foo={"b": 1, "a": 1.5}), sliced(RiskLevel="low", Text="a", foo={"a": 2})
    stored = msgspec.json.decode(msgspec.json.encode(a), type=Slice)
    assert same(better(stored, b), better(a, b))


# Hostile input.

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts | levels
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


def cased(*names: str) -> st.SearchStrategy[str]:
    return st.sampled_from(
        [spelling for name in names for spelling in (name, name.lower(), name[0].lower() + name[1:])]
    )


def objects(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these fields, some missing, some spelled otherwise, some of the wrong type, some unknown."""
    pairs = st.one_of(*(st.tuples(cased(name), value | anything) for name, value in values.items()))
    return st.lists(pairs | st.tuples(texts, anything), max_size=12).map(dict)


def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, max_size=3)


numbers = st.integers(-(2**53), 2**53) | st.integers(0, 20)
labels = st.sampled_from(["nonLabel", "normal", "ad", "political_entity"]) | texts
hits = objects({"LibName": texts, "Keywords": texts})
positions = objects({"RiskWord": texts, "StartPos": numbers, "EndPos": numbers})
odd_findings = objects(
    {
        "Label": labels,
        "Description": texts,
        "Confidence": st.floats(0, 100),
        "RiskLevel": levels,
        "RiskWords": texts,
        "CustomizedHit": lists(hits),
        "RiskPositions": lists(positions),
    }
)
odd_slices = objects(
    {
        "StartTime": numbers,
        "EndTime": numbers,
        "StartTimestamp": numbers,
        "EndTimestamp": numbers,
        "RiskLevel": levels,
        "Text": texts,
        "Url": texts,
        "Result": lists(odd_findings),
        "Labels": labels,
        "Score": st.floats(0, 100),
        "RiskWords": texts,
        "RiskTips": texts,
    }
)
scenes = objects(
    {
        "Label": labels,
        "Suggestion": st.sampled_from(["block", "review", "pass", "ban"]),
        "Rate": st.floats(0, 100),
        "Details": lists(odd_slices),
    }
)
data = objects(
    {
        "TaskId": texts,
        "LiveId": texts,
        "DataId": texts,
        "Url": texts,
        "RiskLevel": levels,
        "SliceDetails": lists(odd_slices),
        "Results": lists(scenes),
        "Code": st.sampled_from([200, 280, 404]),
    }
)
envelopes = objects({"Code": st.sampled_from([200, 280, 404, "200"]), "Data": data | lists(data), "Message": texts})


def check(result: Result) -> None:
    """What holds for every result: it can be written, read back and stored, and no risk in it reads as clean."""
    assert type(result.code) in (int, type(None))
    wire = msgspec.json.encode(result)
    assert msgspec.json.encode(msgspec.json.decode(wire, type=Result)) == wire
    for piece in result.slices:
        slice_key(piece)
        assert better(piece, piece) is piece
        for text in (piece.risk_level, piece.text, piece.url, *(finding.label for finding in piece.results)):
            assert text is None or "\0" not in text
        for finding in piece.results:
            assert finding.confidence is None or 0 <= finding.confidence <= 100


@settings(max_examples=150, deadline=None)
@given(envelopes | data | lists(envelopes) | anything)
def test_whatever_json_is_sent_is_understood_or_unreadable(document: Any) -> None:
    try:
        result = parse(document)
    except Unreadable:
        return
    check(result)


@settings(max_examples=300, deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_bytes_are_sent_are_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable):
        payloads.parse(content)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_becomes_of_a_good_content_on_the_way_is_understood_or_unreadable(draw: st.DataObject) -> None:
    content = bytearray(VENDOR_EXAMPLE.encode())
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(content) - 1))
        content[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    with suppress(Unreadable):
        check(payloads.parse(bytes(content)))


def printed(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: value | st.none() for name, value in values.items()})


printed_findings = printed(
    {
        "Label": labels,
        "Description": texts,
        "Confidence": st.floats(0, 100) | st.integers(0, 100),
        "RiskLevel": levels | texts,
        "RiskWords": texts,
        "CustomizedHit": lists(printed({"LibName": texts, "Keywords": texts})),
        "RiskPositions": lists(printed({"RiskWord": texts, "StartPos": numbers, "EndPos": numbers})),
    }
)
printed_slices = printed(
    {
        "StartTime": numbers,
        "EndTime": numbers,
        "StartTimestamp": numbers,
        "EndTimestamp": numbers,
        "RiskLevel": levels | texts,
        "Text": texts,
        "Url": texts,
        "Result": lists(printed_findings),
    }
)
printed_ids = printed({"TaskId": texts, "LiveId": texts, "DataId": texts, "Url": texts, "RiskLevel": levels | texts})


@settings(max_examples=300, deadline=None)
@given(st.integers(-(2**53), 2**53), printed_ids, lists(printed_slices))
def test_the_fast_way_and_the_tolerant_way_give_the_same(code: int, ids: dict[str, Any], slices: list[Any]) -> None:
    content = json.dumps({"Code": code, "Data": {**ids, "SliceDetails": slices}, "Message": "m"}).encode()
    assume(b"\\u0000" not in content)
    envelope = as_printed(content)
    assert envelope is not None, "the vendor's own shape does not take the fast way"
    fast, tolerant = from_printed(envelope), from_document(payloads._decode(content))
    assert fast == tolerant == payloads.parse(content)
    assert msgspec.json.encode(fast) == msgspec.json.encode(tolerant)
    check(fast)


def test_a_callback_of_ten_hours_is_parsed_in_one_go() -> None:
    details = [
        {"StartTime": at, "EndTime": at + 4, "RiskLevel": "none", "Text": "…", "Result": [{"Label": "nonLabel"}]}
        for at in range(0, 40_000, 4)
    ]
    result = parse({"Code": 200, "Data": {"RiskLevel": "none", "SliceDetails": details}})
    keys = [slice_key(piece) for piece in result.slices]
    assert len(set(keys)) == 10_000
    assert keys == sorted(keys)
    assert keys[0] == b"\0" + b"\2" + struct.pack(">Q", 2**63) + b"\0" + b"\2" + struct.pack(">Q", 2**63 + 4)
