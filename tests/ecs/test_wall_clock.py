"""Dates and audit stamps near changes of the wall clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.ecs.dates import timestamp
from sessiond.ecs.wall_clock import Step, WallClock
from sessiond.units import SECOND

BOOT = 1_777_629_600 * SECOND
MILLISECOND = SECOND // 1000
# The clock was set between two measurements, at 100 s and 100.5 s after boot.
BEFORE, NOTICED = 100 * SECOND, 100 * SECOND + 500 * MILLISECOND


def stepped(by: int, took: int = 0) -> WallClock:
    """A clock that was set by ``by`` ns; the measurement that noticed it took ``took`` ns."""
    clock = WallClock.constant(BOOT)
    assert clock.follow(BEFORE, BEFORE, BOOT) is None
    step = clock.follow(NOTICED, NOTICED + took, BOOT + by)
    assert step == Step(BEFORE, NOTICED + took, BOOT + by)
    return clock


@pytest.mark.parametrize("by", [3600 * SECOND, -3600 * SECOND, 2 * MILLISECOND])
def test_a_moment_keeps_the_date_that_the_clock_showed_then(by: int) -> None:
    """Dates before the step stay; later ones use the new setting."""
    clock = stepped(by)
    assert clock.date(BEFORE - 1) == timestamp(BOOT + BEFORE - 1)
    assert clock.date(NOTICED + 1) == timestamp(BOOT + by + NOTICED + 1)


def test_what_a_measurement_is_wrong_by_is_no_step() -> None:
    """Measurements vary by some microseconds."""
    clock = WallClock.constant(BOOT)
    for number in range(100):
        assert clock.follow(number * SECOND, number * SECOND, BOOT + number % 7 * 100_000) is None
    assert clock.offset == BOOT


@given(
    by=st.integers(SECOND, 10**6 * SECOND) | st.integers(-(10**6) * SECOND, -SECOND),
    moment=st.integers(0, 400 * SECOND),
    latency=st.integers(0, 900 * MILLISECOND),
    took=st.integers(0, 200 * MILLISECOND),
    share=st.floats(0, 1),
)
def test_a_stamp_means_the_moment_at_which_the_clock_showed_it(
    by: int, moment: int, latency: int, took: int, share: float
) -> None:
    """The clock was set at any time until a measurement ended; the record is read at once."""
    clock = stepped(by, took)
    at = BEFORE + int(share * (NOTICED + took - BEFORE))
    shown = BOOT + moment + (by if moment >= at else 0)
    read = max(moment + latency, NOTICED)
    if read - moment < abs(by):
        assert clock.since_boot(shown, read) == moment


def test_a_clock_that_is_set_all_the_time_takes_no_room() -> None:
    """The first setting is kept, because the start of older processes depends on it."""
    clock = WallClock.constant(BOOT)
    for number in range(1, 5000):
        clock.follow(number * SECOND, number * SECOND, BOOT + number % 2 * SECOND)
    assert len(clock.steps) == 1024
    assert clock.date(0) == timestamp(BOOT)
    assert clock.date(5000 * SECOND) == timestamp(BOOT + 5001 * SECOND)
