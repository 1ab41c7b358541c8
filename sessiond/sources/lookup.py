"""The facts of procfs that complete the events of the kernel."""

from __future__ import annotations

from typing import Protocol

from sessiond.process.events import Observed
from sessiond.units import TICK


class ProcessLookup(Protocol):
    """procfs, as far as the sources need it."""

    def snapshot(self) -> list[Observed]:
        """Return every process that is there now."""
        ...

    def look_up(self, pid: int) -> Observed | None:
        """Return the process that has ``pid`` now, None if there is none."""
        ...

    def look_up_all(self, pids: list[int]) -> list[Observed | None]:
        """Return the process that has each of ``pids`` now, in their order."""
        ...


def same_process(exact_start: int, start: int) -> bool:
    """Tell whether a start in ns and one that procfs rounded down to a tick are the same."""
    return exact_start // TICK == start // TICK


def filled_up(process: Observed, seen: Observed | None) -> Observed:
    """Return what the kernel told with what only procfs tells: arguments, cgroup path, login.

    ``seen`` is None, or another process, where this one was gone: then it is returned unchanged.
    """
    if seen is None or not same_process(process.facts.start, seen.facts.start):
        return process
    program = process.program._replace(
        args=seen.program.args,
        args_size=seen.program.args_size,
        args_count=seen.program.args_count,
    )
    return process._replace(
        program=program,
        cgroup=seen.cgroup,
        supplementary_groups=seen.supplementary_groups,
        connection=seen.connection,
        login=seen.login,
    )


def hidden_parents(told: list[Observed], seen: dict[int, Observed]) -> list[Observed]:
    """Return parents of those ``told`` that weren't told themselves, as procfs has ``seen`` them.

    Some hosts hide processes from BPF, pid 1 above all; their children know their exact start.
    """
    pids = {process.facts.pid for process in told}
    missing = {process.facts.ppid: process.facts.parent_start for process in told}
    hidden = []
    for pid, start in missing.items():
        process = seen.get(pid)
        if pid in pids or start is None or process is None:
            continue
        if same_process(start, process.facts.start):
            hidden.append(process._replace(facts=process.facts._replace(start=start)))
    return hidden
