"""Dates as ECS documents carry them: one format, so that text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

# Three digits by number: compiled, a format specification costs as much as all the rest.
_DIGITS: Final[list[str]] = [f"{number:03d}" for number in range(1000)]


@lru_cache(maxsize=256)
def _whole_seconds(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat() + "."


def timestamp(time: int) -> str:
    """Write a time in ns since the epoch as ``2026-05-01T10:31:12.123456Z``.

    UTC, always six decimals (the rest is cut, not rounded: a date is never in the future of its
    event). Raises ValueError or OverflowError outside the years 1 to 9999.
    """
    microseconds = time // 1000
    milliseconds = microseconds // 1000
    second = _whole_seconds(milliseconds // 1000)
    return f"{second}{_DIGITS[milliseconds % 1000]}{_DIGITS[microseconds % 1000]}Z"
