"""``auditd.enabled: false``: every process comes from the tracer, and audit stays unchanged."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, value
from support.kernel import AuditState
from support.stream import agree, inconsistent, losses, malformed
from support.truth import Truth, ends, images

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

NETLINK_AUDIT = "9"


def audit_sockets(pid: int) -> list[str]:
    """The inodes of the audit sockets that a process has open."""
    table = Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]
    audit = {line.split()[-1] for line in table if line.split()[1] == NETLINK_AUDIT}
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.removeprefix("socket:[").rstrip("]") in audit]


@pytest.mark.parametrize("backend", ["ebpf", "proc_connector"])
def test_every_process_is_written_and_audit_is_unchanged(
    make_daemon: MakeDaemon, truth: Truth, backend: str
) -> None:
    """Each exec, setsid and end is written once; there is no socket, no rule, no setting."""
    before = AuditState.read()
    daemon = make_daemon(
        {"auditd": {"enabled": False}, "session_metadata": {"backend": backend}}
    ).start()
    assert AuditState.read() == before
    assert audit_sockets(daemon.pid) == []
    told = truth.run("spawn", 100) + truth.run("setsid", 20)
    documents = daemon.settle()
    actions = Counter((value(each, "process.pid"), each["event"]["action"]) for each in documents)
    for process in images(told):
        assert actions[process.pid, "exec"] == 1
    for process in ends(told):
        assert actions[process.pid, "end"] == 1
    assert sum(action == "setsid" for _, action in actions) >= 20
    status = daemon.status()
    assert (status["role"], status["rules"]) == ("off", 0)
    assert status["health"]["problems"] == []
    assert status["ledger"]["balanced"]
    agree(inconsistent(documents))
    agree(malformed(daemon))
    assert losses(documents) == []
    assert daemon.stop() == 0
    assert AuditState.read() == before


def test_what_a_crash_left_of_audit_goes(make_daemon: MakeDaemon) -> None:
    """The last run's rules are removed, because their records would have no reader."""
    daemon = make_daemon().start()
    daemon.stop(signal.SIGKILL)
    assert AuditState.read().rules
    daemon.configure({"auditd": {"enabled": False}})
    daemon.start()
    assert AuditState.read().rules == ()
    assert AuditState.read().owner == 0


def test_without_a_tracer_the_start_fails(make_daemon: MakeDaemon) -> None:
    """procfs alone would report nothing, and look healthy."""
    daemon = make_daemon({"auditd": {"enabled": False}})
    hide = "exec setpriv --bounding-set=-bpf,-sys_admin,-net_admin,-perfmon --inh-caps=-all"
    daemon.prefix = ["unshare", "-n", "/bin/sh", "-c", hide + ' "$@"', "sh"]
    daemon.spawn()
    assert daemon.wait() == 5
    assert "auditd.enabled" in daemon.log.read_text()


def test_a_pattern_that_no_file_matches_is_named(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """The log of the start, and check, name the pattern."""
    pattern = f"{tmp_path}/nothing/*.rules"
    daemon = make_daemon({"auditd": {"audit_rule_files": [pattern]}}).start()
    assert pattern in daemon.log.read_text()
    assert pattern in daemon.command("check").stdout
