"""Text for people fits its columns."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.viewer.words import Colours, cut, day_and_time, pad, short, width_of

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@given(st.text(), st.integers(2, 30))
def test_what_is_cut_fits(text: str, room: int) -> None:
    """Wide characters take two columns."""
    shown = cut(text, room)
    assert width_of(shown) <= room
    assert width_of(pad(shown, room)) == room


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.005, "5ms"), (2.34, "2.3s"), (61, "1m01s"), (7260, "2h01m"), (180000, "2d02h")],
)
def test_a_span_has_its_greatest_units(seconds: float, shown: str) -> None:
    """The form is that of last(1)."""
    assert short(timedelta(seconds=seconds)) == shown


def test_a_date_is_as_short_as_today_allows() -> None:
    """The form is that of ps(1)."""
    assert day_and_time("2026-05-01T10:00:00.5Z", NOW) == "10:00:00"
    assert day_and_time("2026-04-30T10:00:00Z", NOW) == "Apr 30 10:00"
    assert day_and_time("2025-04-30T10:00:00Z", NOW) == "2025-04-30"
    assert day_and_time("", NOW) == ""


def test_colours_can_be_off() -> None:
    """Then a text stays as it is."""
    assert Colours(on=True).bad("x") == "\x1b[31mx\x1b[m"
    assert Colours().bad("x") == "x"
