"""What a start takes over from the run before it, and what this run keeps for the next start.

The write-ahead log holds all that this process knows and has read. A start feeds it to the pipeline
before anything new, so that the stream goes on where it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from sessiond.errors import SavedStateError
from sessiond.pipeline import snapshot
from sessiond.pipeline.losses import GAP, Loss
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import CgroupSeen, Observed, ProcessEvent
from sessiond.restart import event_log
from sessiond.restart.write_ahead import EVENTS, PERIOD, RING, KernelLook, WriteAheadLog, is_record
from sessiond.restart.written_lines import WrittenLines
from sessiond.sources import Source
from sessiond.sources.ebpf.source import decoded
from sessiond.system.clock import now

# Seconds after a start in which lines of the run before may be made again.
REPEATS_UNTIL: Final = 2 * PERIOD

_NOBODY: Final = "nobody listened to the kernel: the run before had ended, and nothing was kept"
_FULL: Final = "the backlog was full while sessiond was not running"

_LOSSES: Final = msgspec.msgpack.Decoder(list[Loss])

# Reads the lines of the output file whose number is above the one given.
WrittenLinesOf = Callable[[int | None], WrittenLines]

log = structlog.get_logger()


class Restart:
    """The write-ahead log of one daemon: resumed from once, saved to until the end."""

    def __init__(
        self,
        directory: Path,
        boot: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        boot_clock: Callable[[], int] = now,
        decode: Callable[[Iterable[bytes]], list[ProcessEvent]] = decoded,
    ) -> None:
        """Read what the run before has left in the runtime directory.

        ``boot`` is the boot's id: nothing of another boot is used. ``clock`` tells monotonic
        seconds, ``boot_clock`` ns since boot. ``decode`` takes pieces of the tracer's ring apart.
        Raises OutputError when the files can't be had.
        """
        self._clock = clock
        self._boot_clock = boot_clock
        self._decode = decode
        self._settled_at: float | None = None
        self._wanted = False
        self._journal = WriteAheadLog(directory, boot, str(snapshot.LAYOUT), clock())
        self.memory = self._journal.memory
        if self.problem:
            log.warning("set_aside", what="what was known", reason=self.problem)
            self._journal.problem = ""

    def resume(
        self,
        pipeline: Pipeline,
        source: Source,
        begun: int,
        *,
        listening: int | None = None,
        kernel_lost: int = 0,
        output: WrittenLinesOf | None = None,
    ) -> list[bytes]:
        """Feed the pipeline what the run before knew, then what it read since.

        ``begun`` (ns since boot) is a moment before ``source`` looked at the living processes.
        ``listening`` is when it had begun to see everything, None where the kernel's side was kept
        for us while no daemon ran; ``kernel_lost`` are the records that the kernel says it has
        lost. ``output`` reads the lines of the output file after a number; without it none are
        known. Returns the last of those, which other outputs may lack.
        """
        # What is found to be lost was lost after that.
        pipeline.feed_audit([], now=begun, drained=False)
        journal = self._journal
        left, journal.left = journal.left, []
        told_until = self._restore(pipeline)
        tail = self._continue_lines(pipeline, output)
        before = self._decode(chunk for kind, chunk in left if kind == RING)
        before += _decoded_events(data for kind, data in left if kind == EVENTS)
        records = [entry for entry in left if is_record(entry)]
        # Perhaps not told any more; a line that the output has is not written again.
        losses = _decoded_losses(journal.losses)
        gone_since = told_until
        if journal.unfinished and listening is not None:
            gone_since = max(_moments(told_until, before, journal.look), default=begun)
            losses.append(Loss(GAP, 0, _NOBODY, gone_since, listening, {}))
        lost_while_down = self._kernel_loss(kernel_lost, begun)
        if lost_while_down is not None:
            losses.append(lost_while_down)
        for loss in losses:
            pipeline.tell_loss(loss, begun)
        self.keep_losses(pipeline)
        self.looked(kernel_lost, begun)
        events = self._processes(source, before, known=told_until is not None)
        pipeline.feed_process(events)
        if gone_since is not None:
            observed = [event for event in events if isinstance(event, Observed)]
            pipeline.table.absent(observed, begun, ended=gone_since)
        if records:
            pipeline.feed_audit(records, now=self._boot_clock(), drained=False)
        if journal.unfinished:
            number = len(pipeline.table)
            log.info("resumed", processes=number, records=len(records), process_events=len(before))
            self._settled_at = self._clock() + REPEATS_UNTIL
        return tail

    def _continue_lines(self, pipeline: Pipeline, output: WrittenLinesOf | None) -> list[bytes]:
        """Number the lines on from the output's last one, and leave out what it has already."""
        lines = pipeline.lines
        if output is None:
            return []
        if not self._journal.unfinished:
            written = output(None)
            lines.sequence, lines.seal = written.sequence, written.seal
            return []
        written = output(lines.written_after)
        lines.sequence, lines.seal = max(written.sequence, lines.written_after), written.seal
        lines.leave_out(written.ids, after=lines.written_after)
        return written.tail

    def _kernel_loss(self, lost: int, time: int) -> Loss | None:
        """Return what the kernel has lost since the last look of the run before."""
        look = self._journal.look
        if look is None or lost == look.lost:
            return None
        # Somebody may have reset the counter (auditctl --reset-lost).
        number = lost - look.lost if lost > look.lost else lost
        return Loss("kernel", number, _FULL, look.time, time, {}) if number else None

    def _processes(
        self, source: Source, before: list[ProcessEvent], *, known: bool
    ) -> list[ProcessEvent]:
        """Return what an earlier run had read, and what the source tells now, in their order.

        The living processes come first unless they are ``known``: all others have relatives then.
        """
        events = source.drain()
        # What the run before had read of the ring and not taken out yet comes twice.
        told = set(before)
        observed = [event for event in events if isinstance(event, Observed)]
        since = [each for each in events if not isinstance(each, Observed) and each not in told]
        if not source.keeps:
            self.keep_events(since)
        return [*before, *observed, *since] if known else [*observed, *before, *since]

    def settle(self, pipeline: Pipeline) -> None:
        """Forget what the output had, once no line of the run before can be made again.

        To be called after ``poll``.
        """
        if self._settled_at is not None and self._clock() >= self._settled_at:
            self._settled_at = None
            pipeline.lines.leave_out_none()

    def _restore(self, pipeline: Pipeline) -> int | None:
        """Take over the saved state; return its time (ns since boot), None where there is none."""
        state, self._journal.state = self._journal.state, None
        if state is None:
            return None
        try:
            return pipeline.restore(state)
        except SavedStateError as error:
            log.warning("set_aside", what="what was known", reason=str(error))
            return None

    def is_due(self, *, all_written: bool) -> bool:
        """Tell whether to save now.

        What is not written by then would be lost with this process: only a log that has grown far
        beyond its size, because a disk hangs, does not wait for that.
        """
        journal = self._journal
        due = self._wanted or journal.due(self._clock())
        return due and (all_written or journal.overfull)

    def save_soon(self) -> None:
        """Save as soon as all is written: what is read from now on is worked on differently."""
        self._wanted = True

    def save(self, pipeline: Pipeline) -> None:
        """Keep what the pipeline knows, and begin an empty log of what it reads from now on."""
        self._wanted = False
        began = self._clock()
        state = pipeline.save(self._boot_clock())
        ended = self._clock()
        self._journal.begin(state, ended - began, ended)

    @property
    def look(self) -> KernelLook | None:
        """The last look of the run before at the kernel's audit status, if there was one."""
        return self._journal.look

    def keep_losses(self, pipeline: Pipeline) -> None:
        """Keep what of the losses is not told for certain. To be called before each ``poll``."""
        losses = pipeline.losses.uncertain
        if losses or self._journal.losses:
            self._journal.keep_losses(msgspec.msgpack.encode(losses) if losses else b"")

    def looked(self, lost: int, time: int) -> None:
        """Keep that the kernel had lost so many records by ``time`` (ns since boot)."""
        self._journal.looked(KernelLook(lost, time))

    def keep_records(self, records: list[tuple[int, bytes]]) -> None:
        """Append audit records that were just read, before they are worked on."""
        self._journal.add(records)

    def keep_events(self, events: Sequence[ProcessEvent]) -> None:
        """Append what a source told whose own messages can't be read again."""
        if events:
            self._journal.add([(EVENTS, event_log.encode(events))])

    def keep_chunk(self, chunk: bytes) -> None:
        """Append a piece of the tracer's ring that was just read."""
        self._journal.add([(RING, chunk)])

    @property
    def problem(self) -> str:
        """Why the log can't be written; "" while all is well."""
        return self._journal.problem

    def clear(self) -> None:
        """Forget everything: nothing goes on after a stop for good."""
        self._journal.clear()

    def close(self) -> None:
        """Close the files; what is in them stays."""
        self._journal.close()


def _moments(
    saved: int | None, events: list[ProcessEvent], look: KernelLook | None
) -> Iterator[int]:
    """Yield moments at which the run before was still there, in ns since boot."""
    if saved is not None:
        yield saved
    if look is not None:
        yield look.time
    for event in events[-1:]:
        if not isinstance(event, CgroupSeen):
            yield event.time


def _decoded_losses(data: bytes) -> list[Loss]:
    try:
        return _LOSSES.decode(data) if data else []
    except (msgspec.DecodeError, ValueError) as error:
        log.warning("set_aside", what="losses that were not told", reason=str(error))
        return []


def _decoded_events(entries: Iterable[bytes]) -> list[ProcessEvent]:
    events: list[ProcessEvent] = []
    for data in entries:
        try:
            events += event_log.decode(data)
        except SavedStateError as error:
            log.warning("set_aside", what="process events that were read", reason=str(error))
    return events
