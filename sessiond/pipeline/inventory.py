"""The living processes that the stream has not introduced yet, told a few at a time.

A process that is older than the daemon, or that came while nobody listened, has neither a fork nor
an exec in the stream: it is told once as ``already_running``. Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

from sessiond.process.table import Process, ProcessTable

# How many processes one poll tells: some 7 ms of work, so that live events need not wait.
BATCH: Final = 50


class Introduction(NamedTuple):
    """A process to tell as it was at ``time`` (ns since boot); ``repeated``: not the first time."""

    process: Process
    time: int
    repeated: bool


class Inventory:
    """Keeps the processes that are still to be told, in the order of their start."""

    def __init__(self) -> None:
        """Start with nothing to tell."""
        self._pending: dict[Process, int] = {}  # the time to tell of
        self._unread: dict[Process, int] = {}  # those of which more will be known
        self._repeated: Iterator[Process] | None = None
        self._repeat_at: int | None = None

    def __len__(self) -> int:
        return len(self._pending) + len(self._unread)

    @property
    def deadline(self) -> int | None:
        """When ``repeat`` and ``take`` should be called, in ns since boot; None: not at all."""
        return 0 if self._pending or self._repeated is not None else self._repeat_at

    def add(self, observed: Iterable[Process], unread: Container[int] = ()) -> None:
        """Note the processes of a snapshot; those that the stream has introduced are left out.

        Those with the pids ``unread`` are told when they are added without, or needed.
        """
        # A process whose first state is no snapshot's is introduced by its fork or exec.
        found = [
            process
            for process in observed
            if not process.introduced and process.states[0].observed is not None
        ]
        for process in sorted(filter(_is_told, found), key=lambda each: (each.start, each.pid)):
            time = process.states[0].observed or process.start
            if process.pid in unread:
                self._unread[process] = time
            else:
                self._unread.pop(process, None)
                self._pending.setdefault(process, time)

    def repeat(self, table: ProcessTable, now: int, period: int) -> None:
        """Begin to tell all living processes anew when ``period`` ns have passed since last time.

        The first call begins the first period; a period of 0 ends that.
        """
        if not period:
            self._repeat_at = self._repeated = None
        elif self._repeat_at is None:
            self._repeat_at = now + period
        elif now >= self._repeat_at:
            self._repeat_at = now + period
            self._repeated = iter(list(table))

    def take(self, now: int) -> list[Introduction]:
        """Return the next ones to tell, at most BATCH, and forget them."""
        taken: list[Introduction] = []
        while self._pending and len(taken) < BATCH:
            process = next(iter(self._pending))
            taken.append(Introduction(process, self._pending.pop(process), repeated=False))
        if self._repeated is not None and not self._pending:
            batch = list(islice(self._repeated, BATCH))
            if len(batch) < BATCH:
                self._repeated = None
            taken += [
                Introduction(process, now, repeated=True)
                for process in batch
                if process.introduced and _is_told(process)
            ]
        return taken

    def pop(self, process: Process) -> Introduction | None:
        """Return how a process is to be told before a line speaks of it; None: it needs not."""
        time = self._pending.pop(process, None) or self._unread.pop(process, None)
        return None if time is None else Introduction(process, time, repeated=False)

    def clear(self) -> None:
        """Tell nothing any more."""
        self._pending.clear()
        self._unread.clear()
        self._repeated = None


def _is_told(process: Process) -> bool:
    """Tell whether a process belongs into an inventory: it lives and is no thread of the kernel."""
    return process.end is None and not process.state.facts.kernel_thread
