"""Two spawners without pauses, and a user whose failing execs flood the kernel's backlog.

``SESSIOND_STORM`` is the duration in seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.attacks import Attacks
from support.auditd import Auditd
from support.daemon import Daemon, value
from support.kernel import AuditState
from support.stream import Stream, agree, inconsistent, losses
from support.truth import Truth, read

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

MakeDaemon = Callable[..., Daemon]

SECONDS = int(os.environ.get("SESSIOND_STORM", "4"))
# The ways in which a spawner creates processes, with the number of each.
WAYS = (("spawn", 100), ("setsid", 50), ("chain", 20), ("code", 50), ("signal", 20))


class Spawner(threading.Thread):
    """Creates processes without pauses, which record their own attributes."""

    def __init__(self, truth: Truth, until: float) -> None:
        """Take when to stop, in monotonic seconds."""
        super().__init__()
        self.files: list[Path] = []
        self._truth = truth
        self._until = until

    def run(self) -> None:
        """Start one run after the other."""
        while time.monotonic() < self._until:
            for way, count in WAYS:
                file = self._truth.file()
                self._truth.run_into(file, way, count)
                self.files.append(file)


def storm(truth: Truth, attacks: Attacks) -> list[Path]:
    """Run two spawners and the flood; return the processes' own records."""
    end = time.monotonic() + SECONDS
    directories = [truth.directory / name for name in ("one", "two")]
    for directory in directories:
        directory.mkdir(exist_ok=True)
    spawners = [Spawner(Truth(truth.program, directory), end) for directory in directories]
    with attacks.start("failing", SECONDS):
        for spawner in spawners:
            spawner.start()
        for spawner in spawners:
            spawner.join()
    return [file for spawner in spawners for file in spawner.files]


def hold(daemon: Daemon, files: list[Path]) -> Counter[str]:
    """Compare the stream with the processes' own records; return the numbers of lines."""
    documents = daemon.settle(60)
    stream = Stream(daemon)
    agree(stream.untrue(told for file in files for told in read(file)))
    agree(inconsistent(documents))
    for loss in losses(documents):  # of records; no process is lost
        assert value(loss, "sessiond.loss.hop") in (None, "kernel", "socket")
    assert daemon.status()["ledger"]["balanced"]
    return Counter(each["event"]["action"] for each in documents)


@pytest.fixture
def files() -> Iterator[list[Path]]:
    """The files of truth, which are large; they are removed after the test."""
    made: list[Path] = []
    yield made
    for file in made:
        file.unlink()


@pytest.mark.parametrize("rules", ["built-in", "none"])
def test_nothing_is_lost(
    make_daemon: MakeDaemon, truth: Truth, attacks: Attacks, files: list[Path], rules: str
) -> None:
    """This holds as the audit daemon with the built-in rules, and with only the tracer."""
    daemon = make_daemon({"auditd": {"audit_rules": ""}} if rules == "none" else {}).start()
    files += storm(truth, attacks)
    lines = hold(daemon, files)
    assert lines["exec"] > 100


def test_nothing_is_lost_beside_auditd(
    audit_state: AuditState,
    make_daemon: MakeDaemon,
    truth: Truth,
    attacks: Attacks,
    files: list[Path],
    tmp_path: Path,
) -> None:
    """It listens by multicast while auditd's rules flood the socket with failing execs."""
    auditd = Auditd(tmp_path / "auditd")
    try:
        auditd.load()
        daemon = make_daemon().start()
        assert daemon.status()["role"] == "multicast"
        files += storm(truth, attacks)
        lines = hold(daemon, files)
        assert lines["exec"] > 100
        daemon.stop()
    finally:
        auditd.stop()
        audit_state.restore()


def test_the_flood_is_large_enough(attacks: Attacks) -> None:
    """The flood consists of tens of thousands of failing execs."""
    with attacks.start("failing", 3) as flood:
        time.sleep(0.5)
        stat = Path(f"/proc/{flood.pid}/stat").read_text().rsplit(")", 1)[1].split()
        assert int(stat[12]) > 10  # ticks of system time
    assert flood.returncode == 0
