"""Folds events of one kind into one line per window. Pure: time is an argument, in ns."""

from __future__ import annotations

from typing import Final

from sessiond.filters.saved import Kind

# Maximum number of open windows; beyond it the oldest one is closed early.
MAX_KINDS: Final = 4096


class Window:
    """The events of a kind in one window; ``example`` is the JSON of the first one's process.

    ``count`` is their number, ``first`` and ``last`` their times; ``until`` is when it closes.
    ``name`` makes the id of its line.
    """

    __slots__ = ("count", "example", "first", "last", "length", "name", "until")

    def __init__(self, until: int, length: int) -> None:
        """Start an empty window."""
        self.until = until
        self.length = length
        self.count = 0
        self.first = 0
        self.last = 0
        self.example: bytes | None = None
        self.name = ""

    def add(self, time: int) -> None:
        """Count an event."""
        self.first = self.first if self.count else time
        self.last = max(self.last, time)
        self.count += 1


class Folds:
    """The open windows by kind, in the order of their start."""

    def __init__(self) -> None:
        """Start empty."""
        self._windows: dict[Kind, Window] = {}

    def add(self, kind: Kind, time: int, length: int) -> Window | None:
        """Count an event at ``time``; None: its kind is new, so write it at once.

        A window lasts ``length`` from the first event of a new kind on, and is renewed while events
        occur.
        """
        window = self._windows.get(kind)
        if window is None:
            self._windows[kind] = Window(time + length, length)
            return None
        window.add(time)
        return window

    @property
    def deadline(self) -> int | None:
        """The time at which the next window closes."""
        return min((each.until for each in self._windows.values()), default=None)

    def due(self, now: int, *, all_: bool = False) -> list[tuple[Kind, Window]]:
        """Close the windows that end by ``now``, or all; return those with events."""
        excess = len(self._windows) - MAX_KINDS
        closed = [
            (kind, window)
            for number, (kind, window) in enumerate(self._windows.items())
            if all_ or window.until <= now or number < excess
        ]
        for kind, window in closed:
            del self._windows[kind]
            if window.count and not all_:
                self._windows[kind] = Window(now + window.length, window.length)
        return [(kind, window) for kind, window in closed if window.count]

    def state(self) -> list[tuple[Kind, tuple[int, int, int, int, int, bytes | None, str]]]:
        """Return the open windows for ``restore``."""
        return [
            (kind, (w.until, w.length, w.count, w.first, w.last, w.example, w.name))
            for kind, w in self._windows.items()
        ]

    def restore(
        self, windows: list[tuple[Kind, tuple[int, int, int, int, int, bytes | None, str]]]
    ) -> None:
        """Continue the windows of an earlier run."""
        for kind, (until, length, count, first, last, example, name) in windows:
            window = self._windows[kind] = Window(until, length)
            window.count, window.first, window.last = count, first, last
            window.example, window.name = example, name
