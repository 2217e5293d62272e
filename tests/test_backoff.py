"""The schedule is Standard Webhooks 1.0's and the contract's, section 6; the dates are RFC 9110's examples."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.backoff import DELIVERY_SCHEDULE, next_delivery_delay, parse_retry_after, submit_delay

NOW = datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)  # half a minute before RFC 9110's example
DAY = timedelta(hours=24)
fractions = st.floats(0, 1)


def test_the_schedule_is_the_contracts() -> None:
    seconds = [0, 5, 5 * 60, 30 * 60, *(hours * 3600 for hours in (2, 5, 10, 14, 20, 24))]
    assert [delay.total_seconds() for delay in DELIVERY_SCHEDULE] == seconds
    # so that a subscription that fails for 5 days is disabled after the last attempt of what failed first
    assert list(accumulate(DELIVERY_SCHEDULE, initial=timedelta(0)))[-1] < timedelta(days=5)


def test_without_jitter_each_attempt_comes_at_its_time() -> None:
    delays = [next_delivery_delay(attempts_made=made, retry_after=None, dice=lambda: 0.5) for made in range(11)]
    assert delays == [*DELIVERY_SCHEDULE, None]


@given(st.integers(0, 9), fractions)
def test_jitter_is_a_tenth_either_way(made: int, fraction: float) -> None:
    delay = next_delivery_delay(attempts_made=made, retry_after=None, dice=lambda: fraction)
    assert delay is not None
    assert DELIVERY_SCHEDULE[made] * 0.9 <= delay <= DELIVERY_SCHEDULE[made] * 1.1


@pytest.mark.parametrize("retry_after", [None, timedelta(0), timedelta(hours=1)])
def test_a_delivery_is_dead_after_its_last_attempt_whatever_the_subscriber_asks(retry_after: timedelta | None) -> None:
    for made in (10, 11, 1000):
        assert next_delivery_delay(attempts_made=made, retry_after=retry_after, dice=lambda: 0.0) is None


@given(st.integers(0, 9), fractions, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_retry_after_puts_off_by_a_day_at_most_and_never_hastens(
    made: int, fraction: float, retry_after: timedelta
) -> None:
    plain = next_delivery_delay(attempts_made=made, retry_after=None, dice=lambda: fraction)
    delay = next_delivery_delay(attempts_made=made, retry_after=retry_after, dice=lambda: fraction)
    assert plain is not None
    assert delay is not None
    assert delay >= plain
    assert delay >= min(retry_after, DAY)
    assert delay in {plain, min(retry_after, DAY)}


def test_submissions_wait_twice_as_long_each_time_up_to_five_minutes() -> None:
    ceilings = [submit_delay(attempts_made=made, dice=lambda: 1.0).total_seconds() for made in range(11)]
    assert ceilings == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.integers(0, 10**9), fractions)
def test_submissions_are_tried_for_ever_with_full_jitter(made: int, fraction: float) -> None:
    delay = submit_delay(attempts_made=made, dice=lambda: fraction)
    assert timedelta(seconds=1) <= delay <= timedelta(minutes=5)
    assert submit_delay(attempts_made=made, dice=lambda: 0.0) == timedelta(seconds=1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7\t", 7),
        ("0", 0),
        ("-5", 0),
        ("000060", 60),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 30),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 30),
        ("Sun Nov  6 08:49:37 1994", 30),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("9" * 5000, 366 * 86400),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: int) -> None:
    assert parse_retry_after(value, now=NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "1.5",
        "1e3",
        "+5",
        "5 s",
        "٣",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 66 Nov 1994 08:49:37 GMT",
        "Sun, 06 Xxx 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 99:99:99 GMT",
        "Sun, 06 Nov 1994 :::::::: GMT",
    ],
)
def test_a_retry_after_that_says_nothing_is_none(value: str | None) -> None:
    assert parse_retry_after(value, now=NOW) is None


@given(
    st.text()
    | st.from_regex(r"[A-Za-z]{3}, [0-9]{2} (Nov|Feb|Xxx) [0-9]{4} [0-9:]{8} GMT", fullmatch=True)
    | st.from_regex(r"[A-Za-z]{6}, [0-9]{2}-(Nov|Feb|Xxx)-[0-9]{2} [0-9:]{8} GMT", fullmatch=True)
    | st.from_regex(r"Sun (Nov|Feb|Xxx) [0-9 ][0-9] [0-9:]{8} [0-9]{4}", fullmatch=True)
)
def test_garbage_never_raises(value: str) -> None:
    delay = parse_retry_after(value, now=NOW)
    assert delay is None or delay >= timedelta(0)
