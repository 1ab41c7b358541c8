"""Decides whether input or output can't keep up, from how full their buffers are. Pure."""

from __future__ import annotations

from typing import Final

from sessiond.filters.pressure import Level

# Shares of a buffer: pressure begins at the first and ends below the second.
HIGH: Final = 0.5
LOW: Final = 0.25
# Checks, one a second, for which a buffer must be that full: a burst that is read or written by
# the next check is no pressure.
CHECKS: Final = 2


class PressureGauge:
    """Compares how full the buffers are with the limits."""

    def __init__(self) -> None:
        """Start without pressure."""
        self._level = Level.CALM
        self._checks = 0

    def update(self, fill: float) -> Level:
        """Take the share of the fullest buffer in use, 0 to 1; return the level."""
        self._checks = self._checks + 1 if fill >= HIGH else 0
        if self._checks >= CHECKS:
            self._level = Level.PRESSED
        elif fill < LOW:
            self._level = Level.CALM
        elif self._level == Level.CALM:
            self._level = Level.RISING
        return self._level
