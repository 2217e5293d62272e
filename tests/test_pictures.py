"""How results look: timelines, tables, and what others' texts may not do to a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from webhook import pictures

if TYPE_CHECKING:
    from collections.abc import Sequence


def made_slice(index: int, risk_level: str | None, *, action: str = "pass", **more: Any) -> dict[str, Any]:
    return {
        "start_time": index * 10,
        "end_time": index * 10 + 10,
        "start_timestamp": None,
        "end_timestamp": None,
        "risk_level": risk_level,
        "action": action,
        "text": "hello",
        "results": [],
        **more,
    }


LEVELS = st.lists(st.sampled_from(["none", "low", "medium", "high", "purple", None]), min_size=1, max_size=120)


@given(levels=LEVELS, width=st.integers(20, 200))
def test_a_timeline_has_one_block_a_slice_and_fits_the_width(levels: Sequence[str | None], width: int) -> None:
    slices = [made_slice(index, level) for index, level in enumerate(levels)]
    lines = pictures.timeline(slices, width=width).plain.splitlines()
    assert max(map(len, lines)) <= width
    blocks = " ".join(lines[::2]).split()
    looks = [pictures.LOOKS.get(level or "", pictures.UNKNOWN_LOOK) for level in levels]
    assert [set(block) for block in blocks] == [{look.block} for look in looks]
    assert " ".join(lines[1::2]).split() == [f"{index * 10}" for index in range(len(levels))]


def test_a_streams_timeline_begins_at_nought() -> None:
    slices = [
        made_slice(index, "none", start_timestamp=1_700_000_000_000 + 400 * index, end_timestamp=0)
        for index in range(3)
    ]
    assert pictures.timeline(slices, width=80).plain.splitlines()[1].split() == ["0", "0.4", "0.8"]


def test_without_unicode_the_blocks_are_letters() -> None:
    slices = [made_slice(0, "high"), made_slice(1, "none")]
    assert pictures.timeline(slices, width=20, ascii_only=True).plain.isascii()
    assert pictures.legend(ascii_only=True).plain.isascii()


def test_only_what_asks_for_something_is_listed_with_its_text() -> None:
    found = {"label": "customized", "confidence": None, "risk_words": ["bad"]}
    sure = {"label": "political_a", "confidence": 99.6, "risk_words": []}
    slices = [
        made_slice(0, "none", text="clean"),
        made_slice(1, "high", action="block", text="a bad word", results=[found, sure]),
        made_slice(2, "medium", action="review", text=None),
    ]
    table = shown(pictures.flagged_slices(slices))
    assert "clean" not in table
    assert re.search(r"10-20 s +high +customized, political_a 100 %\n +a bad word", table)
    assert re.search(r"20-30 s +medium", table)


def test_a_verdict_is_called_by_its_live_id_or_its_files_name_or_what_else_there_is() -> None:
    nameless = {"live_id": None, "url": None, "data_id": None, "task_id": "task_1"}
    assert pictures.name_of(nameless | {"live_id": "room-7", "url": "rtmp://x/y"}) == "room-7"
    assert pictures.name_of(nameless | {"url": "http://x/a/talk.mp3?b=/c", "data_id": "upload-17"}) == "talk.mp3"
    assert pictures.name_of(nameless | {"data_id": "upload-17"}) == "upload-17"
    assert pictures.name_of(nameless | {"url": "http://example.com/"}) == "task_1"
    assert pictures.name_of(nameless | {"url": "http://[:::]/"}) == "task_1"
    assert pictures.name_of(nameless, {"file": {"name": "talk.mp3", "size": 1}}) == "talk.mp3"
    assert pictures.name_of(nameless, {"oss": {"bucket": "b", "object": "a/talk.mp3", "region": "r"}}) == "talk.mp3"


def test_a_verdict_without_a_result_is_not_called_none() -> None:
    assert pictures.judgement({"risk_level": None, "action": None}).plain == "no result yet"
    assert pictures.judgement({"risk_level": "none", "action": "pass"}).plain == "none → pass"


def test_slices_without_times_are_shown_all_the_same() -> None:
    slices = [
        made_slice(0, "high", start_time=None, end_time=None, action="block"),
        made_slice(1, "none", start_timestamp=1_700_000_000_000, end_timestamp=None),
    ]
    assert pictures.timeline(slices, width=80).plain.splitlines()[1].split() == ["0", "0"]
    assert "0-0 s" in shown(pictures.flagged_slices(slices))


def test_hours_are_told_as_a_clock_does() -> None:
    slices = [made_slice(index, "none") for index in (359, 360, 3599)]
    assert pictures.timeline(slices, width=80).plain.splitlines()[1].split() == ["3590", "1:00:00", "9:59:50"]


@given(levels=LEVELS, at_most=st.integers(1, 50))
def test_a_condensed_timeline_hides_no_risk(levels: Sequence[str | None], at_most: int) -> None:
    slices = [made_slice(index, level) for index, level in enumerate(levels)]
    fewer = pictures.condensed(slices, at_most=at_most)
    assert len(fewer) <= at_most
    assert (fewer[0]["start_time"], fewer[-1]["end_time"]) == (0, len(levels) * 10)
    assert [one["end_time"] for one in fewer[:-1]] == [one["start_time"] for one in fewer[1:]]
    for one in fewer:
        hidden = levels[one["start_time"] // 10 : one["end_time"] // 10]
        worst = next(level for level in ("high", "medium", "purple", None, "low", "none") if level in hidden)
        assert (one["risk_level"] in pictures.LOOKS) == (worst in pictures.LOOKS)
        assert one["risk_level"] == worst or worst in {"purple", None}


@given(text=st.text())
def test_no_text_of_others_steers_the_terminal_or_leaves_its_line(text: str) -> None:
    shown_as = pictures.plain(text)
    assert not [one for one in shown_as if not one.isprintable() and one not in "\u200c\u200d"]
    assert pictures.plain("\x1b[2Jred\n\x9b31m  alert\x07\u202eevil") == "[2Jred 31m alert evil"


def test_markup_in_a_name_is_no_markup() -> None:
    verdict = {
        "task_id": "task_1",
        "kind": "live",
        "state": "processing",
        "live_id": "[red]room[/]",
        "url": None,
        "risk_level": "purple",
        "action": "review",
        "labels": [{"label": "[bold]", "risk_level": None, "confidence": None, "slices": 1}],
        "slice_count": 1,
        "flagged_slice_count": 1,
    }
    for table in (pictures.verdict_table([verdict]), pictures.verdict_list([verdict])):
        assert "[red]room[/]" in shown(table)
        assert "[bold]" in shown(table)
        assert "purple" in shown(table)


def shown(what: Any) -> str:
    recorder = Console(record=True, width=80)
    recorder.print(what)
    return recorder.export_text()
