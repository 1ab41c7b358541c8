"""The HTTP output and a real VictoriaLogs, which has the interfaces of several engines.

As for the other tests of real engines, SESSIOND_ENGINES=1 enables it.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.engines import free_port, go_program
from support.manager import PROJECT
from support.truth import until

from sessiond.config.schema import HttpSettings
from sessiond.output.delivery import Delivery
from sessiond.output.http import HttpOutput
from sessiond.output.http_client import HttpClient, Server, compressor
from sessiond.output.http_formats import Format, Preset, target
from sessiond.output.refused import RefusedLines
from sessiond.output.spool import Spool

PAGE = (PROJECT / "integrations" / "victorialogs" / "README.md").read_text("utf-8")
PACKAGE = "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"
FIELDS = "_time_field=@timestamp&_stream_fields=host.name&_msg_field=message"
Row = dict[str, str]
Query = Callable[[str], list[Row]]


@contextmanager
def victorialogs(home: Path, port: int) -> Iterator[Query]:
    """Run the server; yield a function that asks it. Stop it at the end."""
    program = go_program(PROJECT / "tests" / "support" / "victorialogs", PACKAGE)
    command = [str(program), f"-storageDataPath={home}/data", "-retentionPeriod=100y"]
    with (home / "log").open("ab") as log:
        server = subprocess.Popen(
            [*command, f"-httpListenAddr=127.0.0.1:{port}"], stdout=log, stderr=log
        )

    def ask(query: str) -> list[Row]:
        data = urllib.parse.urlencode({"query": query}).encode()
        url = f"http://127.0.0.1:{port}/select/logsql/query"
        with urllib.request.urlopen(url, data, timeout=60) as answer:
            return [json.loads(line) for line in answer]

    def answers() -> bool:
        try:
            return ask("nothing:here") == []
        except OSError:
            return False

    try:
        until(answers, 60, "VictoriaLogs")
        yield ask
    finally:
        server.terminate()  # when killed, it loses what it has accepted in the last seconds
        server.wait(60)


def delivery(url: str, preset: Preset, directory: Path) -> Delivery:
    """Return what the daemon makes of these settings, with short waits."""
    parts = HttpSettings(url=url, preset=preset).parts()
    server = Server(str(parts.hostname), parts.port or 0, target(preset, parts, "logs"))
    output = HttpOutput(
        HttpClient(server, headers={}, secrets=dict, timeout=30.0),
        Format(preset),
        name=server.name,
        compress=compressor("zstd"),
        refused=RefusedLines(directory / "refused.ndjson", 1 << 20),
        max_size=1 << 18,
        interval=0.1,
        backoff=(0.1, 0.5),
    )
    made = Delivery(output, spool=Spool(str(directory / "spool")))
    made.open()
    return made


def settle(made: Delivery, waiting: int) -> None:
    """Let the output work until at most that many lines wait."""
    end = time.monotonic() + 60
    while made.account().queued + made.account().spooled > waiting:
        assert time.monotonic() < end, made.status()
        made.tick(time.monotonic())
        time.sleep(0.01)


def recorded() -> list[bytes]:
    """Return the lines of two logins."""
    packed = (PROJECT / "tests" / "data" / "viewer" / "login.ndjson.gz").read_bytes()
    return gzip.decompress(packed).splitlines(keepends=True)


@pytest.mark.timeout(900)  # the first run fetches and compiles modules
@pytest.mark.parametrize(
    ("preset", "path"),
    [
        ("ndjson", f"jsonline?{FIELDS}"),
        ("elasticsearch", f"elasticsearch/_bulk?{FIELDS}"),
        ("loki", "loki/api/v1/push"),
        ("splunk_hec", "splunk/services/collector/event"),
    ],
)
def test_each_line_arrives(tmp_path: Path, preset: Preset, path: str) -> None:
    """The server is absent at first, and stopped while lines come."""
    port = free_port()
    made = delivery(f"http://127.0.0.1:{port}/insert/{path}", preset, tmp_path)
    lines = recorded()
    made.write(lines[:100])
    until_unhealthy = time.monotonic() + 60
    while made.status()["healthy"]:
        assert time.monotonic() < until_unhealthy
        made.tick(time.monotonic())
        time.sleep(0.01)
    with victorialogs(tmp_path, port):
        settle(made, 0)
        made.write(lines[100:200])
        settle(made, 99)
    made.write(lines[200:])
    name = "event.event.id" if preset == "splunk_hec" else "event.id"
    with victorialogs(tmp_path, port) as ask:
        settle(made, 0)
        wanted = sorted(json.loads(line)["event"]["id"] for line in lines)
        until(lambda: len(ask(f"* | uniq by ({name})")) >= len(wanted), 30, "all lines")
        assert sorted(row[name] for row in ask(f"* | uniq by ({name})")) == wanted
        # Only requests in flight at the stop are repeated.
        assert int(ask("* | count() n")[0]["n"]) < len(lines) + 200
    assert made.status()["dropped"] == 0
    assert made.flush(10)
    made.close()


@pytest.mark.timeout(900)
def test_the_page_is_right(tmp_path: Path) -> None:
    """Its configuration and its queries have the described results."""
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    port = free_port()
    url = yaml.safe_load(settings)["output"]["http"]["url"]
    url = url.replace("https://logs.example.org:9428", f"http://127.0.0.1:{port}")
    logins, session, new = re.findall(r"^ask '(.*?)'$", PAGE, re.DOTALL | re.MULTILINE)
    made = delivery(url, "ndjson", tmp_path)
    with victorialogs(tmp_path, port) as ask:
        made.write(recorded())
        settle(made, 0)
        until(lambda: len(ask("*")) == len(recorded()), 30, "all lines")
        second, first = ask(logins)
        assert second["first"] > first["first"]
        assert (first["processes"], first["address"]) == ("119", "198.51.100.7")
        assert first["process.entry_leader.entity_id"] in session
        ran = ask(session)
        assert ran[0]["process.command_line"] == "-bash"
        assert {"make -j2"} < {row["process.command_line"] for row in ran}
        assert {row["user.name"] for row in ran} >= {"ann"}
        seen = ask(new.replace("2026-11-30", "2026-11-01"))
        assert {row["process.executable"] for row in seen} > {"/usr/bin/bash", "/usr/bin/make"}
        assert ask(new) == []
    made.close()
