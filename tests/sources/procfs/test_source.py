"""The last-resort source."""

from __future__ import annotations

import os

from sessiond.process.events import Observed
from sessiond.sources import open_source
from sessiond.sources.procfs.reader import Procfs


def test_returns_a_snapshot_once() -> None:
    """The first drain has the living processes; later drains have none."""
    source, declined = open_source("procfs", Procfs())
    pids = [event.facts.pid for event in source.drain() if isinstance(event, Observed)]
    assert os.getpid() in pids
    assert source.drain() == []
    assert (source.name, source.exact, source.fileno(), declined) == ("procfs", False, None, [])
    assert os.getpid() in [
        event.facts.pid for event in source.resnapshot() if isinstance(event, Observed)
    ]
    source.close()


def test_replaces_a_failed_connector() -> None:
    """After the proc connector only procfs remains; better sources are not tried again."""
    source, declined = open_source("auto", Procfs(), after="proc_connector")
    assert (source.name, declined) == ("procfs", [])
    source.close()
