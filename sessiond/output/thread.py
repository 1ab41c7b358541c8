"""A thread for each output, so that a hanging disk blocks only that output.

A write to a file may hang as long as its disk or file server does, and can't be interrupted. So the
event loop only passes lines to the thread, through a bounded queue in memory::

    the loop ─▶ waiting lines ─▶ the thread: Delivery (spool, file or socket)
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sessiond.errors import OutputError
from sessiond.output.delivery import Delivery
from sessiond.output.sink import HealthChange, LineLoss
from sessiond.output.spool import Policy
from sessiond.units import WallTime

_FULL = "queue full"
# Seconds for which the loop waits for the thread to leave a call, to inspect the delivery.
_LOCK_TIMEOUT = 0.02
# Seconds for which it waits for lines to be spooled, and until it asks again.
_SECURE_TIMEOUT, _SECURE_PAUSE = 0.1, 1.0


class _Batch(NamedTuple):
    lines: list[bytes]
    size: int  # in bytes


class OutputThread:
    """A ``Delivery`` in its own thread, with the same counters.

    Each counter is written by only one side, the loop or the thread. The thread holds the lock
    while it is inside the delivery; another holder of the lock may inspect the delivery. The thread
    does not keep the process alive.
    """

    def __init__(
        self,
        delivery: Delivery,
        *,
        queue_size: int = 64 * 1024 * 1024,
        drop: Policy = "oldest",
        stall_timeout: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the delivery, not open yet.

        ``queue_size`` bounds the queue in bytes; ``drop`` says which lines to drop when it is full.
        The output is unhealthy while a call takes longer than ``stall_timeout`` seconds. ``clock``
        and ``wall`` return seconds, monotonic and since the epoch.
        """
        self.name = delivery.name
        self._delivery = delivery
        self._queue_size = queue_size
        self._drop = drop
        self._stall_timeout = stall_timeout
        self._clock = clock
        self._wall = wall
        self._queue: queue.SimpleQueue[_Batch | Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

        # Of the thread.
        self._taken_bytes = 0  # out of the queue
        self._done = 0  # lines that the delivery has handled
        self._busy_since: float | None = None  # the start of the current call
        self._opened = False
        self._failure: Exception | None = None

        # Of the loop.
        self._given = 0  # lines
        self._given_bytes = 0
        self._inherited = 0  # lines of an earlier run
        self._details: dict[str, Any] = {}  # the delivery's last details
        self._dropped = 0
        self._loss: LineLoss | None = None
        self._secure_again = 0.0
        self._hanging: str | None = None  # why it is unhealthy
        self._sick_since = WallTime(0.0)
        self._dropped_when_well = 0
        self._changes: list[HealthChange] = []

    def open(self, timeout: float = 10.0) -> None:
        """Open the delivery and start. Raises its OutputError, or one if it does not answer."""
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()
        problems: list[OutputError] = []

        def begin() -> None:
            try:
                self._delivery.open()
                self._opened = True
            except OutputError as error:
                problems.append(error)

        if not self._ask(begin, timeout):
            self.close(timeout=0)
            raise OutputError(f"{self.name}: did not answer for {timeout:.0f} s; is its disk hung?")
        if problems:
            self.close(timeout=timeout)
            raise problems[0]
        self._inherited = self._delivery.account().accepted

    def write(self, lines: list[bytes]) -> None:
        """Take ``lines``, each with its newline. Never blocks.

        Raises the exception that ended the thread: a bug.
        """
        if self._failure is not None:
            raise self._failure
        if not lines:
            return
        size = sum(map(len, lines))
        if self._given_bytes - self._taken_bytes + size > self._queue_size:
            self._make_room(size)
            if self._drop == "newest" and self._given_bytes > self._taken_bytes:
                self._lose(len(lines))
                return
        self._given += len(lines)
        self._given_bytes += size
        self._queue.put(_Batch(lines, size))

    def flush(self, timeout: float) -> bool:
        """Deliver waiting lines; return whether they arrived within ``timeout`` seconds."""
        end = self._clock() + timeout
        arrived: list[bool] = []

        def flush() -> None:
            arrived.append(self._delivery.flush(max(0.0, end - self._clock())))

        return self._ask(flush, timeout) and arrived[0]

    def reopen(self, timeout: float = 3.0) -> None:
        """Reopen the file or connection; wait at most ``timeout`` seconds for that."""
        self._ask(self._delivery.reopen, timeout)

    def close(self, timeout: float = 3.0) -> None:
        """Save undelivered lines and release all resources, as far as possible."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            self._thread = None

    @property
    def gone(self) -> bool:
        """Whether the reader is gone for good."""
        return self._delivery.gone

    @property
    def fill(self) -> float:
        """How full the fuller one of the queue and the delivery is, 0 to 1."""
        waiting = self._given_bytes - self._taken_bytes
        return max(waiting / self._queue_size, self._delivery.fill)

    @property
    def volatile(self) -> int:
        """The number of lines that are only in this process's memory."""
        return self._given - self._done + self._delivery.volatile

    def secure(self) -> bool:
        """Make every line survive the end of this process; return whether that succeeded.

        Lines that a server has not confirmed are spooled as well. Waits only briefly, and not
        repeatedly.
        """
        now = self._clock()
        if (
            self.volatile
            and self._delivery.securable
            and now >= self._secure_again
            and not self._ask(self._delivery.secure, _SECURE_TIMEOUT)
        ):
            self._secure_again = now + _SECURE_PAUSE
        return not self.volatile

    def take_events(self) -> list[HealthChange]:
        """Return the changes of health since the last call, in order."""
        self._judge()
        changes, self._changes = self._changes, []
        with self._outside() as outside:
            return changes + (self._delivery.take_events() if outside else [])

    def take_losses(self) -> list[LineLoss]:
        """Return the losses since the last call, summed by reason."""
        with self._outside() as outside:
            losses = self._delivery.take_losses() if outside else []
        # While it hangs and the newest lines are dropped, a line about it would be dropped too.
        if self._loss is not None and not (self._hanging and self._drop == "newest"):
            losses.append(self._loss)
            self._loss = None
        return losses

    def status(self) -> dict[str, Any]:
        """Return health and counters (lines), as ``sessiond status`` shows them."""
        self._judge()
        with self._outside() as outside:
            if outside:
                self._details = self._delivery.status()
            account = self._delivery.account()
            dropped = dict(account.dropped)
            dropped[_FULL] = dropped.get(_FULL, 0) + self._dropped
            accepted = self._inherited + self._given + self._dropped
            # The lines of a call that has not returned count as in flight.
            there = account.delivered + account.spooled + sum(dropped.values())
            queued = account.queued + self._given - self._done if outside else accepted - there
        reason = self._hanging or self._details.get("reason")
        return {
            **self._details,
            "output": self.name,
            "healthy": reason is None,
            "reason": reason,
            "accepted": accepted,
            "delivered": account.delivered,
            "queued": queued,
            "spooled": account.spooled,
            "dropped": sum(dropped.values()),
            "dropped_by_reason": dropped,
        }

    @contextmanager
    def _outside(self) -> Iterator[bool]:
        """Keep the thread outside of the delivery; yields False while it hangs inside."""
        outside = self._lock.acquire(timeout=_LOCK_TIMEOUT)
        try:
            yield outside
        finally:
            if outside:
                self._lock.release()

    def _make_room(self, size: int) -> None:
        """Drop the oldest waiting lines, if so configured, until ``size`` bytes fit."""
        jobs: list[Callable[[], None] | None] = []
        while (
            self._drop == "oldest"
            and self._given_bytes - self._taken_bytes + size > self._queue_size
        ):
            try:
                oldest = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(oldest, _Batch):
                self._given -= len(oldest.lines)
                self._given_bytes -= oldest.size
                self._lose(len(oldest.lines))
            else:
                jobs.append(oldest)
        for job in jobs:
            self._queue.put(job)

    def _lose(self, lines: int) -> None:
        now = WallTime(self._wall())
        self._dropped += lines
        loss = self._loss or LineLoss(self.name, _FULL, 0, now, now)
        self._loss = loss._replace(lines=loss.lines + lines, until=now)

    def _judge(self) -> None:
        """Determine whether the thread hangs in a call, and record a change."""
        since, now = self._busy_since, self._clock()
        if since is not None and now - since > self._stall_timeout:
            if self._hanging is None:
                self._hanging = f"{self.name} does not answer: its disk or its server hangs"
                self._sick_since = WallTime(self._wall() - (now - since))
                self._dropped_when_well = self._dropped
                self._changes.append(self._health(None))
        elif self._hanging is not None:
            self._changes.append(self._health(WallTime(self._wall())))
            self._hanging = None

    def _health(self, until: WallTime | None) -> HealthChange:
        return HealthChange(
            output=self.name,
            healthy=until is not None,
            reason=self._hanging or "",
            since=self._sick_since,
            until=until,
            kept=self._given - self._done,
            dropped=self._dropped - self._dropped_when_well,
        )

    def _ask(self, job: Callable[[], None], timeout: float) -> bool:
        """Let the thread run ``job`` after earlier ones; return False if it is not done in time."""
        done = threading.Event()

        def do() -> None:
            job()
            done.set()

        if self._thread is None or self._failure is not None:
            return False
        self._queue.put(do)
        return done.wait(max(0.0, timeout))

    # The thread

    def _run(self) -> None:
        try:
            while self._step():
                pass
            if self._opened:
                self._delivery.close()
        except Exception as error:  # noqa: BLE001 -- passed on to the loop
            self._failure = error

    def _step(self) -> bool:
        """Wait for work and do it; return False after the last."""
        due = self._delivery.deadline()
        item: _Batch | Callable[[], None] | None
        try:
            item = self._queue.get(timeout=None if due is None else max(0.0, due - self._clock()))
        except queue.Empty:
            item = self._tick
        if item is None:
            return False
        with self._lock:
            self._busy_since = self._clock()
            if isinstance(item, _Batch):
                self._taken_bytes += item.size
                self._delivery.write(item.lines)
                self._done += len(item.lines)
                due = self._delivery.deadline()
                if due is not None and due <= self._clock():
                    self._tick()
            else:
                item()
            self._busy_since = None
        return True

    def _tick(self) -> None:
        self._delivery.tick(self._clock())
