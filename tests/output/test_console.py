"""The console: terminals, pipes and files, none of which may block the program."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from support.output import line, lines, numbers

from sessiond.output.console import ConsoleOutput


def opened(descriptor: int) -> ConsoleOutput:
    output = ConsoleOutput(descriptor)
    output.open()
    return output


def test_a_pipe_that_nobody_reads_blocks_nothing() -> None:
    """The pipe takes what fits; later it receives the rest, in whole lines."""
    reading, writing = os.pipe()
    output = opened(writing)
    taken = 0
    begin = time.monotonic()
    while count := output.write(lines(taken, 50, 333)):
        taken += count
    assert time.monotonic() - begin < 5
    assert output.unconfirmed <= 1
    received = os.read(reading, 1 << 20)
    output.tick(0.0)
    received += os.read(reading, 1 << 20) if output.unconfirmed == 0 else b""
    assert numbers(received[: received.rindex(b"\n") + 1])[-1] == taken - 1
    assert os.get_blocking(writing), "the shell's own descriptor is left as it was"
    output.close()
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone_is_the_end() -> None:
    """As in ``sessiond run | head -1``."""
    reading, writing = os.pipe()
    output = opened(writing)
    os.close(reading)
    assert output.write([line(1)]) == 0
    assert output.gone
    assert "Broken pipe" in str(output.trouble)
    output.close()
    os.close(writing)


def test_a_file_is_appended_to_where_the_shell_stands(tmp_path: Path) -> None:
    """``sessiond run > file`` after other output to the same file overwrites nothing."""
    with (tmp_path / "out").open("wb", buffering=0) as file:
        file.write(line(1))
        output = opened(file.fileno())
        assert output.write([line(2)]) == 1
        output.close()
        file.write(line(3))
    assert numbers((tmp_path / "out").read_bytes()) == [1, 2, 3]


def test_a_socket_is_left_as_it_was() -> None:
    """Standard output may be a socket (inetd, a service manager)."""
    ours, theirs = socket.socketpair()
    output = opened(ours.fileno())
    while output.write(lines(1, 100, 1000)):
        pass
    output.close()
    assert os.get_blocking(ours.fileno())
    assert theirs.recv(1000).startswith(line(1, 1000))
    ours.close()
    theirs.close()


def test_a_stopped_terminal_blocks_nothing() -> None:
    """^S stops the terminal, not the program; ^Q releases the rest."""
    controller, terminal = pty.openpty()
    output = opened(terminal)
    assert output.write([line(1)]) == 1
    assert numbers(os.read(controller, 1000).replace(b"\r\n", b"\n")) == [1]
    termios.tcflow(terminal, termios.TCOOFF)
    while output.write(lines(2, 10)):
        pass
    termios.tcflow(terminal, termios.TCOON)
    output.tick(0.0)
    assert output.write([line(3)]) == 1
    output.close()
    os.close(controller)
    os.close(terminal)


@pytest.mark.parametrize(
    "text", ["\x7f", "\x9b2J", "\x90q", "\u202egnp.exe", "\u2066x\u2069", "ü€😀"]
)
def test_a_terminal_gets_no_commands(text: str) -> None:
    """Names of processes can neither clear the screen nor reorder a line; the JSON stays valid."""
    controller, terminal = pty.openpty()
    output = opened(terminal)
    written = json.dumps({"name": text}, ensure_ascii=False).encode() + b"\n"
    output.write([written])
    shown = os.read(controller, 1000).replace(b"\r\n", b"\n")
    assert json.loads(shown) == {"name": text}
    assert (
        shown.isascii()
        or shown == written == json.dumps({"name": "ü€😀"}, ensure_ascii=False).encode() + b"\n"
    )
    output.close()
    os.close(controller)
    os.close(terminal)


def test_a_pipe_gets_the_bytes_as_they_are() -> None:
    """Only a terminal needs escapes."""
    reading, writing = os.pipe()
    output = opened(writing)
    written = '{"name":"\x9b"}\n'.encode()
    output.write([written])
    assert os.read(reading, 100) == written
    output.close()
    os.close(reading)
    os.close(writing)


def test_works_as_standard_output(tmp_path: Path) -> None:
    """The default descriptor is that of standard output."""
    script = (
        "from sessiond.output.console import ConsoleOutput\n"
        "output = ConsoleOutput()\n"
        "output.open()\n"
        "output.write([b'{}\\n'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"{}\n"
