"""The whole path of a line: sink, spool and queue, and their account."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.output import Clock, balanced, ext4, fill, firsts, line, lines, numbers, tmpfs

from sessiond.errors import OutputError
from sessiond.output.console import ConsoleOutput
from sessiond.output.datagram import DatagramOutput
from sessiond.output.delivery import Delivery
from sessiond.output.file import FileOutput
from sessiond.output.sink import Sink
from sessiond.output.spool import Policy, Spool
from sessiond.output.stream import StreamOutput


def until(delivery: Delivery, condition: Callable[[], bool], timeout: float = 20) -> None:
    """Act like the loop until a condition holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, delivery.status()
        delivery.tick(time.monotonic())
        balanced(delivery)
        time.sleep(0.002)


def all_delivered(delivery: Delivery) -> bool:
    status = delivery.status()
    return bool(status["queued"] == status["spooled"] == 0)


def make(sink: Sink, spool: Path | None, **options: Any) -> Delivery:
    """An open delivery."""
    clock = options.get("clock", time.monotonic)
    made = None if spool is None else Spool(str(spool), clock=clock)
    delivery = Delivery(sink, spool=made, **options)
    delivery.open()
    return delivery


def test_a_healthy_file_is_only_checked(tmp_path: Path) -> None:
    """Lines are in the file when write returns; each second the file is compared with its name."""
    delivery = make(FileOutput(str(tmp_path / "out")), tmp_path / "spool")
    for number in range(0, 100, 20):
        delivery.write(lines(number, 20))
        due = delivery.deadline()
        assert due is not None
        assert 0 < due - time.monotonic() <= FileOutput.CHECK_EVERY
    assert numbers((tmp_path / "out").read_bytes()) == list(range(100))
    assert balanced(delivery)["delivered"] == 100
    assert delivery.status()["healthy"]
    assert delivery.take_events() == []
    delivery.close()


def test_what_an_earlier_run_left_goes_first(tmp_path: Path) -> None:
    """Lines in the spool are delivered before the new ones."""
    first = make(StreamOutput(path=str(tmp_path / "nobody")), tmp_path / "spool")
    first.write(lines(0, 50))
    first.close()
    assert balanced(first)["spooled"] == 50
    second = make(FileOutput(str(tmp_path / "out")), tmp_path / "spool")
    second.write(lines(50, 50))
    assert second.flush(5)
    assert numbers((tmp_path / "out").read_bytes()) == list(range(100))
    assert balanced(second)["accepted"] == 100
    second.close()


def test_a_refused_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    """A link in its place is a permanent error."""
    (tmp_path / "out").symlink_to("elsewhere")
    with pytest.raises(OutputError, match="symbolic link"):
        make(FileOutput(str(tmp_path / "out")), tmp_path / "spool")


def test_a_missing_directory_is_an_error_only_without_a_spool(tmp_path: Path) -> None:
    """With a spool the daemon starts unhealthy, and delivers once the directory exists."""
    path = tmp_path / "log" / "out"
    with pytest.raises(OutputError, match="No such file or directory"):
        make(FileOutput(str(path)), None)
    delivery = make(FileOutput(str(path)), tmp_path / "spool")
    delivery.write(lines(0, 10))
    assert not delivery.status()["healthy"]
    (tmp_path / "log").mkdir()
    until(delivery, lambda: all_delivered(delivery))
    assert numbers(path.read_bytes()) == list(range(10))
    delivery.close()


# Disks


@pytest.mark.kernel
def test_a_full_disk_is_survived_without_a_loss(tmp_path: Path) -> None:
    """The spool takes over within the batch; later all lines arrive in order."""
    with tmpfs(tmp_path / "disk") as disk:
        delivery = make(FileOutput(str(disk / "out")), tmp_path / "spool")
        delivery.write(lines(0, 100, 200))
        filler = fill(disk)
        written = 100
        for _ in range(100):
            delivery.write(lines(written, 20, 200))
            written += 20
            delivery.tick(time.monotonic())
            status = balanced(delivery)
        assert not status["healthy"]
        assert "No space left on device" in status["reason"]
        assert status["spooled"] > 1800
        content = (disk / "out").read_bytes()
        assert numbers(content[: content.rindex(b"\n") + 1]) == list(range(status["delivered"]))

        filler.unlink()
        until(delivery, lambda: all_delivered(delivery))
        assert numbers((disk / "out").read_bytes()) == list(range(written))
        sick, well = delivery.take_events()
        assert (sick.healthy, well.healthy) == (False, True)
        assert "No space left on device" in sick.reason
        assert well.kept >= 1800
        assert well.dropped == 0
        assert delivery.take_losses() == []
        delivery.close()


@pytest.mark.kernel
def test_a_full_disk_costs_no_storm_of_attempts(tmp_path: Path) -> None:
    """While the disk is full, sessiond tries occasionally, not with every batch."""
    with tmpfs(tmp_path / "disk") as disk:
        clock = Clock()
        sink = FileOutput(str(disk / "out"), clock=clock)
        delivery = make(sink, tmp_path / "spool", clock=clock)
        fill(disk)
        attempts = 0
        for number in range(6000):  # a minute
            clock.now += 0.01
            delivery.write([line(number)])
            due = delivery.deadline()
            if due is not None and due <= clock.now:
                attempts += 1
                delivery.tick(clock.now)
        assert attempts < 200
        delivery.close()


@pytest.mark.kernel
@pytest.mark.parametrize("fault", ["read-only", "gone"])
def test_a_disk_with_errors_is_survived(tmp_path: Path, fault: str) -> None:
    """A file system becomes read-only or returns EIO: after a mount all lines arrive in order."""
    with ext4(tmp_path / "image", tmp_path / "disk") as disk:
        delivery = make(FileOutput(str(disk.path / "out")), tmp_path / "spool")
        delivery.write(lines(0, 100))
        os.sync()
        disk.make_read_only() if fault == "read-only" else disk.take_away()
        for number in range(100, 500, 20):
            delivery.write(lines(number, 20))
            balanced(delivery)
        status = delivery.status()
        assert not status["healthy"]
        expected = "Read-only file system" if fault == "read-only" else "Input/output error"
        assert expected in status["reason"]
        assert status["spooled"] == 400

        disk.unmount()  # no file of ours is open there
        disk.mount()
        until(delivery, lambda: all_delivered(delivery))
        assert numbers((disk.path / "out").read_bytes()) == list(range(500))
        assert delivery.status()["healthy"]
        delivery.close()


@pytest.mark.kernel
def test_disk_and_spool_full_together(tmp_path: Path) -> None:
    """Memory takes a bounded number; the loss is counted and reported, and the order is kept."""
    with tmpfs(tmp_path / "disk") as disk:
        delivery = make(FileOutput(str(disk / "out")), disk / "spool", queue_size=50_000)
        filler = fill(disk)
        for number in range(0, 1000, 20):
            delivery.write(lines(number, 20, 200))
            status = balanced(delivery)
            assert status["queued"] <= 250
        assert status["dropped"] == 750
        assert delivery.volatile == 250
        (loss,) = delivery.take_losses()
        assert (loss.reason, loss.lines) == ("queue full", 750)
        filler.unlink()
        until(delivery, lambda: all_delivered(delivery))
        assert numbers((disk / "out").read_bytes()) == list(range(750, 1000))
        delivery.close()


@pytest.mark.kernel
def test_a_directory_that_must_not_be_written_any_more() -> None:
    """An unprivileged daemon whose file is moved away and whose directory becomes unwritable."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(directory, 65534, 65534)
    child = os.fork()
    if not child:
        result = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            log = directory / "log"
            log.mkdir(mode=0o755)
            delivery = make(FileOutput(str(log / "out")), directory / "spool")
            delivery.write(lines(0, 10))
            (log / "out").rename(log / "old")
            log.chmod(0o555)
            delivery.reopen()
            delivery.write(lines(10, 10))
            assert "Permission denied" in delivery.status()["reason"]
            assert balanced(delivery)["spooled"] == 10
            log.chmod(0o755)
            until(delivery, lambda: all_delivered(delivery))
            assert numbers((log / "old").read_bytes()) == list(range(10))
            assert numbers((log / "out").read_bytes()) == list(range(10, 20))
            delivery.close()
            result = 0
        finally:
            os._exit(result)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        shutil.rmtree(directory)


# Readers


class Reader(threading.Thread):
    """Accepts connections one after the other, and keeps the whole lines of each."""

    def __init__(self, path: Path, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.pause = pause
        self.received: list[int] = []
        self._stopping = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(0.02)
        self.start()

    def run(self) -> None:
        """Read until stopped."""
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._read(connection)
            connection.close()
        self._listener.close()

    def stop(self) -> None:
        """Close the connection, whatever is unread."""
        self._stopping.set()
        self.join()

    def _read(self, connection: socket.socket) -> None:
        connection.settimeout(0.02)
        rest = b""
        while not self._stopping.is_set():
            try:
                chunk = connection.recv(20_000)
            except TimeoutError:
                continue
            except ConnectionResetError:
                return
            if not chunk:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            self.received += numbers(b"".join(text + b"\n" for text in whole))
            self._stopping.wait(self.pause)


def test_readers_come_and_go(tmp_path: Path) -> None:
    """Each line arrives, whole and in order, at any of the readers, also slow ones."""
    delivery = make(StreamOutput(path=str(tmp_path / "socket")), tmp_path / "spool")
    received: list[int] = []
    written = 0
    for round_ in range(12):
        reader = Reader(tmp_path / "socket", pause=0.005 * (round_ % 3)) if round_ % 4 else None
        end = time.monotonic() + 0.15
        while time.monotonic() < end:
            delivery.write(lines(written, 20, 500))
            written += 20
            delivery.tick(time.monotonic())
            balanced(delivery)
            time.sleep(0.002)
        if reader is not None:
            reader.stop()
            received += reader.received
    reader = Reader(tmp_path / "socket")
    until(delivery, lambda: all_delivered(delivery))
    until(delivery, lambda: bool(reader.received) and reader.received[-1] == written - 1)
    reader.stop()
    received += reader.received
    assert firsts(received) == list(range(written))
    assert delivery.status()["dropped"] == 0
    delivery.close()


def test_a_stopped_reader_makes_the_output_unhealthy(tmp_path: Path) -> None:
    """With a stopped reader (SIGSTOP), lines go to the spool, and a problem is reported."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        child = os.fork()
        if not child:
            connection, _ = listener.accept()
            with (tmp_path / "received").open("wb", buffering=0) as file:
                while chunk := connection.recv(65536):
                    file.write(chunk)
            os._exit(0)
    try:
        delivery = make(StreamOutput(path=str(tmp_path / "socket")), tmp_path / "spool", grace=0.2)
        delivery.write(lines(0, 10))
        until(delivery, lambda: all_delivered(delivery))
        os.kill(child, signal.SIGSTOP)
        for number in range(10, 2010, 20):
            delivery.write(lines(number, 20, 500))
        until(delivery, lambda: not delivery.status()["healthy"])
        assert "more slowly than they come" in delivery.status()["reason"]
        assert delivery.status()["spooled"] > 1000
        os.kill(child, signal.SIGCONT)
        until(delivery, lambda: all_delivered(delivery))
        assert delivery.status()["healthy"]
        assert [change.healthy for change in delivery.take_events()] == [False, True]
        delivery.close()
        os.waitpid(child, 0)
        assert numbers((tmp_path / "received").read_bytes()) == list(range(2010))
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


def test_a_stop_while_the_reader_has_not_read(tmp_path: Path) -> None:
    """Lines in the kernel's buffer are kept as well, because the reader may die with it."""
    reader = Reader(tmp_path / "socket", pause=60)
    first = make(StreamOutput(path=str(tmp_path / "socket")), tmp_path / "spool")
    first.write(lines(0, 200, 500))
    assert not first.flush(0.2)
    first.close()
    reader.stop()
    seen = reader.received
    reader = Reader(tmp_path / "socket")
    second = make(StreamOutput(path=str(tmp_path / "socket")), tmp_path / "spool")
    second.write(lines(200, 10, 500))
    assert second.flush(5)
    until(second, lambda: bool(reader.received) and reader.received[-1] == 209)
    reader.stop()
    assert firsts(seen + reader.received) == list(range(210))
    second.close()


def test_datagrams_that_have_to_wait(tmp_path: Path) -> None:
    """A queue of eleven datagrams fills up; the spool delivers the rest as the reader reads."""
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(str(tmp_path / "socket"))
    reader.settimeout(5)
    delivery = make(DatagramOutput(path=str(tmp_path / "socket")), tmp_path / "spool")
    delivery.write(lines(0, 300))
    received = []
    for _ in range(300):
        delivery.tick(time.monotonic())
        balanced(delivery)
        received += numbers(reader.recv(65536))
    assert received == list(range(300))
    reader.close()
    delivery.close()


def test_without_a_spool_memory_is_bounded(tmp_path: Path) -> None:
    """The oldest lines are dropped, counted and reported; the others arrive in order."""
    delivery = make(StreamOutput(path=str(tmp_path / "socket")), None, queue_size=10_000)
    for number in range(0, 1000, 10):
        delivery.write(lines(number, 10, 100))
        assert balanced(delivery)["queued"] <= 100
    assert delivery.fill == 1.0
    (loss,) = delivery.take_losses()
    assert (loss.output, loss.reason, loss.lines) == (
        f"unix:{tmp_path}/socket",
        "queue full",
        900,
    )
    assert delivery.take_losses() == []
    reader = Reader(tmp_path / "socket")
    until(delivery, lambda: len(reader.received) == 100)
    reader.stop()
    assert reader.received == list(range(900, 1000))
    delivery.close()


def test_a_loss_of_the_newest_lines_is_reported_later(tmp_path: Path) -> None:
    """Earlier, the line about the loss would be dropped too."""
    delivery = make(
        StreamOutput(path=str(tmp_path / "socket")), None, queue_size=1000, drop="newest"
    )
    delivery.write(lines(0, 20, 100))
    assert balanced(delivery)["dropped"] == 10
    assert delivery.take_losses() == []
    reader = Reader(tmp_path / "socket")
    until(delivery, lambda: len(reader.received) == 10)
    (loss,) = delivery.take_losses()
    assert loss.lines == 10
    reader.stop()
    assert reader.received == list(range(10))
    delivery.close()


def test_undelivered_lines_are_counted_at_the_end(tmp_path: Path) -> None:
    """Without a spool, waiting lines are lost at the end of the daemon, and counted."""
    delivery = make(StreamOutput(path=str(tmp_path / "socket")), None)
    delivery.write(lines(0, 20))
    assert not delivery.flush(0.05)
    delivery.close()
    assert balanced(delivery)["dropped"] == 20


def test_a_console_that_nobody_reads(tmp_path: Path) -> None:
    """The same account applies to standard output."""
    reading, writing = os.pipe()
    delivery = make(ConsoleOutput(writing), None, queue_size=100_000)
    for number in range(0, 1000, 10):
        delivery.write(lines(number, 10, 300))
        balanced(delivery)
    assert delivery.status()["dropped"] > 0
    os.close(reading)
    os.close(writing)
    delivery.close()


# The account at any moment


class Account(RuleBasedStateMachine):
    """A reader, a disk and a daemon that act in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(dir="/tmp"))
        self.clock = Clock()
        self.written = 0
        self.dropped = 0
        self.received: list[int] = []
        self.listener: socket.socket | None = None
        self.connection: socket.socket | None = None
        self.rest = b""
        self.restarted = False

    @initialize(drop=st.sampled_from(["oldest", "newest"]), spooled=st.booleans())
    def begin(self, drop: Policy, spooled: bool) -> None:
        """Start with one of the four kinds of delivery."""
        self.drop: Policy = drop
        self.spooled = spooled
        self.start()

    def start(self) -> None:
        """Start the daemon."""
        spool = Spool(str(self.path / "spool"), max_size=9000, drop=self.drop, clock=self.clock)
        self.delivery = Delivery(
            StreamOutput(path=str(self.path / "socket"), clock=self.clock),
            spool=spool if self.spooled else None,
            queue_size=3000,
            drop=self.drop,
            clock=self.clock,
        )
        self.delivery.open()

    @rule(count=st.integers(1, 30), size=st.sampled_from([0, 100, 4000, 100_000]))
    def write(self, count: int, size: int) -> None:
        """Write lines, some of them larger than the limits."""
        self.delivery.write(lines(self.written, count, size))
        self.written += count

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 20.0]))
    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds
        self.delivery.tick(self.clock.now)

    @precondition(lambda self: self.listener is None)
    @rule()
    def listen(self) -> None:
        """Let a reader wait for connections."""
        (self.path / "socket").unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path / "socket"))
        self.listener.listen()
        self.listener.setblocking(False)

    @precondition(lambda self: self.listener is not None)
    @rule()
    def stop_listening(self) -> None:
        """Stop listening for connections."""
        assert self.listener is not None
        self.listener.close()
        self.listener = None

    @rule(size=st.sampled_from([1, 137, 5000, 1 << 20]))
    def read(self, size: int) -> None:
        """Let the reader accept, and read a little."""
        if self.connection is None and self.listener is not None:
            try:
                self.connection, _ = self.listener.accept()
                self.connection.setblocking(False)
            except BlockingIOError:
                return
        if self.connection is None:
            return
        try:
            chunk = self.connection.recv(size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            self.hang_up()
            return
        *whole, self.rest = (self.rest + chunk).split(b"\n")
        self.received += numbers(b"".join(text + b"\n" for text in whole))

    @rule()
    def hang_up(self) -> None:
        """Let the reader close its connection, whatever is unread."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None
            self.rest = b""

    @rule()
    def restart(self) -> None:
        """Stop and start the daemon gracefully."""
        self.restarted = True
        self.delivery.close()
        self.dropped += balanced(self.delivery)["dropped"]
        self.start()

    @rule()
    def reopen(self) -> None:
        """Send SIGHUP."""
        self.delivery.reopen()

    @invariant()
    def account_is_right(self) -> None:
        """Check that the account is balanced."""
        if hasattr(self, "delivery"):
            balanced(self.delivery)

    def teardown(self) -> None:
        """Let the reader continue: missing lines must be counted."""
        if not hasattr(self, "delivery"):
            return
        try:
            self.read_to_the_end()
        finally:
            self.delivery.close()
            self.hang_up()
            if self.listener is not None:
                self.listener.close()
            shutil.rmtree(self.path)

    def read_to_the_end(self) -> None:
        """Read until no line is waiting."""
        if self.listener is None:
            self.listen()
        for _ in range(5000):
            self.read(1 << 20)
            self.tick(1.0)
            if all_delivered(self.delivery):
                break
        else:
            raise AssertionError(self.delivery.status())
        self.read(1 << 20)
        self.dropped += balanced(self.delivery)["dropped"]
        missing = self.written - len(set(self.received))
        assert missing <= self.dropped, "a line is missing that was not counted"
        assert missing == self.dropped or self.restarted, "a line was counted that is not missing"
        assert firsts(self.received) == sorted(set(self.received))


Account.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAccount = Account.TestCase


# Kills


def write_until_killed(sink: Callable[[], Sink], spool: Path, progress: Path, seed: int) -> None:
    """Write numbered lines in batches, noting each accepted batch; never return."""
    chance = random.Random(seed)
    with progress.open("r+b", buffering=0) as file:
        written = int(file.read() or b"0")
        delivery = make(sink(), spool)
        while True:
            batch = lines(written, chance.choice([1, 5, 20, 200]), chance.choice([0, 200, 1500]))
            delivery.write(batch)
            written += len(batch)
            os.pwrite(file.fileno(), b"%020d" % written, 0)
            delivery.tick(time.monotonic())


def kill_at_random(
    sink: Callable[[], Sink], spool: Path, progress: Path, rounds: int, meanwhile: Any = None
) -> int:
    """Run writers and kill each after some milliseconds; return the number of accepted lines."""
    progress.write_bytes(b"")
    chance = random.Random(1)
    for seed in range(rounds):
        child = os.fork()
        if not child:
            try:
                write_until_killed(sink, spool, progress, seed)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.001, 0.02))
        if meanwhile is not None:
            meanwhile(chance)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the writer has failed by itself"
    return int(progress.read_bytes())


def test_kills_of_a_writer_to_a_file(tmp_path: Path) -> None:
    """Two hundred kills at any moment: every line is present, whole and in order."""
    path = tmp_path / "out"
    written = kill_at_random(
        lambda: FileOutput(str(path)), tmp_path / "spool", tmp_path / "progress", 200
    )
    make(FileOutput(str(path)), tmp_path / "spool").close()
    received = numbers(path.read_bytes())
    assert firsts(received) == list(range(len(set(received))))
    assert len(set(received)) >= written > 100


def test_kills_of_a_writer_to_files_that_rotate(tmp_path: Path) -> None:
    """The same with continuous rotation."""
    path = tmp_path / "out"
    written = kill_at_random(
        lambda: FileOutput(str(path), rotate_size=1 << 20, keep=10_000, compress="none"),
        tmp_path / "spool",
        tmp_path / "progress",
        60,
    )
    make(FileOutput(str(path), compress="none"), tmp_path / "spool").close()
    rotated = sorted(tmp_path.glob("out.*"), key=lambda file: -int(file.suffix[1:]))
    received = [n for file in [*rotated, path] for n in numbers(file.read_bytes())]
    assert firsts(received) == list(range(len(set(received))))
    assert len(set(received)) >= written > 100


def test_kills_of_a_writer_with_a_spool(tmp_path: Path) -> None:
    """The reader is slow, so lines go through the spool; each arrives in order, some twice."""
    reader = Reader(tmp_path / "socket", pause=0.002)

    def sink() -> StreamOutput:
        return StreamOutput(path=str(tmp_path / "socket"))

    written = kill_at_random(sink, tmp_path / "spool", tmp_path / "progress", 100)
    reader.pause = 0
    delivery = make(sink(), tmp_path / "spool")
    assert delivery.status()["accepted"] > 0, "the spool is to be used"
    delivery.write([line(written + 1_000_000)])
    until(delivery, lambda: written + 1_000_000 in reader.received[-1:], timeout=60)
    reader.stop()
    received = reader.received[:-1]
    assert firsts(received) == list(range(len(set(received))))
    assert len(set(received)) >= written > 100
    dropped = delivery.status()["dropped_by_reason"]
    assert dropped["spool full"] == 0
    assert dropped["spool damaged"] <= 100, "at most the line that a kill has torn"
    delivery.close()


def test_the_kill_test_can_fail(tmp_path: Path) -> None:
    """A writer that buffers in user space loses or tears lines, which the check detects."""
    path, progress = tmp_path / "out", tmp_path / "progress"

    class Careless(FileOutput):
        def write(self, lines: list[bytes]) -> int:
            self._held = getattr(self, "_held", b"") + b"".join(lines)
            cut = len(self._held) // 4096 * 4096
            os.write(self._file, self._held[:cut])
            self._held = self._held[cut:]
            return len(lines)

        def _repair(self, file: int) -> None:
            pass

    written = kill_at_random(lambda: Careless(str(path)), tmp_path / "spool", progress, 5)
    with pytest.raises((AssertionError, ValueError)):
        assert len(set(numbers(path.read_bytes()))) >= written
