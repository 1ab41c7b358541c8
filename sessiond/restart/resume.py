"""Resumes from the state of the last run, and saves the state of this run for the next start.

The write-ahead log holds this process's state and input. A start feeds it to the pipeline before
any new input, so that the stream continues where it ended.
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

# Seconds after a start in which lines of the last run may be made again.
REPEATS_UNTIL: Final = 2 * PERIOD

_NOBODY: Final = "nobody listened to the kernel: the run before had ended, and nothing was kept"
_FULL: Final = "the backlog was full while sessiond was not running"

_LOSSES: Final = msgspec.msgpack.Decoder(list[Loss])

# Reads the lines of the output file after a sequence number.
WrittenLinesOf = Callable[[int | None], WrittenLines]

log = structlog.get_logger()


class Restart:
    """The write-ahead log of one daemon: read once at the start, then written until the end."""

    def __init__(
        self,
        directory: Path,
        boot: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        boot_clock: Callable[[], int] = now,
        decode: Callable[[Iterable[bytes]], list[ProcessEvent]] = decoded,
    ) -> None:
        """Read the saved state of the last run from the runtime directory.

        ``boot`` is the boot's id: a state of another boot is ignored. ``clock`` returns monotonic
        seconds, ``boot_clock`` ns since boot. ``decode`` decodes chunks of the tracer's ring.
        Raises OutputError if the files can't be opened.
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
        """Feed the pipeline with the saved state, then with the input logged after it.

        ``begun`` (ns since boot) is a moment before ``source`` listed the living processes.
        ``listening`` is when the source started to see everything, None if the descriptor store
        kept it while no daemon ran; ``kernel_lost`` is the kernel's number of lost records.
        ``output`` reads the lines of the output file after a sequence number; None without a file.
        Returns the last of these lines, which other outputs may lack.
        """
        # Losses found from now on happened after that.
        pipeline.feed_audit([], now=begun, drained=False)
        journal = self._journal
        left, journal.left = journal.left, []
        told_until = self._restore(pipeline)
        tail = self._continue_lines(pipeline, output)
        before = self._decode(chunk for kind, chunk in left if kind == RING)
        before += _decoded_events(data for kind, data in left if kind == EVENTS)
        records = [entry for entry in left if is_record(entry)]
        # These may not have been written; a line that the output has is not written again.
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
        """Continue the numbering after the output's last line; skip lines that it already has."""
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
        """Return the kernel's losses since the last check of the last run."""
        look = self._journal.look
        if look is None or lost == look.lost:
            return None
        # The counter may have been reset (auditctl --reset-lost).
        number = lost - look.lost if lost > look.lost else lost
        return Loss("kernel", number, _FULL, look.time, time, {}) if number else None

    def _processes(
        self, source: Source, before: list[ProcessEvent], *, known: bool
    ) -> list[ProcessEvent]:
        """Return the events of an earlier run and of the source now, in order.

        The snapshot of living processes comes first, unless it is ``known``, so that later events
        find their relatives.
        """
        events = source.drain()
        # Events that the last run read but did not consume from the ring are delivered again.
        told = set(before)
        observed = [event for event in events if isinstance(event, Observed)]
        since = [each for each in events if not isinstance(each, Observed) and each not in told]
        if not source.keeps:
            self.keep_events(since)
        return [*before, *observed, *since] if known else [*observed, *before, *since]

    def settle(self, pipeline: Pipeline) -> None:
        """Forget the output's lines once no line of the last run can be made again.

        Call this after ``poll``.
        """
        if self._settled_at is not None and self._clock() >= self._settled_at:
            self._settled_at = None
            pipeline.lines.leave_out_none()

    def _restore(self, pipeline: Pipeline) -> int | None:
        """Restore the saved state; return its time (ns since boot), None without one."""
        state, self._journal.state = self._journal.state, None
        if state is None:
            return None
        try:
            return pipeline.restore(state)
        except SavedStateError as error:
            log.warning("set_aside", what="what was known", reason=str(error))
            return None

    def is_due(self, *, all_written: bool) -> bool:
        """Return whether to save now.

        Lines that are not written by then would be lost with this process, so saving waits for
        them, unless a hanging disk has let the log grow far beyond its size.
        """
        journal = self._journal
        due = self._wanted or journal.due(self._clock())
        return due and (all_written or journal.overfull)

    def save_soon(self) -> None:
        """Save once all lines are written: new settings apply to the input from now on."""
        self._wanted = True

    def save(self, pipeline: Pipeline) -> None:
        """Save the pipeline's state, and start an empty log for its further input."""
        self._wanted = False
        began = self._clock()
        state = pipeline.save(self._boot_clock())
        ended = self._clock()
        self._journal.begin(state, ended - began, ended)

    @property
    def look(self) -> KernelLook | None:
        """The last run's last reading of the kernel's audit status, if any."""
        return self._journal.look

    def keep_losses(self, pipeline: Pipeline) -> None:
        """Save losses that may not have been written. Call this before each ``poll``."""
        losses = pipeline.losses.uncertain
        if losses or self._journal.losses:
            self._journal.keep_losses(msgspec.msgpack.encode(losses) if losses else b"")

    def looked(self, lost: int, time: int) -> None:
        """Save the kernel's number of lost records at ``time`` (ns since boot)."""
        self._journal.looked(KernelLook(lost, time))

    def keep_records(self, records: list[tuple[int, bytes]]) -> None:
        """Append newly read audit records, before they are processed."""
        self._journal.add(records)

    def keep_events(self, events: Sequence[ProcessEvent]) -> None:
        """Append events of a source whose own messages can't be saved."""
        if events:
            self._journal.add([(EVENTS, event_log.encode(events))])

    def keep_chunk(self, chunk: bytes) -> None:
        """Append a newly read chunk of the tracer's ring."""
        self._journal.add([(RING, chunk)])

    @property
    def problem(self) -> str:
        """Why the log can't be written; "" if it can."""
        return self._journal.problem

    def clear(self) -> None:
        """Delete the state: after a permanent stop nothing is resumed."""
        self._journal.clear()

    def close(self) -> None:
        """Close the files and keep their content."""
        self._journal.close()


def _moments(
    saved: int | None, events: list[ProcessEvent], look: KernelLook | None
) -> Iterator[int]:
    """Yield times at which the last run was still active, in ns since boot."""
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
