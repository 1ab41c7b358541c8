"""Real engines for the tests of integrations/, enabled by SESSIOND_ENGINES=1.

OpenSearch consists of jars from Maven Central (90 MB), cached in ~/.cache/sessiond or
XDG_CACHE_HOME.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.manager import PROJECT
from support.replayed import replayed
from support.scripted import documents

from sessiond.engines import templates

NODE = PROJECT / "integrations" / "elastic" / "node"


def lines() -> list[dict[str, Any]]:
    """Return real lines of the output: of a replayed log, and golden documents."""
    log = (PROJECT / "tests" / "data" / "debian-12-linux-6.18-stig.log").read_bytes()
    found = documents(replayed(log)[0])
    for file in sorted((PROJECT / "tests" / "ecs" / "golden").glob("*.json")):
        for number, document in enumerate(json.loads(file.read_text("utf-8"))):
            event = {"id": f"{file.stem}-{number}", **document.get("event", {})}
            found.append({"@timestamp": "2026-05-01T00:00:00.000000Z", **document, "event": event})
    return found


def cache() -> Path:
    """Return the directory of the cache, outside of the repository."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sessiond"


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _jars() -> Path:
    """Fetch the jars once; skip the test with the reason if that fails."""
    if os.environ.get("SESSIOND_ENGINES") != "1":
        pytest.skip("SESSIOND_ENGINES=1 fetches and starts the real engine")
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    pom = (NODE / "pom.xml").read_bytes()
    jars = cache() / f"opensearch-{hashlib.sha256(pom).hexdigest()[:12]}"
    if not jars.exists():
        fetched = jars.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            ["mvn", "-q", "-B", "-f", NODE / "pom.xml", "dependency:copy-dependencies",
             f"-DoutputDirectory={fetched}"],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"Maven Central: {(done.stdout + done.stderr)[-300:]}")
        fetched.rename(jars)
    return jars


def go_program(sources: Path, package: str) -> Path:
    """Compile a package in the module of ``sources`` once, or skip the test."""
    if os.environ.get("SESSIOND_ENGINES") != "1" or shutil.which("go") is None:
        pytest.skip("needs go, and SESSIOND_ENGINES=1")
    name = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources.iterdir())))
    program = cache() / f"{sources.name}-{name.hexdigest()[:12]}"
    if not program.exists():
        command = ["go", "build", "-mod=readonly", "-o", str(program), package]
        done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"go: {done.stderr[-300:]}")
    return program


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


@contextmanager
def opensearch(home: Path, port: int | None = None) -> Iterator[str]:
    """Run one node of OpenSearch with its data in ``home``; yield its URL. Kill it at the end."""
    jars, port = _jars(), port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["java", "-Xms512m", "-Xmx512m", "-cp", f"{jars}/*", str(NODE / "OneNode.java")]
    command += [str(home), str(port)]
    with running(command, home / "node.log") as node:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{url}/_cluster/health", timeout=5):
                    break
            except OSError:
                log_text = (home / "node.log").read_text("utf-8", "replace")
                assert node.poll() is None, log_text[-2000:]
                assert time.monotonic() < deadline, log_text[-2000:]
                time.sleep(0.2)
        yield url


def ask(url: str, path: str, body: dict[str, Any]) -> Any:
    """Post a request to an engine and return its answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def count(url: str) -> int:
    """Return how many documents the data stream has."""
    ask(url, f"{templates.DATA_STREAM}/_refresh", {})
    found: int = ask(url, f"{templates.DATA_STREAM}/_count", {})["count"]
    return found


def merged_size(url: str) -> int:
    """Merge the data stream to one segment and return its size in bytes."""
    ask(url, f"{templates.DATA_STREAM}/_forcemerge?max_num_segments=1&flush=true", {})
    # The segments before the merge are deleted only now.
    ask(url, f"{templates.DATA_STREAM}/_refresh", {})
    ask(url, f"{templates.DATA_STREAM}/_flush?force=true", {})
    with urllib.request.urlopen(
        f"{url}/{templates.DATA_STREAM}/_stats/store", timeout=60
    ) as answer:
        size: int = json.load(answer)["_all"]["primaries"]["store"]["size_in_bytes"]
    return size
