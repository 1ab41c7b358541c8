"""Completes the kernel's events with facts from procfs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sessiond.process.events import Observed
from sessiond.units import TICK


class ProcessLookup(Protocol):
    """The part of procfs that the sources need."""

    def snapshot(self) -> list[Observed]:
        """Return every current process."""
        ...

    def lookup(self, pid: int) -> Observed | None:
        """Return the process that has ``pid`` now, None if there is none."""
        ...

    def lookup_all(self, pids: list[int]) -> list[Observed | None]:
        """Return the process that has each of ``pids`` now, in their order."""
        ...


def same_process(exact_start: int, start: int) -> bool:
    """Return whether a start in ns and one that procfs rounded down to a tick are the same."""
    return exact_start // TICK == start // TICK


def filled_up(process: Observed, seen: Observed | None) -> Observed:
    """Return the kernel's process with data that only procfs has: arguments, cgroup path, login.

    It is returned unchanged if ``seen`` is None or another process, because it has ended.
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


def hidden_parents(listed: Iterable[Observed]) -> dict[int, int]:
    """Return the pids and exact starts of the parents of ``listed`` that are not among them.

    Some hosts hide processes from BPF, in particular pid 1; their children have their exact start.
    """
    missing: dict[int, int] = {}
    pids = set()
    for process in listed:
        facts = process.facts
        pids.add(facts.pid)
        if facts.parent_start is not None:
            missing[facts.ppid] = facts.parent_start
    return {pid: start for pid, start in missing.items() if pid not in pids}


def with_start(seen: Observed, start: int) -> Observed | None:
    """Return a process of procfs with its exact ``start``; None if it is another process."""
    if not same_process(start, seen.facts.start):
        return None
    return seen._replace(facts=seen.facts._replace(start=start))
