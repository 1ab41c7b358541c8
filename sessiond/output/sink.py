"""The protocol of a sink, and what an output reports about itself."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from sessiond.units import WallTime


class Sink(Protocol):
    """Something that lines can be put into, and that may be sick.

    No method waits for a reader. A file's may take as long as its disk does.
    """

    name: str
    trouble: str | None  # why it isn't well, in words; lines may be taken nevertheless
    rejected: int  # lines taken that it can never deliver, such as one too long for a datagram
    gone: bool  # its reader is gone for good

    @property
    def unconfirmed(self) -> int:
        """How many of the lines taken last are not known to have arrived."""
        ...

    @property
    def volatile(self) -> int:
        """How many of these are in the memory of this process alone."""
        ...

    def in_flight(self) -> list[bytes]:
        """Return those lines. They are delivered again by the sink itself if need be."""
        ...

    def open(self) -> None:
        """Begin. Raises OutputError when it never can, OSError when it can't now."""
        ...

    def write(self, lines: list[bytes]) -> int:
        """Take lines, whole ones, from the first on; return how many. Doesn't raise."""
        ...

    def tick(self, now: float) -> float | None:
        """Do what is due at ``now`` (monotonic seconds); return when to be called again."""
        ...

    def flush(self) -> None:
        """Let the lines that were taken wait for others no longer."""
        ...

    def reopen(self) -> None:
        """Let go of what is open and open it anew."""
        ...

    def sync(self) -> None:
        """Have what was written on the disk, where there is one. May block."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...

    def status(self) -> dict[str, Any]:
        """Return what is particular to this kind of sink."""
        ...


class HealthChange(NamedTuple):
    """An output has become sick, or well again. Times are seconds since the epoch."""

    output: str
    healthy: bool
    reason: str  # why it is, or was, sick
    since: WallTime  # when it became sick
    until: WallTime | None  # when it became well; None while it is sick
    kept: int  # lines that had to wait
    dropped: int  # lines lost meanwhile


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
