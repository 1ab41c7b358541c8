"""Writes lines to standard output, be it a terminal, a pipe, a socket or a file."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import Any

# JSON does not escape these, but a terminal executes them or reorders text by them: DEL, the C1
# controls (U+0080 to U+009F), and the bidirectional overrides and isolates.
_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match[0].decode())


class ConsoleOutput:
    """Standard output. A reader that has stopped (^S, a full pipe) never blocks the program.

    ``gone`` becomes True when the reader has exited (EPIPE, a closed terminal): then the program
    may as well exit. On a terminal, characters that it would interpret are written as equivalent
    JSON escapes.
    """

    def __init__(self, descriptor: int = 1) -> None:
        """Take the descriptor to write to."""
        self.name = "console"
        self.trouble: str | None = None
        self.rejected = 0
        self.volatile = 0
        self.gone = False
        self._given = descriptor
        self._output = -1
        self._was_blocking = False
        self._terminal = False
        self._rest = b""  # of a partially written line

    @property
    def unconfirmed(self) -> int:
        """The number of accepted lines that are not completely written."""
        return int(bool(self._rest))

    def in_flight(self) -> list[bytes]:
        """Return nothing: half a line is useless elsewhere."""
        return []

    def open(self) -> None:
        """Prepare non-blocking writes to the descriptor."""
        mode = os.fstat(self._given).st_mode
        self._terminal = os.isatty(self._given)
        if stat.S_ISREG(mode):  # never blocks, and has its own offset
            self._output = os.dup(self._given)
            return
        try:
            # A separate file description: O_NONBLOCK on the given one would affect the shell too.
            self._output = os.open(
                f"/proc/self/fd/{self._given}",
                os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            )
        except OSError:  # a socket, or another user's terminal
            self._output = os.dup(self._given)
            self._was_blocking = os.get_blocking(self._given)
            os.set_blocking(self._given, False)

    def write(self, lines: list[bytes]) -> int:
        """Write as much as possible now; return the number of accepted lines."""
        if self.gone or not self._write_rest():
            return 0
        if self._terminal:
            lines = [_UNSAFE.sub(_escape, line) for line in lines]
        written = self._write(b"".join(lines))
        for taken, line in enumerate(lines):
            if written < len(line):
                if not written:
                    return taken
                self._rest = line[written:]
                return taken + 1
            written -= len(line)
        return len(lines)

    def tick(self, now: float) -> float | None:  # noqa: ARG002 (a file descriptor has no clock)
        """Continue a partially written line; nothing is due by time."""
        self._write_rest()
        return None

    def flush(self) -> None:
        """Do nothing: lines do not wait for others."""

    def reopen(self) -> None:
        """Do nothing: standard output can't be reopened."""

    def sync(self) -> None:
        """Do nothing: there is no disk."""

    def close(self) -> None:
        """Restore the descriptor."""
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
            if self._was_blocking:
                with contextlib.suppress(OSError):
                    os.set_blocking(self._given, True)

    def status(self) -> dict[str, Any]:
        """Return whether it is a terminal, and whether its reader has exited."""
        return {"terminal": self._terminal, "gone": self.gone}

    def _write_rest(self) -> bool:
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
        return not self._rest

    def _write(self, data: bytes) -> int:
        if self._output < 0 or self.gone:
            return 0
        try:
            written = os.write(self._output, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            # EPIPE: the reader has exited; EIO: the terminal is closed. A full disk may recover.
            self.gone = isinstance(error, BrokenPipeError) or self._terminal
            self.trouble = f"can't write to standard output: {error.strerror}"
            return 0
        self.trouble = None
        return written
