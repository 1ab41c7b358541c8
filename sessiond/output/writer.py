"""A thread for each output: a disk that doesn't answer holds up that output, and nothing else.

A write to a file may hang for as long as its disk or its server does, and nothing can end it. So
the loop only hands lines over, through a queue in memory that is bounded::

    the loop ─▶ waiting lines ─▶ the thread: Delivery (spool, file or socket)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from sessiond.errors import OutputError
from sessiond.output.delivery import Account, Delivery, Health, Loss
from sessiond.output.spool import Policy

_FULL = "queue full"


class _Batch(NamedTuple):
    lines: list[bytes]
    size: int  # in bytes


class Writer:
    """A ``Delivery`` in a thread of its own, with the same account.

    While the thread is inside a call, nobody else touches the delivery; while it isn't, whoever
    holds the lock may look at it. The thread never keeps the process from ending.
    """

    def __init__(
        self,
        delivery: Delivery,
        *,
        queue_size: int = 64 * 1024 * 1024,
        drop: Policy = "oldest",
        patience: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the delivery, not open yet.

        ``queue_size`` bounds, in bytes, what waits for the thread; ``drop`` says what goes when
        that is full. A call that takes longer than ``patience`` seconds makes the output count as
        sick. ``clock`` and ``wall`` tell seconds, monotonic and since the epoch.
        """
        self.name = delivery.name
        self._delivery = delivery
        self._queue_size = queue_size
        self._drop = drop
        self._patience = patience
        self._clock = clock
        self._wall = wall

        self._changed = threading.Condition()  # its lock guards all that follows
        self._thread: threading.Thread | None = None
        self._batches: deque[_Batch] = deque()
        self._bytes = 0  # in _batches
        self._waiting = 0  # lines in _batches
        self._inside = 0  # lines in the call that the thread is in
        self._jobs: deque[Callable[[], None]] = deque()
        self._busy_since: float | None = None  # the thread is inside a call since then
        self._opened = False
        self._closing = False
        self._failure: Exception | None = None
        # What the delivery said of itself when the thread was last outside.
        self._account = Account(0, 0, 0, 0, {})
        self._status: dict[str, Any] = {}
        self._volatile = 0

        self._dropped = 0
        self._loss: Loss | None = None
        self._hanging: str | None = None  # why it counts as sick
        self._sick_since = 0.0
        self._dropped_before = 0
        self._changes: list[Health] = []

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

    def write(self, lines: list[bytes]) -> None:
        """Take ``lines``, each with its newline. Never blocks.

        Raises what has ended the thread: an error in this program.
        """
        size = sum(map(len, lines))
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if not lines:
                return
            while self._bytes and self._bytes + size > self._queue_size:
                if self._drop == "newest":
                    self._lose(len(lines))
                    return
                oldest = self._batches.popleft()
                self._bytes -= oldest.size
                self._waiting -= len(oldest.lines)
                self._lose(len(oldest.lines))
            self._batches.append(_Batch(lines, size))
            self._bytes += size
            self._waiting += len(lines)
            self._changed.notify_all()

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
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def volatile(self) -> int:
        """How many lines are in the memory of this process alone."""
        with self._changed:
            return self._waiting + self._inside + self._volatile

    def take_events(self) -> list[Health]:
        """Return how its health has changed since the last call, in order."""
        with self._changed:
            self._judge()
            changes, self._changes = self._changes, []
            if self._busy_since is None:
                changes += self._delivery.take_events()
            return changes

    def take_losses(self) -> list[Loss]:
        """Return what was lost since the last call, added up by reason."""
        with self._changed:
            losses = [] if self._busy_since is not None else self._delivery.take_losses()
            if self._loss is not None and not (self._hanging and self._drop == "newest"):
                losses.append(self._loss)
                self._loss = None
            return losses

    def status(self) -> dict[str, Any]:
        """Return health and counters (lines), as ``sessiond status`` shows them."""
        with self._changed:
            self._judge()
            if self._busy_since is None:
                self._status = self._delivery.status()
            account = self._account
            by_reason = dict(account.dropped)
            by_reason[_FULL] = by_reason.get(_FULL, 0) + self._dropped
            waiting = self._waiting + self._inside
            reason = self._hanging or self._status.get("reason")
            return {
                **self._status,
                "output": self.name,
                "healthy": reason is None,
                "reason": reason,
                "accepted": account.accepted + waiting + self._dropped,
                "delivered": account.delivered,
                "queued": account.queued + waiting,
                "spooled": account.spooled,
                "dropped": sum(by_reason.values()),
                "dropped_by_reason": by_reason,
            }

    def _lose(self, lines: int) -> None:
        now = self._wall()
        self._dropped += lines
        loss = self._loss or Loss(self.name, _FULL, 0, now, now)
        self._loss = loss._replace(lines=loss.lines + lines, until=now)

    def _judge(self) -> None:
        """See whether the thread hangs in a call, and note it when that has changed."""
        since, now = self._busy_since, self._clock()
        hangs = since is not None and now - since > self._patience
        if since is not None and hangs and self._hanging is None:
            self._hanging = f"{self.name} does not answer: its disk or its server hangs"
            self._sick_since = self._wall() - (now - since)
            self._dropped_before = self._dropped
            self._changes.append(self._health(None))
        elif not hangs and self._hanging is not None:
            self._changes.append(self._health(self._wall()))
            self._hanging = None

    def _health(self, until: float | None) -> Health:
        return Health(
            output=self.name,
            healthy=until is not None,
            reason=self._hanging or "",
            since=self._sick_since,
            until=until,
            kept=self._waiting + self._inside,
            dropped=self._dropped - self._dropped_before,
        )

    def _ask(self, job: Callable[[], None], timeout: float) -> bool:
        """Have the thread do ``job`` after all that waits; tell whether it was done in time."""
        done = threading.Event()

        def do() -> None:
            job()
            done.set()

        with self._changed:
            if self._failure is not None or self._closing:
                return False
            self._jobs.append(do)
            self._changed.notify_all()
        return done.wait(max(0.0, timeout))

    # The thread

    def _run(self) -> None:
        try:
            while self._step():
                pass
            if self._opened:
                self._delivery.close()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the loop must hear of it
            with self._changed:
                self._failure = error

    def _step(self) -> bool:
        """Wait for something to do and do it; return False when it was the last."""
        with self._changed:
            due = self._delivery.deadline()
            while not (self._batches or self._jobs or self._closing):
                left = None if due is None else due - self._clock()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            batch = job = None
            if self._batches:
                batch = self._batches.popleft()
                self._bytes -= batch.size
                self._waiting -= len(batch.lines)
                self._inside = len(batch.lines)
            elif self._jobs:
                job = self._jobs.popleft()
            elif self._closing:
                return False
            self._busy_since = self._clock()
        if batch is not None:
            self._delivery.write(batch.lines)
        if job is not None:
            job()
        due = self._delivery.deadline()
        if due is not None and due <= self._clock():
            self._delivery.tick(self._clock())
        with self._changed:
            self._inside = 0
            self._busy_since = None
            self._account = self._delivery.account()
            self._volatile = self._delivery.volatile
        return True
