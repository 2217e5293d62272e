"""What a source's name asks for."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.sandbox.magic import (
    LABELS,
    MAGIC,
    OPTIONS,
    WORDS,
    extension,
    mark,
    marked_source,
    read,
)
from webhook.sandbox.outcomes import Fault, Gap, Outcome, Way
from webhook.sandbox.values import MagicError


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("http://x.test/talk.mp3", Outcome()),
        ("http://x.test/", Outcome()),
        ("http://x.test/talk.mp3?Expires=1&Signature=a%2Bb", Outcome()),
        ("http://x.test/high.mp3", Outcome(risk="high")),
        ("http://x.test/high-2.mp3?slices=1", Outcome(risk="high", slices=1)),
        ("http://x.test/high.mp3?risk=low", Outcome(risk="low")),
        ("http://x.test/a.mp3?risk=low#risk=high", Outcome(risk="low")),
        ("http://x.test/political_entity.mp3", Outcome(labels=("political_entity",))),
        ("http://x.test/404.mp3", Outcome(code=Fault(kind="code", value=404))),
        ("http://x.test/silence.mp3", Outcome(silence=1)),
        ("rtmp://x.test/live/endless,interval=0.5", Outcome(end="never", interval_seconds=0.5)),
        (
            "a/b/high,slices=10,label=sexual_terms+my_own.m4a",
            Outcome(risk="high", slices=10, labels=("sexual_terms", "my_own")),
        ),
        ("http://x.test/a?label=a,b&flagged=0", Outcome(labels=("a", "b"), flagged=0)),
        ("http://x.test/a?callback=late:1.5", Outcome(callback=Way(late_seconds=1.5))),
        ("http://x.test/a?http=503x2", Outcome(http=Fault(kind="status", value=503, times=2))),
        ("http://x.test/a?http=throttle", Outcome(http=Fault(kind="throttle", value=1000))),
        ("http://x.test/a?http=drop", Outcome(http=Fault(kind="drop", value=0))),
        ("http://x.test/a?submit_code=480x3", Outcome(submit_code=Fault(kind="code", value=480, times=3))),
        ("http://x.test/408.mp3", Outcome(code=Fault(kind="code", value=408))),
        ("http://x.test/a?code=405x2", Outcome(code=Fault(kind="code", value=405, times=2))),
        ("http://x.test/a?cancel_code=500x1", Outcome(cancel_code=Fault(kind="code", value=500, times=1))),
        ("http://x.test/a?query_http=html", Outcome(query_http=Fault(kind="html"))),
        ("http://x.test/a?callback=lostx3", Outcome(callback=Way(lost_tries=3))),
        ("http://x.test/reordered.mp3", Outcome(callback=Way(kind="reordered"))),
        ("http://x.test/a?gap=2:1.5&silent_from=3", Outcome(gap=Gap(after=2, seconds=1.5), silent_from=3)),
        ("http://x.test/a?end=break:405", Outcome(end="break", end_code=405)),
        ("http://x.test/a?segment=404x1", Outcome(segment=Fault(kind="status", value=404, times=1))),
        ("http://x.test/a?segment=slow", Outcome(segment=Fault(kind="slow", value=60))),
        ("http://x.test/a?segment=huge:2", Outcome(segment=Fault(kind="huge", value=2))),
        ("http://x.test/a?faults=0.25", Outcome(faults=0.25)),
        ("http://x.test/a?silence=4&batch=2&checksum=wrong", Outcome(silence=4, batch=2, forged=True)),
    ],
)
def test_names_choose_outcomes(source: str, outcome: Outcome) -> None:
    assert read(source) == outcome


@pytest.mark.parametrize(
    "query",
    [
        *("risk=extreme", "label=", "label=a;b", "slices=-1", "slices=100001", "slices=²", "flagged=x", "silence=0"),
        *("delay=inf", "delay=1e3", "delay=99999", "code=1000", "submit_code=4", "query_code=403x0", "callback=late"),
        *("callback=late:", "checksum=right", "shape=round", "encoding=xml", "http=200", "http=600", "http=dropx"),
        *("interval=-1", "batch=0", "end=bad", "end=never:404", "end=break:4", "gap=3", "gap=x:1", "silent_from=0"),
        *(
            "callback=lostx0",
            "callback=lostx",
            "faults=2",
            "faults=-0.1",
            "segment=200",
            "segment=slow:",
            "cancel_code=x",
        ),
    ],
)
def test_a_wrong_value_says_what_would_be_right(query: str) -> None:
    with pytest.raises(MagicError, match=query.partition("=")[0]):
        read(f"http://x.test/a.mp3?{query}")


@given(st.text())
def test_any_name_is_read_or_refused(name: str) -> None:
    for source in (name, f"http://x.test/{name}", f"http://x.test/a?{name}", f"http://x.test/a?slices={name}"):
        with suppress(MagicError):
            assert isinstance(read(source), Outcome)
        assert extension(source) == extension(source).lower()


def test_every_word_and_every_option_means_something() -> None:
    for word, pairs in WORDS.items():
        assert read(f"http://x.test/{word}.mp3") != Outcome(), word
        assert pairs
    for option in OPTIONS:
        assert f"{option.name}=" in MAGIC
    assert all(label in WORDS for label in LABELS)


def test_a_label_makes_a_slice_high_and_a_level_flags_one_slice() -> None:
    assert read("political_n.mp3").risk_level == "high"
    assert read("low.mp3").flagged_slices == 1
    assert read("none.mp3").flagged_slices == 0
    assert read("a.mp3").flagged_slices == 0


def test_marks_survive_in_the_midst_of_bytes() -> None:
    assert marked_source(b"RIFF\0" + mark("high one.mp3?slices=2") + b"\0data") == "high+one.mp3?slices=2"
    assert marked_source(b"ID3 nothing here") is None
    assert marked_source(mark("ü.mp3") + b"\0") == "?.mp3"
