"""Text formatting for people: terminal columns, dates, colours; pure."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Colours:
    """A few colours with one meaning each; if off, texts stay plain."""

    on: bool = False

    def dim(self, text: str) -> str:
        """Style headings and times."""
        return self._in("2", text)

    def bold(self, text: str) -> str:
        """Style typed commands."""
        return self._in("1", text)

    def bad(self, text: str) -> str:
        """Failures."""
        return self._in("31", text)

    def lost(self, text: str) -> str:
        """Style losses and gaps."""
        return self._in("1;31", text)

    def root(self, text: str) -> str:
        """Style changes of the user."""
        return self._in("33", text)

    def good(self, text: str) -> str:
        """Style running processes."""
        return self._in("32", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[m" if self.on and text else text


def width_of(text: str) -> int:
    """Return the width of a text on a terminal: East Asian characters take two columns."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, room: int) -> str:
    """Cut a text to a number of columns."""
    if len(text) <= room and width_of(text) <= room:
        return text
    taken, used = [], 0
    for char in text:
        used += _columns(char)
        if used > room - 1:
            break
        taken.append(char)
    return "".join(taken) + "…"


def pad(text: str, room: int, *, right: bool = False) -> str:
    """Pad a text with blanks to a number of columns."""
    blanks = " " * (room - width_of(text))
    return blanks + text if right else text + blanks


def local(date: str, now: datetime) -> datetime | None:
    """Return an event's date in the time zone of ``now``; None for an invalid date."""
    try:
        then = datetime.fromisoformat(date)
    except ValueError:
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone(now.tzinfo)


def day_and_time(date: str, now: datetime) -> str:
    """Format a date like ps(1): the time if today, else with the day; empty for none."""
    then = local(date, now)
    if then is None:
        return ""
    if then.date() == now.date():
        return f"{then:%H:%M:%S}"
    return f"{then:%b %d %H:%M}" if then.year == now.year else f"{then:%Y-%m-%d}"


def span(start: str, end: str) -> timedelta | None:
    """Return the time between two dates of events; None if one is invalid."""
    try:
        return datetime.fromisoformat(end) - datetime.fromisoformat(start)
    except (ValueError, TypeError):
        return None


def short(lasted: timedelta) -> str:
    """Format a duration like last(1), in the two largest units."""
    seconds = lasted.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, seconds = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02}m"
    return f"{hours // 24}d{hours % 24:02}h"
