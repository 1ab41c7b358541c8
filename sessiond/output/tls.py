"""TLS for clients, also over a non-blocking TCP connection, with the standard library."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Final

from sessiond.errors import ConfigError

_CHUNK: Final = 1 << 16  # bytes encrypted at once
_READ: Final = 1 << 14


class ClientTls:
    """A client's TLS settings; changed files are read again for the next connection."""

    def __init__(
        self,
        name: str,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        setting: str,
    ) -> None:
        """Verify servers against ``name`` and ``ca``, or the host's CA certificates.

        ``certificate`` and ``key`` are the client's own. Raises ConfigError for unusable files,
        which names the ``setting``.
        """
        self.name = name
        self._ca, self._certificate, self._key = ca, certificate, key
        self._setting = setting
        self._files = [path for path in (ca, certificate, key) if path is not None]
        self._states = [_state(path) for path in self._files]
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context of a connection. Raises ConfigError if a changed file is unusable."""
        states = [_state(path) for path in self._files]
        if states != self._states:
            self._context = self._load()
            self._states = states
        return self._context

    def connection(self, connected: socket.socket) -> TlsConnection:
        """Return the encrypted connection over a socket; raises ConfigError as ``context``."""
        return TlsConnection(connected, self.context(), self.name)

    def _load(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            # Python 3.13 and later refuse CA certificates without key usage, which many
            # organisations have; acceptance must not depend on the Python version.
            context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
            if self._certificate is not None:
                context.load_cert_chain(self._certificate, self._key, self._passphrase)
        except OSError as error:  # ssl.SSLError is one
            names = " or ".join(map(str, self._files))
            reason = error.strerror or str(error)
            raise ConfigError(f"{self._setting}: {names} can't be used: {reason}") from None
        return context

    def _passphrase(self) -> str:
        """Refuse an encrypted key: OpenSSL would ask for its passphrase at the terminal."""
        name = self._key or self._certificate
        fix = "decrypt it, and let only its owner read it"
        raise ConfigError(f"{self._setting}: {name}: the key has a passphrase; fix: {fix}")


def _state(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced or written, None without the file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


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
