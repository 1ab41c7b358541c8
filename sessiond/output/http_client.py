"""POST over HTTP/1.1 and TLS with the standard library: one connection, bounded in time and size.

http.client is sufficient: one server, one method, no redirects, cookies or pools, and no further
library in a process with capabilities.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal, NamedTuple

from sessiond import __version__
from sessiond.errors import ConfigError
from sessiond.output.http_formats import Answer
from sessiond.output.tls import ClientTls
from sessiond.system import zstd
from sessiond.text import printable

Compression = Literal["gzip", "zstd", "none"]

MAX_ANSWER: Final = 8 << 20  # bytes of an answer's body
_PIECE: Final = 1 << 16  # bytes of it read at once
_CONNECT_TIMEOUT: Final = 10.0  # seconds, for each of the server's addresses
_PROXY_FIELD: Final = "proxy-authorization"
# A server may close an idle connection at the moment of its reuse.
_CLOSED_BY_SERVER: Final = (
    http.client.RemoteDisconnected,
    ConnectionResetError,
    BrokenPipeError,
    ssl.SSLEOFError,
)


class Compressor(NamedTuple):
    """A compression function, and the name of its content encoding."""

    encoding: str
    compress: Callable[[bytes], bytes]


class HttpError(Exception):
    """A request without an answer; the message has the reason, without secrets.

    ``sending`` says whether there was a connection, so that a smaller request may succeed.
    """

    def __init__(self, reason: str, *, sending: bool = False) -> None:
        super().__init__(reason)
        self.sending = sending


class Server(NamedTuple):
    """The server of requests, with TLS unless ``tls`` is None."""

    host: str
    port: int
    target: str  # path and query
    tls: ClientTls | None = None
    proxy: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        """The URL without the query, which may be secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path = self.target.partition("?")[0]
        return f"{'https' if self.tls is not None else 'http'}://{host}:{self.port}{path}"


class HttpClient:
    """A connection to one server, opened on demand and reused.

    ``post`` blocks, and is for a single thread; any other thread may ``abort``.
    """

    def __init__(
        self,
        server: Server,
        *,
        headers: Mapping[str, str],
        secrets: Callable[[], Mapping[str, str]],
        timeout: float,
    ) -> None:
        """Take the server and the header fields of every request.

        ``secrets`` returns further fields for each connection, or raises ConfigError. ``timeout``
        (seconds) applies to each operation on the socket; to limit a whole request, ``abort`` it.
        """
        self.connections = 0
        self._server = server
        self._headers = {"User-Agent": f"sessiond/{__version__}", **headers}
        self._secrets = secrets
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None
        self._fields: dict[str, str] = {}
        self._sending = False  # the current request has a connection
        self._aborted = False
        self._lock = threading.Lock()  # held while closing or aborting the connection

    def post(self, body: bytes, fields: Mapping[str, str]) -> Answer:
        """Send a request with further header ``fields``; return the answer. Raises HttpError."""
        reused, self._aborted, self._sending = self._connection is not None, False, False
        try:
            try:
                return self._post(body, fields)
            except _CLOSED_BY_SERVER:
                if not reused or self._aborted:
                    raise
                self.close()
                return self._post(body, fields)
        except HttpError:
            self.close()
            raise
        except ConfigError as error:  # of a key or certificate
            self.close()
            raise HttpError(str(error)) from None
        # A ValueError is http.client's for some invalid answers, and getaddrinfo's for some names.
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise HttpError(_reason(error), sending=self._sending) from None

    def abort(self) -> None:
        """Make the current request fail, whatever it waits for.

        While it waits for a connection this has no effect: call it again once it is connected.
        """
        self._aborted = True
        with self._lock:
            connection = self._connection.sock if self._connection is not None else None
            if connection is not None:
                with contextlib.suppress(OSError):
                    # With TLS this is the underlying socket: no alert is sent, nothing blocks.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _post(self, body: bytes, fields: Mapping[str, str]) -> Answer:
        connection = self._connection or self._connect()
        self._sending = True
        try:
            connection.request(
                "POST", self._target(), body, {**self._headers, **self._fields, **fields}
            )
        except OSError:
            # The server may answer before it has read everything, such as 413, and disconnect.
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, HttpError):
                answer = self._answer(connection)
                self.close()
                return answer
            raise
        return self._answer(connection)

    def _connect(self) -> http.client.HTTPConnection:
        server = self._server
        secrets = self._secrets()
        to_proxy = {name: text for name, text in secrets.items() if name.lower() == _PROXY_FIELD}
        self._fields = {name: text for name, text in secrets.items() if name not in to_proxy}
        host, port = server.proxy or (server.host, server.port)
        connection = _Connection(host, port, timeout=min(_CONNECT_TIMEOUT, self._timeout))
        if server.tls is not None:
            connection.tls = server.tls.context(), server.tls.name
        connection.answer_timeout = self._timeout
        if server.proxy is not None:
            if server.tls is None:
                self._fields |= to_proxy
            else:
                # Python 3.11 does not add the brackets; later versions replace these.
                host = f"[{server.host}]" if ":" in server.host else server.host
                connection.set_tunnel(host, server.port, to_proxy)
        with self._lock:
            self._connection = connection
        self.connections += 1
        connection.connect()
        return connection

    def _target(self) -> str:
        server = self._server
        if server.proxy is None or server.tls is not None:
            return server.target
        return server.name + server.target[len(server.target.partition("?")[0]) :]

    def _answer(self, connection: http.client.HTTPConnection) -> Answer:
        response = connection.getresponse()
        success = 200 <= response.status <= 299
        body = bytearray()
        # In pieces: http.client would read until the end for a chunk of a negative size.
        while len(body) <= MAX_ANSWER and (piece := response.read1(_PIECE)):
            body += piece
        cut = len(body) > MAX_ANSWER
        response.close()
        if not cut and response.length:  # the answer is shorter than Content-Length
            raise http.client.IncompleteRead(bytes(body), response.length)
        if not cut and success and response.length is None and not response.chunked:
            # The answer ends with the connection: a truncated one would look the same.
            raise HttpError("the server's answer does not say where it ends (Content-Length)")
        answer = Answer(
            response.status,
            bytes(body[:MAX_ANSWER]),
            cut,
            _seconds(response.getheader("retry-after")),
            response.getheader("location", ""),
        )
        # After an error another server behind a load balancer, or new keys, may succeed.
        if cut or connection.sock is None or not success:
            self.close()
        return answer


class _Response(http.client.HTTPResponse):
    """A response; interim ones before it are skipped, not only 100."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        interim = 100 <= status <= 199 and status != http.client.SWITCHING_PROTOCOLS
        return version, http.client.CONTINUE if interim else status, reason


class _Connection(http.client.HTTPConnection):
    """A connection with TLS, over a proxy's tunnel if there is one."""

    response_class = _Response
    tls: tuple[ssl.SSLContext, str] | None = None
    answer_timeout = 0.0

    def connect(self) -> None:
        """Connect, through the tunnel if there is one. Raises OSError."""
        super().connect()
        self.sock.settimeout(self.answer_timeout)
        if self.tls is not None:
            context, name = self.tls
            # In two steps, so that a handshake that hangs can be aborted.
            encrypted = context.wrap_socket(
                self.sock, server_hostname=name, do_handshake_on_connect=False
            )
            self.sock = encrypted
            encrypted.do_handshake()


def compressor(compression: Compression) -> Compressor | None:
    """Return the compressor of bodies, None for ``none``; gzip if this Python has no zstd."""
    if compression == "none":
        return None
    library = zstd.implementation() if compression == "zstd" else None
    if library is None:
        return Compressor("gzip", partial(zlib.compress, level=1, wbits=16 + zlib.MAX_WBITS))
    packer = library.packer

    def compress(body: bytes) -> bytes:
        packing = packer()
        return packing.compress(body) + packing.flush()

    return Compressor("zstd", compress)


def _seconds(retry_after: str | None) -> float | None:
    """Parse a Retry-After header: seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


def _reason(error: OSError | http.client.HTTPException | ValueError) -> str:
    """Return the reason for a missing answer."""
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the server broke its answer off"
    if isinstance(error, UnicodeError):
        return "the server's name is invalid"
    if not isinstance(error, OSError):
        return "what answers there does not speak HTTP"
    if isinstance(error, TimeoutError):
        return "timed out"
    return printable(getattr(error, "strerror", None) or str(error))
