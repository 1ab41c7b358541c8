"""Shippers with the shipped configuration and a real engine: each line arrives, despite kills.

As for the other tests of real engines, SESSIOND_ENGINES=1 enables it. fluent-bit must be installed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.engines import ask, count, free_port, go_program, lines, opensearch, running
from support.manager import PROJECT
from support.truth import until
from support.web import Web, status

from sessiond.engines import elasticsearch, templates

FLUENT_BIT = shutil.which("fluent-bit") or shutil.which("fluent-bit", path="/opt/fluent-bit/bin")


def numbered(first: int, number: int) -> dict[str, Any]:
    """Return events by id: real ones, each fiftieth with a line close to the limit of 32 KiB."""
    real = lines()
    found = {}
    for each in range(first, first + number):
        event = json.loads(json.dumps(real[each % len(real)]))
        event["event"]["id"] = f"{each}"
        if each % 50 == 0:
            event["process"] = {**event.get("process", {}), "command_line": "é\\" * 7_000}
        found[f"{each}"] = event
    return found


def configuration(name: str, directory: Path, changes: dict[str, str]) -> Path:
    """Return a shipped configuration with other addresses and paths."""
    text = (PROJECT / "integrations" / "shippers" / name).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    path = directory / name
    path.write_text(text)
    return path


def stored(url: str) -> dict[str, Any]:
    """Return the documents of the data stream by their ids."""
    everything = {"size": 10_000, "query": {"match_all": {}}}
    hits = ask(url, f"{templates.DATA_STREAM}/_search", everything)["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


def append(file: Path, events: dict[str, Any]) -> None:
    """Write events as sessiond does."""
    with file.open("a", encoding="utf-8") as stream:
        for each in events.values():
            stream.write(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n")


@pytest.mark.skipif(FLUENT_BIT is None, reason="needs fluent-bit")
@pytest.mark.timeout(900)  # the first run fetches 90 MB
def test_fluent_bit_delivers_each_line_once(tmp_path: Path) -> None:
    """It is killed twice and the engine once; documents are the lines, with nine digits of time."""
    home, file, port = tmp_path / "node", tmp_path / "events.ndjson", free_port()
    home.mkdir()
    (tmp_path / "buffer").mkdir()
    config = configuration(
        "fluent-bit.yaml",
        tmp_path,
        {
            "/var/log/sessiond/events.ndjson": str(file),
            "/var/lib/fluent-bit": f"{tmp_path}/buffer",
            "es.example.org": "127.0.0.1",
            "9200": str(port),
            "tls: true": "tls: false",
        },
    )
    command = [str(FLUENT_BIT), "-c", str(config)]
    log = tmp_path / "log"
    written: dict[str, Any] = {}

    def write(number: int) -> None:
        events = numbered(len(written), number)
        written.update(events)
        append(file, events)

    with opensearch(home, port) as url:
        list(elasticsearch.install(elasticsearch.Engine(url), keep_days=1))
        for _ in range(2):
            write(1500)
            before = count(url)
            with running(command, log):
                until(lambda before=before: count(url) > before, 60, "lines in the engine")
        write(1500)
    with running(command, log) as shipper:
        write(500)  # while the engine is down
        with opensearch(home, port) as url:
            until(
                lambda: count(url) >= len(written), 120, f"{len(written)} lines, not {count(url)}"
            )
            assert shipper.poll() is None
            found = stored(url)
    times = {name: event.pop("@timestamp") for name, event in found.items()}
    assert times == {name: f"{event.pop('@timestamp')[:-1]}000Z" for name, event in written.items()}
    assert found == written


def collector() -> Path:
    """Build the OpenTelemetry Collector with the components that read, or skip the test."""
    return go_program(PROJECT / "tests" / "support" / "collector", ".")


def plain(value: Any) -> Any:
    """Return a value of OTLP in JSON as a plain one."""
    ((kind, given),) = value.items()
    if kind == "kvlistValue":
        return {each["key"]: plain(each["value"]) for each in given.get("values", ())}
    if kind == "arrayValue":
        return [plain(each) for each in given.get("values", ())]
    return int(given) if kind == "intValue" else given


def records(body: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the document's id and the document of each log record of a request."""
    for resource in json.loads(body)["resourceLogs"]:
        for record in resource["scopeLogs"][0]["logRecords"]:
            attributes = {each["key"]: plain(each["value"]) for each in record["attributes"]}
            yield attributes["elasticsearch.document_id"], plain(record["body"])


@pytest.mark.timeout(900)  # the first run fetches and compiles modules
def test_the_collector_reads_each_line(tmp_path: Path) -> None:
    """It and its server are killed. The exporter is OTLP's, as Elasticsearch's is missing."""
    file = tmp_path / "events.ndjson"
    (tmp_path / "store").mkdir()
    web = Web(status(200, b"{}", Content_Type="application/json"))
    try:
        changes = {
            "/var/log/sessiond/events.ndjson": str(file),
            "/var/lib/otelcol": f"{tmp_path}/store",
        }
        config = configuration("otel-collector.yaml", tmp_path, changes)
        settings = yaml.safe_load(config.read_text())
        settings["exporters"] = {
            "otlp_http": {
                "endpoint": f"http://127.0.0.1:{web.port}",
                "encoding": "json",
                "retry_on_failure": {"initial_interval": "100ms", "max_interval": "1s"},
                "sending_queue": settings["exporters"]["elasticsearch"]["sending_queue"],
            }
        }
        settings["service"]["pipelines"]["logs"]["exporters"] = ["otlp_http"]
        config.write_text(yaml.safe_dump(settings))
        command = [str(collector()), "--config", f"file:{config}"]
        written: dict[str, Any] = {}

        def received() -> dict[str, Any]:
            return dict(record for body in list(web.bodies) for record in records(body))

        def write(number: int) -> None:
            events = numbered(len(written), number)
            written.update(events)
            append(file, events)

        for _ in range(2):
            write(500)
            before = len(web.bodies)
            with running(command, tmp_path / "log"):
                until(lambda before=before: len(web.bodies) > before, 60, "lines at the server")
        web.kill()
        with running(command, tmp_path / "log"):
            write(500)
            time.sleep(1)  # while the server is down
            web.start()
            until(lambda: len(received()) >= len(written), 60, "all lines at the server")
        assert received() == written
    finally:
        web.close()
