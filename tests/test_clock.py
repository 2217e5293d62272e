"""Times as they are kept and written, and ids that sort by them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook import clock

NOON = datetime(2026, 11, 21, 12, 0, 0, 7, tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_is_kept_to_the_microsecond(time: datetime) -> None:
    assert clock.from_microseconds(clock.to_microseconds(time)) == time


def test_a_time_is_written_in_utc_with_a_z() -> None:
    assert clock.rfc3339(NOON) == "2026-11-21T12:00:00.000007Z"


@pytest.mark.parametrize("milliseconds", [10**15, -(10**15), 10**30])
def test_milliseconds_beyond_all_calendars_are_no_time(milliseconds: int) -> None:
    assert clock.from_milliseconds(milliseconds) is None


def test_milliseconds_are_a_time() -> None:
    assert clock.from_milliseconds(1_700_000_000_123) == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)


def test_ids_sort_by_time_and_are_never_the_same() -> None:
    ids = [clock.new_id("task", NOON + timedelta(milliseconds=number)) for number in range(100)]
    assert ids == sorted(ids)
    assert {len(each) for each in ids} == {len("task_") + 28}
    at_once = [clock.new_id("task", NOON) for _ in range(100)]
    assert at_once == sorted(set(at_once))


def test_a_time_s_first_id_divides_the_ids_before_it_from_those_after_it() -> None:
    before, at = NOON - timedelta(milliseconds=1), clock.first_id("cb", NOON)
    assert clock.new_id("cb", before) < at < clock.new_id("cb", NOON)
    assert clock.time_of(clock.new_id("cb", NOON)) == clock.time_of(at) == NOON.replace(microsecond=0)


def test_now_is_an_aware_time() -> None:
    assert clock.now().tzinfo is UTC
