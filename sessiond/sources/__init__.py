"""Where process events come from: eBPF, the proc connector or procfs, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sessiond.errors import SHORTAGES, SourceUnavailableError
from sessiond.process.events import Facts, ProcessEvent
from sessiond.sources.lookup import ProcessLookup

if TYPE_CHECKING:
    from sessiond.sources.ebpf.helper import Helper

RING_BYTES = 8 << 20
ARGS_LIMIT = 8192
MAX_ARGS_LIMIT = 15360  # a record, with three paths, has to fit into a per-CPU map's 32 KiB
BACKENDS = ("ebpf", "proc_connector", "procfs")  # best first


class Source(Protocol):
    """What every source of process events can do."""

    @property
    def name(self) -> str:
        """One of BACKENDS."""
        ...

    @property
    def exact(self) -> bool:
        """Whether every fork, exec and exit is seen."""
        ...

    @property
    def degraded(self) -> tuple[str, ...]:
        """What this source can't see on this host, in words for the user."""
        ...

    @property
    def descriptors(self) -> list[int]:
        """What another process needs to go on with this source; empty when that can't be."""
        ...

    @property
    def adopted(self) -> bool:
        """Whether it goes on with the descriptors of an earlier process: it has missed nothing."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether ``keep`` is given all that it reads, so that its events need not be kept."""
        ...

    @property
    def set_aside(self) -> str:
        """Why the descriptors that were handed on to it could not be used; "" if none were."""
        ...

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when there may be something to drain, or None."""
        ...

    def drain(self) -> list[ProcessEvent]:
        """Return what has happened since the last call, in the kernel's order; never block.

        The first call tells what was there before. A Lost event stands where events are missing.
        """
        ...

    def resnapshot(self) -> list[ProcessEvent]:
        """Return every process as it is now, in time with the events that came meanwhile."""
        ...

    @property
    def unread(self) -> int:
        """How many processes of a snapshot the drains to come tell in full."""
        ...

    def close(self) -> None:
        """Give back everything that the source holds."""
        ...


class Declined(NamedTuple):
    """A better source that can't be had here: why, and what would help."""

    name: str
    reason: str
    fix: str


def prepare(backend: str, *, ring_bytes: int, args_limit: int) -> Helper | None:
    """Begin what takes long of opening a source, for ``open_source`` to wait for the rest of it.

    The arguments are those of ``open_source``. Returns None where nothing takes long, or it is
    better left to ``open_source`` to say why it can't be.
    """
    if backend not in ("auto", "ebpf"):
        return None
    from sessiond.sources.ebpf.helper import Helper

    try:
        return Helper(ring_bytes, min(args_limit, MAX_ARGS_LIMIT))
    except (OSError, SourceUnavailableError):
        return None


def open_source(
    backend: str,
    procfs: ProcessLookup,
    *,
    ring_bytes: int = RING_BYTES,
    args_limit: int = ARGS_LIMIT,
    after: str | None = None,
    handed_on: Sequence[int] = (),
    keep: Callable[[bytes], None] | None = None,
    is_known: Callable[[Facts], bool] = lambda _: False,
    helper: Helper | None = None,
) -> tuple[Source, list[Declined]]:
    """Open the source named ``backend``; for ``auto``, the best that works.

    Returns it with the reasons why better ones don't work. ``after`` names the source that died
    while running, so that ``auto`` tries only the ones below it. eBPF's are ``ring_bytes`` (a power
    of two, at least a page) and ``args_limit`` (bytes kept of each argv, at most MAX_ARGS_LIMIT).
    ``handed_on`` are the descriptors of an earlier process, and ``keep`` is given what is read
    of the ring before it is freed. ``is_known`` tells of which processes a snapshot needs no more
    than the kernel's facts. ``helper`` is what ``prepare`` has begun. Raises SourceUnavailableError
    when the one asked for can't be had. Blocks for about a second.
    """
    openers: dict[str, Callable[[], Source]] = {
        "ebpf": lambda: _open_ebpf(
            procfs, ring_bytes, args_limit, handed_on, keep, is_known, helper
        ),
        "proc_connector": lambda: _open_proc_connector(procfs),
        "procfs": lambda: _open_procfs(procfs),
    }
    if backend != "auto":
        return _opened(backend, openers[backend]), []
    declined: list[Declined] = []
    for name in BACKENDS[BACKENDS.index(after) + 1 if after else 0 : -1]:
        try:
            return _opened(name, openers[name]), declined
        except SourceUnavailableError as error:
            declined.append(Declined(error.source, error.reason, error.fix))
    return _opened("procfs", openers["procfs"]), declined


def _opened(name: str, opener: Callable[[], Source]) -> Source:
    """Open a source. Raises SourceUnavailableError, also for what the host is short of."""
    try:
        return opener()
    except OSError as error:
        fix = SHORTAGES.get(error.errno or 0)
        if fix is None:
            raise
        raise SourceUnavailableError(name, (error.strerror or str(error)).lower(), fix) from None


# Each is imported when it is tried: a source that isn't used costs no memory.


def _open_ebpf(
    procfs: ProcessLookup,
    ring_bytes: int,
    args_limit: int,
    handed_on: Sequence[int],
    keep: Callable[[bytes], None] | None,
    is_known: Callable[[Facts], bool],
    helper: Helper | None,
) -> Source:
    from sessiond.sources.ebpf.source import EbpfSource

    return EbpfSource(
        procfs,
        ring_bytes=ring_bytes,
        args_limit=args_limit,
        handed_on=handed_on,
        keep=keep,
        is_known=is_known,
        helper=helper,
    )


def _open_proc_connector(procfs: ProcessLookup) -> Source:
    from sessiond.sources.proc_connector import ProcConnectorSource

    return ProcConnectorSource(procfs)


def _open_procfs(procfs: ProcessLookup) -> Source:
    from sessiond.sources.procfs.source import ProcfsSource

    return ProcfsSource(procfs)
