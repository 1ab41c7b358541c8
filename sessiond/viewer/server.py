"""Serves the page and its data to clients with a token, on loopback, or elsewhere with TLS."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import ssl
import threading
import zlib
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from sessiond.errors import ConfigError, OutputError
from sessiond.viewer import page

LOOPBACK: Final = "127.0.0.1"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


Answer = tuple[HTTPStatus, dict[str, str], bytes]  # status, headers, body


class PageServer:
    """Answers / with the page and /data with its current data; both require the token.

    ``data`` returns a version and its data, and may be called by any thread.
    """

    def __init__(
        self,
        data: Callable[[], tuple[int, bytes]],
        *,
        host: str = LOOPBACK,
        port: int = 0,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """Listen. Raises ConfigError for another address without TLS, OutputError on failure.

        Port 0 selects a free port.
        """
        if not _is_loopback(host) and certificate is None:
            raise ConfigError(f"--listen {host}: others may listen on the way; give --certificate")
        tls = None if certificate is None else _tls(certificate, key)
        self.token = secrets.token_urlsafe(24)
        self._data = data
        server = self

        class Handler(_Handler):
            serving = server

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"{host} port {port}: {reason.lower()}") from None
        self._server.daemon_threads = True
        self._names = {host, "localhost"} if _is_loopback(host) else {host}
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if tls is None else "https"
        self.address = f"{scheme}://{host}:{self._server.server_port}/?token={self.token}"
        self._secure = tls is not None

    def start(self) -> None:
        """Serve in a separate thread."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, target: str, host: str, known: str) -> Answer:
        """Answer a request for ``target``; ``known`` is the version that the page has."""
        url = urlsplit(target)
        # A request for another host name may come from another site (DNS rebinding).
        if not self._secure and urlsplit(f"//{host}").hostname not in self._names:
            return HTTPStatus.MISDIRECTED_REQUEST, {}, b"another host was asked for\n"
        given = parse_qs(url.query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return HTTPStatus.FORBIDDEN, {}, b"the token is missing or wrong\n"
        if url.path == "/":
            kind = {"Content-Type": "text/html; charset=utf-8"}
            return HTTPStatus.OK, kind, page.html(self._data()[1], live=True)
        if url.path == "/data":
            version, data = self._data()
            tag = {"ETag": f'"{version}"'}
            if known == f'"{version}"':
                return HTTPStatus.NOT_MODIFIED, tag, b""
            return HTTPStatus.OK, {"Content-Type": "application/json", **tag}, data
        return HTTPStatus.NOT_FOUND, {}, b"no such page\n"


class _Handler(BaseHTTPRequestHandler):
    serving: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 30
    server_version = "sessiond"
    sys_version = ""

    def do_GET(self) -> None:
        status, headers, body = self.serving.answer(
            self.path, self.headers.get("Host", ""), self.headers.get("If-None-Match", "")
        )
        packs = "deflate" in self.headers.get("Accept-Encoding", "") and len(body) > 1 << 16
        if packs:
            body = zlib.compress(body, 1)
            headers["Content-Encoding"] = "deflate"
        self.send_response(status)
        for name, value in {**_HEADERS, **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- its name there
        """Log nothing, because each request contains the token."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"--certificate {certificate}: {reason}") from None
    return context
