"""Dates: UTC, six decimals, Z."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sessiond.ecs.dates import timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years 1970 to 9999.
times = st.integers(min_value=0, max_value=253_402_300_799_999_999_999)


def test_a_date_has_six_decimals_also_when_they_are_zero() -> None:
    """Siblings are ordered by comparing the text: no digit may be missing."""
    assert timestamp(1_777_630_272_000_000_000) == "2026-05-01T10:11:12.000000Z"
    assert timestamp(1_777_630_272_000_123_000) == "2026-05-01T10:11:12.000123Z"


def test_what_is_finer_than_a_microsecond_is_cut() -> None:
    """A rounded date could be later than its event, even in the next second."""
    assert timestamp(1_777_630_272_999_999_999) == "2026-05-01T10:11:12.999999Z"


@given(times)
def test_a_date_says_the_time_it_was_made_from(time: int) -> None:
    """Parsing returns the same microsecond."""
    parsed = datetime.strptime(timestamp(time), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert (parsed - EPOCH) // timedelta(microseconds=1) == time // 1000


@given(times, times)
def test_text_order_is_time_order(one: int, other: int) -> None:
    """Comparing dates as text compares the times, to the microsecond."""
    assert (timestamp(one) < timestamp(other)) == (one // 1000 < other // 1000)
