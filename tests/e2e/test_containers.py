"""Real containers in the stream, and the daemon itself in its own namespaces."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.containers import Runc
from support.daemon import Daemon, value
from support.kernel import AuditState
from support.stream import Stream, agree, inconsistent, malformed
from support.truth import Truth, read

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]


def test_a_container_is_an_entry_of_its_own(daemon: Daemon, runc: Runc) -> None:
    """Its processes have its id and the inner pids, and its first process as entry leader."""
    identifier = runc.run("/bin/sh", "-c", "/bin/setsid /bin/cat /dev/null; /bin/sleep 0.1; exit 0")
    first = daemon.await_one(event__action="exec", container__id=identifier, process__vpid=1)
    assert value(first, "process.entry_leader.entry_meta.type") == "container"
    assert value(first, "process.entry_leader.same_as_process") is True
    assert value(first, "process.args") == ["/bin/sh", "-c", first["process"]["args"][2]]
    assert value(first, "process.parent.name").startswith("runc")
    for name in ("sleep", "cat"):
        inside = daemon.await_one(
            event__action="exec", container__id=identifier, process__args=_command(name)
        )
        assert value(inside, "process.vpid") > 1
        assert value(inside, "process.executable") == "/bin/busybox"
        assert value(inside, "process.entry_leader.entity_id") == first["process"]["entity_id"]
        assert value(inside, "process.session_leader.same_as_process") is (name == "cat")
        end = daemon.await_one(
            event__action="end", process__entity_id=inside["process"]["entity_id"]
        )
        assert value(end, "container.id") == identifier
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))


def _command(name: str) -> list[str]:
    return ["/bin/sleep", "0.1"] if name == "sleep" else ["/bin/cat", "/dev/null"]


def test_the_host_is_no_container(daemon: Daemon, runc: Runc, truth: Truth) -> None:
    """Processes outside containers have no container.id and no vpid."""
    runc.run("/bin/true")
    file = truth.file()
    truth.run_into(file, "spawn", 3)
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
    outside = [
        document
        for document in daemon.documents()
        if str(file) in (value(document, "process.args") or [])
    ]
    assert outside
    for document in outside:
        assert "container" not in document
        assert "vpid" not in document["process"]


def test_the_daemon_in_namespaces_of_its_own(
    make_daemon: MakeDaemon, truth: Truth, audit_state: AuditState
) -> None:
    """All is correct with the host's pids and separate mounts, as in a container."""
    daemon = make_daemon()
    daemon.prefix = ["unshare", "--mount", "--uts", "--ipc", "--propagation", "private"]
    daemon.start()
    file = truth.file()
    for way in ("spawn", "chain", "orphan", "signal"):
        truth.run_into(file, way, 10)
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
    agree(inconsistent(daemon.documents()))
    daemon.stop(signal.SIGTERM)
    assert AuditState.read() == audit_state


def test_in_a_pid_namespace_it_says_what_is_wrong(make_daemon: MakeDaemon) -> None:
    """The kernel accepts no audit daemon from another pid namespace: one line, no traceback."""
    daemon = make_daemon()
    asked = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc",
         sys.executable, "-m", "sessiond", "run", "-c", str(daemon.config)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert asked.returncode in (4, 5), asked.stderr
    assert "pid namespace" in asked.stderr
    assert "Traceback" not in asked.stderr
