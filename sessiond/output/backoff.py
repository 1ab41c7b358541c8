"""Retry delays that grow with each failure."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from ``first`` to ``limit`` seconds.

    Each is shortened at random by up to a half, so that many daemons with the same reader do not
    reconnect at the same moment.
    """

    def __init__(self, first: float, limit: float) -> None:
        """Take the first delay and the longest one, both in seconds."""
        self._first = first
        self._limit = limit
        self._next = first

    def delay(self) -> float:
        """Return how many seconds to wait before the next attempt."""
        delay = self._next
        self._next = min(delay * 2, self._limit)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, keeps no secret)

    def reset(self) -> None:
        """Start with the first delay again, after a success."""
        self._next = self._first
