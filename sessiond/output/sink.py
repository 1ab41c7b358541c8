"""The sink protocol, and the reports of an output about itself."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from sessiond.units import WallTime


class Sink(Protocol):
    """A destination of lines, which may fail.

    No method waits for a reader. Methods of a file can take as long as its disk does.
    """

    name: str
    trouble: str | None  # the current problem, as text; it may accept lines nevertheless
    rejected: int  # accepted lines that can never be delivered, such as ones that are too long
    gone: bool  # its reader has exited for good

    @property
    def unconfirmed(self) -> int:
        """The number of last accepted lines whose arrival is not confirmed."""
        ...

    @property
    def volatile(self) -> int:
        """The number of these that are only in this process's memory."""
        ...

    def in_flight(self) -> list[bytes]:
        """Return the unconfirmed lines. The sink itself delivers them again if necessary."""
        ...

    def open(self) -> None:
        """Open it. Raises OutputError for a permanent failure, OSError for a temporary one."""
        ...

    def write(self, lines: list[bytes]) -> int:
        """Accept lines from the first on; return how many. Does not raise."""
        ...

    def tick(self, now: float) -> float | None:
        """Do the work due at ``now`` (monotonic seconds); return when to call again."""
        ...

    def flush(self) -> None:
        """Stop batching the accepted lines."""
        ...

    def reopen(self) -> None:
        """Close and reopen it."""
        ...

    def sync(self) -> None:
        """Sync written lines to the disk, if any. May block."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...

    def status(self) -> dict[str, Any]:
        """Return the details of this kind of sink."""
        ...


class HealthChange(NamedTuple):
    """An output has become unhealthy, or healthy again. Times are seconds since the epoch."""

    output: str
    healthy: bool
    reason: str  # why it is, or was, unhealthy
    since: WallTime  # when it became unhealthy
    until: WallTime | None  # when it recovered; None while it is unhealthy
    kept: int  # lines that had to wait
    dropped: int  # lines lost in that time


class LineLoss(NamedTuple):
    """Lines that an output has lost. Times are seconds since the epoch."""

    output: str
    reason: str
    lines: int
    since: WallTime
    until: WallTime


class Account(NamedTuple):
    """Where the lines of an output are; accepted is the sum of all others."""

    accepted: int
    delivered: int
    queued: int
    spooled: int
    dropped: dict[str, int]  # by reason
