"""Shippers with the shipped configuration and a real engine: each line arrives, despite kills.

As for the other tests of real engines, SESSIOND_ENGINES=1 enables it. A shipper must be installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.engines import ask, count, free_port, lines, opensearch
from support.manager import PROJECT
from support.truth import until

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


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and kill it at the end."""
    with log.open("ab") as output:
        program = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield program
    finally:
        program.kill()
        program.wait()


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
