"""What a person is told while logs are read, and when they have been."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

from sessiond.replay.replay import Outcome
from sessiond.text import printable

# How often the line is drawn anew, and after how many lines of a log the clock is looked at.
_INTERVAL: Final = 0.2
_LINES: Final = 2000


class Progress:
    """A line on a terminal that says how far the reading is; nothing elsewhere."""

    def __init__(self, terminal: TextIO, names: list[str]) -> None:
        """Take the terminal, and the logs that will be read."""
        self._terminal = terminal if terminal.isatty() else None
        self._sizes = {name: _size(name) for name in names}
        self._done = 0
        self._lines = 0
        self._begin = self._shown = time.monotonic()

    def of(self, name: str, lines: Iterable[bytes], position: Callable[[], int]) -> Iterator[bytes]:
        """Pass the lines of a log on; ``position`` is how many bytes of its file were read."""
        if self._terminal is None:
            yield from lines
            return
        for line in lines:
            self._lines += 1
            if self._lines % _LINES == 0:
                self._show(name, self._done + position())
            yield line
        self._done += self._sizes.get(name, 0)

    def _show(self, name: str, read: int) -> None:
        now = time.monotonic()
        if now - self._shown < _INTERVAL or self._terminal is None:
            return
        self._shown = now
        total = sum(self._sizes.values())
        share = f"{100 * min(read, total) // total:3d}% " if total else ""
        speed = self._lines / (now - self._begin)
        text = f"{share}{self._lines:,} lines, {speed:,.0f}/s: {printable(name)}"
        self._terminal.write(f"\r\x1b[K{text[:79]}")
        self._terminal.flush()

    def clear(self) -> None:
        """Take the line away: another one follows."""
        if self._terminal is not None:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()


def _size(name: str) -> int:
    try:
        return Path(name).stat().st_size if name != "-" else 0
    except OSError:
        return 0


def summary(outcome: Outcome, *, hosts: int, boots: int) -> str:
    """Say in one line what was read and written, and what was not understood, by kind."""
    parts = [
        _count(outcome.records, "record"),
        _count(outcome.events, "event"),
        f"{_count(outcome.written, 'line')} written",
        _count(hosts, "host"),
        _count(boots, "boot"),
    ]
    lost = outcome.lost.total()
    for number, what in (
        (outcome.others, "of other programs or hosts"),
        (outcome.refused, "not understood"),
        (lost, "in a form that lost a part"),
    ):
        if number:
            parts.append(f"{_count(number, 'line')} {what}")
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
