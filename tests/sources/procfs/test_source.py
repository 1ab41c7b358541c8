"""The source of last resort."""

from __future__ import annotations

import os

from sessiond.process.events import Observed
from sessiond.sources import open_source
from sessiond.sources.procfs.reader import Procfs


def test_tells_a_snapshot_once() -> None:
    """The first drain has the processes that are there; after that nothing comes by itself."""
    source, declined = open_source("procfs", Procfs())
    pids = [event.facts.pid for event in source.drain() if isinstance(event, Observed)]
    assert os.getpid() in pids
    assert source.drain() == []
    assert (source.name, source.exact, source.fileno(), declined) == ("procfs", False, None, [])
    assert os.getpid() in [
        event.facts.pid for event in source.resnapshot() if isinstance(event, Observed)
    ]
    source.close()


def test_is_what_is_left_when_the_connector_died() -> None:
    """Below the proc connector there is only procfs, and nothing better is tried again."""
    source, declined = open_source("auto", Procfs(), after="proc_connector")
    assert (source.name, declined) == ("procfs", [])
    source.close()
