"""A thread for slow work that must not block the event loop: compression, fdatasync."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Background:
    """Runs jobs sequentially in a thread, which starts with the first job.

    Jobs handle their own errors. The thread does not keep the process alive.
    """

    def __init__(self, name: str) -> None:
        """Take the thread's name, as shown in /proc/PID/task."""
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Queue ``job``."""
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for the queued jobs."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout)
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
