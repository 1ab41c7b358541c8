"""The base of outputs that send to a socket and reconnect to its reader."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from sessiond.output.backoff import Backoff

# Errors of a send that may succeed later.
TEMPORARY: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
BACKOFF: Final = (0.1, 10.0)  # seconds: the first and the longest wait for a reader


class ReconnectingOutput(ABC):
    """A connection to a reader that may come and go.

    ``trouble`` says why there is none. A subclass connects in ``tick`` when ``_retry`` (monotonic
    seconds) has come, and calls ``_lose`` when that or sending fails.
    """

    def __init__(self, name: str, backoff: tuple[float, float], clock: Callable[[], float]) -> None:
        """Take the output's name.

        ``backoff`` is the first and the longest wait for a reader, in seconds; ``clock`` returns
        monotonic seconds.
        """
        self.name = name
        self.trouble: str | None = None
        self.rejected = 0
        self.volatile = 0
        self.gone = False  # another reader may start
        self._clock = clock
        self._backoff = Backoff(*backoff)
        self._retry = 0.0
        self._connections = 0

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether there is a reader."""

    @abstractmethod
    def tick(self, now: float) -> float | None:
        """Connect if it is due at ``now``; return when to call again (monotonic seconds)."""

    @abstractmethod
    def _disconnect(self) -> None: ...

    def open(self) -> None:
        """Start to connect; a missing reader is not an error."""
        self.tick(self._clock())

    def flush(self) -> None:  # noqa: B027 -- not abstract
        """Do nothing: lines do not wait for others."""

    def reopen(self) -> None:
        """Reconnect."""
        self._disconnect()
        self._retry = 0.0
        self.tick(self._clock())

    def sync(self) -> None:  # noqa: B027 -- not abstract
        """Do nothing: there is no disk."""

    def close(self) -> None:
        """Close the connection. A reader can still read data that the kernel has accepted."""
        self._disconnect()
        self._retry = float("inf")

    def status(self) -> dict[str, Any]:
        """Return whether it is connected, and the number of connections."""
        return {
            "address": self.name,
            "connected": self.connected,
            "connections": self._connections,
        }

    def _lose(self, error: OSError, now: float) -> None:
        self._disconnect()
        self._retry = now + self._backoff.delay()
        self.trouble = f"{self.name}: {error.strerror}"
