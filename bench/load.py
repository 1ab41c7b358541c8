"""The load of the measurements, and the part of it that arrived in the output."""

from __future__ import annotations

import subprocess
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from bench.host import BenchError

_SOURCE: Final = Path(__file__).with_name("spawner.c")
_NOBODY: Final = 65534  # the user nobody and its group
# The interval at which a growing file is observed, in seconds: the resolution of delays.
_WATCH: Final = 0.001


@dataclass
class Truth:
    """The started processes: tokens with times (ns since the epoch), pids, and the rate.

    ``number`` counts all processes; some of a varied load have no token here.
    """

    started: dict[bytes, int] = field(default_factory=dict)
    pids: Counter[int] = field(default_factory=Counter)
    number: int = 0
    seconds: float = 0.0


class Arrived(NamedTuple):
    """The number of execs and ends in the output, and the sorted delays of execs in ms."""

    execs: int
    ends: int
    delays: list[float]


# Parses a line: whether it is an exec (its token) or an end (its pid).
Reader = Callable[[bytes], bytes | int | None]


def built(source: Path, directory: Path, *options: str) -> Path:
    """Build a C program in ``directory`` and return its path. Raises BenchError."""
    program = directory / source.stem
    command = ["gcc", "-O2", "-Wall", *options, "-o", str(program), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BenchError(f"no gcc here to build {source.name} with") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or ["no reason given"]
        raise BenchError(f"gcc can't build {source.name}: {said[0]}")
    return program


class Spawner:
    """The built load program."""

    def __init__(self, directory: Path) -> None:
        """Build it in ``directory``; raises BenchError where that can't be done."""
        self._directory = directory
        self._program = built(_SOURCE, directory, "-static")

    @contextmanager
    def refused(self, seconds: float) -> Iterator[subprocess.Popen[str]]:
        """Let the user nobody do only execs that fail; the process prints their number."""
        with subprocess.Popen(
            [str(self._program), "refused", str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            user=_NOBODY,
            group=_NOBODY,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *, rate: float, seconds: float, number: int, varied: bool = False) -> Truth:
        """Run ``number`` spawners at once, each at ``rate`` a second (0: flat out)."""
        more = ("varied",) if varied else ()
        files = [self._directory / f"started-{each}" for each in range(number)]
        running = [
            subprocess.Popen(
                [str(self._program), str(rate), str(seconds), str(file), *more],
                stdout=subprocess.PIPE,
                text=True,
            )
            for file in files
        ]
        truth = Truth()
        try:
            said = [each.communicate(timeout=seconds + 60)[0] for each in running]
        except subprocess.TimeoutExpired:
            raise BenchError("the load program does not end: processes are held up") from None
        finally:
            for each in running:
                each.kill()
                each.wait()
        for file, line in zip(files, said, strict=True):
            if not line:
                raise BenchError("the load program failed")
            pid, processes, took = line.split()
            truth.number += int(processes)
            truth.seconds = max(truth.seconds, float(took))
            for row in file.read_text().splitlines():
                index, child, started = row.split()
                truth.started[f"bench-{pid}-{index}".encode()] = int(started)
                truth.pids[int(child)] += 1
        return truth


class Growth:
    """The size of a file over time, observed every millisecond."""

    def __init__(self) -> None:
        """Start without observations."""
        self._sizes: list[int] = []
        self._times: list[int] = []

    @contextmanager
    def watching(self, path: Path) -> Iterator[None]:
        """Observe the file in a thread."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_WATCH):
                size = path.stat().st_size if path.exists() else 0
                if not self._sizes or size > self._sizes[-1]:
                    self._sizes.append(size)
                    self._times.append(time.time_ns())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def at(self, offset: int) -> int | None:
        """Return when the file reached a size, in ns since the epoch; None if it was not seen."""
        index = bisect_left(self._sizes, offset)
        return self._times[index] if index < len(self._times) else None


def arrived(output: Path, reader: Reader, truth: Truth, growth: Growth | None = None) -> Arrived:
    """Count the started processes in the output, each once, with their arrival times."""
    missing = dict(truth.started)
    ends = Counter(truth.pids)
    delays: list[float] = []
    offset = 0
    if not output.exists():
        return Arrived(0, 0, [])
    with output.open("rb") as lines:
        for line in lines:
            offset += len(line)
            told = reader(line)
            if isinstance(told, int):
                ends[told] -= ends[told] > 0
            elif told is not None and (started := missing.pop(told, None)) is not None:
                seen = growth.at(offset) if growth else None
                if seen is not None:
                    delays.append((seen - started) / 1e6)
    delays.sort()
    return Arrived(len(truth.started) - len(missing), truth.pids.total() - ends.total(), delays)


def percentile(values: list[float], share: float) -> float | None:
    """Return the value below which a share of the sorted ``values`` lies; None without values."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else None
