"""Delivery to one output: lines that it does not accept now are kept and counted.

Lines go into the sink if it accepts them, else into the spool, and into memory only if there is no
spool or it can't be written either. Waiting lines go first, so that the order is always kept::

    write ─▶ memory queue ─▶ spool ─▶ sink          (queue and spool are skipped while empty)
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sessiond.errors import OutputError
from sessiond.output.sink import Account, HealthChange, LineLoss, Sink
from sessiond.output.spool import Policy, Spool
from sessiond.units import WallTime


class Delivery:
    """A sink, its spool, a bounded queue in memory, and their counters.

    At every moment: accepted = delivered + queued + spooled + dropped, in lines. ``accepted``
    includes the lines that an earlier run left in the spool; ``queued`` are those in memory and
    those that the sink has accepted without confirmation.
    """

    DRAIN = 256 * 1024  # bytes handed to the sink at once
    DRAIN_PER_TICK = 1024 * 1024  # bytes per tick
    POLL_FIRST, POLL_LAST = 0.02, 0.25  # seconds between attempts while a sink is busy

    def __init__(
        self,
        sink: Sink,
        *,
        spool: Spool | None = None,
        queue_size: int = 4 * 1024 * 1024,
        drop: Policy = "oldest",
        grace: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the sink and its spool, if any; both are not open yet.

        ``queue_size`` bounds the memory queue, in bytes; ``drop`` says which lines to drop when it
        is full; a spool's own setting overrides it. If lines wait longer than ``grace`` seconds,
        the output is unhealthy. ``clock`` and ``wall`` return seconds, monotonic and since the
        epoch.
        """
        self.name = sink.name
        self._sink = sink
        self._spool = spool
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._queue_size = queue_size
        self._drop: Policy = drop if spool is None else spool.drop
        self._grace = grace
        self._clock = clock
        self._wall = wall

        self._accepted = 0
        self._taken = 0  # by the sink
        self._past_spool = 0  # of these, since the last one that is also in the spool
        self._queue_dropped = 0
        self._given_up = 0  # accepted by the sink, neither confirmed nor spooled at the end
        self._kept = 0  # lines that had to wait during the current problem

        self._behind_since: float | None = None  # since when lines have been waiting
        self._poll = self.POLL_FIRST
        self._poll_due = 0.0
        self._sink_due: float | None = None

        self._reason: str | None = None  # why it is unhealthy
        self._sick_since = WallTime(0.0)
        self._dropped_when_well = 0
        self._changes: list[HealthChange] = []
        self._losses: dict[str, LineLoss] = {}
        self._counted: dict[str, int] = {}  # losses already added to _losses
        self._no_room = False  # the newest lines are currently dropped

    def open(self) -> None:
        """Open spool and sink.

        Raises OutputError if the sink refuses, if the spool is unusable, or if the sink can't be
        opened now and there is no spool for waiting lines.
        """
        if self._spool is not None:
            self._spool.open()
            self._accepted = self._spool.inherited
        try:
            self._sink.open()
        except OutputError:
            if self._spool is not None:
                self._spool.close()
            raise
        except OSError as error:
            if self._spool is None:
                raise OutputError(f"{self.name}: {error.strerror}") from None
        self.tick(self._clock())

    def write(self, lines: list[bytes]) -> None:
        """Take ``lines``, each with its newline. Never raises for a failing sink.

        On return every line would survive the death of this process, except the ``volatile`` ones:
        it is in the file, in the socket or in the spool. ``secure`` does the same for these.
        """
        if not lines:
            return
        self._accepted += len(lines)
        if self._behind_since is None:
            taken = self._sink.write(lines)
            self._taken += taken
            self._past_spool += taken
            if taken == len(lines):
                if self._sink.trouble is not self._reason:
                    self._judge(self._clock())
                return
            lines = lines[taken:]
        now = self._clock()
        self._keep(lines)
        if self._behind_since is None:
            self._behind_since = now
            self._poll = self.POLL_FIRST
            self._poll_due = now + self._poll
        self._judge(now)

    def tick(self, now: float) -> float | None:
        """Deliver waiting lines and do due work; return the same as ``deadline``."""
        unconfirmed = self._sink.unconfirmed
        self._sink_due = self._sink.tick(now)
        drained, more = self._drain()
        if self._spool is not None:
            self._spool.confirm(max(0, self._sink.unconfirmed - self._past_spool))
            self._spool.tick(now)
        if drained or self._sink.unconfirmed < unconfirmed:
            self._no_room = False
            self._poll = self.POLL_FIRST
        else:
            self._poll = min(self._poll * 2, self.POLL_LAST)
        self._poll_due = now if more else now + self._poll
        if not self._waiting:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        self._judge(now)
        return self.deadline()

    def deadline(self) -> float | None:
        """Return when ``tick`` is due, in monotonic seconds; None if there is nothing to do.

        Call it again after each ``write``.
        """
        waiting = self._behind_since is not None or self._sink.unconfirmed > 0
        # A failing sink determines itself when it retries.
        polled = waiting and (self._sink_due is None or self._sink.trouble is None)
        times = [
            self._sink_due,
            self._poll_due if polled else None,
            None if self._spool is None else self._spool.deadline(),
        ]
        return min((due for due in times if due is not None), default=None)

    def reopen(self) -> None:
        """Reopen the file or connection, as after logrotate's SIGHUP."""
        self._sink.reopen()
        self.tick(self._clock())

    def flush(self, timeout: float) -> bool:
        """Deliver all waiting lines; return whether they arrived. Blocks up to ``timeout`` seconds.

        Returns early if the sink is failing and all lines are in the spool.
        """
        end = self._clock() + timeout
        while True:
            self._sink.flush()
            now = self._clock()
            due = self.tick(now)
            if not self._waiting and not self._sink.unconfirmed:
                return True
            if now >= end or (self._sink.trouble is not None and not self._queue):
                self.secure()
                return False
            time.sleep(max(0.0, min((due or now) - now, self.POLL_FIRST)))

    def secure(self) -> None:
        """Copy lines that are only in this process's memory to the spool, if any."""
        if self._spool is not None:
            self._copy_in_flight()
            self._move_queue()

    def sync(self) -> None:
        """Write everything to the disk. May block."""
        self._sink.sync()
        self.secure()
        if self._spool is not None:
            self._spool.sync()

    def close(self) -> None:
        """Spool undelivered lines, and release all resources.

        Lines that are neither confirmed nor spooled count as dropped.
        """
        self.sync()
        safe = 0 if self._spool is None else self._spool.in_flight
        self._given_up = max(0, self._sink.unconfirmed - safe)
        self._sink.close()
        self._queue_dropped += len(self._queue)
        self._queue.clear()
        self._queue_bytes = 0
        self._note_losses()
        if self._spool is not None:
            self._spool.close()

    @property
    def gone(self) -> bool:
        """Whether the reader has exited for good."""
        return self._sink.gone

    @property
    def fill(self) -> float:
        """How full the fuller one of the memory queue and the spool is, 0 to 1."""
        spooled = 0.0 if self._spool is None else self._spool.fill
        return max(self._queue_bytes / self._queue_size, spooled)

    @property
    def volatile(self) -> int:
        """The number of lines that are only in this process's memory."""
        return len(self._queue) + self._taken_in_memory

    @property
    def securable(self) -> bool:
        """Whether ``secure`` would probably reduce that number."""
        return self._spool is not None and self._taken_in_memory > 0

    @property
    def _taken_in_memory(self) -> int:
        return min(self._sink.volatile, self._past_spool)

    def take_events(self) -> list[HealthChange]:
        """Return the changes of health since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def take_losses(self) -> list[LineLoss]:
        """Return the losses since the last call, summed by reason.

        Empty while the newest lines are dropped: a line about the loss would be dropped too.
        """
        self._note_losses()
        if self._no_room:
            return []
        losses, self._losses = self._losses, {}
        return list(losses.values())

    def account(self) -> Account:
        """Return where the lines are."""
        return Account(
            accepted=self._accepted,
            delivered=self._taken - self._sink.unconfirmed - self._sink.rejected,
            queued=len(self._queue) + self._sink.unconfirmed - self._given_up,
            spooled=0 if self._spool is None else self._spool.pending,
            dropped=self._dropped(),
        )

    def status(self) -> dict[str, Any]:
        """Return health and counters (lines), as ``sessiond status`` shows them."""
        account = self.account()
        return {
            "output": self.name,
            "healthy": self._reason is None,
            "reason": self._reason,
            **account._asdict(),
            "dropped": sum(account.dropped.values()),
            "dropped_by_reason": account.dropped,
            "sink": self._sink.status(),
            "spool": None if self._spool is None else self._spool.status(),
        }

    # Waiting lines

    @property
    def _waiting(self) -> bool:
        return bool(self._queue) or (self._spool is not None and self._spool.pending > 0)

    def _keep(self, lines: list[bytes]) -> None:
        """Append ``lines`` to the waiting lines."""
        self._kept += len(lines)
        dropped = sum(self._dropped().values())
        if self._spool is not None:
            self._copy_in_flight()
            self._move_queue()
            if not self._queue:
                lines = lines[self._spool.append(lines) :]
        self._enqueue(lines)
        if self._drop == "newest" and sum(self._dropped().values()) > dropped:
            self._no_room = True

    def _copy_in_flight(self) -> None:
        """Copy unconfirmed lines of the sink to the spool.

        They are older than all waiting lines, so this must happen first.
        """
        direct = min(self._sink.unconfirmed, self._past_spool)
        if direct and self._spool is not None and not self._spool.pending and not self._queue:
            self._past_spool = direct - self._spool.append_in_flight(
                self._sink.in_flight()[-direct:]
            )

    def _move_queue(self) -> None:
        while self._queue and self._spool is not None:
            lines = list(itertools.islice(self._queue, 256))
            moved = self._spool.append(lines)
            self._leave_queue(moved)
            if moved < len(lines):
                return

    def _enqueue(self, lines: list[bytes]) -> None:
        for index, line in enumerate(lines):
            if self._drop == "newest" and self._queue_bytes + len(line) > self._queue_size:
                self._queue_dropped += len(lines) - index
                return
            self._queue.append(line)
            self._queue_bytes += len(line)
            while self._queue_bytes > self._queue_size:
                self._leave_queue(1)
                self._queue_dropped += 1

    def _leave_queue(self, count: int) -> None:
        for _ in range(count):
            self._queue_bytes -= len(self._queue.popleft())

    def _drain(self) -> tuple[int, bool]:
        """Pass waiting lines to the sink; return how many it accepted, and if it accepts more."""
        drained = size = 0
        self._move_queue()
        while self._waiting and size < self.DRAIN_PER_TICK:
            from_spool = self._spool is not None and self._spool.pending > 0
            if self._spool is not None and from_spool:
                lines = self._spool.peek(self.DRAIN)
                if not lines:
                    if self._spool.pending:
                        return drained, False
                    continue  # the rest of it was unreadable
            else:
                lines = list(itertools.islice(self._queue, 256))
            taken = self._sink.write(lines)
            self._taken += taken
            drained += taken
            size += sum(map(len, lines[:taken]))
            if self._spool is not None and from_spool:
                self._spool.advance(taken)
                self._past_spool = 0 if taken else self._past_spool
            else:
                self._past_spool += taken  # first: another thread may read ``volatile``
                self._leave_queue(taken)
            if taken < len(lines):
                return drained, False
        return drained, self._waiting

    # Health

    def _judge(self, now: float) -> None:
        """Determine the health, and record a change."""
        reason = self._sink.trouble
        if reason is None and self._spool is not None:
            reason = self._spool.trouble
        if reason is None and self._behind_since is not None:
            if self._reason is not None:  # healthy again only when no lines wait
                reason = self._reason
            elif now - self._behind_since > self._grace:
                reason = f"{self.name} takes lines more slowly than they come"
        if reason is not None and self._reason is None:
            self._sick_since = WallTime(self._wall())
            self._changes.append(self._health(reason, until=None))
        elif reason is None and self._reason is not None:
            self._changes.append(self._health(self._reason, until=WallTime(self._wall())))
        self._reason = reason
        if reason is None and self._behind_since is None:
            self._kept = 0
            self._dropped_when_well = sum(self._dropped().values())

    def _health(self, reason: str, until: WallTime | None) -> HealthChange:
        dropped = sum(self._dropped().values()) - self._dropped_when_well
        name = self.name
        return HealthChange(
            name, until is not None, reason, self._sick_since, until, self._kept, dropped
        )

    def _dropped(self) -> dict[str, int]:
        dropped = {
            "queue full": self._queue_dropped,
            "refused by the output": self._sink.rejected,
            "not confirmed at the end": self._given_up,
        }
        if self._spool is not None:
            dropped["spool full"] = self._spool.dropped
            dropped["spool damaged"] = self._spool.damaged
        return dropped

    def _note_losses(self) -> None:
        now = WallTime(self._wall())
        for reason, count in self._dropped().items():
            new = count - self._counted.get(reason, 0)
            if new:
                self._counted[reason] = count
                loss = self._losses.get(reason, LineLoss(self.name, reason, 0, now, now))
                self._losses[reason] = loss._replace(lines=loss.lines + new, until=now)
