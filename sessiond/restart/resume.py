"""What a start takes over from the run before it, and what this run keeps for the next start.

The write-ahead log holds all that this process knows and has read. A start feeds it to the pipeline
before anything new, so that the stream goes on where it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from sessiond.errors import SavedStateError
from sessiond.pipeline import snapshot
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import Observed
from sessiond.restart.duplicates import DuplicateFilter
from sessiond.restart.write_ahead import PERIOD, RING, WriteAheadLog
from sessiond.sources import Source
from sessiond.system.clock import now, wall_offset

# Seconds after a start in which lines of the run before may be made again.
REPEATS_UNTIL: Final = 2 * PERIOD

log = structlog.get_logger()


class Restart:
    """The write-ahead log of one daemon: resumed from once, saved to until the end."""

    def __init__(
        self, directory: Path, boot: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read what the run before has left in the runtime directory.

        ``boot`` is the boot's id: nothing of another boot is used. ``clock`` tells monotonic
        seconds. Raises OutputError when the files can't be had.
        """
        self._clock = clock
        self._journal = WriteAheadLog(directory, boot, str(snapshot.LAYOUT), clock())
        self.memory = self._journal.memory
        if self.problem:
            log.warning("set_aside", what="what was known", reason=self.problem)
            self._journal.problem = ""

    def resume(
        self, pipeline: Pipeline, source: Source, begun: int, output: Path | None
    ) -> DuplicateFilter | None:
        """Feed the pipeline what the run before knew, then what it read since.

        ``begun`` (ns since boot) is a moment before ``source`` looked at the living processes.
        ``output`` is the file that may hold lines that are made again; its filter is returned.
        """
        # What is found to be lost was lost after that.
        pipeline.feed_audit([], now=begun, wall_offset=wall_offset(), drained=False)
        left, self._journal.left = self._journal.left, []
        told_until = self._restore(pipeline)
        events = source.drain()
        before = source.decoded(chunk for kind, chunk in left if kind == RING)
        # What the run before had read of the ring and not taken out yet comes twice.
        told = set(before)
        observed = [event for event in events if isinstance(event, Observed)]
        since = [each for each in events if not isinstance(each, Observed) and each not in told]
        if told_until is None:
            # The living processes come first, so that all others find their relatives.
            pipeline.feed_process([*observed, *before, *since])
        else:
            pipeline.feed_process([*before, *observed, *since])
            pipeline.table.absent(observed, begun, ended=told_until)
        records = [entry for entry in left if entry[0] != RING]
        duplicates = None
        if left and output is not None:
            duplicates = DuplicateFilter(output, pipeline.lines.sequence)
            pipeline.lines.sequence = duplicates.sequence
        if records:
            pipeline.feed_audit(records, now=now(), wall_offset=wall_offset(), drained=False)
        if left or told_until is not None:
            known = len(pipeline.table)
            log.info("resumed", processes=known, records=len(records), process_events=len(before))
        return duplicates

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
        """Tell whether to save now; a full log does not wait until all lines are written."""
        journal = self._journal
        return journal.due(self._clock()) and (journal.full or all_written)

    def save(self, pipeline: Pipeline) -> None:
        """Keep what the pipeline knows, and begin an empty log of what it reads from now on."""
        began = self._clock()
        state = pipeline.save(now())
        ended = self._clock()
        self._journal.begin(state, ended - began, ended)

    def keep_records(self, records: list[tuple[int, bytes]]) -> None:
        """Append audit records that were just read, before they are worked on."""
        self._journal.add(records)

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
