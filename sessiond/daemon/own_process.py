"""Whether something is done to this process itself: it is stopped, starved or traced."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from sessiond.system.proc import PROC, process_name
from sessiond.units import Monotonic

# Seconds between two looks, of which one is due each second, that are no accident.
MAX_GAP: Final = 3.0
# The share of a gap in which this process used the CPU, from which on it was busy and not stopped.
BUSY: Final = 0.5


class Trouble(NamedTuple):
    """What was done to the process; ``since`` is how many seconds ago it began."""

    what: str
    reason: str
    since: float


class OwnProcess:
    """Looks at this process once a second."""

    def __init__(self, clock: Monotonic, used: float, *, proc: Path = PROC) -> None:
        """Begin at ``clock`` in monotonic seconds, with ``used`` seconds of the CPU."""
        self._status = proc / "self/status"
        self._proc = proc
        self._clock = clock
        self._used = used

    def look(self, clock: Monotonic, used: float) -> list[Trouble]:
        """Tell what has happened since the last look, or still does.

        The monotonic clock stands still while the host sleeps: that is no gap.
        """
        found = []
        gap, busy = clock - self._clock, used - self._used
        self._clock, self._used = clock, used
        if gap > MAX_GAP:
            reason = f"it did not run for {gap:.0f} s: stopped by a signal, or starved by others"
            if busy > gap * BUSY:
                reason = f"it was busy for {gap:.0f} s with what it had read"
            found.append(Trouble("daemon", reason, gap))
        tracer = self._tracer()
        if tracer:
            name = process_name(tracer, self._proc) or "gone by now"
            found.append(Trouble("debugger", f"process {tracer} ({name}) traces the daemon", 0.0))
        return found

    def _tracer(self) -> int:
        """The pid of the process that traces this one; 0 for none (proc_pid_status(5))."""
        try:
            status = self._status.read_bytes()
        except OSError:
            return 0
        number = status.partition(b"\nTracerPid:\t")[2].partition(b"\n")[0]
        return int(number) if number.isdigit() else 0
