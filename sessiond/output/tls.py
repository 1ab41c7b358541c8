"""TLS for clients, also over a non-blocking TCP connection, with the standard library."""

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
    """Return a context that verifies the server against ``ca`` or the host's CA certificates.

    ``certificate`` and ``key`` are the client's own. The minimum is TLS 1.2. Raises OutputError,
    which names the ``setting``.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python 3.13 and later refuse CA certificates without key usage, which many organisations
        # have; acceptance must not depend on the Python version.
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

    It has the socket methods that a connection needs. ``pending`` is the number of encrypted bytes
    that the kernel has not accepted yet.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Take the socket; ``name`` is the required name in the server's certificate."""
        self._socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._unsent = b""

    @property
    def pending(self) -> int:
        """The number of waiting encrypted bytes."""
        return len(self._unsent) + self._outgoing.pending

    def handshake(self) -> bool:
        """Continue the handshake; return whether it is complete. Raises OSError if it fails."""
        self._receive()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            self._flush()  # sends the alert with the reason
            raise
        return self._flush()

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send; return how many bytes were accepted. Raises OSError, like a socket."""
        self._receive()
        if not self._flush():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        taken = self._tls.write(memoryview(data)[:_CHUNK])
        self._flush()
        return taken

    def flush(self) -> None:
        """Send pending bytes, as far as the kernel accepts them. Raises OSError."""
        self._receive()
        self._flush()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def getsockopt(self, level: int, option: int) -> int:
        """Call getsockopt of the socket."""
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
        """Process the server's messages: handshake, new session tickets, close."""
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
