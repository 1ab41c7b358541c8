"""Decides whether input or output can't keep up, from how full their buffers are. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Shares of a buffer: pressure begins at the first and ends below the second.
HIGH: Final = 0.5
LOW: Final = 0.25
# Checks, one a second, for which a buffer must be that full: a burst that is read or written by
# the next check is no pressure.
CHECKS: Final = 2


class PressureGauge:
    """Compares the fullest buffer with the limits; ``pressed`` says whether there is pressure."""

    def __init__(self) -> None:
        """Start without pressure."""
        self.pressed = False
        self.reason = ""
        self._checks = 0

    def update(self, fills: Mapping[str, float]) -> bool:
        """Take the current shares of the buffers in use, 0 to 1, by name; return ``pressed``.

        ``reason`` then names the buffer that is the fullest.
        """
        name, fill = max(fills.items(), key=lambda each: each[1], default=("", 0.0))
        self._checks = self._checks + 1 if fill >= HIGH else 0
        if self._checks >= CHECKS:
            self.pressed = True
            self.reason = f"{name} is {fill:.0%} full"
        elif fill < LOW:
            self.pressed = False
        return self.pressed
