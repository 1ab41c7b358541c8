"""The daemon's HTTP output and a real engine that is killed: each event is indexed once.

As for the other tests of real engines, SESSIOND_ENGINES=1 enables it.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.engines import free_port, opensearch
from support.truth import Truth, until

from sessiond.engines import elasticsearch, templates

MakeDaemon = Callable[..., Daemon]


def ids(url: str) -> list[str]:
    """Return the ids of all documents of the data stream."""
    found: list[str] = []
    after: list[Any] = []
    while True:
        query: dict[str, Any] = {
            "size": 1000,
            "_source": False,
            "sort": [{"event.sequence": "asc"}],
            **({"search_after": after} if after else {}),
        }
        request = urllib.request.Request(
            f"{url}/{templates.DATA_STREAM}/_search",
            json.dumps(query).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            hits = json.load(answer)["hits"]["hits"]
        if not hits:
            return found
        found += [hit["_id"] for hit in hits]
        after = hits[-1]["sort"]


@pytest.mark.kernel
@pytest.mark.timeout(900)  # the first run fetches 90 MB
def test_a_killed_engine_has_each_event_once(
    make_daemon: MakeDaemon, truth: Truth, tmp_path: Path
) -> None:
    """A file beside it has the expected events."""
    port = free_port()
    home = tmp_path / "node"
    home.mkdir()
    with opensearch(home, port) as url:
        list(elasticsearch.install(elasticsearch.Engine(url), keep_days=1))
        http = {"url": url, "preset": "elasticsearch", "backoff": {"init": "100ms", "max": "1s"}}
        daemon = make_daemon({"output": {"http": http}, "event": {"max_line_bytes": "32KiB"}})
        daemon.start()

        def output() -> dict[str, Any]:
            state: dict[str, Any] = daemon.status()["outputs"][
                f"{url}/{templates.DATA_STREAM}/_bulk"
            ]
            return state

        truth.run_into(truth.file(), "spawn", 300)
        until(lambda: output()["delivered"] > 300, 30, "lines in the engine")
        truth.run_into(truth.file(), "spawn", 300)
    truth.run_into(truth.file(), "spawn", 300)
    until(lambda: output()["spooled"] > 0, 20, "lines in the spool")
    with opensearch(home, port) as url:
        accepted = output()["accepted"]  # the queries cause events as well
        until(lambda: output()["delivered"] >= accepted, 60, "all lines in the engine")
        assert output()["dropped"] == 0
        assert daemon.stop() == 0  # and waiting lines are sent
        urllib.request.urlopen(
            urllib.request.Request(f"{url}/{templates.DATA_STREAM}/_refresh", method="POST")
        ).close()
        written = [document["event"]["id"] for document in daemon.documents()]
        assert sorted(ids(url)) == sorted(written)
