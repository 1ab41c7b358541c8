"""The daemon beside a real auditd, which keeps its socket, its settings and its log."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.auditd import RULES, Auditd
from support.daemon import Daemon
from support.kernel import AuditState
from support.stream import Stream, agree, inconsistent, losses, malformed
from support.truth import Truth, images, read, until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def auditd(audit_state: AuditState, tmp_path: Path) -> Iterator[Auditd]:
    """A running auditd with its own rules."""
    daemon = Auditd(tmp_path / "auditd")
    try:
        daemon.load()
        yield daemon
    finally:
        daemon.stop()
        audit_state.restore()


def test_both_receive_everything(auditd: Auditd, make_daemon: MakeDaemon, truth: Truth) -> None:
    """By default sessiond listens beside it: both receive every exec, and auditd's state stays."""
    before = AuditState.read()
    daemon = make_daemon().start()
    assert daemon.status()["role"] == "multicast"
    assert AuditState.read() == before
    file = truth.file()
    for way in ("spawn", "chain", "daemon", "signal", "arguments", "setsid"):
        truth.run_into(file, way, 20)
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))
    assert losses(daemon.documents()) == []
    pids = [b" pid=%d " % image.pid for image in images(read(file))]
    until(lambda: all(pid in auditd.log.read_bytes() for pid in pids), 10, "auditd's records")
    assert daemon.stop() == 0
    assert AuditState.read() == before


def test_its_rules_are_not_ours(auditd: Auditd, make_daemon: MakeDaemon) -> None:
    """Configured rules that can't be loaded beside another daemon are reported."""
    daemon = make_daemon(
        {"auditd": {"audit_rules": "-a always,exit -F arch=b64 -S mkdir -k mine"}}
    ).start()
    assert len(AuditState.read().rules) == len(RULES)
    assert "rules" in daemon.log.read_text()
    asked = daemon.command("rules")
    assert asked.returncode == 1


def test_an_auditd_that_starts_later_is_refused_or_told(
    make_daemon: MakeDaemon, truth: Truth, tmp_path: Path
) -> None:
    """While sessiond is the audit daemon, another one can't take over; the stream goes on."""
    daemon = make_daemon().start()
    refused = subprocess.run(
        ["/usr/sbin/auditd", "-n", "-s", "nochange"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert refused.returncode != 0
    assert AuditState.read().owner == daemon.pid
    file = truth.file()
    truth.run_into(file, "spawn", 10)
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
