"""When buffers are full enough to fold."""

from __future__ import annotations

from sessiond.daemon.pressure import PressureGauge


def pressed(*fills: float) -> list[bool]:
    """Return the results of one check after the other, of a file that is nearly empty."""
    gauge = PressureGauge()
    return [gauge.update({"a file": 0.01, "the input": fill}) for fill in fills]


def test_a_burst_is_no_pressure() -> None:
    """What is read before the next check has not waited."""
    assert pressed(1.0, 0.0, 1.0, 0.4, 0.9) == [False] * 5


def test_a_buffer_that_stays_half_full_is_pressure() -> None:
    """It lasts until the buffer is nearly empty."""
    assert pressed(0.5, 0.5, 0.4, 0.3, 0.2, 0.3) == [False, True, True, True, False, False]


def test_the_reason_names_the_fullest_buffer() -> None:
    """Of all outputs and the input."""
    gauge = PressureGauge()
    assert not gauge.update({})
    for _ in range(2):
        gauge.update({"the queue of file:/x": 0.62, "the input": 0.1})
    assert gauge.reason == "the queue of file:/x is 62% full"
