"""The progress line and the summary of a replay."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

from sessiond.replay.replay import Outcome
from sessiond.text import printable

# Refresh interval of the line, and number of log lines between checks of the clock.
_INTERVAL: Final = 0.2
_LINES: Final = 2000


class Progress:
    """A progress line on a terminal; nothing elsewhere."""

    def __init__(self, terminal: TextIO, names: list[str]) -> None:
        """Take the terminal and the logs."""
        self._terminal = terminal if terminal.isatty() else None
        self._sizes = {name: size_of(name) for name in names}
        self._read: dict[str, int] = {}  # bytes, by log
        self._lines = 0
        self._begin = self._shown = time.monotonic()

    def of(self, name: str, lines: Iterable[bytes], position: Callable[[], int]) -> Iterator[bytes]:
        """Pass on the lines of a log; ``position`` returns the number of bytes read of its file."""
        if self._terminal is None:
            yield from lines
            return
        for line in lines:
            self._lines += 1
            if self._lines % _LINES == 0:
                self._read[name] = position()
                self._show(name)
            yield line
        self._read[name] = self._sizes.get(name, 0)

    def _show(self, name: str) -> None:
        now = time.monotonic()
        if now - self._shown < _INTERVAL or self._terminal is None:
            return
        self._shown = now
        read, total = sum(self._read.values()), sum(self._sizes.values())
        share = f"{100 * min(read, total) // total:3d}% " if total else ""
        speed = self._lines / (now - self._begin)
        text = f"{share}{self._lines:,} lines, {speed:,.0f}/s: {printable(name)}"
        self._terminal.write(f"\r\x1b[K{text[:79]}")
        self._terminal.flush()

    def clear(self) -> None:
        """Clear the progress line."""
        if self._terminal is not None:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()


def size_of(name: str) -> int:
    """Return the number of bytes of a file; 0 for standard input, and if it can't be read."""
    try:
        return Path(name).stat().st_size if name != "-" else 0
    except OSError:
        return 0


def summary(outcome: Outcome, *, hosts: int, boots: int) -> str:
    """Return a one-line summary: the number of lines read, written and refused."""
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
    if outcome.unwritten:
        parts.append(f"{_count(outcome.unwritten, 'record')} not written by the kernel")
    if outcome.lost_by_audit:
        parts.append(f"{_count(outcome.lost_by_audit, 'record')} lost by the kernel")
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
