"""The clocks of the host: boot time, wall clock, and the offset between them.

The helper that reads procfs imports this: it has no need of a log.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from sessiond.units import BootTime

# Readings for an exact offset, and for a quick one.
_EXACT: Final = 32
_QUICK: Final = 3
# Nanoseconds that two clock readings take without an interruption.
_AT_ONCE: Final = 5_000


def measure_offset() -> int:
    """Return CLOCK_REALTIME minus CLOCK_BOOTTIME in ns, from the fastest of many readings."""
    # The process may be preempted between two readings: the fastest one is the most accurate.
    return min(_reading() for _ in range(_EXACT))[1]


def wall_offset() -> int:
    """Return the current CLOCK_REALTIME minus CLOCK_BOOTTIME in ns, to some microseconds."""
    fastest = _reading()
    for _ in range(_QUICK - 1):
        if fastest[0] < _AT_ONCE:
            break
        fastest = min(fastest, _reading())
    return fastest[1]


def _reading() -> tuple[int, int]:
    """Return how long a reading of both clocks took, and their difference in its middle (ns)."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
    took = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before
    return took, wall - before - took // 2


def now() -> BootTime:
    """Return the time since boot including suspend, in ns: the clock of all process events."""
    return BootTime(time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def boot_id(root: Path = Path("/proc")) -> str:
    """Return the random id of this boot (random(4)). Raises OSError without /proc/sys."""
    return (root / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
