"""Detects that this process itself is stopped, starved or traced."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from sessiond.system.proc import PROC, process_name
from sessiond.units import Monotonic

# Seconds between two checks, due each second, from which on a gap counts.
MAX_GAP: Final = 3.0
# Share of CPU time in a gap from which on the process was busy, not stopped.
BUSY: Final = 0.5


class Trouble(NamedTuple):
    """A finding about this process; ``since`` is how many seconds ago it started."""

    what: str
    reason: str
    since: float


class OwnProcess:
    """Checks this process once a second."""

    def __init__(self, clock: Monotonic, used: float, *, proc: Path = PROC) -> None:
        """Start at ``clock`` in monotonic seconds, with ``used`` seconds of CPU time."""
        self._status = proc / "self/status"
        self._proc = proc
        self._clock = clock
        self._used = used

    def check(self, clock: Monotonic, used: float) -> list[Trouble]:
        """Return the findings since the last check, and those that persist.

        The monotonic clock stops while the host is suspended, so that suspension is not a gap.
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
        """Return the pid of the process that traces this one; 0 for none (proc_pid_status(5))."""
        try:
            status = self._status.read_bytes()
        except OSError:
            return 0
        number = status.partition(b"\nTracerPid:\t")[2].partition(b"\n")[0]
        return int(number) if number.isdigit() else 0
