"""Least privilege: a separate user, the unit's capabilities, and only its own files.

The daemon runs as an unprivileged user with the capabilities of the shipped unit. The test of each
capability removes it, and checks the documented consequence.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from support.daemon import WITHOUT_TRACER, Daemon, value
from support.kernel import AuditState
from support.manager import UNIT
from support.stream import Stream, agree, inconsistent, malformed
from support.truth import Truth, read, until

from sessiond.config.schema import Config
from sessiond.daemon import privileges
from sessiond.system.capabilities import capability_bits

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

NOBODY = 65534
STRANGER = 12345
GRANTED = tuple(
    dict.fromkeys(re.findall(r"CAP_[A-Z_]+", " ".join(re.findall(r"Ambient.*", UNIT.read_text()))))
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can access, unlike pytest's own."""
    path = Path(mkdtemp(prefix="sessiond-test-", dir="/var/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class Confined(Daemon):
    """A daemon of another user, with access to the stand-in for the service manager's socket."""

    def spawn(self) -> None:
        """Start it, with a umask that forbids nothing."""
        before = os.umask(0)
        try:
            super().spawn()
        finally:
            os.umask(before)


@pytest.fixture
def make_confined(audit_state: AuditState, place: Path) -> Iterator[Callable[..., Daemon]]:
    """Return a function that starts a daemon as nobody with only these capabilities.

    It prepares the process like the service manager does for the shipped unit.
    """
    made: list[Daemon] = []

    def make(
        *capabilities: str, settings: dict[str, Any] | None = None, **environment: str
    ) -> Daemon:
        daemon = Confined(place / f"daemon-{len(made)}", settings, environment)
        made.append(daemon)
        names = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)
        daemon.prefix = [
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
            "--no-new-privs", f"--bounding-set=-all,{names}", f"--inh-caps=-all,{names}",
            f"--ambient-caps=-all,{names}",
        ]  # fmt: skip
        os.chown(daemon.directory, NOBODY, NOBODY)
        os.chown(daemon.config, 0, NOBODY)
        daemon.config.chmod(0o640)
        return daemon

    yield make
    for one in made:
        one.end()


def without(*names: str) -> list[str]:
    """Return the unit's capabilities except these."""
    return [name for name in GRANTED if name not in names]


def test_main_job_with_the_units_capabilities_alone(
    make_confined: MakeDaemon, truth: Truth
) -> None:
    """As nobody: rules are loaded, the tracer works, and other users' processes are correct."""
    daemon = make_confined(*GRANTED, settings={"session_metadata": {"backend": "ebpf"}}).start()
    status = daemon.status()
    assert (status["source"], status["role"]) == ("ebpf", "unicast")
    assert status["rules"] > 0
    proc = Path(f"/proc/{daemon.pid}/status").read_text()
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n" in proc
    assert "NoNewPrivs:\t1\n" in proc
    stream = Stream(daemon, exact=True)
    file = truth.file()
    truth.run_into(file, "spawn", 50)
    daemon.settle()
    agree(stream.untrue(read(file), file))
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("missing", "source"),
    [
        (["CAP_BPF"], "proc_connector"),
        (["CAP_PERFMON"], "proc_connector"),
        (["CAP_DAC_READ_SEARCH"], "ebpf"),
        (["CAP_SYS_PTRACE"], "ebpf"),
        (["CAP_NET_ADMIN"], "ebpf"),
        (["CAP_AUDIT_READ"], "ebpf"),
    ],
    ids=lambda given: ",".join(given) if isinstance(given, list) else given,
)
def test_a_missing_capability_selects_the_next_source(
    make_confined: MakeDaemon, missing: list[str], source: str
) -> None:
    """The next source continues the stream; status and log name the capability and the remedy."""
    daemon = make_confined(*without(*missing)).start()
    status = daemon.status()
    assert status["source"] == source, status["declined"]
    if source != "ebpf":
        assert missing[0] in status["declined"]["ebpf"]
    subprocess.run(["/bin/true", "a-token"], check=True)
    daemon.await_one(process__args=["/bin/true", "a-token"], event__action="exec")
    assert daemon.stop() == 0


def permitted(directory: Path) -> list[tuple[int, int]]:
    """Return the effective and permitted capabilities of each thread in a ``task`` directory."""
    found = []
    for status in sorted(directory.glob("*/status")):
        lines = dict(line.split(":") for line in status.read_text().splitlines())
        found.append((int(lines["CapEff"], 16), int(lines["CapPrm"], 16)))
    return found


def helpers(pid: int) -> list[Path]:
    """Return the ``task`` directories of a process's children that run a program of sessiond."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [Path("/proc") / child for child in children]
    return [each / "task" for each in found if b"sessiond" in (each / "cmdline").read_bytes()]


def test_what_only_the_start_needs_is_given_up(make_confined: MakeDaemon, truth: Truth) -> None:
    """No thread of the running daemon can load a program; it works on, also after a loss."""
    daemon = make_confined(
        *GRANTED,
        settings={
            "session_metadata": {"ring_buffer": "256KiB"},
            "output": {"socket": {"type": "unix_stream", "address": "/nonexistent/s"}},
        },
    ).start()
    release, limit = os.uname().release, privileges.rmem_max()
    needless = privileges.needless(Config(), release=release, rmem_max=limit)
    assert "CAP_PERFMON" in needless
    kept = capability_bits(privileges.SERVICE - needless)

    def check() -> None:
        threads = permitted(Path(f"/proc/{daemon.pid}/task"))
        assert len(threads) > 2  # one for each output
        assert set(threads) == {(kept, kept)}
        ours = capability_bits(privileges.HELPERS)
        assert helpers(daemon.pid)
        for task in helpers(daemon.pid):
            assert set(permitted(task)) == {(ours, ours)}

    check()
    # A loss: the table is compared with the kernel's processes, by a program that is loaded.
    daemon.send(signal.SIGSTOP)
    truth.run("spawn", 3000)
    daemon.send(signal.SIGCONT)
    until(lambda: "reconciled" in daemon.log.read_text(), 30, "the check after the loss")
    daemon.reload()
    subprocess.run(["/bin/true", "after-the-loss"], check=True)
    daemon.await_one(process__args=["/bin/true", "after-the-loss"], event__action="exec")
    assert daemon.status()["source"] == "ebpf"
    check()
    assert daemon.stop() == 0


def test_the_next_source_opens_without_what_was_given_up(
    make_confined: MakeDaemon, place: Path
) -> None:
    """The capability for the proc connector is kept, for a tracer that dies later."""
    (place / "sitecustomize.py").write_text(WITHOUT_TRACER)
    settings = {"canary": {"interval": "1s", "timeout": "2s"}}
    daemon = make_confined(*GRANTED, settings=settings, PYTHONPATH=str(place)).start()
    until(lambda: daemon.status()["canary"]["seen"] >= 1, 10, "a canary that came back")
    daemon.wait_notified("FDNAME=tracer-00")
    daemon.send(signal.SIGUSR1)
    until(lambda: daemon.status()["source"] == "proc_connector", 20, "the next source")
    subprocess.run(["/bin/true", "by-connector"], check=True)
    daemon.await_one(process__args=["/bin/true", "by-connector"], event__action="exec")
    assert daemon.stop() == 0


def test_without_audit_control_there_is_one_clear_error(
    make_confined: MakeDaemon,
) -> None:
    """Without the permission the exit code is 4, with a remedy and without a traceback."""
    daemon = make_confined(*without("CAP_AUDIT_CONTROL"))
    daemon.spawn()
    assert daemon.wait() == 4
    log = daemon.log.read_text()
    assert "CAP_AUDIT_CONTROL" in log
    assert "Traceback" not in log


def test_a_configuration_that_others_can_write_is_refused(make_daemon: MakeDaemon) -> None:
    """Its writer would decide where a daemon with capabilities writes."""
    daemon = make_daemon()
    daemon.config.chmod(0o666)
    daemon.spawn()
    assert daemon.wait() == 2
    assert "others can" in daemon.log.read_text()
    assert not daemon.output.exists()


def test_a_configuration_of_somebody_else_is_refused(make_daemon: MakeDaemon) -> None:
    """This also applies if only its owner can write it."""
    daemon = make_daemon()
    os.chown(daemon.config, STRANGER, STRANGER)
    daemon.spawn()
    assert daemon.wait() == 2
    assert str(STRANGER) in daemon.log.read_text()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file outside sessiond's directories, which must stay unchanged."""
    path = tmp_path / "victim"
    path.write_text("precious")
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_text() == "precious"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode, before.st_uid, before.st_mtime_ns
    )  # fmt: skip


@pytest.mark.parametrize("trick", ["symlink", "hard link", "fifo"])
def test_output_is_written_nowhere_else(make_daemon: MakeDaemon, victim: Path, trick: str) -> None:
    """A link instead of the output file is refused with one line, and exit code 6."""
    daemon = make_daemon()
    _put(trick, daemon.output, victim)
    daemon.spawn()
    assert daemon.wait() == 6
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("name", ["audit.json", "boot_time", "status.sock"])
@pytest.mark.parametrize("trick", ["symlink", "hard link"])
def test_state_is_written_nowhere_else(
    make_daemon: MakeDaemon, victim: Path, name: str, trick: str
) -> None:
    """A link instead of sessiond's file is replaced or refused; its target stays unchanged."""
    daemon = make_daemon()
    run = daemon.directory / "run"
    run.mkdir()
    _put(trick, run / name, victim)
    daemon.spawn()
    if name == "status.sock":
        assert daemon.wait() == 7
    else:
        daemon.wait_notified("READY=1", 30)
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text()


def test_spool_is_written_nowhere_else(make_daemon: MakeDaemon, victim: Path) -> None:
    """A link instead of the spool's next file is not followed."""
    daemon = make_daemon({"output": {"socket": {"type": "unix", "address": "/nonexistent/s"}}})
    spool = daemon.directory / "state" / "spool" / "socket"
    spool.mkdir(parents=True)
    for number in range(1, 50):
        (spool / f"{number:020d}.spool").symlink_to(victim)
    (spool / "position").symlink_to(victim)
    daemon.spawn()
    try:
        daemon.wait_notified("READY=1", 30)
    except AssertionError:
        assert "Traceback" not in daemon.log.read_text()
        return
    subprocess.run(["/bin/true"], check=True)
    daemon.settle()
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", ["run", "state", "spool"])
def test_directories_that_others_can_write_are_refused(make_daemon: MakeDaemon, name: str) -> None:
    """A user with write access could replace the files between two checks."""
    daemon = make_daemon()
    places = {"run": "run", "state": "state", "spool": "state/spool"}
    path = daemon.directory / places[name]
    path.mkdir(parents=True)
    path.chmod(0o777)
    daemon.spawn()
    assert daemon.wait() in (6, 7)
    log = daemon.log.read_text()
    assert "others can write" in log
    assert "Traceback" not in log


def test_a_runtime_directory_that_is_a_link_of_somebody_else_is_refused(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """Another user's link can lead anywhere, so it is refused."""
    daemon = make_daemon()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = daemon.directory / "run"
    run.symlink_to(elsewhere)
    os.chown(run, STRANGER, STRANGER, follow_symlinks=False)
    daemon.spawn()
    assert daemon.wait() in (6, 7)
    assert list(elsewhere.iterdir()) == []


def test_created_files_are_private(make_daemon: MakeDaemon) -> None:
    """Other users can neither read nor write created files, whatever the umask is."""
    daemon = make_daemon()
    before = os.umask(0)
    try:
        daemon.start()
    finally:
        os.umask(before)
    made = [daemon.output, *(daemon.directory / "run").rglob("*")]
    made += (daemon.directory / "state").rglob("*")
    assert len(made) > 4
    for path in made:
        mode = path.stat().st_mode
        assert not mode & 0o022 or path.is_socket(), path
        assert not mode & 0o004 or path.name == "boot_time", path
    assert daemon.stop() == 0


def test_status_answers_only_permitted_users(make_confined: MakeDaemon) -> None:
    """The kernel's credentials of the client decide, even if everybody can open the socket."""
    daemon = make_confined(*GRANTED, settings={"status_socket": {"mode": "0666"}}).start()
    asked = subprocess.run(
        ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups",
         sys.executable, "-c", _ASK, str(daemon.directory / "run" / "status.sock")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(asked.stdout) == {"error": "refused"}
    assert value(daemon.status(), "health.state") is not None


_ASK = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print(client.recv(65536).decode())
"""


def _put(trick: str, at: Path, victim: Path) -> None:
    if trick == "symlink":
        at.symlink_to(victim)
    elif trick == "hard link":
        at.hardlink_to(victim)
    else:
        os.mkfifo(at)
