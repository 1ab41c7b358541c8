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
from sessiond.restart.write_ahead import (
    EVENTS,
    PERIOD,
    RING,
    KernelReading,
    WriteAheadLog,
    is_record,
)
from sessiond.restart.written_lines import WrittenLines
from sessiond.sources import Source
from sessiond.sources.ebpf.source import decoded
from sessiond.system.clock import now

# Seconds after a start in which lines of the last run may be made again.
REPEATS_UNTIL: Final = 2 * PERIOD

_NOT_LISTENING: Final = (
    "nobody listened to the kernel: the run before had ended, and nothing was kept"
)
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
        self._save_soon = False
        self._log = WriteAheadLog(directory, boot, str(snapshot.LAYOUT), clock())
        self.memory = self._log.memory
        if self.problem:
            log.warning("set_aside", what="what was known", reason=self.problem)
            self._log.problem = ""

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
        wal = self._log
        entries, wal.entries = wal.entries, []
        saved_at = self._restore(pipeline)
        # Losses found from now on happened after the last run's last reading.
        seen = min(begun, wal.kernel_reading.time) if wal.kernel_reading else begun
        pipeline.feed_audit([], now=seen, drained=False)
        tail = self._continue_lines(pipeline, output)
        earlier = self._decode(chunk for kind, chunk in entries if kind == RING)
        earlier += _decoded_events(data for kind, data in entries if kind == EVENTS)
        records = [entry for entry in entries if is_record(entry)]
        # These may not have been written; a line that the output has is not written again.
        kept = _decoded_losses(wal.losses)
        losses = []
        ended_at = saved_at
        if wal.unfinished and listening is not None:
            ended_at = max(_moments(saved_at, earlier, wal.kernel_reading), default=begun)
            losses.append(Loss(GAP, 0, _NOT_LISTENING, ended_at, listening, {}))
        lost_while_down = self._kernel_loss(kernel_lost, begun)
        if lost_while_down is not None:
            losses.append(lost_while_down)
        # A run that was killed while it resumed has kept those of the same windows.
        windows = {(loss.hop, loss.since) for loss in losses}
        losses = [loss for loss in kept if (loss.hop, loss.since) not in windows] + losses
        for loss in losses:
            pipeline.report_loss(loss, begun)
        self.keep_losses(pipeline)
        self.save_reading(kernel_lost, begun)
        events = self._processes(source, earlier, known=saved_at is not None)
        pipeline.feed_process(events)
        if ended_at is not None:
            observed = [event for event in events if isinstance(event, Observed)]
            pipeline.table.absent(observed, begun, ended=ended_at)
        if records:
            pipeline.feed_audit(records, now=self._boot_clock(), drained=False)
        if wal.unfinished:
            number = len(pipeline.table)
            log.info("resumed", processes=number, records=len(records), process_events=len(earlier))
            self._settled_at = self._clock() + REPEATS_UNTIL
        return tail

    def _continue_lines(self, pipeline: Pipeline, output: WrittenLinesOf | None) -> list[bytes]:
        """Continue the numbering after the output's last line; skip lines that it already has."""
        lines = pipeline.lines
        if output is None:
            return []
        if not self._log.unfinished:
            written = output(None)
            lines.sequence, lines.seal = written.sequence, written.seal
            return []
        written = output(lines.written_after)
        lines.sequence, lines.seal = max(written.sequence, lines.written_after), written.seal
        lines.leave_out(written.ids, after=lines.written_after)
        return written.tail

    def _kernel_loss(self, lost: int, time: int) -> Loss | None:
        """Return the kernel's losses since the last check of the last run."""
        reading = self._log.kernel_reading
        if reading is None or lost == reading.lost:
            return None
        # The counter may have been reset (auditctl --reset-lost).
        number = lost - reading.lost if lost > reading.lost else lost
        return Loss("kernel", number, _FULL, reading.time, time, {}) if number else None

    def _processes(
        self, source: Source, earlier: list[ProcessEvent], *, known: bool
    ) -> list[ProcessEvent]:
        """Return the ``earlier`` events and those that the source has now, in order.

        The snapshot of living processes comes first, unless they are ``known``, so that later
        events find their relatives.
        """
        events = source.drain()
        # Events that the last run read but did not consume from the ring are delivered again.
        repeated = set(earlier)
        observed = [event for event in events if isinstance(event, Observed)]
        new = [
            event for event in events if not isinstance(event, Observed) and event not in repeated
        ]
        if not source.passes_input:
            self.keep_events(new)
        return [*earlier, *observed, *new] if known else [*observed, *earlier, *new]

    def settle(self, pipeline: Pipeline) -> None:
        """Forget the output's lines once no line of the last run can be made again.

        Call this after ``poll``.
        """
        if self._settled_at is not None and self._clock() >= self._settled_at:
            self._settled_at = None
            pipeline.lines.leave_out_none()

    def _restore(self, pipeline: Pipeline) -> int | None:
        """Restore the saved state; return its time (ns since boot), None without one."""
        state, self._log.state = self._log.state, None
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
        due = self._save_soon or self._log.due(self._clock())
        return due and (all_written or self._log.overfull)

    def save_soon(self) -> None:
        """Save once all lines are written: new settings apply to the input from now on."""
        self._save_soon = True

    def save(self, pipeline: Pipeline, *, all_written: bool) -> None:
        """Save the pipeline's state, and start an empty log for its further input.

        ``all_written`` says that no line is lost if this process is killed now.
        """
        self._save_soon = False
        if all_written:
            # First, because the next run does not look for lines that are older than the state.
            pipeline.losses.confirm()
            self.keep_losses(pipeline)
        began = self._clock()
        state = pipeline.save(self._boot_clock())
        ended = self._clock()
        self._log.begin(state, ended - began, ended)

    @property
    def kernel_reading(self) -> KernelReading | None:
        """The last run's last reading of the kernel's audit status, if any."""
        return self._log.kernel_reading

    def keep_losses(self, pipeline: Pipeline) -> None:
        """Save losses that may not have been written. Call this before each ``poll``."""
        losses = pipeline.losses.uncertain
        if losses or self._log.losses:
            self._log.keep_losses(msgspec.msgpack.encode(losses) if losses else b"")

    def save_reading(self, lost: int, time: int) -> None:
        """Save the kernel's number of lost records at ``time`` (ns since boot)."""
        self._log.save_reading(KernelReading(lost, time))

    def keep_records(self, records: list[tuple[int, bytes]]) -> None:
        """Append newly read audit records, before they are processed."""
        self._log.add(records)

    def keep_events(self, events: Sequence[ProcessEvent]) -> None:
        """Append events of a source whose own messages can't be saved."""
        if events:
            self._log.add([(EVENTS, event_log.encode(events))])

    def keep_chunk(self, chunk: bytes) -> None:
        """Append a newly read chunk of the tracer's ring."""
        self._log.add([(RING, chunk)])

    def check(self) -> None:
        """Check once a second that the files are still there."""
        self._log.check()

    @property
    def problem(self) -> str:
        """Why the log can't be written or read again; "" if it can."""
        return self._log.problem

    def clear(self) -> None:
        """Delete the state: after a permanent stop nothing is resumed."""
        self._log.clear()

    def close(self) -> None:
        """Close the files and keep their content."""
        self._log.close()


def _moments(
    saved: int | None, events: list[ProcessEvent], kernel_reading: KernelReading | None
) -> Iterator[int]:
    """Yield times at which the last run was still active, in ns since boot."""
    if saved is not None:
        yield saved
    if kernel_reading is not None:
        yield kernel_reading.time
    for event in events[-1:]:
        if not isinstance(event, CgroupSeen):
            yield event.time


def _decoded_losses(data: bytes) -> list[Loss]:
    try:
        return _LOSSES.decode(data) if data else []
    except (msgspec.DecodeError, ValueError) as error:
        log.warning("set_aside", what="losses that were not reported", reason=str(error))
        return []


def _decoded_events(entries: Iterable[bytes]) -> list[ProcessEvent]:
    events: list[ProcessEvent] = []
    for data in entries:
        try:
            events += event_log.decode(data)
        except SavedStateError as error:
            log.warning("set_aside", what="process events that were read", reason=str(error))
    return events
