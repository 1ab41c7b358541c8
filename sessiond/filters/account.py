"""How many lines each filter took away: since the start, and since the stream was told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sessiond.process.table import Verdict
from sessiond.units import SECOND

# How often the stream is told, in ns.
PERIOD: Final = 3600 * SECOND


class Taken(NamedTuple):
    """What a filter took away in a window: lines, and about how many bytes; times in ns."""

    verdict: Verdict
    lines: int
    bytes: int
    since: int
    until: int


class FilterAccount:
    """Counts lines by filter and action.

    A line that is written after all, because another one needs it, is subtracted again.
    ``seen`` are all lines that filters were asked about, ``written`` those that they let pass.
    """

    def __init__(self) -> None:
        """Begin to count; the first window begins with the first call of ``due``."""
        self.seen = 0
        self.written = 0
        self._since: int | None = None
        self._lines: dict[Verdict, int] = {}
        self._released: dict[Verdict, int] = {}
        self._marked: dict[str, int] = {}
        self._bytes: dict[Verdict, int] = {}
        self._untold: dict[Verdict, tuple[int, int]] = {}

    def take(self, verdict: Verdict, size: int, lines: int = 1) -> None:
        """Count a line of about ``size`` bytes that is not written; -1 line: after all it is."""
        self._lines[verdict] = self._lines.get(verdict, 0) + lines
        if lines < 0:
            self._released[verdict] = self._released.get(verdict, 0) - lines
        self._bytes[verdict] = self._bytes.get(verdict, 0) + size * lines
        untold, bytes_ = self._untold.get(verdict, (0, 0))
        self._untold[verdict] = untold + lines, bytes_ + size * lines

    def mark(self, name: str) -> None:
        """Count a line that is written with what a filter adds to it."""
        self._marked[name] = self._marked.get(name, 0) + 1

    @property
    def deadline(self) -> int | None:
        """When the stream is to be told, in ns since boot."""
        return None if self._since is None or not self._untold else self._since + PERIOD

    def due(self, now: int, *, all_: bool = False) -> list[Taken]:
        """Return what the stream is to be told by now, and begin a new window; ``all_``: at once.

        A window in which nothing was taken away is not told.
        """
        since = now if self._since is None else self._since
        if now < since + PERIOD and not all_:
            self._since = since
            return []
        self._since = now
        untold, self._untold = self._untold, {}
        return [
            Taken(verdict, lines, size, since, now)
            for verdict, (lines, size) in untold.items()
            if lines
        ]

    def state(self) -> tuple[int | None, list[tuple[Verdict, int, int]]]:
        """Return what the stream was not told yet, and since when, for ``restore``."""
        return self._since, [(verdict, *told) for verdict, told in self._untold.items()]

    def restore(self, since: int | None, untold: list[tuple[Verdict, int, int]]) -> None:
        """Go on with what an earlier run has not told."""
        self._since = since
        self._untold = {verdict: (lines, size) for verdict, lines, size in untold}

    def status(self, filters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Give the counts as ``sessiond status`` shows them; seen = written + dropped + folded.

        ``released`` are the lines that were written after all, no longer among ``lines``.
        ``filters`` are those of now, with their actions: each has its counts, be they zero.
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
