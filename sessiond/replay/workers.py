"""Worker processes, among which the boots of a replay are shared.

A worker has the pipelines of its boots; this process reads the logs and writes the lines, in the
order of the blocks, so that the number of workers does not change a byte of the output.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final

from sessiond.errors import SessiondError
from sessiond.replay.blocks import Block, Made, Pipelines
from sessiond.replay.progress import size_of
from sessiond.system.packed import is_stream

# More workers would wait for this process, which reads and writes for all.
MAX_JOBS: Final = 8
# Logs that one process has read before workers are of use, in bytes.
_MIN_SIZE: Final = 4 << 20
# Blocks for each worker of which the result is not written yet, so that memory is bounded.
_MAX_UNWRITTEN: Final = 4


class WorkerError(SessiondError):
    """A worker has ended before its work was done; the message says what to do."""


def default_jobs(names: list[str]) -> int:
    """Return the number of workers for logs: one for each processor, or 1 for small logs."""
    if not any(map(is_stream, names)) and sum(map(size_of, names)) < _MIN_SIZE:
        return 1
    return min(len(os.sched_getaffinity(0)), MAX_JOBS)


class _Worker:
    """A worker process: ``results`` are those to write, None after its end."""

    def __init__(self, pipelines: Pipelines, others: list[_Worker]) -> None:
        """Start it; it closes its copies of the connections to ``others``."""
        self.boots: set[tuple[int, int]] = set()
        self.unwritten = 0
        self.results: SimpleQueue[Made | Exception | None] = SimpleQueue()
        self.connection, end = multiprocessing.Pipe()
        inherited = [self.connection, *(other.connection for other in others)]
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(end, pipelines, inherited), daemon=True
        )
        try:
            self._process.start()
        except OSError:
            self.connection.close()
            raise
        finally:
            end.close()

    def listen(self) -> None:
        """Receive results from now on, so that the worker never waits to send one."""
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        try:
            while True:
                self.results.put(self.connection.recv())
        except (EOFError, OSError):
            self.results.put(None)

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.connection.close()

    def reason(self) -> str:
        """Return how it ended, in words."""
        self._process.join()
        code = self._process.exitcode or 0
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


class Workers:
    """Worker processes that share the blocks; the blocks of a boot go to the same one."""

    def __init__(self, workers: list[_Worker]) -> None:
        """Take workers that listen."""
        self._workers = workers
        self._unwritten: deque[_Worker] = deque()  # of each block, in order

    def submit(self, block: Block) -> list[Made]:
        """Send a block; return results so far, in the order of the blocks.

        Raises WorkerError when a worker has ended.
        """
        worker = self._of(block)
        try:
            worker.connection.send(block)
        except OSError:
            raise _ended(worker) from None
        worker.unwritten += 1
        self._unwritten.append(worker)
        done = []
        while self._unwritten and (
            len(self._unwritten) > _MAX_UNWRITTEN * len(self._workers)
            or not self._unwritten[0].results.empty()
        ):
            done.append(self._next())
        return done

    @property
    def unwritten(self) -> int:
        """The number of blocks of which the result was not returned yet."""
        return len(self._unwritten)

    def rest(self) -> list[Made]:
        """Wait for the results that ``submit`` has not returned; raises WorkerError."""
        return [self._next() for _ in range(len(self._unwritten))]

    def _of(self, block: Block) -> _Worker:
        number = block.boot.number
        worker = next((each for each in self._workers if number in each.boots), None)
        if worker is None:
            worker = min(self._workers, key=lambda each: (len(each.boots), each.unwritten))
            worker.boots.add(number)
        if block.last:
            worker.boots.discard(number)
        return worker

    def _next(self) -> Made:
        worker = self._unwritten.popleft()
        worker.unwritten -= 1
        result = worker.results.get()
        if result is None:
            raise _ended(worker)
        if isinstance(result, Exception):
            raise result
        return result


@contextmanager
def started(jobs: int, pipelines: Pipelines) -> Iterator[Workers]:
    """Start workers, and end them with the block; each has a copy of the (empty) pipelines.

    Call this before anything is written, because a worker is a copy of this process. Raises
    WorkerError if one can't be started.
    """
    with ExitStack() as stack:
        workers: list[_Worker] = []
        for _ in range(jobs):
            try:
                workers.append(_Worker(pipelines, workers))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise WorkerError(f"no worker process: {reason}; use --jobs 1") from None
            stack.callback(workers[-1].end)
        for worker in workers:
            worker.listen()
        yield Workers(workers)


def _serve(end: Connection, pipelines: Pipelines, inherited: list[Connection]) -> None:
    """Make lines of blocks until the other process closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that reads
    for connection in inherited:
        connection.close()
    try:
        while True:
            end.send(_result(pipelines, end.recv()))
    except (EOFError, OSError):
        pass


def _result(pipelines: Pipelines, block: Block) -> Made | Exception:
    try:
        return pipelines.take(block)
    except Exception as error:  # noqa: BLE001 -- the other process raises it
        error.add_note(traceback.format_exc())
        try:
            pickle.dumps(error)
        except Exception:  # noqa: BLE001 -- whatever the error consists of
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error


def _ended(worker: _Worker) -> WorkerError:
    return WorkerError(
        f"a worker process of replay ended {worker.reason()}, perhaps for want of memory; the "
        "output is incomplete; run it with --jobs 1"
    )
