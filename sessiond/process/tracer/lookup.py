"""What procfs adds to what the kernel's events tell."""

from __future__ import annotations

import os
from typing import Protocol

from sessiond.process.events import Observed

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # ns


class ProcessLookup(Protocol):
    """procfs, as far as the sources need it."""

    def snapshot(self) -> list[Observed]:
        """Return every process that is there now."""
        ...

    def look_up(self, pid: int) -> Observed | None:
        """Return the process that has ``pid`` now, None if there is none."""
        ...


def same_process(exact_start: int, start: int) -> bool:
    """Tell whether a start in ns and one that procfs rounded down to a tick are the same."""
    return exact_start // TICK == start // TICK


def filled_up(procfs: ProcessLookup, process: Observed) -> Observed:
    """Return what the kernel's snapshot tells with the arguments, cgroup path, groups from procfs.

    Unchanged when the process is gone, or another has its pid.
    """
    seen = procfs.look_up(process.facts.pid)
    if seen is None or not same_process(process.facts.start, seen.facts.start):
        return process
    program = process.program._replace(args=seen.program.args, args_size=seen.program.args_size)
    return process._replace(
        program=program,
        cgroup=seen.cgroup,
        supplementary_groups=seen.supplementary_groups,
        connection=seen.connection,
    )
