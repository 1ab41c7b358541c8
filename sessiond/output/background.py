"""A thread for slow work that must not block the event loop: compression, fdatasync."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable


class Background:
    """Runs jobs sequentially in a low-priority thread, which starts with the first job.

    Jobs handle their own errors. The thread does not keep the process alive.
    """

    _NICENESS = 10

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
        with contextlib.suppress(OSError):  # a sandbox may forbid it: keep normal priority
            # On Linux each thread has its own niceness (setpriority(2), "C library/kernel
            # differences").
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._NICENESS)
        while (job := self._jobs.get()) is not None:
            job()
