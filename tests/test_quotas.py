"""Buckets let through what they hold, fill at their rate, and forget names without making any of them poorer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.quotas import Buckets

SECOND = 1_000_000_000


def test_a_full_bucket_holds_its_size_and_then_fills_at_its_rate() -> None:
    buckets = Buckets(per_second=10, size=5)
    assert [buckets.take("a", now=0) for _ in range(6)] == [True] * 5 + [False]
    assert not buckets.take("a", now=SECOND // 10 - 1)
    assert buckets.take("a", now=SECOND // 10)
    assert not buckets.take("a", now=SECOND // 10)
    assert [buckets.take("a", now=100 * SECOND) for _ in range(6)] == [True] * 5 + [False]


def test_each_name_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(per_second=1, size=1)
    assert buckets.take("a", now=0)
    assert not buckets.take("a", now=0)
    assert buckets.take("b", now=0)


def test_what_is_left_is_told_in_whole_seconds_rounded_up() -> None:
    buckets = Buckets(per_second=2, size=3)
    full = buckets.left("a", now=7)
    assert (full.requests, full.full_seconds, full.wait_seconds) == (3, 0, 0)
    for _ in range(3):
        buckets.take("a", now=7)
    empty = buckets.left("a", now=7)
    assert (empty.requests, empty.full_seconds, empty.wait_seconds) == (0, 2, 1)
    later = buckets.left("a", now=7 + SECOND // 2)
    assert (later.requests, later.full_seconds, later.wait_seconds) == (1, 1, 0)
    assert buckets.full_seconds == 2


def test_the_name_that_was_longest_not_taken_from_is_forgotten_first() -> None:
    buckets = Buckets(per_second=1, size=1, most_names=2)
    for name in ("a", "b"):
        assert buckets.take(name, now=0)
    assert not buckets.take("a", now=0)
    assert buckets.take("c", now=0)
    assert [buckets.left(name, now=0).requests for name in ("a", "b", "c")] == [0, 1, 0]


@pytest.mark.parametrize("per_second", [1, 3, 7, 1000, 99_999])
@given(waits=st.lists(st.integers(0, 3 * SECOND), max_size=60), size=st.integers(1, 20))
def test_no_stretch_of_time_lets_through_more_than_the_size_and_the_rate(
    per_second: int, waits: list[int], size: int
) -> None:
    buckets = Buckets(per_second=per_second, size=size)
    now, taken = 0, []
    for wait in waits:
        now += wait
        left = buckets.left("a", now=now)
        assert buckets.take("a", now=now) == (left.requests > 0) == (left.wait_seconds == 0)
        if left.requests:
            taken.append(now)
    for first, since in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= size + (taken[last] - since) / (SECOND // per_second)
