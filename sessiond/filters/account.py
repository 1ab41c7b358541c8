"""Counts the lines that each filter removed: since the start, and since the last report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sessiond.process.table import Verdict
from sessiond.units import SECOND

# Interval of the reports in the stream, in ns.
PERIOD: Final = 3600 * SECOND


class Taken(NamedTuple):
    """The lines that a filter removed in a window, and their approximate bytes; times in ns."""

    verdict: Verdict
    lines: int
    bytes: int
    since: int
    until: int


class FilterAccount:
    """Counts lines by filter and action.

    A line that is written later, because another one needs it, is subtracted again. ``seen`` are
    all lines that went through the filters, ``written`` those that passed.
    """

    def __init__(self) -> None:
        """Start counting; the first window starts with the first call of ``due``."""
        self.seen = 0
        self.written = 0
        self._since: int | None = None
        self._lines: dict[Verdict, int] = {}
        self._released: dict[Verdict, int] = {}
        self._marked: dict[str, int] = {}
        self._bytes: dict[Verdict, int] = {}
        self._unreported: dict[Verdict, tuple[int, int]] = {}

    def take(self, verdict: Verdict, size: int, lines: int = 1) -> None:
        """Count a removed line of about ``size`` bytes; -1 line: it is written later."""
        self._lines[verdict] = self._lines.get(verdict, 0) + lines
        if lines < 0:
            self._released[verdict] = self._released.get(verdict, 0) - lines
        self._bytes[verdict] = self._bytes.get(verdict, 0) + size * lines
        unreported, bytes_ = self._unreported.get(verdict, (0, 0))
        self._unreported[verdict] = unreported + lines, bytes_ + size * lines

    def mark(self, name: str) -> None:
        """Count a line that is written with a filter's labels or omissions."""
        self._marked[name] = self._marked.get(name, 0) + 1

    @property
    def deadline(self) -> int | None:
        """The time of the next report, in ns since boot."""
        return None if self._since is None or not self._unreported else self._since + PERIOD

    def due(self, now: int, *, all_: bool = False) -> list[Taken]:
        """Return the due reports and start a new window; ``all_``: do not wait.

        Filters that removed nothing in the window are not reported.
        """
        since = now if self._since is None else self._since
        if now < since + PERIOD and not all_:
            self._since = since
            return []
        self._since = now
        unreported, self._unreported = self._unreported, {}
        return [
            Taken(verdict, lines, size, since, now)
            for verdict, (lines, size) in unreported.items()
            if lines
        ]

    def state(self) -> tuple[int | None, list[tuple[Verdict, int, int]]]:
        """Return the unreported counts and the start of the window, for ``restore``."""
        return self._since, [(verdict, *counts) for verdict, counts in self._unreported.items()]

    def restore(self, since: int | None, unreported: list[tuple[Verdict, int, int]]) -> None:
        """Continue with the unreported counts of an earlier run."""
        self._since = since
        self._unreported = {verdict: (lines, size) for verdict, lines, size in unreported}

    def status(self, filters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the counts for ``sessiond status``; seen = written + dropped + folded.

        ``released`` are the lines that were written later, no longer among ``lines``. ``filters``
        are the current filters with their actions: each has counts, even if they are zero.
        """
        none = {"lines": 0, "bytes": 0, "released": 0}
        now = {
            name: {"action": action, **none, "lines": self._marked.get(name, 0)}
            for name, action in (filters or {}).items()
            if action != "keep"
        }
        sums = {"drop": 0, "fold": 0}
        for verdict, lines in self._lines.items():
            sums[verdict.action] += lines
        taken = sums["drop"] + sums["fold"]
        return {
            "seen": self.seen,
            "written": self.written,
            "dropped": sums["drop"],
            "folded": sums["fold"],
            "balanced": self.seen == self.written + taken,
            "by_filter": now
            | {
                verdict.filter: {
                    "action": verdict.action,
                    "lines": lines,
                    "bytes": self._bytes[verdict],
                    "released": self._released.get(verdict, 0),
                }
                for verdict, lines in self._lines.items()
            },
        }
