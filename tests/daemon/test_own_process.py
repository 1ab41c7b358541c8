"""The daemon detects that its own process is stopped or traced."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.daemon.own_process import MAX_GAP, OwnProcess
from sessiond.units import Monotonic


@pytest.fixture
def own(tmp_path: Path) -> OwnProcess:
    for name, data in {
        "self/status": "Name:\tpython\nTracerPid:\t0\nUid:\t0\n",
        "77/comm": "gdb\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(data)
    return OwnProcess(Monotonic(100.0), 5.0, proc=tmp_path)


def test_looks_of_every_second_find_nothing(own: OwnProcess) -> None:
    """A late check is not a stop."""
    assert own.check(Monotonic(101.0), 5.1) == []
    assert own.check(Monotonic(101.0 + MAX_GAP), 5.2) == []


def test_a_stopped_process_misses_time(own: OwnProcess) -> None:
    """It is reported once: the next check is on time again."""
    (trouble,) = own.check(Monotonic(130.0), 5.1)
    assert (trouble.what, trouble.since) == ("daemon", 30.0)
    assert "did not run for 30 s" in trouble.reason
    assert own.check(Monotonic(131.0), 5.2) == []


def test_a_busy_process_is_told_from_a_stopped_one(own: OwnProcess) -> None:
    """A busy process has used CPU time."""
    (trouble,) = own.check(Monotonic(110.0), 14.0)
    assert "busy for 10 s" in trouble.reason


def test_a_debugger_is_named(own: OwnProcess, tmp_path: Path) -> None:
    """The debugger is reported as long as it is attached."""
    (tmp_path / "self/status").write_text("Name:\tpython\nTracerPid:\t77\nUid:\t0\n")
    for clock in (101.0, 102.0):
        (trouble,) = own.check(Monotonic(clock), 5.0)
        assert trouble.reason == "process 77 (gdb) traces the daemon"
    (tmp_path / "self/status").unlink()
    assert own.check(Monotonic(103.0), 5.0) == []
