"""``sessiond setup elasticsearch``: its requests, and its messages on failure."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.engines import free_port, lines, opensearch
from support.manager import PROJECT

from sessiond.engines import elasticsearch, templates
from sessiond.errors import ConfigError, OutputError

Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def server(answer: Callable[[str, str, dict[str, str]], Answer]) -> Iterator[str]:
    """Serve HTTP on 127.0.0.1: ``answer`` takes method, path and headers."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = answer(self.command, self.path, dict(self.headers))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}"
    finally:
        serving.shutdown()
        thread.join()
        serving.server_close()


def install(url: str, **options: Any) -> list[str]:
    """Install in the engine at ``url``."""
    return list(elasticsearch.install(elasticsearch.Engine(url), keep_days=90, **options))


def ask(url: str, method: str, path: str, body: bytes | None = None) -> Any:
    """Send a request to an engine and return its answer."""
    headers = {"Content-Type": "application/x-ndjson" if "_bulk" in path else "application/json"}
    request = urllib.request.Request(f"{url}/{path}", body, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.timeout(900)  # the first run fetches 90 MB
def test_a_real_engine_accepts_everything(tmp_path: Path) -> None:
    """Templates, stream, aliases; lines with a strict mapping; each line once, by its id."""
    with opensearch(tmp_path) as url:
        assert all("would be" in line or ":" in line for line in install(url, dry_run=True))
        assert ask(url, "GET", "_data_stream")["data_streams"] == []
        done = install(url)
        assert f"component template {templates.MAPPINGS}: created" in done
        again = install(url)
        assert f"component template {templates.MAPPINGS}: unchanged" in again
        strict = json.dumps({"dynamic": "strict"}).encode()
        ask(url, "PUT", f"{templates.DATA_STREAM}/_mapping", strict)
        documents = lines()
        bulk = "".join(
            json.dumps({"create": {"_id": each["event"]["id"]}}) + "\n" + json.dumps(each) + "\n"
            for each in documents
        ).encode()
        first = ask(url, "POST", f"{templates.DATA_STREAM}/_bulk?refresh=true", bulk)
        refused = [item["create"] for item in first["items"] if item["create"]["status"] >= 300]
        assert [each for each in refused if each["status"] != 409] == []
        second = ask(url, "POST", f"{templates.DATA_STREAM}/_bulk?refresh=true", bulk)
        assert {item["create"]["status"] for item in second["items"]} == {409}
        ids = {each["event"]["id"] for each in documents}
        for alias in templates.ALIASES:
            assert ask(url, "GET", f"{alias}/_count")["count"] == len(ids)
        by_syscall = b'{"query": {"term": {"auditd.data.syscall": "execve"}}}'
        assert ask(url, "POST", "auditbeat-sessiond/_count", by_syscall)["count"] > 0
        _has_sessions(url, tmp_path)
        old = b'{"template": {"mappings": {"properties": {}}}}'
        ask(url, "PUT", f"_component_template/{templates.MAPPINGS}", old)
        assert f"component template {templates.MAPPINGS}: updated" in install(url)
        stream = ask(url, "GET", f"_data_stream/{templates.DATA_STREAM}")["data_streams"][0]
        assert stream["generation"] == 2


def _has_sessions(url: str, directory: Path) -> None:
    """Query logins and one of their sessions with the shipped queries, and draw its tree."""
    recorded = gzip.decompress((PROJECT / "tests/data/viewer/login.ndjson.gz").read_bytes())
    bulk = "".join(
        json.dumps({"create": {"_id": json.loads(line)["event"]["id"]}}) + f"\n{line}\n"
        for line in recorded.decode().splitlines()
    )
    ask(url, "POST", f"{templates.DATA_STREAM}/_bulk?refresh=true", bulk.encode())
    queries = PROJECT / "integrations" / "elastic" / "queries"
    logins = ask(url, "POST", "auditbeat-sessiond/_search", (queries / "logins.json").read_bytes())
    recent, session = logins["aggregations"]["sessions"]["buckets"]
    assert recent["first"]["value"] > session["first"]["value"]
    assert session["processes"]["value"] == 119
    (who,) = session["who"]["hits"]["hits"]
    assert who["_source"]["user"] == {"name": "ann"}
    wanted = (queries / "session.json").read_text("utf-8").replace("SESSION", session["key"])
    found = ask(url, "POST", "auditbeat-sessiond/_search", wanted.encode())["hits"]["hits"]
    path = directory / "session.ndjson"
    path.write_text("".join(json.dumps(each["_source"]) + "\n" for each in found), "utf-8")
    command = [sys.executable, "-m", "sessiond", "tree", str(path)]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert drawn.startswith("ann by sshd 198.51.100.7 on web1, ")
    assert "├─ $ make -j2\n" in drawn


def test_requests_to_elasticsearch() -> None:
    """The requests have this order; the administrator's objects stay."""
    asked = []

    def answer(method: str, path: str, _: dict[str, str]) -> Answer:
        asked.append(f"{method} {path}")
        if path == "/":
            return 200, {}, b'{"version": {"number": "9.4.0"}}'
        if method == "GET" and "custom" not in path:
            return 404, {}, b'{"error": "not found"}'
        return 200, {}, b'{"acknowledged": true}'

    with server(answer) as url:
        said = install(url)
        changes = [each for each in asked if not each.startswith("GET")]
        asked.clear()
        install(url, dry_run=True)
    assert changes == [
        "PUT /_ilm/policy/sessiond",
        "PUT /_component_template/sessiond%40mappings",
        "PUT /_component_template/sessiond%40settings",
        "PUT /_index_template/logs-sessiond.process",
        "PUT /_data_stream/logs-sessiond.process-default",
        "POST /_aliases",
    ]
    assert said[1] == "lifecycle policy sessiond: created, events are kept for 90 days"
    assert "component template sessiond@custom: there already, kept" in said
    assert all(each.startswith("GET") for each in asked)


def test_refusals_say_what_helps() -> None:
    """A missing key, a proxy's page or a redirect causes one line with the server's text."""
    answers: dict[str, Answer] = {
        "key": (401, {}, b'{"error": {"reason": "missing authentication"}}'),
        "page": (200, {}, b"<html>"),
        "other": (200, {}, b"{}"),
        "moved": (302, {"Location": "http://127.0.0.1:1/"}, b""),
        "deep": (200, {}, b"[" * 100_000),
        "deeply refused": (500, {}, b'{"error":' + b"[" * 100_000),
        "odd": (200, {}, b'{"version": {"number": "9"}, "component_templates": ["x"]}'),
        "empty": (200, {}, b'{"version": {"number": "9"}, "component_templates": []}'),
    }
    expected = {
        "key": "401: missing authentication; name a key with --api-key-file",
        "page": "answers no JSON to GET /: no such engine",
        "other": "is neither Elasticsearch nor OpenSearch",
        "moved": "GET /: 302",
        "deep": "answers no JSON to GET /: no such engine",
        "deeply refused": "GET /: 500: ",
        "odd": "GET /_component_template: not the answer of an engine",
        "empty": "GET /_component_template: not the answer of an engine",
    }
    for name, given in answers.items():
        with server(lambda *_, given=given: given) as url, pytest.raises(OutputError) as error:
            install(url)
        assert expected[name] in str(error.value)
    with pytest.raises(OutputError, match="Connection refused"):
        install(f"http://127.0.0.1:{free_port()}")


def test_keys_go_nowhere_else() -> None:
    """Keys are sent neither over plain HTTP to another host nor in a URL."""
    for url in ("http://es.example.org:9200", "http://192.0.2.1:9200"):
        with pytest.raises(ConfigError, match="use https://"):
            elasticsearch.Engine(url, elasticsearch.api_key("a:b"))
    for url in (
        *("https://u:p@es:9200", "ftp://es", "es:9200", "https://"),
        *("https://[::1", "https://es:x", "https://es:99999"),
    ):
        with pytest.raises(ConfigError, match="--url"):
            elasticsearch.Engine(url)
    with pytest.raises(ConfigError, match="--ca: /none"):
        elasticsearch.Engine("https://es:9200", ca="/none")


def test_the_command_takes_its_key_from_a_file(tmp_path: Path) -> None:
    """Only its owner can read the file; id and key are encoded for the engine."""
    seen = []

    def answer(_: str, path: str, headers: dict[str, str]) -> Answer:
        seen.append(headers.get("Authorization"))
        return 200, {}, b'{"version": {"number": "9.4.0"}}'

    key = tmp_path / "key"
    key.write_text("id:secret\n")
    command = [sys.executable, "-m", "sessiond", "setup", "elasticsearch"]
    command += ["--api-key-file", str(key)]
    with server(answer) as url:
        key.chmod(0o644)
        refused = subprocess.run([*command, "--url", url], capture_output=True, text=True)
        key.chmod(0o600)
        done = subprocess.run(
            [*command, "--url", url, "--dry-run"], capture_output=True, text=True, check=False
        )
    assert refused.returncode == 2
    assert refused.stderr == (
        f"sessiond: --api-key-file: {key}: others may read or change it; "
        "fix: chown root, chmod 0600\n"
    )
    assert done.stdout.startswith(f"{url}: Elasticsearch 9.4.0\n")
    assert set(seen) == {"ApiKey aWQ6c2VjcmV0"}
