"""The living processes that the stream has not introduced yet, told a few at a time.

A process that is older than the daemon, or that came while nobody listened, has neither a fork nor
an exec in the stream: it is told once as ``already_running``. Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sessiond.process.table import Process, ProcessTable

# How many processes one poll tells: some 10 ms of work, so that live events need not wait.
BATCH: Final = 100


class Introduction(NamedTuple):
    """A process to tell as it was at ``time`` (ns since boot); ``repeated``: not the first time."""

    process: Process
    time: int
    repeated: bool


class Inventory:
    """Keeps the processes that are still to be told, in the order of their start."""

    def __init__(self) -> None:
        """Start with nothing to tell."""
        self._pending: dict[Process, Introduction] = {}
        self._repeat_at: int | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, observed: Iterable[Process]) -> None:
        """Note the processes of a snapshot; those that the stream has introduced are left out."""
        for process in sorted(observed, key=lambda each: (each.start, each.pid)):
            time = process.states[0].observed
            # A process whose first state is no snapshot's is introduced by its fork or exec.
            if time is None or process.introduced or not _is_told(process):
                continue
            self._pending.setdefault(process, Introduction(process, time, repeated=False))

    def repeat(self, table: ProcessTable, now: int, period: int) -> None:
        """Note all living processes anew when ``period`` ns have passed since the last time.

        The first call begins the first period; a period of 0 ends that.
        """
        if not period:
            self._repeat_at = None
            return
        if self._repeat_at is None:
            self._repeat_at = now + period
        if now < self._repeat_at:
            return
        self._repeat_at = now + period
        for process in table:
            if process.introduced and _is_told(process):
                self._pending.setdefault(process, Introduction(process, now, repeated=True))

    def take(self) -> list[Introduction]:
        """Return the next ones to tell, at most BATCH, and forget them."""
        taken: list[Introduction] = []
        while self._pending and len(taken) < BATCH:
            process, introduction = next(iter(self._pending.items()))
            del self._pending[process]
            # Of a process that has ended, a repetition has nothing to say.
            if process.end is None or not introduction.repeated:
                taken.append(introduction)
        return taken

    def pop(self, process: Process) -> Introduction | None:
        """Return how a process is to be told before a line speaks of it; None: it needs not."""
        introduction = self._pending.get(process)
        if introduction is None or introduction.repeated:
            return None
        del self._pending[process]
        return introduction

    def clear(self) -> None:
        """Tell nothing any more."""
        self._pending.clear()

    @property
    def repeat_at(self) -> int | None:
        """When ``repeat`` should be called next, in ns since boot; None: it needs not."""
        return self._repeat_at


def _is_told(process: Process) -> bool:
    """Tell whether a process belongs into an inventory: it lives and is no thread of the kernel."""
    return process.end is None and not process.state.facts.kernel_thread
