"""A thread for each output: passing lines never blocks, and every line is counted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.output import Clock, ext4, line, lines, numbers

from sessiond.errors import OutputError
from sessiond.output.delivery import Delivery
from sessiond.output.file import FileOutput
from sessiond.output.spool import Spool
from sessiond.output.thread import OutputThread

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems: needs root")


class Stuck(FileOutput):
    """A file on a disk that hangs on request."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(str(path), **options)
        self.answers = threading.Event()
        self.answers.set()
        self.hangs = threading.Event()

    def write(self, lines: list[bytes]) -> int:
        """Wait for the disk, then write."""
        if not self.answers.is_set():
            self.hangs.set()
        self.answers.wait()
        return super().write(lines)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let no write end in this time."""
        self.answers.clear()
        try:
            yield
        finally:
            self.answers.set()


def balanced(writer: OutputThread) -> dict[str, Any]:
    """Return the status, whose account must be balanced."""
    status = writer.status()
    parts = [status[name] for name in ("delivered", "queued", "spooled", "dropped")]
    assert min(parts) >= 0, status
    assert status["accepted"] == sum(parts), status
    assert status["dropped"] == sum(status["dropped_by_reason"].values()), status
    return status


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@contextmanager
def opened(sink: FileOutput, **options: Any) -> Iterator[OutputThread]:
    """An output with its running thread."""
    writer = OutputThread(Delivery(sink), **options)
    writer.open()
    try:
        yield writer
    finally:
        writer.close()


def test_lines_arrive_in_order(tmp_path: Path) -> None:
    """After ``flush`` all lines are written."""
    with opened(FileOutput(str(tmp_path / "out"))) as writer:
        for number in range(0, 1000, 10):
            writer.write(lines(number, 10))
            balanced(writer)
        assert writer.flush(10)
        assert balanced(writer)["delivered"] == 1000
        assert writer.volatile == 0
        assert numbers((tmp_path / "out").read_bytes()) == list(range(1000))


def test_closing_writes_what_still_waits(tmp_path: Path) -> None:
    """No accepted line is left behind."""
    with opened(FileOutput(str(tmp_path / "out"))) as writer:
        writer.write(lines(0, 100))
    assert numbers((tmp_path / "out").read_bytes()) == list(range(100))


def test_a_hanging_disk_blocks_nothing(tmp_path: Path) -> None:
    """Lines wait in memory; the status has the reason; all arrive when the disk answers."""
    clock = Clock()
    disk = Stuck(tmp_path / "out")
    with opened(disk, clock=clock, stall_timeout=3.0) as writer:
        writer.write(lines(0, 10))
        assert writer.flush(10)
        with disk.hanging():
            for number in range(10, 1000, 10):
                writer.write(lines(number, 10))
            assert disk.hangs.wait(10)
            assert balanced(writer)["queued"] == 990
            assert balanced(writer)["healthy"]
            clock.now += 4
            status = balanced(writer)
            assert (status["healthy"], writer.volatile) == (False, 990)
            assert "does not answer" in status["reason"]
            assert not writer.flush(0.05)
        until(lambda: not writer.volatile)
        sick, well = writer.take_events()
        assert (sick.healthy, well.healthy) == (False, True)
        assert sick.reason == well.reason == status["reason"]
        assert (well.kept, well.dropped, writer.take_losses()) == (0, 0, [])
        assert balanced(writer)["healthy"]
        assert numbers((tmp_path / "out").read_bytes()) == list(range(1000))


@pytest.mark.parametrize("drop", ["oldest", "newest"])
def test_what_waits_for_a_disk_is_bounded(tmp_path: Path, drop: Any) -> None:
    """Lines are dropped as configured, counted and reported; the others arrive in order."""
    disk = Stuck(tmp_path / "out")
    with opened(disk, queue_size=10_000, drop=drop) as writer:
        with disk.hanging():
            writer.write([line(0, 100)])
            assert disk.hangs.wait(10)
            for number in range(1, 1001, 10):
                writer.write(lines(number, 10, 100))
            assert balanced(writer)["dropped_by_reason"]["queue full"] == 900
            assert writer.volatile == 101
            assert writer.fill == 1.0
        until(lambda: not writer.volatile)
        assert writer.fill == 0.0
        (loss,) = writer.take_losses()
        assert (loss.output, loss.reason, loss.lines) == (disk.name, "queue full", 900)
        assert writer.take_losses() == []
        kept = range(901, 1001) if drop == "oldest" else range(1, 101)
        assert numbers((tmp_path / "out").read_bytes()) == [0, *kept]
        assert balanced(writer)["delivered"] == 101


def test_a_batch_larger_than_the_bound_is_taken_when_nothing_waits(tmp_path: Path) -> None:
    """The limit applies to waiting lines; a single event may be larger."""
    with opened(FileOutput(str(tmp_path / "out")), queue_size=1000) as writer:
        writer.write([line(7, 5000)])
        assert writer.flush(10)
        assert balanced(writer)["delivered"] == 1


def test_an_output_that_can_not_be_opened_says_why(tmp_path: Path) -> None:
    """The error is that of the delivery, and no thread remains."""
    (tmp_path / "out").mkdir()
    before = threading.active_count()
    with pytest.raises(OutputError, match="is not a regular file"):
        OutputThread(Delivery(FileOutput(str(tmp_path / "out")))).open()
    assert threading.active_count() == before


def test_opening_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A disk that hangs at the start causes an error that names it."""
    answers = threading.Event()

    class Hung(FileOutput):
        def open(self) -> None:
            answers.wait()

    try:
        with pytest.raises(OutputError, match=r"file:.*/out: did not answer .* hung"):
            OutputThread(Delivery(Hung(str(tmp_path / "out")))).open(timeout=0.05)
    finally:
        answers.set()


def test_a_bug_is_raised(tmp_path: Path) -> None:
    """It ends the thread, and the next write raises it."""

    class Wrong(FileOutput):
        def write(self, lines: list[bytes]) -> int:
            raise ZeroDivisionError(len(lines))

    with closing(Wrong(str(tmp_path / "out"))) as sink:
        writer = OutputThread(Delivery(sink))
        writer.open()
        writer.write([line(1)])
        with pytest.raises(ZeroDivisionError):
            until(lambda: writer.write([]))
        writer.close()


def test_reopening_is_done_when_it_returns(tmp_path: Path) -> None:
    """As logrotate needs: afterwards nothing is written to the renamed file."""
    with opened(FileOutput(str(tmp_path / "out"))) as writer:
        writer.write(lines(0, 10))
        (tmp_path / "out").rename(tmp_path / "old")
        writer.reopen()
        assert numbers((tmp_path / "old").read_bytes()) == list(range(10))
        writer.write(lines(10, 10))
        assert writer.flush(10)
    assert numbers((tmp_path / "out").read_bytes()) == list(range(10, 20))


def test_what_is_due_is_done_without_lines(tmp_path: Path) -> None:
    """The thread itself retries to open a file."""
    directory = tmp_path / "later"
    sink = FileOutput(str(directory / "out"))
    writer = OutputThread(Delivery(sink, spool=Spool(str(tmp_path / "spool"))))
    writer.open()
    writer.write(lines(0, 10))
    until(lambda: balanced(writer)["spooled"] == 10)
    directory.mkdir()
    until(lambda: balanced(writer)["delivered"] == 10)
    writer.close()
    assert numbers((directory / "out").read_bytes()) == list(range(10))


@needs_mounts
def test_a_real_disk_that_hangs(tmp_path: Path) -> None:
    """A frozen file system with file and spool: no line is lost, and the loop does not wait."""
    with ext4(tmp_path / "image", tmp_path / "disk") as disk:
        sink = FileOutput(str(disk.path / "out"))
        writer = OutputThread(
            Delivery(sink, spool=Spool(str(disk.path / "spool"))), stall_timeout=0.2
        )
        writer.open()
        slowest = 0.0
        with disk.hanging():
            for number in range(0, 1000, 10):
                began = time.monotonic()
                writer.write(lines(number, 10))
                slowest = max(slowest, time.monotonic() - began)
            until(lambda: not balanced(writer)["healthy"])
        assert slowest < 2  # a write to the disk would never end
        assert writer.flush(10)
        assert [change.healthy for change in writer.take_events()][:2] == [False, True]
        writer.close()
        assert numbers((disk.path / "out").read_bytes()) == list(range(1000))
