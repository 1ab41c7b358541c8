"""Decides whether lines come faster than they can be written. Pure."""

from __future__ import annotations

from typing import Final

from sessiond.filters.pressure import Level

# Shares of the outputs' room: pressure begins at the first and ends below the second.
HIGH: Final = 0.5
LOW: Final = 0.25
# Checks, one a second, for which the outputs must be that full, or the sources must lose events: a
# burst that is read or written by the next check is no pressure.
CHECKS: Final = 2
# Checks without a loss after which the sources' pressure is over.
CALM_CHECKS: Final = 5
# The kinds of the tracer's lost events that count: nothing else shows these processes.
PROCESSES: Final = ("fork", "exec", "exit")


class PressureGauge:
    """Judges how full the outputs are and what is lost before; ``reason`` says what is wrong."""

    def __init__(self) -> None:
        """Start without pressure."""
        self.reason = ""
        self._level = Level.CALM
        self._full = 0  # checks in a row
        self._losing = [0, 0]  # checks in a row, by source
        self._since_loss = CALM_CHECKS
        self._lost = (0, 0)

    def update(self, fill: float, *, lost: tuple[int, int]) -> Level:
        """Return the level, once a second.

        ``fill`` is the share of the outputs' room in use, 0 to 1; ``lost`` the numbers of
        the tracer's events of the kinds PROCESSES and of audit's records that were lost since the
        start. Both sources can report the loss of one moment in different checks.
        """
        self._full = self._full + 1 if fill >= HIGH else 0
        for source, number in enumerate(lost):
            loses_more = number > self._lost[source]
            self._losing[source] = self._losing[source] + 1 if loses_more else 0
        self._since_loss = 0 if any(self._losing) else self._since_loss + 1
        self._lost = lost
        loses = self._since_loss < CALM_CHECKS
        if self._full >= CHECKS:
            self._level, self.reason = Level.PRESSED, "every output is half full"
        elif max(self._losing) >= CHECKS:
            self._level, self.reason = Level.PRESSED, "events are lost because they come too fast"
        elif fill < LOW and not loses:
            self._level = Level.CALM
        elif self._level == Level.CALM:
            self._level = Level.RISING
        return self._level
