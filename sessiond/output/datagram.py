"""Sends lines as datagrams over a unix socket."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

from sessiond.output.reconnecting import BACKOFF, TEMPORARY, ReconnectingOutput


class DatagramOutput(ReconnectingOutput):
    """A unix datagram socket: each line, with its newline, is one datagram.

    The kernel does not report which datagrams were read: if the reader dies, those in its queue (at
    most net.unix.max_dgram_qlen) are lost. A line that is too long for a datagram is counted in
    ``rejected``.
    """

    _BUFFER = 4 * 1024 * 1024  # bytes; the kernel takes less when net.core.wmem_max is less

    def __init__(
        self,
        *,
        path: str,
        backoff: tuple[float, float] = BACKOFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the path of the reader's socket; the rest as in ReconnectingOutput."""
        super().__init__(f"unix-datagram:{path}", backoff, clock)
        self.unconfirmed = 0
        self._path = path
        self._socket: socket.socket | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a reader."""
        return self._socket is not None

    def in_flight(self) -> list[bytes]:
        """Return nothing: sent datagrams can't be tracked."""
        return []

    def write(self, lines: list[bytes]) -> int:
        """Send as much as the reader's queue accepts; return the number of accepted lines."""
        now = self._clock()
        self.tick(now)
        if self._socket is None:
            return 0
        for taken, line in enumerate(lines):
            try:
                self._socket.send(line)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self.rejected += 1
                    continue
                if error.errno not in TEMPORARY:
                    self._lose(error, now)
                return taken
        self._backoff.reset()
        return len(lines)

    def tick(self, now: float) -> float | None:
        """Reconnect if it is due; return when that is due (monotonic seconds)."""
        if self._socket is None and now >= self._retry:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                self._socket.setblocking(False)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._BUFFER)
                self._socket.connect(self._path)
            except OSError as error:
                self._lose(error, now)
            else:
                self._connections += 1
                self.trouble = None
        return self._retry if self._socket is None else None

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
