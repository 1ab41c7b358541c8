"""The read loop: schedules turns; a turn reads records and process events and writes lines.

A wake-up is expensive. A readable descriptor therefore only schedules a turn: soon while the host
is calm, later while much input comes, so that more of it accumulates. Turns continue until all
input is read.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from sessiond.audit.kernel.controller import AuditController
from sessiond.audit.kernel.receive import BATCH
from sessiond.daemon.host_clock import HostClock
from sessiond.daemon.outputs import OutputSet
from sessiond.daemon.source_chain import SourceChain
from sessiond.pipeline.pipeline import Pipeline
from sessiond.restart.resume import Restart
from sessiond.system.clock import now

# Seconds in which input may accumulate while much of it comes; a line's usual delay is half of it.
# A wake-up costs as much as three processes, so 35 ms are an eighth cheaper than 20 ms.
COALESCE_DELAY: Final = 0.035
# Seconds in which the records of one process arrive.
SETTLE_DELAY: Final = 0.003
# Seconds, at least, from one turn to the next one that a descriptor asks for, unless the host is
# calm: CALM_WORK in a second at most, over CALM_PERIOD seconds. A process makes three events, two
# lines and, with rules, eight records, of which four count as one: it is 5 to 7.
MIN_INTERVAL: Final = 0.02
CALM_WORK: Final = 400
CALM_PERIOD: Final = 0.5
# Batches read in one turn; the limit lets outputs and signals run in between.
MAX_BATCHES: Final = 16
# Bytes of records read in one turn: a record can have 8 KB, and a long one takes long to process.
MAX_BYTES: Final = 2 << 20
# Polls of the pipeline in one turn. It writes more lines than it reads records, so that the backlog
# of a stall ends.
MAX_POLLS: Final = 16
# Input of at most two processes: after so little, waiting is cheaper than reading again at once.
SMALL_READ: Final = 32
# Seconds without a wake-up after which to read anyway: kernel threads wake no descriptor.
IDLE_READ_INTERVAL: Final = 10.0


class ReadLoop:
    """Reads the audit socket and the process source, and passes the pipeline's lines to outputs."""

    def __init__(
        self,
        audit: AuditController,
        sources: SourceChain,
        pipeline: Pipeline,
        outputs: OutputSet,
        restart: Restart,
        clock: HostClock,
    ) -> None:
        """Take the parts; ``turn`` and ``start`` read."""
        self._audit = audit
        self._sources = sources
        self._pipeline = pipeline
        self._outputs = outputs
        self._restart = restart
        self._clock = clock
        self._next: asyncio.TimerHandle | None = None
        self._listening: list[int] = []
        self._stopped = False
        self._turned = 0.0  # monotonic seconds
        self._calm = True
        self._period = 0.0  # its begin, monotonic seconds
        self._work = 0  # in this period

    def start(self) -> None:
        """Start to wait for input. Needs a running event loop."""
        self._listen()
        self._plan_deadline()

    def stop(self) -> None:
        """Schedule no further turns; ``turn`` can still be called."""
        self._stopped = True
        self._unlisten()
        self._cancel()

    def wake(self) -> None:
        """Schedule a turn, and ignore the descriptors until it is over."""
        self._unlisten()
        if not self._stopped:
            settled = asyncio.get_running_loop().time() + SETTLE_DELAY
            self._plan(settled if self._calm else max(settled, self._turned + MIN_INTERVAL))

    def turn(self) -> int:
        """Read, join, write; return the number of records and process events read."""
        self._turned = time.monotonic()
        client, pipeline, sources = self._audit.client, self._pipeline, self._sources
        # Before new lines exist: the lines of the last turn have been written.
        all_written = self._outputs.all_written() and not pipeline.waiting
        due = self._restart.is_due(all_written=all_written)
        if not due and not pipeline.waiting and self._restart.is_due(all_written=True):
            due = all_written = self._outputs.secure()
        if due:
            self._restart.save(pipeline, all_written=all_written)
        records: list[tuple[int, bytes]] = []
        drained = False
        size = 0
        for _ in range(MAX_BATCHES):
            batch = client.receive()
            records += batch
            if len(batch) < BATCH:
                # The kernel will refill an empty socket from its backlog at once.
                drained = not (pipeline.awaits_audit(now()) and client.status().backlog)
                break
            size += sum([len(text) for _, text in batch])
            if size > MAX_BYTES:
                break
        # After the records: by now the ring holds the processes that they mention.
        unread = sources.source.unread
        events = sources.drain()
        if unread and not sources.source.unread:
            self._restart.save_soon()  # so that a restart need not read them again
        if not sources.source.passes_input:
            self._restart.keep_events(events)
        time_now = now()
        self._clock.follow(pipeline)
        pipeline.feed_process(events)
        sources.connect()
        sources.reconcile()
        pipeline.feed_audit(records, now=time_now, drained=drained)
        sources.lookup()
        self._restart.keep_losses(pipeline)
        number = 0
        for _ in range(MAX_POLLS):
            lines = pipeline.poll(time_now)
            number += len(lines)
            self._outputs.write(lines)
            if not pipeline.overdue:
                break
        self._judge(len(events) + number + len(records) // 4)
        return len(records) + len(events)

    def _judge(self, work: int) -> None:
        """Determine whether the host is calm."""
        self._work += work
        passed = self._turned - self._period
        if passed >= CALM_PERIOD:
            self._calm = self._work <= CALM_WORK * passed
            self._period, self._work = self._turned, 0

    def turn_if_idle(self) -> None:
        """Take a turn if the last one was more than ``IDLE_READ_INTERVAL`` seconds ago."""
        if time.monotonic() > self._turned + IDLE_READ_INTERVAL:
            self.turn()

    def _on_time(self) -> None:
        self._next = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self.turn() > SMALL_READ:
            # Input accumulated during a long turn: under load one turn follows the other.
            self._plan(began + COALESCE_DELAY)
            return
        self._listen()
        self._plan_deadline()

    def _plan_deadline(self) -> None:
        """Schedule a turn for the pipeline's next deadline, even without input."""
        deadline = 0 if self._sources.source.unread else self._pipeline.deadline()
        if deadline is not None:
            delay = max(0.0, (deadline - now()) / 1e9)
            self._plan(asyncio.get_running_loop().time() + delay)

    def _plan(self, when: float) -> None:
        self._cancel()
        self._next = asyncio.get_running_loop().call_at(when, self._on_time)

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _listen(self) -> None:
        self._unlisten()
        wanted = (self._audit.client.fileno(), self._sources.source.fileno())
        self._listening = [descriptor for descriptor in wanted if descriptor is not None]
        for descriptor in self._listening:
            asyncio.get_running_loop().add_reader(descriptor, self.wake)

    def _unlisten(self) -> None:
        for descriptor in self._listening:
            asyncio.get_running_loop().remove_reader(descriptor)
        self._listening = []
