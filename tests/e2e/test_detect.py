"""The actions that sessiond's own rules detect are performed, and found."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.daemon import Daemon
from support.kernel import auditctl
from support.logins import Sshd

pytestmark = [
    pytest.mark.kernel,
]
pytest.importorskip("sigma", reason="needs pysigma, of PyPI")

MakeDaemon = Callable[..., Daemon]

# Executes a copy of a program without a name in any file system.
IN_MEMORY = """
import os
memory = os.memfd_create("hidden")
os.write(memory, open("/bin/true", "rb").read())
os.execve(memory, ["hidden"], {})
"""


def test_a_program_in_memory_and_rules_that_are_taken_away(make_daemon: MakeDaemon) -> None:
    """Both are findings; the tree shows the one that belongs to a process."""
    daemon = make_daemon().start()
    subprocess.run([sys.executable, "-c", IN_MEMORY], check=True)
    auditctl("-D")
    daemon.await_one(event__action="sessiond-degraded", sessiond__health__what="audit rules")
    daemon.await_one(event__action="exec", process__args=["hidden"])
    done = daemon.command("detect", "--json")
    assert done.returncode == 0, done.stderr
    alerts = [json.loads(line) for line in done.stdout.splitlines()]
    assert {each["rule"]["name"] for each in alerts} >= {
        "Root executed a file that no name leads to",
        "Auditing was weakened while sessiond ran",
    }
    findings = daemon.directory / "alerts.ndjson"
    findings.write_text(done.stdout)
    done = daemon.command("tree", "-f", str(daemon.output), "-f", str(findings))
    assert "hidden  ! Root executed a file that no name leads to" in done.stdout


def test_a_loss_while_a_user_is_logged_in(make_daemon: MakeDaemon, sshd: Sshd) -> None:
    """A login that floods the tracer's ring is named with what was lost."""
    daemon = make_daemon({"session_metadata": {"ring_buffer": "128KiB"}}).start()
    script = "/bin/true before; read x; for i in $(seq 300); do /bin/true; done; echo done; read x"
    login = subprocess.Popen(
        sshd.command(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert login.stdin is not None
        assert login.stdout is not None
        leader = daemon.await_one(event__action="exec", process__args=["/bin/true", "before"])
        daemon.send(signal.SIGSTOP)
        try:
            login.stdin.write("flood\n")
            login.stdin.flush()
            assert login.stdout.readline() == "done\n"
        finally:
            daemon.send(signal.SIGCONT)
        daemon.await_one(20, event__action="sessiond-lost")
    finally:
        login.communicate("end\n", timeout=30)
    done = daemon.command("detect", "--json")
    assert done.returncode == 0, done.stderr
    alerts = [json.loads(line) for line in done.stdout.splitlines()]
    title = "Events were lost while a user was logged in"
    found = {each["process"]["entity_id"] for each in alerts if each["rule"]["name"] == title}
    entry = leader["process"]["entry_leader"]["entity_id"]
    assert found == {entry}
    assert "Events were lost" in {each["rule"]["name"] for each in alerts}
    findings = daemon.directory / "alerts.ndjson"
    findings.write_text(done.stdout)
    done = daemon.command("tree", entry, "-f", str(daemon.output), "-f", str(findings))
    (pinned,) = (line for line in done.stdout.splitlines() if f"! {title}" in line)
    assert "/bin/true before; read x" in pinned


def test_a_login_user_that_is_set_anew(make_daemon: MakeDaemon, sshd: Sshd) -> None:
    """Otherwise later actions of a login would be attributed to another user."""
    daemon = make_daemon().start()
    sshd.login("/bin/true before; :")
    sshd.login("echo 4711 >/proc/self/loginuid; /bin/true after; :")
    daemon.await_one(event__action="exec", process__args=["/bin/true", "after"])
    done = daemon.command("detect", "--json")
    assert done.returncode == 0, done.stderr
    alerts = [json.loads(line) for line in done.stdout.splitlines()]
    found = [
        each["process"]["args"]
        for each in alerts
        if each["rule"]["name"] == "A login goes on as another login user"
    ]
    assert found == [["/bin/true", "after"]]
