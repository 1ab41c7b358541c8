"""The clocks of the host: boot time, wall clock, and the offset between them.

The helper that reads procfs imports this: it has no need of a log.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from sessiond.units import BootTime


def measure_offset(attempts: int = 32) -> int:
    """Return CLOCK_REALTIME minus CLOCK_BOOTTIME in ns, from the fastest of several readings."""
    best: tuple[int, int] | None = None
    for _ in range(attempts):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        reading = (after - before, wall - (before + after) // 2)
        best = reading if best is None else min(best, reading)
    assert best is not None  # noqa: S101 -- attempts is positive
    return best[1]


# Nanoseconds that two clock readings take without an interruption.
_AT_ONCE: Final = 5_000


def wall_offset() -> int:
    """Return the current CLOCK_REALTIME minus CLOCK_BOOTTIME in ns, to some microseconds."""
    measured = []
    for _ in range(3):
        before = now()
        wall = time.time_ns()
        took = now() - before
        measured.append((took, wall - before - took // 2))
        if took < _AT_ONCE:
            break
    # The process may be preempted between two readings: the fastest pair is the most accurate.
    return min(measured)[1]


def now() -> BootTime:
    """Return the time since boot including suspend, in ns: the clock of all process events."""
    return BootTime(time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def boot_id(root: Path = Path("/proc")) -> str:
    """Return the random id of this boot (random(4)). Raises OSError without /proc/sys."""
    return (root / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
