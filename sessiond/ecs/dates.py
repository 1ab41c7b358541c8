"""Dates as ECS documents carry them: one format, so that text order is time order."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

_SECOND = 1_000_000_000


@lru_cache(maxsize=4096)
def _whole_seconds(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat() + "."


def timestamp(time: int) -> str:
    """Write a time in ns since the epoch as ``2026-05-01T10:31:12.123456Z``.

    UTC, always six decimals (the rest is cut, not rounded: a date is never in the future of its
    event). Raises ValueError or OverflowError outside the years 1 to 9999.
    """
    seconds, rest = divmod(time, _SECOND)
    return f"{_whole_seconds(seconds)}{rest // 1000:06d}Z"
