"""Real HTTP servers for tests: they keep received lines, and misbehave on request."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Behaviour = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request: its body is read, and the server's next behaviour answers it."""

    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_POST(self) -> None:
        """Answer as the test requires."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        self.body = body
        self.server.web.answer(self)

    def send(self, status: int, body: bytes = b"", **fields: str) -> None:
        """Send a complete answer; _ in the name of a header stands for -."""
        self.send_response(status)
        for name, text in fields.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_raw(self, data: bytes) -> None:
        """Send these bytes instead of an answer, and close the connection."""
        self.wfile.write(data)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
    web: Web

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, *_: object) -> None:
        """Report nothing: clients disconnect here."""


class Web:
    """A server on its own port, which can be killed and restarted.

    ``take`` answers when ``script`` has no behaviour. ``bodies`` and ``headers`` are those of
    all requests, ``kept`` counts the stored documents by their ids.
    """

    def __init__(self, take: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.script: deque[Behaviour] = deque()
        self.take = take
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.kept: Counter[str] = Counter()
        self.file: Path | None = None  # the documents of bulk
        self.lock = threading.Lock()
        self.release = threading.Event()  # releases hanging behaviours
        self._tls = tls
        self._listener: _Listener | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen on the same port as before."""
        listener = _Listener(("127.0.0.1", self.port), Exchange)
        listener.web = self
        self.port = listener.server_address[1]
        if self._tls is not None:
            listener.socket = self._tls.wrap_socket(
                listener.socket, server_side=True, do_handshake_on_connect=False
            )
        self._listener = listener
        threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """Close the port and all connections."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener.shutdown()
            listener.server_close()
            for connection in listener.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def close(self) -> None:
        """Close permanently."""
        self.release.set()
        self.kill()

    def answer(self, exchange: Exchange) -> None:
        """Let the next behaviour answer."""
        with self.lock:
            self.bodies.append(exchange.body)
            self.headers.append({name.lower(): text for name, text in exchange.headers.items()})
            self.paths.append(exchange.path)
            behaviour = self.script.popleft() if self.script else self.take
        behaviour(exchange)

    def keep(self, ids: list[str]) -> None:
        """Count documents as stored."""
        with self.lock:
            self.kept.update(ids)


def ids_of(body: bytes) -> list[str]:
    """Return the ids of the events in the lines of a body."""
    return [json.loads(line)["event"]["id"] for line in body.splitlines()]


def ndjson(exchange: Exchange) -> None:
    """Store every line, like ClickHouse."""
    exchange.server.web.keep(ids_of(exchange.body))
    exchange.send(200)


def bulk(exchange: Exchange, faults: dict[str, tuple[int, str]] | None = None) -> None:
    """Behave like Elasticsearch's _bulk: an item for each line, each id once.

    ``faults`` are the status and type of the error for some ids.
    """
    web, items = exchange.server.web, []
    lines = exchange.body.splitlines()
    for action, line in zip(lines[::2], lines[1::2], strict=True):
        name = json.loads(action)["create"]["_id"]
        assert json.loads(line)["event"]["id"] == name
        item: dict[str, Any] = {"status": 201}
        with web.lock:
            if faults is not None and name in faults:
                status, kind = faults[name]
                item = {"status": status, "error": {"type": kind, "reason": f"about {name}"}}
            elif name in web.kept:
                item = {"status": 409, "error": {"type": "version_conflict_engine_exception"}}
            else:
                web.kept[name] += 1
                if web.file is not None:
                    with web.file.open("ab") as file:
                        file.write(line + b"\n")
        items.append({"create": item})
    body = json.dumps({"errors": any(i["create"]["status"] > 299 for i in items), "items": items})
    exchange.send(200, body.encode())


def status(code: int, body: bytes = b"", **fields: str) -> Behaviour:
    """Answer with this status, and store nothing."""
    return lambda exchange: exchange.send(code, body, **fields)


def raw(data: bytes) -> Behaviour:
    """Answer with arbitrary bytes."""
    return lambda exchange: exchange.send_raw(data)


def hang(exchange: Exchange) -> None:
    """Do not answer until the server is closed."""
    exchange.server.web.release.wait(60)
    exchange.close_connection = True


def stored_without_answer(exchange: Exchange) -> None:
    """Store the lines, and close without an answer."""
    web = exchange.server.web
    web.keep(ids_of(exchange.body))
    exchange.close_connection = True


def slowly(seconds: float, then: Behaviour) -> Behaviour:
    """Answer late."""

    def behaviour(exchange: Exchange) -> None:
        time.sleep(seconds)
        then(exchange)

    return behaviour
