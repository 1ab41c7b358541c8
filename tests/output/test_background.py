"""The thread for slow work."""

from __future__ import annotations

import threading
import time

from sessiond.output.background import Background


def test_jobs_run_one_after_the_other_elsewhere() -> None:
    """They keep their order, in one named thread."""
    background = Background("test-jobs")
    done: list[tuple[int, str]] = []

    def job(number: int) -> None:
        done.append((number, threading.current_thread().name))

    for number in range(5):
        background.submit(lambda number=number: job(number))  # type: ignore[misc]
    background.close(timeout=5)
    assert done == [(number, "test-jobs") for number in range(5)]


def test_submitting_does_not_wait() -> None:
    """close() waits no longer than its timeout."""
    background = Background("test-slow")
    release = threading.Event()
    began = time.monotonic()

    def slow() -> None:
        release.wait(10)

    background.submit(slow)
    background.close(timeout=0.1)
    assert time.monotonic() - began < 5
    release.set()
