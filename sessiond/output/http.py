"""Sends lines to a server in POST requests of many lines, until the server has acknowledged them.

A separate thread makes the requests sequentially and may wait for the server; the methods of the
sink never wait::

    write ─▶ next ─▶ current ─▶ the thread: encode, compress, POST ─▶ answer ─▶ tick
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sessiond.output.backoff import Backoff
from sessiond.output.http_client import Compressor, HttpClient, HttpError
from sessiond.output.http_formats import Answer, Format, Verdict
from sessiond.output.refused import RefusedLines

MAX_RETRY_AFTER: Final = 300.0  # maximum wait requested by a server, in seconds
# Delay between checks of a request: a share of its duration, within a minimum and a maximum.
_LOOK_SHARE, _LOOK_FIRST, _LOOK_LAST = 0.25, 0.005, 0.25
_TOO_LATE: Final = (408, 504)  # statuses of a request that took too long
_CLOSE_TIMEOUT: Final = 1.0  # seconds for the thread to leave an aborted request


class _Done(NamedTuple):
    """The result of a request: an answer, a failure with its reason, or a bug."""

    answer: Answer | None = None
    problem: str = ""
    smaller: bool = False  # whether fewer lines may succeed
    size: int = 0  # of the body, in bytes
    bug: Exception | None = None


class _Batch:
    """Lines in flight: ``lines`` are all of them, ``left`` those without a result yet."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.left = lines
        self.refused = 0


class HttpOutput:
    """A server that accepts lines over HTTP.

    A line counts as delivered once an answer acknowledges it, by 2xx or by a result for the line. A
    line that the server rejects for good is stored in ``refused`` and counted. All others are sent
    again. So each arrives at least once, and a repeated one has the same ``event.id``.
    """

    def __init__(
        self,
        client: HttpClient,
        form: Format,
        *,
        name: str,
        compress: Compressor | None,
        refused: RefusedLines,
        max_size: int = 1 << 20,
        interval: float = 1.0,
        timeout: float = 30.0,
        backoff: tuple[float, float] = (1.0, 60.0),
        patience: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the connection and the preset's format.

        A request has at most ``max_size`` bytes of lines; a line waits ``interval`` seconds for
        others; a request may take ``timeout`` seconds. ``backoff`` is the first and the longest
        wait after a failure, in seconds. Failures are reported only after ``patience`` seconds,
        because a busy server refuses requests occasionally. ``clock`` and ``wall`` return seconds,
        monotonic and since the epoch.
        """
        self.name = name
        self.trouble: str | None = None
        self.rejected = 0
        self.gone = False
        self._client = client
        self._format = form
        self._compress = compress
        self._fields = {"Content-Type": form.content_type}
        if compress is not None:
            self._fields["Content-Encoding"] = compress.encoding
        self._refused = refused
        self._max_size = self._size_limit = max_size
        self._interval = interval
        self._timeout = timeout
        self._patience = patience
        self._backoff = Backoff(*backoff)
        self._clock = clock
        self._wall = wall

        self._next: list[bytes] = []
        self._next_size = 0
        self._next_due = 0.0
        self._full = False  # the next batch is full
        self._batch: _Batch | None = None
        self._most: int | None = None  # lines in a request, after one failed as a whole
        self._retry = 0.0
        self._problem: str | None = None  # why the last request has failed
        self._problem_since = 0.0
        self._refused_in_row = False  # the server's last action was to reject a line

        self._jobs: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[_Done] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked: list[bytes] | None = None  # the lines of the current request
        self._asked_at = 0.0
        self._aborted = False
        self._reconnect = False
        self._requests = self._failures = self._sent = 0

    # The sink

    @property
    def unconfirmed(self) -> int:
        """The number of accepted lines without a result."""
        return len(self._next) + (len(self._batch.lines) if self._batch is not None else 0)

    @property
    def volatile(self) -> int:
        """The number of lines that are only in this process's memory: all unconfirmed ones."""
        return self.unconfirmed

    def in_flight(self) -> list[bytes]:
        """Return those lines."""
        return [*(self._batch.lines if self._batch is not None else ()), *self._next]

    def open(self) -> None:
        """Do nothing: the first request connects."""

    def write(self, lines: list[bytes]) -> int:
        """Accept lines until the next request is full; return how many."""
        now = self._clock()
        self._advance(now)
        if self._problem is not None and (self.unconfirmed or now < self._retry):
            return 0
        taken = 0
        for line in lines:
            if self._next and self._next_size + len(line) > self._size_limit:
                self._full = True
                self._advance(now)
                if self._full:
                    break
            if not self._next:
                self._next_due = now + self._interval
            self._next.append(line)
            self._next_size += len(line)
            taken += 1
        return taken

    def tick(self, now: float) -> float | None:
        """Handle an answer, and send due lines; return when to call again."""
        self._advance(now)
        if self._asked is not None:
            took = now - self._asked_at
            if took >= self._timeout:
                self._aborted = True
                self._client.abort()
            return now + min(max(took * _LOOK_SHARE, _LOOK_FIRST), _LOOK_LAST)
        if self._batch is not None:
            return self._retry
        if self._next:
            return max(self._retry, self._next_due)
        # The caller must then ask again whether more lines are accepted.
        return max(self._retry, now + _LOOK_LAST) if self._problem is not None else None

    def flush(self) -> None:
        """Send the accepted lines without waiting for others."""
        self._next_due = min(self._next_due, self._clock())

    def reopen(self) -> None:
        """Reconnect at once, and read the keys again."""
        self._reconnect = True
        self._retry = 0.0
        self._size_limit = self._max_size
        self.tick(self._clock())

    def sync(self) -> None:
        """Do nothing: there is no disk."""

    def close(self) -> None:
        """Abort the current request, and stop the thread."""
        self._retry = float("inf")
        if self._thread is not None:
            self._client.abort()
            self._jobs.put(None)
            self._thread.join(_CLOSE_TIMEOUT)
            self._thread = None

    def status(self) -> dict[str, Any]:
        """Return the counters of sent and of refused lines."""
        return {
            "address": self.name,
            "requests": self._requests,
            "failed_requests": self._failures,
            "sent_bytes": self._sent,
            "connections": self._client.connections,
            "refused": self._refused.status(),
        }

    # Requests

    def _advance(self, now: float) -> None:
        """Handle an answer, and make the next request if it is due."""
        with contextlib.suppress(queue.Empty):
            done = self._results.get_nowait()
            asked, self._asked = self._asked, None
            if done.bug is not None:
                raise done.bug
            if asked is not None:
                self._take(asked, done, now)
        if self._problem is not None and now - self._problem_since >= self._patience:
            self.trouble = self._problem
        if self._asked is not None or now < self._retry:
            return
        if self._batch is None and self._next and (self._full or now >= self._next_due):
            self._batch = _Batch(self._next)
            self._next, self._next_size, self._full = [], 0, False
        if self._batch is not None:
            self._ask(self._batch.left[: self._most], now)

    def _ask(self, lines: list[bytes], now: float) -> None:
        self._asked, self._asked_at, self._aborted = lines, now, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="http", daemon=True)
            self._thread.start()
        self._jobs.put(lines)

    def _take(self, asked: list[bytes], done: _Done, now: float) -> None:
        """Handle the result of a request for these lines."""
        self._requests += 1
        self._sent += done.size
        batch, count = self._batch, len(asked)
        if batch is None:
            return
        if done.answer is None:
            self._failures += 1
            problem = f"no answer for {self._timeout:g} s" if self._aborted else done.problem
            if done.smaller or self._aborted:
                self._most = max(1, count // 2)
            self._wait(problem, now)
            return
        verdict = self._spare(self._format.judge(done.answer, count), count)
        self._set_aside(batch, asked, verdict)
        batch.left = [asked[index] for index in verdict.again] + batch.left[count:]
        taken = count - len(verdict.again) - len(verdict.refused) - verdict.unnamed
        if taken:
            self._backoff.reset()
            self._grow(len(batch.left))
        if verdict.smaller:
            self._shrink(done.answer, asked)
        elif verdict.again or (not taken and self._refused_in_row):
            self._failures += 1
            if done.answer.status in _TOO_LATE:
                self._most = max(1, count // 2)
            self._wait(verdict.problem, now, done.answer.retry_after)
        else:
            self._problem = self.trouble = None
        if taken or verdict.refused:
            self._refused_in_row = not taken
        if not batch.left:
            self.rejected += batch.refused
            self._batch = None

    @staticmethod
    def _spare(verdict: Verdict, count: int) -> Verdict:
        """Limit the refusals to one line per request if the server refuses all lines.

        The cause may then be the server's configuration instead of the lines: they are sent one by
        one, with growing delays, until the server accepts one.
        """
        if count == 1 or len(verdict.refused) < count:
            return verdict
        first = {0: verdict.refused[0]}
        return verdict._replace(again=list(range(1, count)), refused=first)

    def _set_aside(self, batch: _Batch, lines: list[bytes], verdict: Verdict) -> None:
        batch.refused += len(verdict.refused) + verdict.unnamed
        if verdict.refused:
            refused = [(lines[index], why) for index, why in verdict.refused.items()]
            self._refused.add(refused, self._wall())

    def _grow(self, left: int) -> None:
        """Double the size of the next request, if it was limited."""
        if self._most is not None:
            self._most = self._most * 2 if self._most * 2 < left else None

    def _shrink(self, answer: Answer, lines: list[bytes]) -> None:
        """Halve the size of the next request, or of all further ones if it was too large."""
        self._most = max(1, len(lines) // 2)
        if answer.status == 413:
            sizes = [len(line) for line in lines]
            self._size_limit = min(self._size_limit, max(sum(sizes) // 2, *sizes))

    def _wait(self, problem: str, now: float, retry_after: float | None = None) -> None:
        """Note why the request failed, and when to retry."""
        if self._problem is None:
            self._problem_since = now
        self._problem = f"{self.name}: {problem}"
        delay = self._backoff.delay()
        if retry_after is not None:
            delay = max(delay, min(retry_after, MAX_RETRY_AFTER))
        self._retry = now + delay

    # The thread

    def _run(self) -> None:
        while (lines := self._jobs.get()) is not None:
            self._results.put(self._send(lines))
        self._client.close()

    def _send(self, lines: list[bytes]) -> _Done:
        size = 0
        try:
            body = self._format.encode(lines)
            if self._compress is not None:
                body = self._compress.compress(body)
            size = len(body)
            if self._reconnect:
                self._reconnect = False
                self._client.close()
            return _Done(answer=self._client.post(body, self._fields), size=size)
        except HttpError as error:
            return _Done(problem=str(error), smaller=error.sending, size=size)
        except Exception as error:  # noqa: BLE001 -- passed on to the loop
            return _Done(bug=error, size=size)
