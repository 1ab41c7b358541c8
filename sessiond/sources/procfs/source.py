"""The last-resort source: one snapshot; further processes are looked up individually."""

from __future__ import annotations

from sessiond.process.events import Observed, ProcessEvent
from sessiond.sources.lookup import ProcessLookup


class ProcfsSource:
    """The processes in procfs at the start. It reports no later forks, execs and exits."""

    name = "procfs"
    exact = False
    set_aside = ""
    remark = ""
    adopted = False
    passes_input = False
    unread = 0
    degraded = ("only what audit events name is seen, and what is still in /proc by then",)

    def __init__(self, procfs: ProcessLookup) -> None:
        """Take the snapshot."""
        self._pending: list[Observed] = procfs.snapshot()
        self._procfs = procfs

    @property
    def descriptors(self) -> list[int]:
        """Return none."""
        return []

    def fileno(self) -> None:
        """Return None: there are no events to wait for."""

    def drain(self) -> list[ProcessEvent]:
        """Return the snapshot, once."""
        events: list[ProcessEvent] = list(self._pending)
        self._pending = []
        return events

    def check(self) -> None:
        """Do nothing: the kernel reports nothing by itself."""

    def resnapshot(self) -> list[ProcessEvent]:
        """Return every process as procfs shows it now."""
        return list(self._procfs.snapshot())

    def close(self) -> None:
        """Do nothing: the source holds no resources."""
