"""A simulated fleet, an engine that is killed: each line of each host is stored once.

As for the other tests of real engines, SESSIOND_ENGINES=1 enables it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.engines import count, free_port, opensearch
from support.fleet import HOSTS, delivered, senders, stream
from support.truth import until

from sessiond.engines import elasticsearch

LINES = 40  # of each host


def test_hosts_have_their_own_ids() -> None:
    """The lines of hosts differ in all ids and names, and in nothing else."""
    recorded, first, second = stream(1), stream(1), stream(2)
    assert first == recorded
    assert len({line for each in (first, second) for line in each}) == 2 * len(first)
    assert [len(line) for line in first] == [len(line) for line in second]
    assert not [line for line in second if b"web1" in line or b"lOcVr6UYKV" in line]


@pytest.mark.timeout(900)  # the first run fetches 90 MB
def test_a_fleet_survives_a_killed_engine(tmp_path: Path) -> None:
    """Lines wait in the spools of 200 hosts, which then send all at once."""
    home, port = tmp_path / "node", free_port()
    home.mkdir()
    streams = {host: stream(host)[:LINES] for host in range(HOSTS)}
    total = HOSTS * LINES
    with senders(f"http://127.0.0.1:{port}", tmp_path, streams) as outputs:
        with opensearch(home, port) as url:
            list(elasticsearch.install(elasticsearch.Engine(url), keep_days=1))
            for host, lines in streams.items():
                outputs[host].write(lines[: LINES // 2])
            until(lambda: delivered(outputs.values()) > total // 8, 120, "lines in the engine")
        for host, lines in streams.items():
            outputs[host].write(lines[LINES // 2 :])
        with opensearch(home, port) as url:
            until(lambda: delivered(outputs.values()) == total, 240, "all lines in the engine")
            assert count(url) == total
            assert not any(output.status()["dropped"] for output in outputs.values())
