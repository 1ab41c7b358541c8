"""The history of the wall clock: converts times since boot to dates, and audit stamps to times.

The wall clock can be set while a host runs: by NTP's first answer, by a person, or in a resumed
virtual machine. A time keeps the date that the clock showed then, so that written dates stay
correct; after a step, dates follow the new setting. Slewing changes both clocks alike and needs no
correction.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from sessiond.ecs.dates import timestamp
from sessiond.units import TICK

# Differences below this, in ns, are within the error of a measurement.
MIN_STEP: Final = 1_000_000
# Maximum number of steps kept; beyond it the second one is dropped.
_MAX_STEPS: Final = 1024
# Number of recent steps tried for an audit stamp: events wait only for seconds.
_RECENT: Final = 4


class Step(NamedTuple):
    """A new setting of the wall clock: CLOCK_REALTIME is ``offset`` ahead of CLOCK_BOOTTIME (ns).

    It was set after ``since`` and was noticed at ``noticed``, both in ns since boot.
    """

    since: int
    noticed: int
    offset: int


class WallClock:
    """The settings of the wall clock in this boot; the first one is valid since the boot."""

    def __init__(self, steps: Iterable[Step]) -> None:
        """Take the known settings, by time; at least one."""
        self._steps = list(steps)
        self._since = [step.since for step in self._steps]
        self._measured = self._steps[-1].noticed

    @classmethod
    def constant(cls, offset: int) -> WallClock:
        """Return a clock that was always ``offset`` ns ahead."""
        return cls([Step(0, 0, offset)])

    @property
    def steps(self) -> tuple[Step, ...]:
        """The known settings."""
        return tuple(self._steps)

    @property
    def offset(self) -> int:
        """CLOCK_REALTIME minus CLOCK_BOOTTIME now, in ns."""
        return self._steps[-1].offset

    def follow(self, began: int, ended: int, offset: int) -> Step | None:
        """Take an ``offset`` measured from ``began`` to ``ended`` (ns since boot); return a step.

        The measuring process can be preempted, and the clock be set meanwhile.
        """
        since, self._measured = self._measured, began
        if abs(offset - self.offset) < MIN_STEP:
            return None
        if len(self._steps) >= _MAX_STEPS:
            del self._steps[1], self._since[1]
        step = Step(max(since, self._since[-1]), ended, offset)
        self._steps.append(step)
        self._since.append(step.since)
        return step

    def date(self, time: int) -> str:
        """Format a time in ns since boot as an ECS date, by the clock's setting at that time."""
        if time >= self._since[-1]:
            return timestamp(time + self._steps[-1].offset)
        place = max(bisect_right(self._since, time) - 1, 0)
        return timestamp(time + self._steps[place].offset)

    def since_boot(self, stamp: int, read: int) -> int:
        """Convert an audit stamp (ns since the epoch) to ns since boot.

        ``read`` is when the record was read, in ns since boot. Near a step a stamp can stand for
        two times. A time after ``read``, or one at which the clock had another setting, is ruled
        out; of the remaining ones the later is returned.
        """
        time = stamp - self.offset
        if len(self._steps) == 1:
            return time
        found: int | None = None
        recent = self._steps[-_RECENT:]
        for place, step in enumerate(recent):
            moment = stamp - step.offset
            until = recent[place + 1].noticed if place + 1 < len(recent) else read
            begun = step.since - TICK if step is not self._steps[0] else moment
            if begun <= moment <= min(until, read) + TICK:
                found = moment if found is None else max(found, moment)
        return time if found is None else found
