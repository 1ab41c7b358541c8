"""The socket outputs: readers that are late, slow, stopped or dead."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from support.output import firsts, line, lines, numbers

from sessiond.output.datagram import DatagramOutput
from sessiond.output.stream import StreamOutput


def until(output: StreamOutput | DatagramOutput, condition: Callable[[], bool]) -> None:
    """Tick the output, like the loop, until a condition holds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, output.status()
        output.tick(time.monotonic())
        time.sleep(0.002)


def read_all(connection: socket.socket) -> bytes:
    """Read all available data, up to the end if the other side has closed."""
    connection.settimeout(0.2)
    received = b""
    while True:
        try:
            chunk = connection.recv(1 << 20)
        except TimeoutError:
            return received
        if not chunk:
            return received
        received += chunk


def read_until_confirmed(output: StreamOutput, connection: socket.socket) -> bytes:
    """Read until each accepted line is confirmed."""
    received = b""

    def read() -> bool:
        nonlocal received
        received += read_all(connection)
        return not output.in_flight()

    until(output, read)
    return received


class Listener:
    """A socket that a reader listens on: unix, or TCP without a ``path``."""

    def __init__(self, path: Path | None = None) -> None:
        family = socket.AF_INET if path is None else socket.AF_UNIX
        self.path = path
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.bind(("127.0.0.1", 0) if path is None else str(path))
        self.socket.listen()
        self._accepted: list[socket.socket] = []

    def output(self, host: str = "127.0.0.1") -> StreamOutput:
        """An output that connects to it, and is open."""
        if self.path is not None:
            output = StreamOutput(path=str(self.path))
        else:
            output = StreamOutput(host=host, port=self.socket.getsockname()[1])
        output.open()
        until(output, lambda: output.status()["connected"])
        return output

    def accept(self) -> socket.socket:
        """Return the next connection."""
        self.socket.settimeout(5)
        self._accepted.append(self.socket.accept()[0])
        return self._accepted[-1]

    def close(self) -> None:
        """Close it, and all accepted connections."""
        for each in (self.socket, *self._accepted):
            each.close()


Listen = Callable[..., Listener]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Makes listeners, and closes them at the end."""
    with ExitStack() as stack:
        yield lambda path=None: stack.enter_context(closing(Listener(path)))


@pytest.fixture(params=["unix", "tcp"])
def listener(request: pytest.FixtureRequest, tmp_path: Path, listen: Listen) -> Listener:
    return listen(tmp_path / "socket" if request.param == "unix" else None)


def test_sends_lines(listener: Listener) -> None:
    """The lines arrive, and are confirmed."""
    output = listener.output()
    reader = listener.accept()
    assert output.write(lines(1, 20)) == 20
    assert numbers(reader.recv(65536)) == list(range(1, 21))
    until(output, lambda: output.unconfirmed == 0)
    output.close()


def test_a_stopped_reader_blocks_nothing(listener: Listener) -> None:
    """The output does not block; later every line arrives once, whole and in order."""
    output = listener.output()
    reader = listener.accept()
    taken = 0
    while count := output.write(lines(taken, 50, 1000)):
        taken += count
    assert output.trouble is None
    assert taken < 100_000
    received = b""
    for _ in range(5):
        received += read_all(reader)
        output.tick(time.monotonic())
        taken += output.write(lines(taken, 50, 1000))
    received += read_all(reader)
    assert numbers(received) == list(range(taken))
    until(output, lambda: output.unconfirmed == 0)
    output.close()


def test_a_reader_that_dies_in_the_middle_of_a_line(tmp_path: Path, listen: Listen) -> None:
    """The next reader gets that line whole, and all lines that the dead one had not read."""
    listener = listen(tmp_path / "socket")
    output = listener.output()
    reader = listener.accept()
    assert output.write(lines(0, 100, 500)) == 100
    read = reader.recv(10 * 500 + 123)
    reader.close()
    until(output, lambda: output.status()["connections"] == 2)
    successor = listener.accept()
    until(output, lambda: output.status()["connected"])
    assert output.write(lines(100, 5, 500)) == 5
    again = numbers(read_all(successor))
    assert again == list(range(again[0], 105))
    whole = numbers(read[: read.rindex(b"\n") + 1])
    assert whole == list(range(10))
    assert firsts(whole + again) == list(range(105))
    output.close()


def test_what_was_read_is_not_sent_again(tmp_path: Path, listen: Listen) -> None:
    """Reconnecting between the events repeats no line."""
    listener = listen(tmp_path / "socket")
    output = listener.output()
    received: list[int] = []
    for round_ in range(1, 6):
        reader = listener.accept()
        assert output.write(lines(len(received), 10)) == 10
        received += numbers(read_all(reader))
        until(output, lambda: output.unconfirmed == 0)
        reader.close()
        output.tick(time.monotonic())
        until(output, lambda: output.status()["connections"] == round_ + 1)  # noqa: B023
    assert received == list(range(50))
    output.close()


def test_a_connection_that_is_cut_in_the_middle_of_sending(tmp_path: Path, listen: Listen) -> None:
    """The partially accepted line is repeated from its beginning on the next connection."""
    listener = listen(tmp_path / "socket")
    output = listener.output()
    reader = listener.accept()
    taken = output.write(lines(0, 10_000, 1000))
    assert 0 < taken < 10_000
    first = reader.recv(20_500)
    reader.close()
    assert output.write(lines(taken, 1)) == 0
    assert output.trouble is not None
    until(output, lambda: output.status()["connections"] == 2)
    successor = listener.accept()
    received = read_until_confirmed(output, successor)
    assert firsts(numbers(first[: first.rindex(b"\n") + 1]) + numbers(received)) == list(
        range(taken)
    )
    output.close()


def test_a_killed_reader(tmp_path: Path, listen: Listen) -> None:
    """A stopped process is killed with a full queue: its lines are sent again."""
    listener = listen(tmp_path / "socket")
    report, child_report = os.pipe()
    child = os.fork()
    if not child:
        connection = listener.accept()
        while True:
            os.write(child_report, connection.recv(1000))
    output = listener.output()
    assert output.write(lines(0, 10, 100)) == 10
    until(output, lambda: output.unconfirmed == 0)
    os.kill(child, signal.SIGSTOP)
    taken = 10
    while count := output.write(lines(taken, 10, 100)):
        taken += count
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(child_report)
    before = b""
    while chunk := os.read(report, 65536):
        before += chunk
    until(output, lambda: output.status()["connections"] == 2)
    successor = listener.accept()
    received = read_until_confirmed(output, successor)
    whole = numbers(before[: before.rindex(b"\n") + 1])
    assert firsts(whole + numbers(received)) == list(range(taken))
    output.close()
    os.close(report)


def test_a_reader_that_is_not_there_yet(tmp_path: Path, listen: Listen) -> None:
    """That is no error; the output retries, with growing delays."""
    output = StreamOutput(path=str(tmp_path / "socket"))
    output.open()
    assert output.write([line(1)]) == 0
    assert "No such file or directory" in str(output.trouble)
    now, waits = time.monotonic(), []
    for _ in range(10):
        due = output.tick(now)
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits[0] <= 0.1
    assert 5 <= waits[-1] <= 10
    listener = listen(tmp_path / "socket")
    output.tick(now)
    assert output.trouble is None
    assert output.write([line(1)]) == 1
    assert numbers(listener.accept().recv(1000)) == [1]
    output.close()


def test_a_name_is_resolved_without_blocking(listen: Listen) -> None:
    """The name server may be slow: tick and write return at once."""
    try:
        socket.getaddrinfo("localhost", None)
    except OSError:
        pytest.skip("needs a host that knows localhost")
    listener = listen()
    output = listener.output(host="localhost")
    assert output.write([line(1)]) == 1
    assert numbers(listener.accept().recv(1000)) == [1]
    output.close()


def test_a_name_that_does_not_exist_is_a_trouble() -> None:
    """The failure is reported, and the name is resolved again later."""
    output = StreamOutput(host="no-such-host.invalid", port=1)
    output.open()
    until(output, lambda: output.trouble is not None)
    assert "no-such-host.invalid" in str(output.trouble)
    output.close()


def test_a_dead_tcp_peer_is_noticed(listen: Listen) -> None:
    """A host that vanishes silently is given up after the configured time."""
    listener = listen()
    output = listener.output()
    connection = output._connection
    assert connection is not None
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    output.close()


# Datagrams


@pytest.fixture
def datagrams(tmp_path: Path) -> Iterator[tuple[DatagramOutput, socket.socket]]:
    reader = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader.bind(str(tmp_path / "socket"))
    reader.settimeout(0.2)
    output = DatagramOutput(path=str(tmp_path / "socket"))
    output.open()
    yield output, reader
    output.close()
    reader.close()


def test_a_line_is_a_datagram(datagrams: tuple[DatagramOutput, socket.socket]) -> None:
    """It includes the newline; a full queue refuses it without blocking."""
    output, reader = datagrams
    received: list[int] = []
    sent = 0
    while sent < 100:
        taken = output.write(lines(sent, 100 - sent))
        assert taken < 100
        for _ in range(taken):
            received += numbers(reader.recv(65536))
        sent += taken
    assert received == list(range(100))
    assert output.trouble is None


def test_a_line_that_is_too_long_is_counted(
    datagrams: tuple[DatagramOutput, socket.socket],
) -> None:
    """It can never be sent, so it must not block the others."""
    output, reader = datagrams
    assert output.write([line(1), line(2, 30 << 20), line(3)]) == 3
    assert output.rejected == 1
    assert numbers(reader.recv(1000) + reader.recv(1000)) == [1, 3]


def test_a_datagram_reader_that_comes_back(
    datagrams: tuple[DatagramOutput, socket.socket], tmp_path: Path
) -> None:
    """Meanwhile no line is accepted; the next reader at the path gets the following lines."""
    output, reader = datagrams
    reader.close()
    assert output.write(lines(1, 3)) == 0
    assert "Connection refused" in str(output.trouble)
    (tmp_path / "socket").unlink()
    successor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    successor.bind(str(tmp_path / "socket"))
    until(output, lambda: output.trouble is None)
    assert output.write(lines(1, 3)) == 3
    assert numbers(b"".join(successor.recv(1000) for _ in range(3))) == [1, 2, 3]
    successor.close()
