"""Changes of the kernel's audit state are reported within two seconds, and reverted."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import WITHOUT_TRACER, Daemon, Document, value
from support.kernel import AuditState, auditctl
from support.stream import agree, malformed
from support.truth import Truth, until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

# As sitecustomize.py in the daemon: from SIGUSR1 on audit records are read and dropped.
STUCK = """
import signal

def stick(*_):
    from sessiond.pipeline.pipeline import Pipeline
    Pipeline.feed_audit = lambda *_, **__: None

signal.signal(signal.SIGUSR1, stick)
"""


# As sitecustomize.py in the daemon: SIGUSR1 ends its registration without its knowledge.
UNREGISTERED = """
import os, signal

def leave(*_):
    from sessiond.audit.kernel.client import AuditClient
    with AuditClient.open() as client:
        client.unregister()

signal.signal(signal.SIGUSR1, leave)
"""
# Then it stops before it can detect that.
STOPPED = """
def stop(*_):
    leave()
    os.kill(os.getpid(), signal.SIGSTOP)

signal.signal(signal.SIGUSR1, stop)
"""


def degraded(daemon: Daemon, what: str, seconds: float = 4) -> Document:
    """Wait for the event that reports a problem of ``what``."""
    return daemon.await_one(seconds, event__action="sessiond-degraded", sessiond__health__what=what)


def recovered(daemon: Daemon, what: str, seconds: float = 10) -> Document:
    """Wait for the event that reports the end of the problem of ``what``."""
    return daemon.await_one(
        seconds, event__action="sessiond-recovered", sessiond__health__what=what
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (["-D"], "audit rules"),
        (["-e", "0"], "audit enabled"),
        (["-b", "100"], "audit backlog_limit"),
        (["-r", "5000"], "audit rate_limit"),
        (["-f", "1"], "audit failure"),
        (["--backlog_wait_time", "100"], "audit backlog_wait_time"),
    ],
)
def test_changes_by_others_are_reported_and_reverted(
    make_daemon: MakeDaemon, truth: Truth, change: list[str], what: str
) -> None:
    """The event names change, time and author; the state is restored."""
    daemon = make_daemon().start()
    ours = AuditState.read()
    auditctl(*change)
    told = degraded(daemon, what)
    assert value(told, "sessiond.health.by.process") == "auditctl"
    assert told["event"]["start"] < told["event"]["end"]
    recovered(daemon, what)
    assert AuditState.read() == ours
    assert daemon.status()["health"]["problems"] == []
    truth.run("spawn", 3)
    assert len([each for each in daemon.settle() if each["event"]["action"] == "exec"]) >= 3
    agree(malformed(daemon))


@pytest.mark.parametrize(
    ("hide", "show"),
    [
        (["-e", "0"], ["-e", "1"]),
        (
            ["-A", "exclude,always", "-F", "msgtype=CONFIG_CHANGE"],
            ["-d", "exclude,always", "-F", "msgtype=CONFIG_CHANGE"],
        ),
    ],
    ids=["audit off", "excluded"],
)
def test_rules_that_go_without_a_record_are_missed(
    make_daemon: MakeDaemon, hide: list[str], show: list[str]
) -> None:
    """A change of rules without a record is reported and repaired within two seconds."""
    daemon = make_daemon().start()
    ours = AuditState.read()
    auditctl(*hide)
    try:
        auditctl("-d", "always,exit", *ours.rules[-1].split()[2:])
        degraded(daemon, "audit rules", 3.5)
    finally:
        auditctl(*show)
    recovered(daemon, "audit rules")
    assert sorted(AuditState.read().rules) == sorted(ours.rules)


@pytest.mark.parametrize(
    "rule",
    [
        "-A never,exit -F arch=b64 -S execve",
        "-A never,exit -F arch=b64 -S setsid -F uid=4242",
        "-a never,task",
        "-a exclude,always -F msgtype=CONFIG_CHANGE",
        "-a exclude,always -F uid=4242",
    ],
)
def test_a_rule_that_withholds_records_is_reported_at_once(
    make_daemon: MakeDaemon, rule: str
) -> None:
    """Nobody needs to be hidden by it yet; the rule stays, until a reload accepts it."""
    daemon = make_daemon({"canary": {"interval": 0}}).start()
    auditctl(*rule.split())
    try:
        told = degraded(daemon, "audit exclusion", 2.5)
        if "CONFIG_CHANGE" not in rule:  # which withholds the record of its own addition
            assert value(told, "sessiond.health.by.process") == "auditctl"
        time.sleep(1.5)
        assert any("withholds" in each for each in daemon.status()["health"]["problems"])
        daemon.reload()
        recovered(daemon, "audit exclusion", 2.5)
    finally:
        auditctl("-d", *rule.split()[1:])


def test_without_reconcile_changes_are_only_reported(make_daemon: MakeDaemon) -> None:
    """With auditd.reconcile: false a foreign change stays, and so does the problem."""
    daemon = make_daemon({"auditd": {"reconcile": False}}).start()
    auditctl("-r", "5000")
    degraded(daemon, "audit rate_limit")
    time.sleep(1.5)
    assert AuditState.read().status["rate_limit"] == "5000"
    assert any("rate_limit" in each for each in daemon.status()["health"]["problems"])
    auditctl("-r", "0")
    recovered(daemon, "audit rate_limit")


@pytest.fixture
def auditd(audit_state: AuditState) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A function that starts the distribution's audit daemon, which ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(
                ["auditd", "-n", "-s", "nochange"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            each.terminate()
        each.wait(10)


def test_another_audit_daemon_is_reported(
    make_daemon: MakeDaemon, auditd: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """The kernel refuses the attempt, and it is reported."""
    daemon = make_daemon().start()
    rival = auditd()
    told = degraded(daemon, "audit rival")
    assert f"pid {rival.pid}" in value(told, "sessiond.health.reason")
    assert rival.wait(10) != 0
    assert AuditState.read().owner == daemon.pid
    recovered(daemon, "audit rival")


def test_sessiond_replaces_an_audit_daemon_that_has_ended(
    make_daemon: MakeDaemon, auditd: Callable[[], subprocess.Popen[bytes]], truth: Truth
) -> None:
    """A listener beside auditd becomes the audit daemon after its exit, and reports the gap."""
    owner = auditd()
    until(lambda: AuditState.read().owner == owner.pid, 10, "auditd's registration")
    daemon = make_daemon().start()
    assert daemon.status()["role"] == "multicast"
    owner.terminate()
    owner.wait(10)
    told = degraded(daemon, "audit owner")
    assert told["event"]["start"] < told["event"]["end"]
    recovered(daemon, "audit owner")
    assert AuditState.read().owner == daemon.pid
    assert daemon.status()["role"] == "unicast"
    truth.run("spawn", 3)
    daemon.await_one(event__action="exec", process__name="truth")
    assert daemon.status()["ledger"]["balanced"]


def test_a_listener_reports_the_end_of_the_audit_daemon(
    make_daemon: MakeDaemon, auditd: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """With socket_type multicast the missing audit daemon is a problem until there is a new one."""
    owner = auditd()
    until(lambda: AuditState.read().owner == owner.pid, 10, "auditd's registration")
    daemon = make_daemon({"auditd": {"socket_type": "multicast"}}).start()
    owner.terminate()
    owner.wait(10)
    degraded(daemon, "audit owner")
    assert daemon.status()["role"] == "multicast"
    auditd()
    recovered(daemon, "audit owner")


def test_a_lost_registration_is_made_again(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """The kernel no longer sends records: sessiond registers again, and reports the gap."""
    (tmp_path / "sitecustomize.py").write_text(UNREGISTERED)
    daemon = make_daemon(PYTHONPATH=str(tmp_path)).start()
    daemon.send(signal.SIGUSR1)
    told = degraded(daemon, "audit owner")
    assert told["event"]["start"] < told["event"]["end"]
    recovered(daemon, "audit owner")
    assert AuditState.read().owner == daemon.pid


def test_a_daemon_that_replaces_sessiond_is_replaced_after_its_end(
    make_daemon: MakeDaemon, auditd: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """The event names the other daemon; sessiond listens, and replaces it after its exit."""
    # The kernel never replaces a living reader, not even one that does not read.
    (tmp_path / "sitecustomize.py").write_text(UNREGISTERED + STOPPED)
    daemon = make_daemon(PYTHONPATH=str(tmp_path)).start()
    daemon.send(signal.SIGUSR1)
    try:
        until(lambda: AuditState.read().owner == 0, 5, "no audit daemon")
        rival = auditd()
        until(lambda: AuditState.read().owner == rival.pid, 10, "auditd's registration")
    finally:
        daemon.send(signal.SIGCONT)
    told = degraded(daemon, "audit owner")
    assert f"pid {rival.pid}" in value(told, "sessiond.health.reason")
    recovered(daemon, "audit owner")
    assert daemon.status()["role"] == "multicast"
    rival.terminate()
    rival.wait(10)
    until(lambda: daemon.status()["role"] == "unicast", 10, "our registration")
    assert AuditState.read().owner == daemon.pid
    assert daemon.status()["ledger"]["balanced"]


def test_a_stuck_pipeline_starves_the_watchdog(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """The loop runs, but no event passes: the watchdog is not notified."""
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    settings = {"canary": {"interval": "1s", "timeout": "2s"}}
    environment = {"WATCHDOG_USEC": "1000000", "PYTHONPATH": str(tmp_path)}
    daemon = make_daemon(settings, **environment).start()
    until(lambda: daemon.status()["canary"]["seen"] >= 1, 10, "a canary that came back")
    daemon.send(signal.SIGUSR1)
    degraded(daemon, "canary", 30)
    until(lambda: not daemon.is_fed(2.5), 20, "a watchdog that is not fed any more")


def test_a_canary_passes_the_whole_path(make_daemon: MakeDaemon) -> None:
    """The canary is in the output, marked, and counted; the watchdog is notified."""
    daemon = make_daemon({"canary": {"interval": "1s"}}, WATCHDOG_USEC="1000000").start()
    document = daemon.await_one(event__action="exec", sessiond__canary=True)
    assert value(document, "process.parent.pid") == daemon.pid
    daemon.await_one(event__action="end", sessiond__canary=True)
    until(lambda: daemon.status()["canary"]["seen"] >= 2, 10, "canaries that came back")
    daemon.wait_notified("WATCHDOG=1")


def test_a_canary_that_a_rule_hides_costs_no_restart(make_daemon: MakeDaemon) -> None:
    """The rule is named; a restart would not help, so the watchdog is still notified."""
    settings = {"canary": {"interval": "1s", "timeout": "2s"}}
    daemon = make_daemon(settings, WATCHDOG_USEC="1000000").start()
    until(lambda: daemon.status()["canary"]["seen"] >= 1, 10, "a canary that came back")
    hiding = ["never,exit", "-F", "arch=b64", "-S", "execve", "-F", "exe=/usr/bin/true"]
    auditctl("-A", *hiding)
    try:
        degraded(daemon, "audit events", 30)
        for problem in daemon.status()["health"]["problems"]:
            assert "exe=/usr/bin/true" in problem
        assert daemon.is_fed(2.5)
    finally:
        auditctl("-d", *hiding)
    recovered(daemon, "audit events", 30)


def test_a_dead_tracer_is_replaced(make_daemon: MakeDaemon, truth: Truth, tmp_path: Path) -> None:
    """When the kernel's programs are gone, the next source takes over and is reported."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TRACER)
    settings = {"canary": {"interval": "1s", "timeout": "2s"}}
    daemon = make_daemon(settings, PYTHONPATH=str(tmp_path)).start()
    until(lambda: daemon.status()["canary"]["seen"] >= 1, 10, "a canary that came back")
    # The descriptors in the service manager's store would keep the programs alive.
    daemon.wait_notified("FDNAME=tracer-00")
    daemon.send(signal.SIGUSR1)
    told = degraded(daemon, "process source", 15)
    assert "going on with proc_connector" in value(told, "sessiond.health.reason")
    assert daemon.status()["source"] == "proc_connector"
    truth.run("spawn", 3)
    document = daemon.await_one(event__action="exec", process__name="truth")
    assert document["event"]["provider"] == ["auditd", "proc_connector"]


def test_detached_programs_are_missed_at_once(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """It takes no self-test to see that another process has closed what keeps them attached."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_TRACER)
    daemon = make_daemon({"canary": {"interval": 0}}, PYTHONPATH=str(tmp_path)).start()
    daemon.send(signal.SIGUSR1)
    told = degraded(daemon, "process source")
    assert "detached" in value(told, "sessiond.health.reason")
    assert daemon.status()["source"] == "proc_connector"


@pytest.mark.parametrize("name", ["status.sock", "log.0", "last-batch"])
def test_a_file_of_the_runtime_directory_is_missed(daemon: Daemon, name: str) -> None:
    """The socket is bound again; without the log a kill would lose events until the next start."""
    what = "status socket" if name == "status.sock" else "what a restart needs"
    (daemon.directory / "run" / name).unlink()
    degraded(daemon, what, 2.5)
    if name == "status.sock":
        recovered(daemon, what, 2.5)
        assert daemon.status()["health"]["problems"] == []
