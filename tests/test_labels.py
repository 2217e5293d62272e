"""The label catalogue, against the vendor's table, and its patterns, against regular expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook import labels

# text-moderation-plus.txt, "Label definitions", column "Label value".
VENDOR_TABLE = """\
pornographic_adult sexual_terms sexual_suggestive sexual_prompts political_figure political_entity political_n
political_p political_prompts political_a violent_extremists violent_incidents violent_weapons violent_prompts
contraband_drug contraband_gambling contraband_act contraband_entity inappropriate_discrimination
inappropriate_ethics inappropriate_profanity inappropriate_oral inappropriate_superstition
inappropriate_nonsense privacy_p privacy_b religion_b religion_t religion_c religion_i religion_h pt_to_sites
pt_by_recruitment pt_to_contact customized
""".split()  # noqa: SIM905 - as the table lists them
# voice-moderation.txt, table 5, "Audio-specific labels"; text-moderation-plus.txt, examples.
OTHERS = ["specified_nontalk", "specified_speaking", "sexual_sounds", "nonLabel"]


def test_the_catalogue_is_the_vendors() -> None:
    assert len(VENDOR_TABLE) == 35
    assert set(labels.LABELS) == {*VENDOR_TABLE, *OTHERS}
    assert all(row.group and row.description for row in labels.LABELS.values())


@pytest.mark.parametrize(
    ("label", "group"),
    [
        ("political_entity", "political"),
        ("sexual_sounds", "pornographic"),
        ("pt_to_sites", "advertising"),
        ("specified_nontalk", "audio"),
        ("customized", "customized"),
        ("nonLabel", "clean"),
    ],
)
def test_a_label_has_a_group(label: str | None, group: str) -> None:
    assert labels.group(label) == group


@pytest.mark.parametrize("label", ["political_new", "", "nonlabel", None])
def test_a_label_that_is_not_in_the_catalogue_is_of_the_group_unknown_and_not_of_the_clean_one(
    label: str | None,
) -> None:
    assert labels.group(label) == labels.UNKNOWN.group == "unknown"


def test_silence_is_told_by_its_label_alone() -> None:
    assert labels.is_silence("specified_nontalk")
    assert not any(labels.is_silence(label) for label in (*labels.LABELS, None) if label != labels.SILENCE)


@pytest.mark.parametrize(
    ("pattern", "label", "fits"),
    [
        ("political_entity", "political_entity", True),
        ("political_entity", "political_entity2", False),
        ("political_*", "political_entity", True),
        ("political_*", "political_", True),
        ("political_*", "apolitical_entity", False),
        ("*_prompts", "political_prompts", True),
        ("*", "", True),
        ("**", "a", True),
        ("", "", True),
        ("", "a", False),
        ("a*a", "a", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c", False),
        ("*b*b*", "b", False),
        ("a*b*b", "ab", False),
        ("p?litical", "political", False),
        ("[p]olitical", "political", False),
        ("[p]*", "[p]olitical", True),
        ("slice.*", "slice.flagged", True),
        ("slice.*", "slice_flagged", False),
        ("*", None, False),
    ],
)
def test_only_the_star_is_special_in_a_pattern(pattern: str, label: str | None, *, fits: bool) -> None:
    assert labels.matches(pattern, label) is fits


@given(st.text("ab*.?[\n", max_size=12), st.text("ab.?[\n", max_size=16))
def test_patterns_match_as_regular_expressions_do(pattern: str, label: str) -> None:
    oracle = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    assert labels.matches(pattern, label) is (oracle.fullmatch(label) is not None)


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not labels.matches("*a" * 20_000 + "b", "a" * 30_000)
    assert not labels.matches("a*" * 20_000, "b" + "a" * 30_000)
    assert labels.matches("*a" * 20_000, "a" * 30_000)
