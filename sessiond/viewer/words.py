"""Text for people: columns of a terminal, dates, colours; pure."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Colours:
    """A few colours with one meaning each; off, every text stays as it is."""

    on: bool = False

    def dim(self, text: str) -> str:
        """What is always there: heads, times."""
        return self._in("2", text)

    def bold(self, text: str) -> str:
        """What a person typed."""
        return self._in("1", text)

    def bad(self, text: str) -> str:
        """Failures."""
        return self._in("31", text)

    def lost(self, text: str) -> str:
        """Losses and gaps."""
        return self._in("1;31", text)

    def root(self, text: str) -> str:
        """A change of the user."""
        return self._in("33", text)

    def good(self, text: str) -> str:
        """What still runs."""
        return self._in("32", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[m" if self.on and text else text


def width_of(text: str) -> int:
    """Return the columns that a text takes on a terminal: East Asian characters take two."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, room: int) -> str:
    """Return as much of a text as has room in so many columns."""
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
    """Fill a text with blanks to so many columns."""
    blanks = " " * (room - width_of(text))
    return blanks + text if right else text + blanks


def local(date: str, now: datetime) -> datetime | None:
    """Return a date of an event in the time zone of ``now``; None when it is none."""
    try:
        then = datetime.fromisoformat(date)
    except ValueError:
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone(now.tzinfo)


def day_and_time(date: str, now: datetime) -> str:
    """Show a date as ps(1) does: the time of today, else the day too; empty for none."""
    then = local(date, now)
    if then is None:
        return ""
    if then.date() == now.date():
        return f"{then:%H:%M:%S}"
    return f"{then:%b %d %H:%M}" if then.year == now.year else f"{then:%Y-%m-%d}"


def span(start: str, end: str) -> timedelta | None:
    """Return the time between two dates of events; None when one is none."""
    try:
        return datetime.fromisoformat(end) - datetime.fromisoformat(start)
    except (ValueError, TypeError):
        return None


def short(lasted: timedelta) -> str:
    """Write a span of time as last(1) does, in the two greatest units."""
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
