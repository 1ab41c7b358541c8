"""rsyslog with the shipped configuration: each line arrives, despite kills and a full engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.engines import free_port, running
from support.manager import PROJECT
from support.truth import until

LINES = 1200
RSYSLOGD = shutil.which("rsyslogd", path="/usr/sbin") or shutil.which("rsyslogd")
needs_rsyslogd = pytest.mark.skipif(
    RSYSLOGD is None, reason="needs rsyslogd and its module omelasticsearch"
)


def configuration(name: str, directory: Path, **changes: str) -> Path:
    """Return a shipped configuration with other addresses and paths."""
    text = (PROJECT / "integrations" / "rsyslog" / name).read_text("utf-8")
    marked = [line for line in text.splitlines() if "# change, or take them out" not in line]
    text = "\n".join(line for line in marked if "tls.cacert" not in line) + "\n"
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = directory / name
    path.write_text(f'global(workDirectory="{directory}/spool")\n{text}')
    return path


class Bulk:
    """A server with Elasticsearch's _bulk, which accepts each tenth line only at the second try."""

    def __init__(self, port: int) -> None:
        self.stored: dict[str, Any] = {}
        self.refused: set[str] = set()
        self.answers = threading.Event()
        self.answers.set()
        bulk = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not bulk.answers.is_set():
                    bulk.answers.wait()
                    self.close_connection = True
                    return
                answer = json.dumps(bulk.take(body) if "_bulk" in self.path else {}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer if self.command != "HEAD" else b"")

            do_GET = do_HEAD = do_POST = _answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that was killed is not an error."""

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, body: bytes) -> dict[str, Any]:
        """Store new lines; answer for each line."""
        lines = body.splitlines()
        items = [self._create(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]
        return {"errors": any(each["create"]["status"] >= 300 for each in items), "items": items}

    def _create(self, action: bytes, line: bytes) -> dict[str, Any]:
        name = json.loads(action)["create"]["_id"]
        if int(name) % 10 == 0 and name not in self.refused:
            self.refused.add(name)
            error = {"type": "es_rejected_execution_exception", "reason": "full"}
            return {"create": {"_id": name, "status": 429, "error": error}}
        if name in self.stored:
            error = {"type": "version_conflict_engine_exception", "reason": "there already"}
            return {"create": {"_id": name, "status": 409, "error": error}}
        self.stored[name] = json.loads(line)
        return {"create": {"_id": name, "status": 201}}

    def await_lines(self, number: int) -> None:
        """Wait until that many lines are stored."""
        what = f"{number} lines"
        until(lambda: len(self.stored) >= number, 60, f"{what}, but {len(self.stored)}")

    def close(self) -> None:
        """Stop the server."""
        self.answers.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def spooled(directory: Path, **changes: str) -> Path:
    """Write the configuration for Elasticsearch to ``directory``."""
    (directory / "spool").mkdir()
    return configuration(
        "elasticsearch.conf",
        directory,
        **{
            "/var/spool/rsyslog": f"{directory}/spool",
            "/var/log/sessiond/events.ndjson": f"{directory}/events.ndjson",
            "/var/log/rsyslog-sessiond-refused.json": f"{directory}/refused",
            'action.resumeInterval="5"': 'action.resumeInterval="1"',
            **changes,
        },
    )


@contextmanager
def rsyslogd(configuration: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run rsyslogd, and kill it at the end."""
    pid = configuration.with_name("pid")
    pid.unlink(missing_ok=True)
    command = [str(RSYSLOGD), "-n", "-f", str(configuration), "-i", str(pid)]
    with running(command, configuration.with_name("log")) as program:
        yield program


@needs_rsyslogd
def test_every_line_reaches_elasticsearch_once(tmp_path: Path) -> None:
    """The engine is down at first and full at times, and rsyslogd is killed twice."""
    port, events = free_port(), tmp_path / "events.ndjson"
    config = spooled(tmp_path, **{"https://es.example.org:9200": f"http://127.0.0.1:{port}"})
    written: dict[str, Any] = {}
    bulk = None
    try:
        for third in range(3):
            with events.open("a") as file:
                for number in range(third * LINES // 3, (third + 1) * LINES // 3):
                    # The longest line that sessiond writes by default, among short ones.
                    text = "é\\" * (10_000 if number % 50 == 0 else 100)
                    document = {"event": {"id": str(number)}, "host": {"id": "h"}, "message": text}
                    written[str(number)] = document
                    file.write(json.dumps(document, ensure_ascii=False) + "\n")
            with rsyslogd(config) as running:
                bulk = bulk or Bulk(port)
                bulk.await_lines(LINES if third == 2 else third * LINES // 3 + LINES // 6)
                assert running.poll() is None
        assert bulk is not None
        assert bulk.stored == written
        assert bulk.refused
    finally:
        if bulk is not None:
            bulk.close()


@needs_rsyslogd
def test_a_stop_while_the_engine_hangs_loses_nothing(tmp_path: Path) -> None:
    """rsyslogd waits for the current batch, and a kill leaves it in the queue."""
    port = free_port()
    config = spooled(tmp_path, **{"https://es.example.org:9200": f"http://127.0.0.1:{port}"})
    lines = "".join(f'{{"event": {{"id": "{2 * number + 1}"}}}}\n' for number in range(LINES))
    (tmp_path / "events.ndjson").write_text(lines)
    bulk = Bulk(port)
    try:
        bulk.answers.clear()
        with rsyslogd(config) as running:
            queue = tmp_path / "spool" / "sessiond.00000001"
            until(lambda: queue.exists() and queue.stat().st_size > 100 * LINES, 60, "the queue")
            running.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(15)  # with its default timeouts it would give up after 10
        bulk.answers.set()
        with rsyslogd(config):
            bulk.await_lines(LINES)
    finally:
        bulk.close()
