"""Difficult cases on the real kernel, compared with the processes' own records."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.daemon import Daemon, Document, value
from support.stream import Stream, agree, inconsistent, losses, malformed
from support.truth import Truth, images, read, until

pytestmark = pytest.mark.kernel

MakeDaemon = Callable[..., Daemon]

STORM = 6  # seconds


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command, whose exit status does not matter."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60, **options
    )


def shell(script: str, *arguments: str | Path) -> None:
    """Run a script of the shell."""
    subprocess.run(["/bin/sh", "-c", script, "sh", *arguments], check=True, timeout=60)


def ended_with(daemon: Daemon, mark: str, seconds: float = 10) -> Document:
    """Return the end of the process whose last argument is ``mark``."""
    return until(  # type: ignore[no-any-return]
        lambda: next(
            (
                document
                for document in daemon.find(event__action="end")
                if (value(document, "process.args") or [""])[-1] == mark
            ),
            None,
        ),
        seconds,
        f"an end of {mark}",
    )


# --- relatives that have ended ---


def test_relatives_that_ended_long_ago_are_complete(daemon: Daemon, truth: Truth) -> None:
    """Parent, group leader and session leader ended seconds ago; all their fields are present."""
    file = truth.file()
    inner = " ".join(truth.command(file, "spawn"))
    # The shell leads session and group, forks a process that waits, and ends.
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"(sleep 2.5; {inner}) & exit 3"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    process.wait(10)
    until(lambda: images(read(file)), 10, "the late process")
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
    (late,) = images(read(file))
    event = daemon.await_one(event__action="exec", process__pid=late.pid)
    for name in ("group_leader", "session_leader"):
        leader = event["process"][name]
        assert leader["pid"] == process.pid
        assert leader["args"][:2] == ["/bin/sh", "-c"]
        assert leader["executable"] == os.path.realpath("/bin/sh")
        assert leader["working_directory"] == os.getcwd()
    (end,) = daemon.find(event__action="end", process__pid=process.pid)
    assert end["process"]["entity_id"] == value(event, "process.session_leader.entity_id")


def test_an_ended_parent_has_its_end(daemon: Daemon, truth: Truth) -> None:
    """A process forked by an ended process has it as parent, with end and exit code."""
    told = truth.run("orphan", 5)
    daemon.settle()
    forkers = [one for one in told if one.event == "fork"]
    for orphan, forker in zip(images(told), forkers, strict=True):
        event = daemon.await_one(event__action="exec", process__pid=orphan.pid)
        parent = event["process"]["parent"]
        assert parent["pid"] == forker.pid
        assert parent["exit_code"] == 0
        assert parent["end"] <= event["@timestamp"]
        assert value(event, "sessiond.reparented_to.pid") == orphan.ppid


# --- programs and arguments ---


def test_a_script_is_its_interpreter(daemon: Daemon, tmp_path: Path) -> None:
    """The executable is the interpreter, the arguments are the interpreter's."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\nexit 4\n")
    script.chmod(0o755)
    run(script, "of-a-script")
    event = ended_with(daemon, "of-a-script")
    assert value(event, "process.executable") == os.path.realpath("/bin/sh")
    assert value(event, "process.args") == ["/bin/sh", "-e", str(script), "of-a-script"]
    assert value(event, "process.exit_code") == 4


def test_a_deleted_executable_keeps_its_path(daemon: Daemon, tmp_path: Path) -> None:
    """A program that was deleted while running keeps its path."""
    program = tmp_path / "short-lived"
    shutil.copy2("/bin/sleep", program)
    process = subprocess.Popen([program, "0.3"])
    program.unlink()
    process.wait(10)
    event = ended_with(daemon, "0.3")
    assert value(event, "process.executable") == str(program)
    assert value(event, "process.name") == "short-lived"


def test_a_failed_exec_is_told_as_such(daemon: Daemon) -> None:
    """The event has the error's name and the process that tried."""
    shell("exec 2>/dev/null; /etc/passwd; true")
    event = daemon.await_one(event__action="exec-failed", event__outcome="failure")
    assert value(event, "error.code") == "EACCES"
    assert value(event, "process.executable") == os.path.realpath("/bin/sh")


def test_other_users(daemon: Daemon, truth: Truth) -> None:
    """A process that runs as another user is written with that user."""
    file = truth.file()
    run(*truth.command(file, "spawn", 3), user=65534, group=65534, extra_groups=[])
    daemon.settle()
    agree(Stream(daemon).untrue(read(file), file))
    (image, *_) = images(read(file))
    event = daemon.await_one(event__action="exec", process__pid=image.pid)
    assert event["process"]["user"] == {"id": "65534", "name": "nobody"}
    assert event["process"]["real_group"] == {"id": "65534", "name": "nogroup"}
    assert value(event, "process.parent.user.id") == "65534"
    assert "thread" not in event["process"]


def test_supplementary_groups(daemon: Daemon) -> None:
    """setgroups(2) changes them: execs before and after it have different groups."""
    token = "groups-before-and-after"
    groups = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=27,4,1000"]
    run(*groups, "/bin/sleep", "0", token)
    daemon.settle()
    (before,) = daemon.find(event__action="exec", process__args=[*groups, "/bin/sleep", "0", token])
    (after,) = daemon.find(event__action="exec", process__args=["/bin/sleep", "0", token])
    (end,) = daemon.find(event__action="end", process__args=["/bin/sleep", "0", token])
    assert before["process"]["entity_id"] == after["process"]["entity_id"]
    told = [
        [group["id"] for group in event["process"].get("supplemental_groups", ())]
        for event in (before, after, end)
    ]
    assert told == [[str(group) for group in os.getgroups()], *[["4", "27", "1000"]] * 2]


def test_other_namespaces_and_roots(daemon: Daemon, truth: Truth, tmp_path: Path) -> None:
    """In a pid namespace, pid is the host's and vpid the inner one; chroots change no path."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "tmp").mkdir()
    shutil.copy2(truth.program, root / "truth")
    (root / "tmp/told").touch()
    marks = {
        "in-a-pid-namespace": ["unshare", "--fork", "--pid", "--mount-proc"],
        "in-a-mount-namespace": ["unshare", "--mount"],
        "in-a-user-namespace": ["unshare", "--user", "--map-root-user"],
    }
    for mark, command in marks.items():
        run(*command, "/bin/sleep", "0", mark)
    shell(
        'mount -t proc proc "$1/proc"; chroot "$1" /truth /tmp/told spawn 2; umount "$1/proc"', root
    )
    daemon.settle()
    for mark in marks:
        event = ended_with(daemon, mark)
        inner = value(event, "process.vpid")
        assert (inner == 1) is (mark == "in-a-pid-namespace")
        assert value(event, "process.executable") == "/usr/bin/sleep"
        assert os.getpid() not in (value(event, "process.pid"), inner)
    assert not inconsistent(daemon.documents())
    inside = read(root / "tmp/told")
    assert len(images(inside)) == 2
    for image in images(inside):
        event = daemon.await_one(event__action="exec", process__pid=image.pid)
        assert value(event, "process.args") == [os.fsdecode(one) for one in image.argv]
        assert value(event, "process.working_directory").endswith("/root")


# --- ends ---


def test_a_core_dump_is_told(daemon: Daemon, tmp_path: Path) -> None:
    """A signal that dumps core is written with its name and core_dumped."""
    pattern = Path("/proc/sys/kernel/core_pattern")
    found = pattern.read_text()
    pattern.write_text(f"{tmp_path}/core")
    try:
        limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        run(
            "/bin/sh", "-c", "kill -SEGV $$; exit 1", "sh", "dumps-core",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, limit),
        )  # fmt: skip
    finally:
        pattern.write_text(found)
    assert (tmp_path / "core").exists()
    event = ended_with(daemon, "dumps-core")
    assert value(event, "process.exit_code") == 128 + signal.SIGSEGV
    assert value(event, "sessiond.signal") == {"number": 11, "name": "SIGSEGV", "core_dumped": True}


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGRTMIN + 3, signal.SIGKILL])
def test_a_signal_is_named(daemon: Daemon, number: int) -> None:
    """Each signal has its number and name, including real-time signals."""
    run("/bin/sh", "-c", f"kill -{number} $$; sleep 5", "sh", f"killed-by-{number}")
    event = ended_with(daemon, f"killed-by-{number}")
    assert value(event, "process.exit_code") == 128 + number
    name = "SIGRTMIN+3" if number >= signal.SIGRTMIN else signal.Signals(number).name
    assert value(event, "sessiond.signal.name") == name
    assert value(event, "sessiond.signal.number") == number


def test_killed_for_want_of_memory(daemon: Daemon) -> None:
    """A process that the kernel kills for lack of memory in its control group ends by SIGKILL."""
    group = Path("/sys/fs/cgroup/memory/sessiond-test-oom")
    limit = group / "memory.limit_in_bytes"
    if not group.parent.exists():
        group = Path("/sys/fs/cgroup/sessiond-test-oom")
        limit = group / "memory.max"
    group.mkdir()
    try:
        limit.write_text(str(16 << 20))
        eats = "import os; open('{}', 'w').write(str(os.getpid())); x = bytearray(64 << 20)"
        run(sys.executable, "-c", eats.format(group / "cgroup.procs"), "eats-memory")
        event = ended_with(daemon, "eats-memory")
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), 5, "an empty control group")
        group.rmdir()
    assert value(event, "sessiond.signal.name") == "SIGKILL"
    assert value(event, "process.exit_code") == 137


# --- storms ---


def living(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, _, leader = stat.read_text().rpartition(") ")[2].split()[:4]
            if int(leader) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


class Storm:
    """Two spawners without pauses, until they are stopped."""

    def __init__(self, truth: Truth) -> None:
        self.files = [truth.file(), truth.file()]
        self._spawners = [
            # In a separate session: the session of the tests may have lost its leader.
            subprocess.Popen(truth.command(file, "spawn", 10**6), start_new_session=True)
            for file in self.files
        ]

    def stop(self, after: float, least: int = 0) -> None:
        """Stop the spawners after some seconds, and ``least`` execs of each.

        Their last processes still record themselves.
        """
        time.sleep(after)
        until(lambda: min(self.execs()) > least, 60, f"{least} execs of each spawner")
        for spawner in self._spawners:
            spawner.terminate()
            spawner.wait(10)
        for spawner in self._spawners:
            until(lambda pid=spawner.pid: not living(pid), 30, "the end of the last process")

    def execs(self) -> list[int]:
        """Return how many execs each spawner has caused."""
        return [file.read_bytes().count(b'{"event":"exec"') for file in self.files]


def drain(daemon: Daemon) -> None:
    """Wait until the stream has the processes so far; on a busy host it never stands still."""
    mark = f"after-{time.monotonic_ns()}"
    run("/bin/true", mark)
    ended_with(daemon, mark, 60)
    daemon.settle()


def test_a_start_in_a_storm_misses_no_process(make_daemon: MakeDaemon, truth: Truth) -> None:
    """Hundreds of processes start and end during the start: all are correct once it is ready."""
    storm = Storm(truth)
    time.sleep(1)
    daemon = make_daemon().start()
    ready = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
    storm.stop(after=3, least=max(storm.execs()) + 110)  # some of these had started before
    daemon.settle()
    stream = Stream(daemon)
    for file in storm.files:
        told = [one for one in read(file) if one.start > ready]
        assert len(images(told)) > 100
        agree(stream.untrue(told))
    agree(inconsistent(daemon.documents()))
    assert losses(daemon.documents()) == []


def test_a_storm_is_written_without_loss(daemon: Daemon, truth: Truth) -> None:
    """Two spawners without pauses: every process is written, all enriched, none lost."""
    storm = Storm(truth)
    storm.stop(after=STORM, least=1000)
    drain(daemon)
    stream = Stream(daemon)
    for file in storm.files:
        told = read(file)
        assert len(images(told)) > 1000
        agree(stream.untrue(told, file))
    documents = daemon.documents()
    agree(inconsistent(documents))
    assert losses(documents) == []
    incomplete = Counter(
        note
        for document in documents
        for note in value(document, "sessiond.incomplete") or []
        # Ancestors of the tests may have ended before, also the one with which they entered.
        if not note.startswith(("sessiond.ancestors:", "process.entry_leader"))
        and {str(file) for file in storm.files} & set(value(document, "process.args") or [])
    )
    assert not incomplete


def test_an_overflow_is_reported_and_nothing_false_follows(
    make_daemon: MakeDaemon, truth: Truth
) -> None:
    """After a stop under load, losses are reported per kind, and later events are correct."""
    daemon = make_daemon(
        {
            "session_metadata": {"ring_buffer": "256KiB"},
            "auditd": {"backlog_limit": 512, "receive_buffer": "1MiB"},
        }
    ).start()
    survivor_file = truth.file()
    daemon.send(signal.SIGSTOP)
    storm = Storm(truth)
    time.sleep(STORM / 2)
    # It starts while no daemon reads, and executes a program when one reads again.
    inner = " ".join(truth.command(survivor_file, "spawn", 3))
    survivor = subprocess.Popen(
        ["/bin/sh", "-c", f"sleep {STORM}; {inner}; sleep 0.1"], start_new_session=True
    )
    storm.stop(after=STORM / 2)
    daemon.send(signal.SIGCONT)
    survivor.wait(60)
    drain(daemon)
    after = truth.file()
    for way in ("spawn", "orphan", "chain", "signal"):
        truth.run_into(after, way, 10)
    daemon.settle()
    lost = [document["sessiond"]["loss"] for document in daemon.find(event__action="sessiond-lost")]
    assert {"tracer", "kernel"} <= {loss["hop"] for loss in lost}
    kinds = {kind for loss in lost for kind in loss.get("kinds", {})}
    assert {"fork", "exec", "exit"} <= kinds
    stream = Stream(daemon)
    agree(stream.untrue(read(after), after))
    agree(stream.untrue(read(survivor_file), survivor_file))
    for document in daemon.find(event__action="exec"):
        leader = value(document, "process.session_leader.pid")
        if leader == survivor.pid:
            assert value(document, "process.session_leader.args") == survivor.args
    agree(inconsistent(daemon.documents()))
    agree(malformed(daemon))
    agree(stream.false(told for file in storm.files for told in read(file)))
