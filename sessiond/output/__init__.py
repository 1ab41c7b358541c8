"""Where the lines go: files, sockets and the console.

A sink (``FileOutput``, ``StreamOutput``, ``DatagramOutput``, ``ConsoleOutput``) takes what it can;
``Delivery`` puts a ``Spool`` and a small queue before it and keeps the account.
"""

from __future__ import annotations

from typing import Any, Protocol

from sessiond.output.console import ConsoleOutput
from sessiond.output.delivery import Delivery, Health, Loss, Sink
from sessiond.output.file import FileOutput
from sessiond.output.socket import DatagramOutput, StreamOutput
from sessiond.output.spool import Policy, Spool

__all__ = [
    "ConsoleOutput",
    "DatagramOutput",
    "Delivery",
    "FileOutput",
    "Health",
    "Loss",
    "Output",
    "Policy",
    "Sink",
    "Spool",
    "StreamOutput",
]


class Output(Protocol):
    """What the daemon writes to; ``Delivery`` is one."""

    def write(self, lines: list[bytes]) -> None:
        """Take ``lines``, each with its newline. Never blocks, never raises for a sick sink."""
        ...

    def tick(self, now: float) -> float | None:
        """Do what is due at ``now`` (monotonic seconds); return when to be called again."""
        ...

    def deadline(self) -> float | None:
        """Return when ``tick`` is due; None for never. To be asked again after each write."""
        ...

    def flush(self, timeout: float) -> bool:
        """Deliver what waits, for ``timeout`` seconds at most; return whether all has arrived."""
        ...

    def reopen(self) -> None:
        """Open anew what is open."""
        ...

    def close(self) -> None:
        """Keep what has not arrived and let go of everything."""
        ...

    def status(self) -> dict[str, Any]:
        """Return health and counters."""
        ...
