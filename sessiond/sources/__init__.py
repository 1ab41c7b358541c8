"""Sources of process events: eBPF, the proc connector or procfs, behind one protocol."""

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
    """The interface of every source of process events."""

    @property
    def name(self) -> str:
        """One of BACKENDS."""
        ...

    @property
    def exact(self) -> bool:
        """Whether the source reports every fork, exec and exit."""
        ...

    @property
    def degraded(self) -> tuple[str, ...]:
        """The source's limitations on this host, as text for the user."""
        ...

    @property
    def descriptors(self) -> list[int]:
        """The descriptors with which another process can continue; empty if it can't."""
        ...

    @property
    def adopted(self) -> bool:
        """Whether it continues with an earlier process's descriptors, without missing events."""
        ...

    @property
    def passes_input(self) -> bool:
        """Whether ``on_received`` gets its raw input, so that its events need not be saved."""
        ...

    @property
    def set_aside(self) -> str:
        """Why it could not use the descriptors passed to it; "" if there were none."""
        ...

    @property
    def remark(self) -> str:
        """What took long at its start, as text for the log; "" if nothing did."""
        ...

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when events may be pending, or None."""
        ...

    def drain(self) -> list[ProcessEvent]:
        """Return the events since the last call, in the kernel's order; never block.

        The first call includes the existing processes. A Lost event marks missing events.
        """
        ...

    def check(self) -> None:
        """Raise OSError if the kernel can no longer report to this process."""
        ...

    def resnapshot(self) -> list[ProcessEvent]:
        """Return every current process, merged by time with the events that came meanwhile."""
        ...

    @property
    def unread(self) -> int:
        """Return how many processes of a snapshot later drains will complete."""
        ...

    def close(self) -> None:
        """Release all resources."""
        ...


class Declined(NamedTuple):
    """A better source that is unavailable here: the reason, and the remedy."""

    name: str
    reason: str
    fix: str


def prepare(
    backend: str, *, ring_bytes: int, args_limit: int, stored_descriptors: Sequence[int] = ()
) -> Helper | None:
    """Start the slow part of opening a source; ``open_source`` waits for the rest.

    It is also the only part that needs CAP_PERFMON. The arguments are those of ``open_source``.
    Returns None if no part is slow, or if this part fails: ``open_source`` then reports the reason.
    """
    if backend not in ("auto", "ebpf"):
        return None
    if stored_descriptors:
        from sessiond.sources.ebpf.source import fits

        if fits(stored_descriptors, ring_bytes=ring_bytes, args_limit=args_limit):
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
    stored_descriptors: Sequence[int] = (),
    on_received: Callable[[bytes], None] | None = None,
    known: Callable[[Facts], Facts | None] = lambda _: None,
    helper: Helper | None = None,
) -> tuple[Source, list[Declined]]:
    """Open the source named ``backend``; for ``auto``, the best that works.

    Returns it with the reasons why better ones are unavailable. ``after`` names a source that
    failed while running, so that ``auto`` tries only the following ones. ``ring_bytes`` (a power of
    two, at least a page) and ``args_limit`` (bytes kept of each argv, at most MAX_ARGS_LIMIT) are
    for eBPF. ``stored_descriptors`` are those of an earlier process; ``on_received`` gets ring data
    before it is freed. ``known`` returns the facts of a process for which a snapshot needs no data
    of procfs, None for any other. ``helper`` comes from ``prepare``. Raises SourceUnavailableError
    if the requested source is unavailable. Blocks for about a second.
    """
    openers: dict[str, Callable[[], Source]] = {
        "ebpf": lambda: _open_ebpf(
            procfs, ring_bytes, args_limit, stored_descriptors, on_received, known, helper
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
    """Open a source. Raises SourceUnavailableError, also if the host is short of resources."""
    try:
        return opener()
    except OSError as error:
        fix = SHORTAGES.get(error.errno or 0)
        if fix is None:
            raise
        raise SourceUnavailableError(name, (error.strerror or str(error)).lower(), fix) from None


# A source is imported when it is tried, so that unused ones cost no memory.


def _open_ebpf(
    procfs: ProcessLookup,
    ring_bytes: int,
    args_limit: int,
    stored_descriptors: Sequence[int],
    on_received: Callable[[bytes], None] | None,
    known: Callable[[Facts], Facts | None],
    helper: Helper | None,
) -> Source:
    from sessiond.sources.ebpf.source import EbpfSource

    return EbpfSource(
        procfs,
        ring_bytes=ring_bytes,
        args_limit=args_limit,
        stored_descriptors=stored_descriptors,
        on_received=on_received,
        known=known,
        helper=helper,
    )


def _open_proc_connector(procfs: ProcessLookup) -> Source:
    from sessiond.sources.proc_connector import ProcConnectorSource

    return ProcConnectorSource(procfs)


def _open_procfs(procfs: ProcessLookup) -> Source:
    from sessiond.sources.procfs.source import ProcfsSource

    return ProcfsSource(procfs)
