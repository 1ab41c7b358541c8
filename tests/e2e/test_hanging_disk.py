"""A hanging disk under output, spool and logs: the daemon continues to read, and reports it.

Requires root, and no other audit daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, value
from support.output import Ext4, ext4
from support.stream import Stream, agree, inconsistent
from support.truth import Truth, read, until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

HANGS = 8.0  # seconds; longer than the daemon's timeout


def test_a_disk_that_hangs_loses_nothing(
    make_daemon: MakeDaemon, truth: Truth, tmp_path: Path
) -> None:
    """Lines wait in memory, the kernel's backlog stays empty; all lines arrive afterwards."""
    with ext4(tmp_path / "image", tmp_path / "disk", 256 << 20) as disk:
        directory = disk.path / "sessiond"
        directory.mkdir()
        settings = {"output": {"file": {"path": str(directory / "events.ndjson")}}}
        daemon = make_daemon({**settings, "state_directory": str(directory)})
        daemon.output = directory / "events.ndjson"
        daemon.start()
        try:
            _storm_while_hanging(daemon, disk, truth)
        finally:
            daemon.end()  # before its disk disappears
        assert daemon.wait() == 0


def _storm_while_hanging(daemon: Daemon, disk: Ext4, truth: Truth) -> None:
    lost = daemon.status()["ledger"]["kernel"]["lost"]
    files = []
    with disk.hanging():
        began = time.monotonic()
        while time.monotonic() < began + HANGS:
            files.append(truth.file())
            truth.run_into(files[-1], "spawn", 100)
            status = daemon.status()
            assert status["ledger"]["balanced"], status["ledger"]
            assert status["kernel"]["backlog"] < 500
        (output,) = status["outputs"].values()
        assert (output["healthy"], status["health"]["state"]) == (False, "degraded")
        assert "does not answer" in output["reason"]
        assert output["queued"] >= 200 * len(files)
    until(lambda: daemon.find(event__action="sessiond-recovered"), 20, "a healthy output")
    daemon.settle()
    for file in files:
        agree(Stream(daemon).untrue(read(file), file))
    agree(inconsistent(daemon.documents()))
    (degraded,) = daemon.find(event__action="sessiond-degraded")
    assert "does not answer" in value(degraded, "message")
    status = daemon.status()
    assert status["ledger"]["kernel"]["lost"] == lost
    assert status["health"]["state"] == "healthy"
