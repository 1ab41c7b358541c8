"""One thread for what may take long and must not hold up the loop: gzip, fdatasync."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable


class Background:
    """Runs jobs one after the other in a thread of low priority, started with the first job.

    Jobs see to their own errors. The thread never keeps the process from ending.
    """

    _NICENESS = 10

    def __init__(self, name: str) -> None:
        """Take the name that the thread has in /proc/PID/task."""
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job`` after those that are already waiting."""
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self, timeout: float) -> None:
        """Let the waiting jobs end, but wait no longer than ``timeout`` seconds for them."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout)
            self._thread = None

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # a sandbox may forbid it: then at normal priority
            # On Linux a thread has a niceness of its own (setpriority(2), "C library/kernel
            # differences").
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._NICENESS)
        while (job := self._jobs.get()) is not None:
            job()
