"""TLS for clients, and over a TCP connection that never blocks, by the standard library."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Final

from sessiond.errors import OutputError

_CHUNK: Final = 1 << 16  # bytes encrypted at once
_READ: Final = 1 << 14


def client_context(
    *, ca: Path | None, certificate: Path | None, key: Path | None, setting: str
) -> ssl.SSLContext:
    """Make a context that checks the server, against ``ca`` or the host's authorities.

    ``certificate`` and ``key`` are the client's own. TLS 1.2 is the least. Raises OutputError,
    which names the ``setting``.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python 3.13 and later would refuse authorities that many organisations made for themselves
        # (no key usage in the certificate); what is accepted must not depend on that.
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        names = " or ".join(str(path) for path in (ca, certificate, key) if path is not None)
        reason = error.strerror or str(error)
        raise OutputError(f"{setting}: {names} can't be used: {reason}") from None
    return context


class TlsConnection:
    """The client's side of TLS on a connected, non-blocking socket.

    It has what a connection's user needs of a socket. What is encrypted and not yet taken by the
    kernel is ``pending`` bytes.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Take the socket; ``name`` is what the server's certificate must be for."""
        self._socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._unsent = b""

    @property
    def pending(self) -> int:
        """How many encrypted bytes wait here."""
        return len(self._unsent) + self._outgoing.pending

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is over. Raises OSError when it fails."""
        self._receive()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            self._flush()  # the other side learns why
            raise
        return self._flush()

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send; return how much of ``data`` was taken. Raises OSError, as a socket."""
        self._receive()
        if not self._flush():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        taken = self._tls.write(memoryview(data)[:_CHUNK])
        self._flush()
        return taken

    def flush(self) -> None:
        """Send what is pending, as far as the kernel takes it. Raises OSError."""
        self._receive()
        self._flush()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def getsockopt(self, level: int, option: int) -> int:
        """Ask the socket."""
        return self._socket.getsockopt(level, option)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _flush(self) -> bool:
        self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
        return True

    def _receive(self) -> None:
        """Take in what the server says: of its handshake, new session tickets, its end."""
        try:
            while data := self._socket.recv(_READ):
                self._incoming.write(data)
            raise ConnectionResetError(errno.ECONNRESET, "the server has closed the connection")
        except BlockingIOError:
            pass
        if self._tls.version() is None:
            return  # the handshake reads it
        try:
            self._tls.read(_READ)
        except ssl.SSLWantReadError:
            return
