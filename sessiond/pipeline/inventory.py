"""The inventory: living processes without a fork or exec in the stream, written in batches.

A process that is older than the daemon, or that started while no daemon ran, has neither a fork nor
an exec in the stream. It is written once as ``already_running``. Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from sessiond.process.table import Process, ProcessTable

# Processes per poll: about 7 ms of work, so that live events are not delayed.
BATCH = 50  # not Final: tests set it, and in compiled code a constant has no name


class Introduction(NamedTuple):
    """A process to write as of ``time`` (ns since boot); ``repeated``: not the first time."""

    process: Process
    time: int
    repeated: bool


class Inventory:
    """The processes that are still to be written, in the order of their start."""

    def __init__(self) -> None:
        """Start empty."""
        self._pending: dict[Process, int] = {}  # with the time as of which to write it
        self._unread: dict[Process, int] = {}  # processes whose details are still to be read
        self._repeated: Iterator[Process] | None = None
        self._repeat_at: int | None = None

    def __len__(self) -> int:
        return len(self._pending) + len(self._unread)

    @property
    def deadline(self) -> int | None:
        """The time of the next ``repeat`` and ``take``, in ns since boot; None: never."""
        return 0 if self._pending or self._repeated is not None else self._repeat_at

    def add(self, observed: Iterable[Process], unread: Container[int] = ()) -> None:
        """Add the processes of a snapshot, except those that the stream has introduced.

        Processes with pids in ``unread`` wait until they are added again or needed.
        """
        # If a process's first state is not from a snapshot, its fork or exec introduces it.
        found = [
            process
            for process in observed
            if not process.introduced and process.states[0].observed is not None
        ]
        for process in sorted(filter(_belongs, found), key=lambda each: (each.start, each.pid)):
            time = process.states[0].observed or process.start
            if process.pid in unread:
                if process not in self._pending:
                    self._unread[process] = time
            else:
                self._unread.pop(process, None)
                self._pending.setdefault(process, time)

    def repeat(self, table: ProcessTable, now: int, period: int) -> None:
        """Start to write all living processes again, ``period`` ns after the last time.

        The first call starts the first period; a period of 0 disables repetition.
        """
        if not period:
            self._repeat_at = self._repeated = None
        elif self._repeat_at is None:
            self._repeat_at = now + period
        elif now >= self._repeat_at:
            self._repeat_at = now + period
            self._repeated = iter(list(table))

    def take(self, now: int) -> list[Introduction]:
        """Remove and return the next processes, at most BATCH."""
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
                if process.introduced and _belongs(process)
            ]
        return taken

    def pop(self, process: Process) -> Introduction | None:
        """Remove and return a process that must precede a line about it; None if it need not."""
        time = self._pending.pop(process, None) or self._unread.pop(process, None)
        return None if time is None else Introduction(process, time, repeated=False)

    def clear(self) -> None:
        """Remove all processes."""
        self._pending.clear()
        self._unread.clear()
        self._repeated = None


def _belongs(process: Process) -> bool:
    """Return whether a process belongs in the inventory: it lives and is not a kernel thread."""
    return process.end is None and not process.state.facts.kernel_thread
