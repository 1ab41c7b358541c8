"""When buffers are full enough to fold."""

from __future__ import annotations

from sessiond.daemon.pressure import PressureGauge
from sessiond.filters.pressure import Level


def levels(*fills: float) -> str:
    """Return the first letters of the levels of one check after the other."""
    gauge = PressureGauge()
    return "".join(gauge.update(fill).name[0] for fill in fills)


def test_a_burst_is_no_pressure() -> None:
    """What is read or written before the next check has not waited; lines are counted already."""
    assert levels(1.0, 0.0, 1.0, 0.4, 0.9) == "RCRRR"


def test_a_buffer_that_stays_half_full_is_pressure() -> None:
    """It lasts until the buffer is nearly empty."""
    assert levels(0.1, 0.5, 0.5, 0.4, 0.3, 0.2, 0.3) == "CRPPPCR"


def test_the_levels_are_in_order() -> None:
    """They can be compared."""
    assert Level.CALM < Level.RISING < Level.PRESSED
