"""The source of last resort: one snapshot; further processes are looked up one at a time."""

from __future__ import annotations

from sessiond.process.events import Observed, ProcessEvent
from sessiond.sources.lookup import ProcessLookup


class ProcfsSource:
    """What procfs shows at the start. Forks, execs and exits after that are not seen."""

    name = "procfs"
    exact = False
    set_aside = ""
    adopted = False
    keeps = False
    unread = 0
    degraded = ("only what audit events name is seen, and what is still in /proc by then",)

    def __init__(self, procfs: ProcessLookup) -> None:
        """Take the snapshot."""
        self._pending: list[Observed] = procfs.snapshot()
        self._procfs = procfs

    @property
    def descriptors(self) -> list[int]:
        """There are none."""
        return []

    def fileno(self) -> None:
        """Return None: there is nothing to wait for."""

    def drain(self) -> list[ProcessEvent]:
        """Return the snapshot, once."""
        events: list[ProcessEvent] = list(self._pending)
        self._pending = []
        return events

    def resnapshot(self) -> list[ProcessEvent]:
        """Return every process as procfs shows it now."""
        return list(self._procfs.snapshot())

    def close(self) -> None:
        """Hold nothing, so nothing is given back."""
