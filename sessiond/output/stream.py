"""Sends lines to a listening reader over a unix stream socket or TCP."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sessiond.errors import ConfigError
from sessiond.output.reconnecting import BACKOFF, TEMPORARY, ReconnectingOutput
from sessiond.output.resolver import Resolver

if TYPE_CHECKING:
    # Without TLS the daemon has no OpenSSL in its memory.
    from sessiond.output.tls import ClientTls, TlsConnection

_CONNECT_TIMEOUT = 10.0  # seconds
# Seconds after which a TCP peer counts as dead that acknowledges nothing.
_USER_TIMEOUT = 20
_CONNECT_POLL = 0.05  # seconds between checks of a pending connection


class StreamOutput(ReconnectingOutput):
    """A unix stream or TCP connection to a reader that may come and go.

    The kernel reports how much of the sent data is unread (unix) or unacknowledged by the other
    host (TCP). These lines are kept; when the connection breaks they are sent again to the next
    reader, from the beginning of the first line that may be missing. So each line arrives
    completely at least once, in order within a connection. Not covered are data that a TCP reader's
    host has acknowledged but the reader has not read when it dies, and lines that a reader has read
    but not processed.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        host: str | None = None,
        port: int = 0,
        backoff: tuple[float, float] = BACKOFF,
        tls: ClientTls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the unix socket's ``path``, or ``host`` (name or address) and ``port`` for TCP.

        The rest is as in ReconnectingOutput.
        """
        if (path is None) == (host is None):
            raise ValueError("either path or host")
        name = f"unix:{path}" if path is not None else f"tcp:{host}:{port}"
        super().__init__(name, backoff, clock)
        self._path = path
        self._resolver = None if host is None else Resolver(host, port)
        self._tls = tls
        self._handshake: TlsConnection | None = None
        self._connection: socket.socket | TlsConnection | None = None
        self._connecting: socket.socket | None = None
        self._connecting_until = 0.0
        self._hangup = select.poll()
        # The accepted, unconfirmed lines, each with the offset of its end in the connection.
        self._window: deque[tuple[int, bytes]] = deque()
        self._sent = 0  # bytes that the kernel has accepted on this connection
        self._rest = memoryview(b"")  # the part of the window that the kernel has not accepted

    @property
    def connected(self) -> bool:
        """Whether there is a reader."""
        return self._connection is not None

    @property
    def unconfirmed(self) -> int:
        """The number of accepted lines that may not have been read."""
        return len(self._window)

    def in_flight(self) -> list[bytes]:
        """Return those lines."""
        return [line for _, line in self._window]

    def write(self, lines: list[bytes]) -> int:
        """Send as much as the connection accepts; return the number of accepted lines."""
        now = self._clock()
        if not self._ready(now) or not self._send_rest(now):
            return 0
        data = b"".join(lines)
        sent = self._send(data, now)
        if not sent:
            return 0
        begin = end = self._sent - sent
        taken = 0
        while end < self._sent:
            end += len(lines[taken])
            self._window.append((end, lines[taken]))
            taken += 1
        self._rest = memoryview(data)[sent : end - begin]
        return taken

    def tick(self, now: float) -> float | None:
        """Connect, and check which lines were read; return when to check again (monotonic)."""
        if self._ready(now):
            self._confirm(now)
            self._send_rest(now)
        return None if self._connection is not None else max(self._retry, now + _CONNECT_POLL)

    # Connecting

    def _ready(self, now: float) -> bool:
        if self._connection is None and (self._connecting is not None or now >= self._retry):
            try:
                self._connect(now)
            except OSError as error:
                self._lose(error, now)
            except ConfigError as error:  # of a certificate
                self._lose(OSError(errno.EINVAL, str(error)), now)
        return self._connection is not None

    def _connect(self, now: float) -> None:
        if self._connecting is None:
            if self._path is not None:
                self._connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._connecting.setblocking(False)
                self._connecting.connect(self._path)
            else:
                self._connect_tcp(now)
        connecting = self._connecting
        if connecting is None:  # the address is still being resolved
            return
        poll = select.poll()
        poll.register(connecting, select.POLLOUT)
        if not poll.poll(0):
            if now >= self._connecting_until:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            return
        if failed := connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(failed, os.strerror(failed))
        if self._tls is not None:
            if self._handshake is None:
                self._handshake = self._tls.connection(connecting)
            if not self._handshake.handshake():
                if now >= self._connecting_until:
                    raise TimeoutError(errno.ETIMEDOUT, "the server does not speak TLS")
                return
        self._connection, self._connecting = self._handshake or connecting, None
        self._handshake = None
        self._connections += 1
        self._hangup = select.poll()
        self._hangup.register(connecting, 0)  # poll(2) always reports POLLHUP and POLLERR
        self.trouble = None
        self._send_window_again()

    def _connect_tcp(self, now: float) -> None:
        address = self._resolver.next() if self._resolver is not None else None
        if address is None:
            return
        family, kind, protocol, _, peer = address
        self._connecting = connecting = socket.socket(family, kind, protocol)
        self._connecting_until = now + _CONNECT_TIMEOUT
        connecting.setblocking(False)
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT * 1000),
        ):
            connecting.setsockopt(level, option, value)
        with contextlib.suppress(BlockingIOError):  # EINPROGRESS
            connecting.connect(peer)

    def _disconnect(self) -> None:
        for connection in (self._connection, self._connecting):
            if connection is not None:
                connection.close()
        self._connection = self._connecting = self._handshake = None
        self._rest = memoryview(b"")

    # Sending

    def _send(self, data: bytes | memoryview, now: float) -> int:
        if self._connection is None:
            return 0
        try:
            sent = self._connection.send(data)
        except OSError as error:
            if error.errno not in TEMPORARY:
                self._lose(error, now)
            return 0
        self._sent += sent
        return sent

    def _send_rest(self, now: float) -> bool:
        """Send the rest of the accepted lines; return whether all are sent."""
        while self._rest:
            sent = self._send(self._rest, now)
            if not sent:
                return False
            self._rest = self._rest[sent:]
        return self._connection is not None

    def _send_window_again(self) -> None:
        end = 0
        window: deque[tuple[int, bytes]] = deque()
        for _, line in self._window:
            end += len(line)
            window.append((end, line))
        self._window = window
        self._sent = 0
        self._rest = memoryview(b"".join(line for _, line in window))

    def _confirm(self, now: float) -> None:
        """Drop the lines that have been read, or detect that the reader has exited."""
        if self._connection is None:
            return
        # SIOCOUTQ: unread bytes with the kernel's own overhead (unix), unacknowledged ones (TCP).
        # Never less than the unread data, except after the reader has exited, because its queue is
        # then discarded: so check for that afterwards.
        encrypted = None if isinstance(self._connection, socket.socket) else self._connection
        if encrypted is not None:
            try:
                encrypted.flush()
            except OSError as error:
                self._lose(error, now)
                return
        (unread,) = struct.unpack("i", fcntl.ioctl(self._connection, termios.TIOCOUTQ, bytes(4)))
        if encrypted is not None:
            unread += encrypted.pending
        if self._hangup.poll(0):
            failed = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.EPIPE
            self._lose(OSError(failed, os.strerror(failed)), now)
            return
        while self._window and self._window[0][0] <= self._sent - unread:
            self._window.popleft()
            self._backoff.reset()
