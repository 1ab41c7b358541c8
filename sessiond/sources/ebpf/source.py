"""The eBPF source in the daemon: holds the descriptors, drains the ring, takes snapshots.

A helper process (loader.py) loads the programs, which stay attached as long as their descriptors
are open here. This process loads neither bcc nor LLVM nor libbpf.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sessiond.blake2 import blake2b
from sessiond.process.events import (
    VANISHED,
    Changed,
    Executed,
    Exited,
    Facts,
    Forked,
    Lost,
    Observed,
    ProcessEvent,
)
from sessiond.sources import MAX_ARGS_LIMIT
from sessiond.sources.ebpf import bpf, cgroups
from sessiond.sources.ebpf.helper import Helper
from sessiond.sources.ebpf.records import CPUS, LOSS_KINDS, Decoder, MalformedRecordError
from sessiond.sources.ebpf.ring import Ring, spans
from sessiond.sources.lookup import ProcessLookup, filled_up, hidden_parents, with_start
from sessiond.units import SECOND

_SNAPSHOT_READ = 1 << 18  # bytes
_NOTE = 4096  # bytes
# Seconds for which a snapshot reads procfs: enough for an ordinary host. Each later drain continues
# with the rest for that long, so that live events are not delayed.
_READ_FIRST = 0.5
_READ_MORE = 0.02
_READ_AT_ONCE = 16  # processes
# Indices in `submitted` of programs.c: bytes written to the ring, and bytes consumed.
_BYTES_IN, _BYTES_OUT = CPUS * 8, CPUS * 8 + 8
_CHANGES_IN, _CHANGES_OUT = _BYTES_IN + 1, _BYTES_OUT + 1

_OF_FINGERPRINT = ("programs.c", "loader.py", "bpf.py", "btf.py", "kernel_headers.py", "records.py")


class EbpfSource:
    """Every fork, exec, exit and change of identity on the host, from the kernel's tracepoints.

    The ring wakes its reader when a record arrives after everything before it was read. So when
    ``fileno()`` becomes readable, stop watching it, wait some milliseconds, drain, and watch again:
    that makes one wake-up per batch under load and none on an idle host.
    """

    name = "ebpf"
    passes_input = True
    exact = True

    def __init__(
        self,
        procfs: ProcessLookup,
        *,
        ring_bytes: int,
        args_limit: int,
        mountinfo: Path = Path("/proc/self/mountinfo"),
        stored_descriptors: Sequence[int] = (),
        on_received: Callable[[bytes], None] | None = None,
        known: Callable[[Facts], Facts | None] = lambda _: None,
        helper: Helper | None = None,
    ) -> None:
        """Load and attach the programs; the first ``drain`` takes a snapshot.

        ``ring_bytes`` is a power of two, at least a page; ``args_limit`` bytes of each argv are
        kept (at most MAX_ARGS_LIMIT). Blocks for about a second if the programs have to be
        compiled. ``stored_descriptors`` are the ``descriptors`` of an earlier process: its programs
        have continued, and their records are read first. If they are of another version or
        configuration, they are closed and ``set_aside`` says so. ``on_received`` gets the ring's
        data before it is freed, for ``decoded``. ``known`` returns the facts of a process for which
        a snapshot need not read procfs, None for any other. ``helper`` was started earlier, for the
        same ``ring_bytes`` and ``args_limit``. Raises SourceUnavailableError.
        """
        fingerprint = _fingerprint(ring_bytes, min(args_limit, MAX_ARGS_LIMIT))
        self.set_aside = _unfit(stored_descriptors, fingerprint) if stored_descriptors else ""
        self.adopted = bool(stored_descriptors) and not self.set_aside
        if self.adopted:
            if helper is not None:
                helper.close()
            self._note, *self._descriptors = stored_descriptors
            answer = _read_note(self._note)
        else:
            for descriptor in stored_descriptors:
                os.close(descriptor)
            answer, self._descriptors = (
                _load(ring_bytes, min(args_limit, MAX_ARGS_LIMIT))
                if helper is None
                else helper.load()
            )
            answer |= {"fingerprint": fingerprint, "told": [0] * len(LOSS_KINDS)}
            try:
                self._note = os.memfd_create("sessiond-tracer")
            except OSError:
                for descriptor in self._descriptors:
                    os.close(descriptor)
                raise
        self._answer = answer
        # The tracer's limitations on this host, as text.
        self.degraded: tuple[str, ...] = tuple(answer["degraded"])
        reason = answer.pop("compiled", "")
        self.remark = f"the eBPF programs were compiled; {reason}" if reason else ""
        self.malformed = 0  # records that could not be decoded; 0 unless there is a bug
        self._procfs = procfs
        self._known = known
        self._decoder = Decoder()
        ring, counters, submitted = self._descriptors[:3]
        # A kernel without BTF has no iterators.
        self._iterator = self._descriptors[3] if answer["iterator"] else None
        self._ring = Ring(ring, ring_bytes)
        if on_received is not None:
            self._ring.on_received = on_received
        self._counter_page = mmap.mmap(counters, mmap.PAGESIZE, prot=mmap.PROT_READ)
        self._counters = memoryview(self._counter_page).cast("Q")
        self._submitted_pages = mmap.mmap(submitted, CPUS * 64 + mmap.PAGESIZE)
        self._submitted = memoryview(self._submitted_pages).cast("Q")
        # Records in the ring that an earlier process has consumed.
        self._not_ours: int | None = None if self.adopted else 0
        self._received = 0
        self._gap = 0  # records that were missing at the last check
        self._next_check = 0
        self._told: list[int] = answer["told"]
        self._kinds = self._kinds_now()
        self._write_note()
        self._pending: list[ProcessEvent] = list(cgroups.snapshot(mountinfo, answer["controller"]))
        self._is_new = True
        # Processes from the kernel whose procfs data is still to be read.
        self._unread: deque[Observed] = deque()

    def fileno(self) -> int:
        """Return the ring's descriptor. Drain once before you wait for it."""
        return self._descriptors[0]

    @property
    def descriptors(self) -> list[int]:
        """The descriptors with which a later process can continue, in order."""
        return [self._note, *self._descriptors]

    def drain(self) -> list[ProcessEvent]:
        """Return the events since the last call, in the kernel's order; never block.

        The first call starts with the existing cgroups and processes. A Lost event marks where the
        ring was full.
        """
        events, self._pending = self._pending, []
        if self._is_new:
            events += self._first_snapshot()
        elif self._unread:
            observed, arrived = self._read_procfs(_READ_MORE)
            events += (*observed, *arrived)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        in_ring = None
        if now >= self._next_check:
            self._next_check = now + SECOND
            in_ring = sum(self._submitted[: CPUS * 8 : 8])
        events += self._read_ring()
        for index, kind in enumerate(LOSS_KINDS):
            count = self._counters[index]
            if count != self._told[index]:
                number, self._told[index] = count - self._told[index], count
                events.append(Lost(time.clock_gettime_ns(time.CLOCK_BOOTTIME), kind, number))
                self._write_note()
        vanished = self._vanished(in_ring) if in_ring is not None else 0
        if vanished:
            events.append(Lost(now, VANISHED, vanished))
        return events

    def check(self) -> None:
        """Raise OSError if another process, such as a debugger, has taken descriptors away."""
        if self._kinds_now() != self._kinds:
            raise OSError(errno.EBADF, "another process has detached its programs")

    def _kinds_now(self) -> list[Path]:
        """Return what each descriptor is open for: a map or a link."""
        return [Path(f"/proc/self/fd/{each}").readlink() for each in self._descriptors]

    def _vanished(self, in_ring: int) -> int:
        """Count the records that entered the ring but were not read here.

        ``in_ring`` is the number written before the read. An unfinished record delays those behind
        it, so a record counts as missing only if it was missing a second ago too.
        """
        if self._not_ours is None:
            self._not_ours = sum(self._submitted[: CPUS * 8 : 8]) - self._received
        gap = in_ring - self._not_ours - self._received
        missing = max(0, min(gap, self._gap))
        self._not_ours += missing
        self._gap = gap - missing
        return missing

    def resnapshot(self) -> list[ProcessEvent]:
        """Return every current process, merged by time with the events in the ring.

        After a loss, processes missing from the result have ended. Facts come from the kernel and
        are exact; arguments and other data come from procfs. Blocks for about 10 us per process,
        plus half a second for procfs; later drains complete the remaining, ``partial`` processes.
        Without BTF everything comes from procfs.
        """
        if self._iterator is None:
            seen = list(self._procfs.snapshot())
            return sorted([*seen, *self._read_ring()], key=_time)
        known: list[Observed] = []
        self._unread.clear()
        for process in self._iterate(self._iterator):
            facts = self._known(process.facts)
            if facts is None:
                self._unread.append(process)
            else:
                known.append(_of_facts(process, facts))
        listed = [*known, *self._unread]
        read, arrived = self._read_procfs(_READ_FIRST)
        partial = [process._replace(partial=True) for process in self._unread]
        hidden = self._hidden_parents(listed)
        return sorted([*known, *read, *partial, *hidden, *arrived], key=_time)

    @property
    def unread(self) -> int:
        """Return the number of processes whose procfs data later drains will read."""
        return len(self._unread)

    def _read_procfs(self, seconds: float) -> tuple[list[Observed], list[ProcessEvent]]:
        """Read the pending processes from procfs for at most ``seconds``.

        Returns them and the events that have arrived in the ring. The arguments of processes that
        have executed a program or ended during the reading are left out.
        """
        until = time.monotonic() + seconds
        observed: list[Observed] = []
        while self._unread and time.monotonic() < until:
            batch = [self._unread.popleft() for _ in range(min(_READ_AT_ONCE, len(self._unread)))]
            details = self._procfs.lookup_all([seen.facts.pid for seen in batch])
            observed += map(filled_up, batch, details)
        arrived = self._read_ring()
        # The procfs data may belong to a later program, or to a later process with this pid.
        moved_on = {
            (event.facts.pid, event.facts.start): event.time
            for event in arrived
            if isinstance(event, (Executed, Exited))
        }
        for index, process in enumerate(observed):
            if moved_on.get((process.facts.pid, process.facts.start), 0) > process.time:
                observed[index] = Observed(
                    process.time,
                    process.facts,
                    process.program._replace(args=None, args_size=None, args_count=None),
                    process.working_directory,
                    None,
                )
        return observed, arrived

    def _hidden_parents(self, listed: list[Observed]) -> list[Observed]:
        """Return the parents that are hidden from BPF, from procfs."""
        starts = hidden_parents(listed)
        seen = self._procfs.lookup_all(list(starts))
        found = [
            with_start(parent, starts[parent.facts.pid]) for parent in seen if parent is not None
        ]
        return [parent for parent in found if parent is not None]

    def _first_snapshot(self) -> Iterable[ProcessEvent]:
        self._is_new = False
        first = _settled_first(self.resnapshot())
        # The programs are attached one after the other: for a process of that time they may have
        # reported only the end.
        return first if self.adopted else _introduced(first)

    def close(self) -> None:
        """Detach the programs and free the ring."""
        self._ring.close()
        self._counters.release()
        self._submitted.release()
        self._submitted_pages.close()
        self._counter_page.close()
        # Detaching waits for an RCU grace period per tracepoint; closing in parallel shares one.
        closers = [
            threading.Thread(target=os.close, args=(descriptor,)) for descriptor in self.descriptors
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        self._descriptors = []

    def _write_note(self) -> None:
        """Write a note for a later process: the programs' version, and the losses reported so far.

        The note is in a memfd, which outlives this process with the other descriptors.
        """
        data = json.dumps(self._answer).encode()
        os.pwrite(self._note, data.ljust(_NOTE), 0)

    def _read_ring(self) -> list[ProcessEvent]:
        events: list[ProcessEvent] = []
        decode = self._decoder.decode
        bytes_in, changes_in = self._submitted[_BYTES_IN], self._submitted[_CHANGES_IN]
        for chunk, records in self._ring.read():
            for begin, end in records:
                self._received += 1
                try:
                    events.append(decode(chunk, begin, end)[0])
                except MalformedRecordError:
                    self.malformed += 1
        self._submitted[_BYTES_OUT] = bytes_in
        self._submitted[_CHANGES_OUT] = changes_in
        return events

    def _iterate(self, iterator: int) -> Iterator[Observed]:
        """Run the snapshot program over all processes and yield what it writes."""
        data = b""
        descriptor = bpf.open_iterator(iterator)
        try:
            while more := os.read(descriptor, _SNAPSHOT_READ):
                data += more
                offset = 0
                while True:
                    try:
                        event, offset = self._decoder.decode(data, offset, len(data))
                    except MalformedRecordError:
                        break  # the next read returns the rest of it
                    if isinstance(event, Observed):
                        yield event
                data = data[offset:]
        finally:
            os.close(descriptor)


def _of_facts(seen: Observed, facts: Facts) -> Observed:
    """Return a process of the snapshot with equal facts, so that those it has are freed."""
    return Observed(seen.time, facts, seen.program, seen.working_directory, seen.cgroup)


def _settled_first(events: Iterable[ProcessEvent]) -> list[ProcessEvent]:
    """Move listed processes without an earlier event to the front, so that all children find them.

    The processes are listed after the programs were attached, and may have forked in between.
    """
    first_events: dict[tuple[int, int], int] = {}
    ordered = list(events)
    for event in ordered:
        if isinstance(event, (Forked, Executed, Changed, Exited)):
            first_events.setdefault((event.facts.pid, event.facts.start), event.time)
    if not first_events:
        return ordered
    settled = [
        event
        for event in ordered
        if isinstance(event, Observed)
        and first_events.get((event.facts.pid, event.facts.start), event.time) >= event.time
    ]
    chosen = set(map(id, settled))
    return [*settled, *(event for event in ordered if id(event) not in chosen)]


def _introduced(events: Iterable[ProcessEvent]) -> Iterator[ProcessEvent]:
    """Skip the ends of processes that no earlier event mentions."""
    known: set[tuple[int, int]] = set()
    for event in events:
        if isinstance(event, (Observed, Forked, Executed)):
            known.add((event.facts.pid, event.facts.start))
        if not isinstance(event, Exited) or (event.facts.pid, event.facts.start) in known:
            yield event


def decoded(chunks: Iterable[bytes]) -> list[ProcessEvent]:
    """Return the events of chunks that an earlier process passed to ``on_received``."""
    decoder = Decoder()
    events: list[ProcessEvent] = []
    for chunk in chunks:
        for begin, end in spans(chunk):
            with contextlib.suppress(MalformedRecordError):
                events.append(decoder.decode(chunk, begin, end)[0])
    return events


def fits(stored_descriptors: Sequence[int], *, ring_bytes: int, args_limit: int) -> bool:
    """Return whether a source with these arguments can continue with stored programs."""
    fingerprint = _fingerprint(ring_bytes, min(args_limit, MAX_ARGS_LIMIT))
    return bool(stored_descriptors) and not _unfit(stored_descriptors, fingerprint)


def _fingerprint(ring_bytes: int, args_limit: int) -> str:
    """Return a hash of everything that must match to continue with another process's programs."""
    here = Path(__file__).parent
    digest = blake2b(f"{platform.release()} {ring_bytes} {args_limit}".encode(), digest_size=32)
    for name in _OF_FINGERPRINT:
        digest.update((here / name).read_bytes())
    return digest.hexdigest()


def _read_note(descriptor: int) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(os.pread(descriptor, _NOTE, 0))
    return note


def _unfit(stored_descriptors: Sequence[int], fingerprint: str) -> str:
    """Return why the descriptors of an earlier process can't be used; "" if they can."""
    try:
        note = _read_note(stored_descriptors[0])
        if note["fingerprint"] != fingerprint:
            return "they are of another version or configuration"
        if note["descriptors"] != len(stored_descriptors) - 1 or len(note["told"]) != len(
            LOSS_KINDS
        ):
            return "some of them are missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the note about them can't be read: {error}"
    return ""


def _time(event: ProcessEvent) -> int:
    return getattr(event, "time", 0)


def _load(ring_bytes: int, args_limit: int) -> tuple[dict[str, Any], list[int]]:
    return Helper(ring_bytes, args_limit).load()
