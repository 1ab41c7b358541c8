"""When lines come faster than they can be written."""

from __future__ import annotations

import pytest

from sessiond.daemon.pressure import CALM_CHECKS, PressureGauge
from sessiond.filters.pressure import Level


def levels(*fills: float) -> str:
    """Return the first letters of the levels of one check after the other."""
    gauge = PressureGauge()
    return "".join(gauge.update(fill, lost=(0, 0)).name[0] for fill in fills)


def losing(*lost: tuple[int, int]) -> str:
    """Return the same for the numbers of lost events since the start, by source."""
    gauge = PressureGauge()
    return "".join(gauge.update(0.0, lost=numbers).name[0] for numbers in lost)


def test_a_burst_is_no_pressure() -> None:
    """What is written before the next check has not waited; lines are counted already."""
    assert levels(1.0, 0.0, 1.0, 0.4, 0.9) == "RCRRR"


def test_outputs_that_stay_half_full_are_pressure() -> None:
    """It lasts until they are nearly empty."""
    assert levels(0.1, 0.5, 0.5, 0.4, 0.3, 0.2, 0.3) == "CRPPPCR"


def test_a_single_loss_is_no_pressure() -> None:
    """Such as after a stop of the daemon: it has been read by the next check."""
    after = [(70, 0)] * CALM_CHECKS
    assert losing((0, 0), (70, 0), *after) == "C" + "R" * CALM_CHECKS + "C"


def test_a_stop_that_both_sources_report_is_no_pressure() -> None:
    """Audit's loss is known at once, the tracer's in the next check."""
    after = [(90, 70)] * CALM_CHECKS
    assert losing((0, 70), (90, 70), *after) == "R" * (CALM_CHECKS + 1) + "C"


@pytest.mark.parametrize("source", ["tracer", "audit"])
def test_losses_that_go_on_are_pressure(source: str) -> None:
    """A buffer overflows each second; it ends some checks after the last loss."""
    numbers = [5, 9, 12, *[12] * CALM_CHECKS]
    lost = [(number, 0) if source == "tracer" else (0, number) for number in numbers]
    assert losing(*lost) == "RPP" + "P" * (CALM_CHECKS - 1) + "C"


def test_the_levels_are_in_order() -> None:
    """They can be compared."""
    assert Level.CALM < Level.RISING < Level.PRESSED
