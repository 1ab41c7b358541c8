"""When to try again: delays that grow while something fails."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from ``first`` to ``limit`` seconds.

    Each is shortened at random by up to a half, so that many daemons that lost the same reader
    don't come back to it in one moment.
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
        """Begin with the first delay again, because something has succeeded."""
        self._next = self._first
