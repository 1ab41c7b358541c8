"""A thread for each output: a disk that doesn't answer holds up that output, and nothing else.

A write to a file may hang for as long as its disk or its server does, and nothing can end it. So
the loop only hands lines over, through a queue in memory that is bounded::

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
# How long, in seconds, the loop waits for the thread to come out of a call, to look inside.
_LOCK_TIMEOUT = 0.02
# How long it waits for lines to be put into the spool, and how soon it asks again, in seconds.
_SECURE_TIMEOUT, _SECURE_PAUSE = 0.1, 1.0


class _Batch(NamedTuple):
    lines: list[bytes]
    size: int  # in bytes


class OutputThread:
    """A ``Delivery`` in a thread of its own, with the same account.

    Each counter is written by one side alone, the loop's or the thread's. The thread holds the lock
    while it is inside the delivery; another holder of the lock may look inside. The thread never
    keeps the process from ending.
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

        ``queue_size`` bounds, in bytes, what waits for the thread; ``drop`` says what goes when
        that is full. The output counts as sick while a call takes longer than ``stall_timeout``
        seconds. ``clock`` and ``wall`` give seconds, monotonic and since the epoch.
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
        self._done = 0  # lines that the delivery has seen to
        self._busy_since: float | None = None  # it is inside a call since then
        self._opened = False
        self._failure: Exception | None = None

        # Of the loop.
        self._given = 0  # lines
        self._given_bytes = 0
        self._inherited = 0  # lines of an earlier run
        self._details: dict[str, Any] = {}  # what the delivery said of itself last
        self._dropped = 0
        self._loss: LineLoss | None = None
        self._secure_again = 0.0
        self._hanging: str | None = None  # why it counts as sick
        self._sick_since = WallTime(0.0)
        self._dropped_when_well = 0
        self._changes: list[HealthChange] = []

    def open(self, timeout: float = 10.0) -> None:
        """Open the delivery and begin. Raises OutputError as it does, or when it doesn't answer."""
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

        Raises what has ended the thread: an error in this program.
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
        """Deliver what waits; return whether it has arrived within ``timeout`` seconds."""
        end = self._clock() + timeout
        arrived: list[bool] = []

        def flush() -> None:
            arrived.append(self._delivery.flush(max(0.0, end - self._clock())))

        return self._ask(flush, timeout) and arrived[0]

    def reopen(self, timeout: float = 3.0) -> None:
        """Open file or connection anew; wait for that no longer than ``timeout`` seconds."""
        self._ask(self._delivery.reopen, timeout)

    def close(self, timeout: float = 3.0) -> None:
        """Keep what has not arrived and let go of everything, or of all that can be let go of."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            self._thread = None

    @property
    def gone(self) -> bool:
        """Whether the reader is gone for good."""
        return self._delivery.gone

    @property
    def volatile(self) -> int:
        """How many lines are in the memory of this process alone."""
        return self._given - self._done + self._delivery.volatile

    def secure(self) -> bool:
        """Have every line survive the end of this process; return whether it is so.

        What a server has not confirmed yet goes into the spool as well. Waits for that a moment at
        the most, and not again and again.
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
        """Return how its health has changed since the last call, in order."""
        self._judge()
        changes, self._changes = self._changes, []
        with self._outside() as outside:
            return changes + (self._delivery.take_events() if outside else [])

    def take_losses(self) -> list[LineLoss]:
        """Return what was lost since the last call, added up by reason."""
        with self._outside() as outside:
            losses = self._delivery.take_losses() if outside else []
        # While it hangs and the newest lines are dropped, a line about it would be dropped, too.
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
            # What a call that has not returned is about is on its way, however far it has come.
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
        """Keep the thread outside of the delivery; give False while it hangs inside."""
        outside = self._lock.acquire(timeout=_LOCK_TIMEOUT)
        try:
            yield outside
        finally:
            if outside:
                self._lock.release()

    def _make_room(self, size: int) -> None:
        """Drop the oldest lines that wait, if that is how it shall be, until ``size`` bytes fit."""
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
        """See whether the thread hangs in a call, and note it when that has changed."""
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
        """Let the thread do ``job`` after all earlier ones; False if it is not done in time."""
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
        except Exception as error:  # noqa: BLE001 -- whatever it is, the loop must hear of it
            self._failure = error

    def _step(self) -> bool:
        """Wait for something to do and do it; return False when that was the last."""
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
