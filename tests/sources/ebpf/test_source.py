"""The eBPF source, compared with the test processes' own records."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.containers import Runc
from support.kernel import auditctl
from support.truth import WAYS, Record, Truth, ends, images, read, until

from sessiond.errors import SourceUnavailableError
from sessiond.process.events import (
    VANISHED,
    CgroupSeen,
    Changed,
    Executed,
    Exited,
    Forked,
    Lost,
    Observed,
    ProcessEvent,
)
from sessiond.sources import RING_BYTES, Source, open_source
from sessiond.sources.ebpf import btf, compiled_programs, kernel_headers, loader
from sessiond.sources.ebpf import source as ebpf_module
from sessiond.sources.ebpf.ring import Ring
from sessiond.sources.ebpf.source import EbpfSource
from sessiond.sources.procfs.reader import Procfs

pytestmark = pytest.mark.kernel

COMPAT = Path(__file__).parents[2] / "support" / "compat.c"
TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
AS_NOBODY = (
    "setpriv --reuid=65534 --regid=65534 --clear-groups"
    " --bounding-set=-all,{0} --inh-caps=-all,{0} --ambient-caps=-all,{0}"
)


def of(pid: int, events: list[ProcessEvent], kind: type[Any]) -> list[Any]:
    """Return the events of one kind of a process."""
    return [event for event in events if isinstance(event, kind) and event.facts.pid == pid]


def in_order(pids: set[int], events: list[ProcessEvent]) -> list[tuple[type[Any], Any]]:
    """Return the kinds of the processes' events, with their facts, in the order of the events."""
    kinds = (Forked, Executed, Changed, Exited)
    return [
        (type(event), event.facts)
        for event in events
        if isinstance(event, kinds) and event.facts.pid in pids
    ]


def only(pid: int, events: list[ProcessEvent], kind: type[Any]) -> Any:
    """Return the only event of a kind of a process."""
    (event,) = of(pid, events, kind)
    return event


def run(*command: str, **options: Any) -> tuple[int, int]:
    """Run a command to its end; return its pid and its status as of wait(2)."""
    process = subprocess.Popen(command, **options)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.pid, status


def in_child(act: Callable[[], int]) -> int:
    """Fork, act in the child, exit with the result; return the child's pid when it has ended."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(act())
        finally:
            os._exit(99)
    os.waitpid(pid, 0)
    return pid


def key(one: Record) -> tuple[int, int]:
    """Return a process's identity in its own record: pid, and start in ticks."""
    return one.pid, one.start


def by_key(events: list[ProcessEvent], kind: type[Any]) -> dict[tuple[int, int], list[Any]]:
    """Return the events of one kind by pid and start in ticks."""
    found: dict[tuple[int, int], list[Any]] = {}
    for event in events:
        if isinstance(event, kind):
            found.setdefault((event.facts.pid, event.facts.start // TICK), []).append(event)
    return found


def assert_agreement(told: list[Record], events: list[ProcessEvent]) -> None:
    """Check that the events agree exactly with the processes' own records."""
    assert not [event for event in events if isinstance(event, Lost)]
    executed, exited, forked = (by_key(events, kind) for kind in (Executed, Exited, Forked))
    for one in {key(one) for one in told}:
        # A pid may have been used twice within a tick, and some ends have no waiting parent.
        lives = max(1, sum(key(end) == one for end in ends(told)))
        assert len(forked[one]) == len(exited[one]) == lives
        expected = [image.argv for image in images(told) if key(image) == one]
        seen = [event.program.argv for event in executed.get(one, [])]
        assert [args[:7] for args in seen] == [argv[:7] for argv in expected]
    for end in ends(told):
        assert end.status in [event.status for event in exited[key(end)]]
    for image in images(told):
        event = next(
            event for event in executed[key(image)] if event.program.argv[:7] == image.argv[:7]
        )
        path = event.program.executable + (b" (deleted)" if event.program.deleted else b"")
        assert path == image.exe
        assert event.working_directory == image.cwd
        facts = event.facts
        # Its parent may have ended between the exec and the program's own look.
        assert facts.ppid in (image.ppid, forked[key(image)][0].facts.ppid)
        assert facts.euid == image.uid
        assert (facts.pgid, facts.sid) == (image.pgid, image.sid)


def test_older_processes_precede_their_events() -> None:
    """Processes are listed after the programs are attached: parents must precede children."""
    (shell,) = [each for each in Procfs().snapshot() if each.facts.pid == os.getpid()]
    child = shell.facts._replace(pid=1 << 22, start=shell.time + 1)
    forked = Forked(shell.time - 5, child, shell.facts.pid, shell.facts.start, b"", None)
    executed = Executed(shell.time - 3, shell.facts, shell.program, None)
    late = Executed(shell.time + 3, shell.facts, shell.program, None)
    first = ebpf_module._settled_first
    assert first([forked, shell, late]) == [shell, forked, late]
    assert first([forked, executed, shell, late]) == [forked, executed, shell, late]


@pytest.mark.parametrize("way", WAYS)
def test_sees_each_way_to_make_a_process(ebpf: EbpfSource, truth: Truth, way: str) -> None:
    """Each way to create and end processes causes the right forks, execs and ends."""
    told = truth.run(way, 7)
    assert_agreement(told, ebpf.drain())


def test_loses_none_of_hundreds(kernel_lock: None, ebpf: EbpfSource, truth: Truth) -> None:
    """Two spawners without pauses: every fork, exec and exit is present, without a loss."""
    files = [truth.file(), truth.file()]
    makers = [subprocess.Popen(truth.command(file, "code", 400)) for file in files]
    for maker in makers:
        assert maker.wait() == 0
    told = [one for file in files for one in read(file)]
    assert len(ends(told)) == 800
    assert_agreement(told, ebpf.drain())
    assert ebpf.malformed == 0


def test_a_fork_has_its_creator_and_directory(ebpf: EbpfSource, tmp_path: Path) -> None:
    """A fork has the identity of its creator, and the working directory that both share."""
    pid, _ = run("/bin/true", cwd=tmp_path)
    events = ebpf.drain()
    forked = only(pid, events, Forked)
    assert forked.creator_pid == os.getpid() == forked.facts.ppid
    assert forked.creator_start == forked.facts.parent_start
    own = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert forked.creator_start // TICK == own
    assert only(pid, events, Executed).working_directory == os.fsencode(tmp_path)
    assert only(pid, events, Exited).facts.start == forked.facts.start


def test_threads_are_not_processes(ebpf: EbpfSource) -> None:
    """The start and end of a thread cause no event."""
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()
    assert of(os.getpid(), ebpf.drain(), (Forked, Exited)) == []  # type: ignore[arg-type]


def test_exit_of_the_last_thread_is_the_end(ebpf: EbpfSource, truth: Truth) -> None:
    """A group whose threads all called exit(2) ends once, with the status of wait(2)."""
    (end,) = ends(truth.run("last_thread"))
    exited = only(end.pid, ebpf.drain(), Exited)
    assert (exited.status, exited.group_exit) == (end.status, False)


def test_exit_group_is_distinguished_from_exit(ebpf: EbpfSource) -> None:
    """exit_group(2) and a signal end the whole group."""
    pid, _ = run("/bin/sh", "-c", "exit 3")
    exited = only(pid, ebpf.drain(), Exited)
    assert (exited.status, exited.group_exit) == (3 << 8, True)


def test_core_dump_is_in_the_status(ebpf: EbpfSource, tmp_path: Path) -> None:
    """The status of a dumped core is that of wait(2), with the core flag."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    pid, status = run(
        "/bin/sh",
        "-c",
        "kill -SEGV $$",
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, unlimited),
    )
    assert os.WCOREDUMP(status)
    exited = only(pid, ebpf.drain(), Exited)
    assert (exited.status, exited.group_exit) == (signal.SIGSEGV | 0x80, True)


def test_reused_pid_is_another_process(ebpf: EbpfSource, truth: Truth) -> None:
    """Two processes with one pid have different starts, exact to the ns."""
    first, second = ends(truth.run("reuse"))
    assert first.pid == second.pid
    exits = of(first.pid, ebpf.drain(), Exited)
    assert [event.status >> 8 for event in exits] == [11, 22]
    assert exits[0].facts.start < exits[0].time < exits[1].facts.start


def test_script_runs_its_interpreter(ebpf: EbpfSource, tmp_path: Path) -> None:
    """The executable is the interpreter; the name passed to execve is the script."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\nexit 5\n")
    script.chmod(0o755)
    pid, _ = run(str(script), "argument")
    program = only(pid, ebpf.drain(), Executed).program
    assert program.executable == os.fsencode(Path("/bin/sh").resolve())
    assert program.argv == (b"/bin/sh", b"-e", os.fsencode(script), b"argument")
    assert program.comm == b"script"


def test_deleted_executable_keeps_its_path(ebpf: EbpfSource, tmp_path: Path) -> None:
    """A program that was deleted before its exec has its former path."""
    program = tmp_path / "gone"
    shutil.copy2("/bin/true", program)
    descriptor = os.open(program, os.O_RDONLY)
    program.unlink()
    pid, _ = run(f"/proc/self/fd/{descriptor}", pass_fds=(descriptor,))
    os.close(descriptor)
    executed = only(pid, ebpf.drain(), Executed).program
    assert (executed.executable, executed.deleted) == (os.fsencode(program), True)


def test_chroot_is_seen_from_outside(ebpf: EbpfSource, truth: Truth, tmp_path: Path) -> None:
    """Paths are the host's, as in /proc/PID/exe and cwd."""
    root = tmp_path / "root"
    (root / "home").mkdir(parents=True)
    shutil.copy2(truth.program, root / "program")
    pid, _ = run("/program", stderr=subprocess.DEVNULL, preexec_fn=lambda: _enter(root))
    executed = only(pid, ebpf.drain(), Executed)
    assert executed.program.executable == os.fsencode(root / "program")
    assert executed.working_directory == os.fsencode(root / "home")


def _enter(root: Path) -> None:
    os.chroot(root)
    os.chdir("/home")


def test_mount_points_are_crossed(ebpf: EbpfSource, tmp_path: Path) -> None:
    """A program on a mounted file system has the path through its mount point."""
    inside = tmp_path / "mounted"
    inside.mkdir()
    command = f"mount -t tmpfs x {inside} && cp /bin/true {inside}/program && {inside}/program"
    run("unshare", "-m", "/bin/sh", "-c", command)
    paths = [event.program.executable for event in ebpf.drain() if isinstance(event, Executed)]
    assert os.fsencode(inside / "program") in paths


def test_pid_namespace_has_its_own_numbers(ebpf: EbpfSource) -> None:
    """Such a process has the host's pid and the inner one."""
    outer, _ = run("unshare", "-pf", "/bin/sh", "-c", "exit 0")
    own = os.stat("/proc/self/ns/pid").st_ino
    inside = [
        event.facts
        for event in ebpf.drain()
        if isinstance(event, Executed)
        and event.facts.pid_namespace != own
        and event.facts.ppid == outer
    ]
    assert [facts.vpid for facts in inside] == [1]
    assert inside[0].pid != 1


def test_namespaces_and_login_are_procfs_s(ebpf: EbpfSource) -> None:
    """Namespaces, ids and the login user equal those of procfs."""
    process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    here = Path(f"/proc/{process.pid}")
    names = ("pid", "mnt", "user", "net")
    namespaces = tuple((here / "ns" / name).stat().st_ino for name in names)
    login = tuple(int((here / name).read_text()) for name in ("loginuid", "sessionid"))
    lines = [line.split() for line in (here / "status").read_text().splitlines()]
    status = {fields[0]: fields[1:] for fields in lines if fields}
    process.communicate()
    facts = only(process.pid, ebpf.drain(), Executed).facts
    assert namespaces == (
        facts.pid_namespace,
        facts.mount_namespace,
        facts.user_namespace,
        facts.network_namespace,
    )
    assert login == (facts.loginuid, facts.audit_session)
    uids = (facts.uid, facts.euid, facts.suid, facts.fsuid)
    gids = (facts.gid, facts.egid, facts.sgid, facts.fsgid)
    assert tuple(map(int, status["Uid:"])) == uids
    assert tuple(map(int, status["Gid:"])) == gids
    assert int(status["CapPrm:"][0], 16) == facts.cap_permitted
    assert int(status["CapEff:"][0], 16) == facts.cap_effective


def test_controlling_terminal(ebpf: EbpfSource) -> None:
    """A session leader that opened a pseudo terminal has its device numbers."""
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    pid, _ = run("/bin/sh", "-c", f"exec 3<>{name}; /bin/true", start_new_session=True)
    events = ebpf.drain()
    (inside,) = [
        event for event in events if isinstance(event, Executed) and event.facts.ppid == pid
    ]
    device = os.stat(name).st_rdev
    os.close(ours)
    os.close(theirs)
    assert (inside.facts.tty_major, inside.facts.tty_minor) == (os.major(device), os.minor(device))
    first = only(pid, events, Executed).facts
    assert (first.tty_major, first.tty_minor) == (0, 0)


def test_clone_parent_tells_creator_and_parent(ebpf: EbpfSource) -> None:
    """Under CLONE_PARENT the caller of clone is not the parent."""
    libc = ctypes.CDLL(None)
    ours, theirs = os.pipe()

    def make_sibling() -> int:
        pid = libc.syscall(56 if os.uname().machine == "x86_64" else 220, 0x8000 | 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        os.write(theirs, struct.pack("i", pid))
        return 0

    maker = in_child(make_sibling)
    (sibling,) = struct.unpack("i", os.read(ours, 4))
    os.waitpid(sibling, 0)
    os.close(ours)
    os.close(theirs)
    forked = only(sibling, ebpf.drain(), Forked)
    assert (forked.creator_pid, forked.facts.ppid) == (maker, os.getpid())


def test_setsid_is_a_change(ebpf: EbpfSource) -> None:
    """setsid(2) reports the new session."""
    pid = in_child(lambda: os.setsid() or 0)  # type: ignore[func-returns-value]
    changed = only(pid, ebpf.drain(), Changed)
    assert (changed.what, changed.facts.sid, changed.facts.pgid) == ("session", pid, pid)


def test_setpgid_is_a_change(ebpf: EbpfSource) -> None:
    """setpgid(2) reports the new group, also if the parent calls it for its child."""
    own = in_child(lambda: os.setpgid(0, 0) or 0)  # type: ignore[func-returns-value]
    ours, theirs = os.pipe()
    other = os.fork()
    if other == 0:
        os.read(ours, 1)
        os._exit(0)
    os.setpgid(other, other)
    os.write(theirs, b"x")
    os.waitpid(other, 0)
    os.close(ours)
    os.close(theirs)
    events = ebpf.drain()
    for pid in (own, other):
        changed = only(pid, events, Changed)
        assert (changed.what, changed.facts.pgid) == ("group", pid)


def test_setpgid_for_any_child_is_a_change(ebpf: EbpfSource) -> None:
    """Not only for the youngest children of the thread: a user can't cause losses with others."""
    ours, theirs = os.pipe()
    children: list[int] = []

    def fork() -> None:
        for _ in range(100):
            pid = os.fork()
            if pid == 0:
                os.read(ours, 1)
                os._exit(0)
            children.append(pid)
        for pid in children[:2]:
            os.setpgid(pid, pid)

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    os.setpgid(children[2], children[2])  # now of another thread
    os.write(theirs, b"x" * 100)
    for pid in children:
        os.waitpid(pid, 0)
    os.close(ours)
    os.close(theirs)
    events = ebpf.drain()
    for pid in children[:3]:
        changed = only(pid, events, Changed)
        assert (changed.what, changed.facts.pgid) == ("group", pid)
    assert not [event for event in events if isinstance(event, Lost)]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs the system calls of i386")
def test_32_bit_calls_are_changes(ebpf: EbpfSource, tmp_path: Path) -> None:
    """setsid(2) and setuid(2) of i386 have other numbers, and any process can call them."""
    program = tmp_path / "compat"
    subprocess.run(["gcc", "-O1", "-o", program, COMPAT], check=True)
    pid, _ = run(str(program), "/bin/true")
    session, ids = of(pid, ebpf.drain(), Changed)
    assert (session.what, session.facts.sid) == ("session", pid)
    assert (ids.what, ids.facts.uid) == ("ids", 65534)


def _drop_ids() -> int:
    os.setresgid(65534, 65533, 65532)
    os.setresuid(65534, 65534, 65532)
    return 0


def test_set_ids_are_changes(ebpf: EbpfSource) -> None:
    """setresuid(2) and similar calls report the new ids and capabilities."""
    pid = in_child(_drop_ids)
    groups, users = of(pid, ebpf.drain(), Changed)
    assert (groups.what, users.what) == ("ids", "ids")
    assert (groups.facts.gid, groups.facts.egid, groups.facts.sgid) == (65534, 65533, 65532)
    assert (users.facts.uid, users.facts.euid, users.facts.suid) == (65534, 65534, 65532)
    assert groups.facts.cap_effective
    assert users.facts.cap_effective == 0


def test_failed_changes_are_none(ebpf: EbpfSource) -> None:
    """A refused setsid or setuid changes nothing and causes no event."""

    def fail_twice() -> int:
        os.setsid()
        try:
            os.setsid()
        except PermissionError:
            return 0
        return 1

    pid = in_child(fail_twice)
    assert len(of(pid, ebpf.drain(), Changed)) == 1


def test_a_refused_change_of_ids_is_none(ebpf: EbpfSource) -> None:
    """An ordinary user can't become root."""

    def fail() -> int:
        os.setuid(65534)
        try:
            os.setuid(0)
        except PermissionError:
            return 0
        return 1

    pid = in_child(fail)
    assert only(pid, ebpf.drain(), Changed).facts.uid == 65534


def test_ids_of_another_thread_are_the_process_s(ebpf: EbpfSource) -> None:
    """glibc changes the ids of all threads: one change is reported, not one per thread."""
    code = (
        "import os,threading,time;"
        "[threading.Thread(target=time.sleep,args=(1,),daemon=True).start() for _ in range(3)];"
        "os.setuid(65534); os._exit(0)"
    )
    pid, _ = run(sys.executable, "-c", code)
    assert only(pid, ebpf.drain(), Changed).facts.uid == 65534


def test_arguments_are_cut_at_the_limit(open_ebpf: Callable[..., Source], truth: Truth) -> None:
    """An argv over the limit is cut, and its size is that of the whole."""
    source = open_ebpf(args_limit=256)
    source.drain()
    (image,) = images(truth.run("long", 1))
    program = only(image.pid, source.drain(), Executed).program
    whole = b"".join(argument + b"\0" for argument in image.argv)
    assert program.args_size == len(whole)
    kept = program.args.removesuffix(b"\0")
    assert whole.startswith(kept)
    assert 255 <= len(kept) <= 256


def test_a_new_cgroup_precedes_its_processes(ebpf: EbpfSource) -> None:
    """A new cgroup is reported with its path, under the id of its processes."""
    path = Path("/sys/fs/cgroup/memory/sessiond-test")
    if not path.parent.is_dir():
        path = Path("/sys/fs/cgroup/sessiond-test")
    path.mkdir()
    try:
        enter = f"echo $$ > {path}/cgroup.procs; exec /bin/true"
        pid, _ = run("/bin/sh", "-c", enter)
    finally:
        path.rmdir()
    events = ebpf.drain()
    # Other programs of the host may have made control groups, too.
    (seen,) = [
        event
        for event in events
        if isinstance(event, CgroupSeen) and event.path == b"/sessiond-test"
    ]
    assert of(pid, events, Executed)[-1].facts.cgroup_id == seen.cgroup_id


def test_container_is_seen_from_the_host(ebpf: EbpfSource, runc: Runc) -> None:
    """Paths are those in the container, both pids are known, and the cgroup names the container."""
    identifier = runc.run("/bin/sh", "-c", "/bin/true; exit 0")
    events = ebpf.drain()
    inside = [
        event
        for event in events
        if isinstance(event, Executed) and event.program.executable == b"/bin/busybox"
    ]
    assert [event.program.argv for event in inside][-1] == (b"/bin/true",)
    assert inside[0].facts.vpid == 1
    assert inside[0].facts.pid == inside[-1].facts.ppid
    assert {event.working_directory for event in inside} == {b"/"}
    paths = {event.cgroup_id: event.path for event in events if isinstance(event, CgroupSeen)}
    for event in inside:
        assert identifier.encode() in paths[event.facts.cgroup_id or 0]


def test_a_snapshot_has_the_tracer_s_identities(
    ebpf: EbpfSource, open_ebpf: Callable[..., Source]
) -> None:
    """An older process has the same pid and start as for a source that saw its fork."""
    process = subprocess.Popen(
        ["/bin/cat", "-u", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/usr"
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"x")
    process.stdin.flush()
    process.stdout.read(1)  # it runs
    executed = only(process.pid, ebpf.drain(), Executed)
    events = open_ebpf().drain()
    process.communicate()
    observed = only(process.pid, events, Observed)
    assert observed.facts == executed.facts
    assert observed.program == executed.program._replace(euid=None)
    assert observed.working_directory == b"/usr"
    cgroups = {event.cgroup_id: event.path for event in events if isinstance(event, CgroupSeen)}
    assert cgroups[observed.facts.cgroup_id] == observed.cgroup


def test_a_snapshot_has_every_process(ebpf: EbpfSource) -> None:
    """It has each process of procfs, including kernel threads, with exact starts."""
    before = {process.facts.pid: process.facts.start for process in Procfs().snapshot()}
    events = ebpf.resnapshot()
    after = {process.facts.pid: process.facts.start for process in Procfs().snapshot()}
    lasting = {item for item in before.items() if item in after.items()}
    observed = {
        (event.facts.pid, event.facts.start // TICK * TICK): event
        for event in events
        if isinstance(event, Observed)
    }
    assert lasting <= set(observed)
    assert any(event.facts.kernel_thread for event in observed.values())
    init = next(event for event in observed.values() if event.facts.pid == 1)
    assert (init.facts.ppid, init.facts.parent_start) == (0, None)


def test_procfs_data_of_many_processes_comes_later(
    ebpf: EbpfSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start waits only for the kernel's facts, and later drains add the rest."""
    monkeypatch.setattr(ebpf_module, "_READ_FIRST", 0)
    first = {e.facts.pid: e for e in ebpf.resnapshot() if isinstance(e, Observed)}
    me = os.getpid()
    assert first[me].partial
    assert first[me].program.executable is not None
    assert first[me].program.args is None
    assert ebpf.unread >= len(first) - 1
    full: dict[int, Observed] = {}
    while ebpf.unread:
        full |= {e.facts.pid: e for e in ebpf.drain() if isinstance(e, Observed)}
    assert first.keys() - full.keys() <= {1}  # which some hosts hide from BPF
    assert not full[me].partial
    assert full[me].facts == first[me].facts
    assert full[me].program.argv == tuple(Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1])
    assert full[me].cgroup is not None


def test_start_in_a_storm_misses_none(
    kernel_lock: None, open_ebpf: Callable[..., Source], truth: Truth
) -> None:
    """The programs are attached before the snapshot: no process that acts is missed."""
    files = [truth.file(), truth.file()]
    storm = [subprocess.Popen(truth.command(file, "spawn", 100_000)) for file in files]
    try:
        source = open_ebpf()
        events = source.drain()
        taken = max(event.time for event in events if isinstance(event, Observed))

        def forks() -> int:
            events.extend(source.drain())
            return sum(isinstance(event, Forked) for event in events)

        until(lambda: forks() > 200, 30, "a storm of forks")
    finally:
        for process in storm:
            process.kill()
            process.wait()
    assert not [event for event in events if isinstance(event, Lost)]
    known = set()
    strangers = []
    for event in events:
        if isinstance(event, (Observed, Forked)):
            known.add((event.facts.pid, event.facts.start))
        elif isinstance(event, (Executed, Exited)):
            # A process that was ending during the snapshot is not in it.
            late = isinstance(event, Executed) or event.time > taken
            if late and (event.facts.pid, event.facts.start) not in known:
                strangers.append(event)
    assert strangers == []


def test_overflow_is_counted_exactly(
    kernel_lock: None, ebpf: EbpfSource, open_ebpf: Callable[..., Source]
) -> None:
    """Records lost while the ring is full are counted by kind."""
    upper = Counter[str]()
    lower = Counter[str]()
    ebpf.drain()
    small = open_ebpf(ring_bytes=1 << 16)
    small.drain()  # the ring is empty when the counting starts
    early = ebpf.drain()
    for _ in range(300):
        run("/bin/true")
    lower.update(type(event).__name__ for event in ebpf.drain())
    events = small.drain()
    upper.update(type(event).__name__ for event in early + ebpf.drain())
    upper += lower
    seen = Counter(type(event).__name__ for event in events)
    lost = {event.kind: event.number for event in events if isinstance(event, Lost)}
    for name, kind in (("Forked", "fork"), ("Executed", "exec"), ("Exited", "exit")):
        assert lost[kind] > 100
        assert lower[name] <= seen[name] + lost[kind] <= upper[name]
    assert not [event for event in small.drain() if isinstance(event, Lost)]


def test_a_flood_of_changes_takes_no_room_from_processes(
    kernel_lock: None, open_ebpf: Callable[..., Source]
) -> None:
    """Any process can change its group without end: its records fill only a part of the ring."""
    source = open_ebpf(ring_bytes=1 << 20)
    source.drain()

    def change() -> int:
        for _ in range(20_000):
            os.setpgid(0, 0)
        return 0

    in_child(change)
    pids = [run("/bin/true")[0] for _ in range(50)]
    events = source.drain()
    lost = {event.kind for event in events if isinstance(event, Lost)}
    assert "group" in lost
    assert not lost & {"fork", "exec", "exit"}
    for kind in (Forked, Executed, Exited):
        for pid in pids:
            only(pid, events, kind)


def test_a_snapshot_after_a_loss_has_the_living_processes(
    kernel_lock: None, open_ebpf: Callable[..., Source]
) -> None:
    """Processes that started and executed during a loss are in the next snapshot."""
    small = open_ebpf(ring_bytes=1 << 16)
    small.drain()
    for _ in range(300):
        run("/bin/true")
    survivor = subprocess.Popen(["/bin/sh", "-c", "exec sleep 60"])
    # The kernel sets the arguments last; the name has changed before.
    arguments = Path(f"/proc/{survivor.pid}/cmdline")
    until(lambda: arguments.read_bytes() == b"sleep\x0060\0", 5, "an exec")
    before = small.drain()
    after = small.resnapshot()
    survivor.kill()
    survivor.wait()
    assert [event for event in before if isinstance(event, Lost)]
    assert of(survivor.pid, before, (Forked, Executed)) == []  # type: ignore[arg-type]
    observed = only(survivor.pid, after, Observed)
    assert observed.program.argv == (b"sleep", b"60")
    assert observed.facts.ppid == os.getpid()
    only(survivor.pid, small.drain(), Exited)


def test_readable_when_there_is_something(ebpf: EbpfSource) -> None:
    """The descriptor wakes a reader that had read everything."""
    poll = select.epoll()
    poll.register(ebpf.fileno(), select.EPOLLIN)
    ebpf.drain()
    run("/bin/true")
    assert poll.poll(1)
    ebpf.drain()
    poll.close()


OPEN_AND_TELL = """
from sessiond.sources.procfs.reader import Procfs
from sessiond.sources import open_source
source, declined = open_source("auto", Procfs())
print(source.name, len(source.drain()), source.degraded)
for one in declined:
    print(one.name, one.reason, "->", one.fix)
"""


OF_LATER_KERNELS = (
    ("task_struct", "loginuid"),  # needs CONFIG_AUDIT
    ("audit_context", "dummy"),
    ("pt_regs", "orig_ax"),
    ("signal_struct", "quick_threads"),
)


def test_a_kernel_with_fewer_features(
    monkeypatch: pytest.MonkeyPatch, procfs: Procfs, truth: Truth
) -> None:
    """Without features of later kernels, each process still ends once; missing ones are listed."""
    offset = btf.KernelBtf.offset
    monkeypatch.setattr(
        btf.KernelBtf,
        "offset",
        lambda self, *member: None if member in OF_LATER_KERNELS else offset(self, *member),
    )
    monkeypatch.setattr(btf.KernelBtf, "parameters", lambda _self, _typedef: 2)
    monkeypatch.setattr(ebpf_module, "_load", loader.load)
    source, _ = open_source("ebpf", procfs)
    try:
        source.drain()
        told = truth.run("last_thread", 50) + truth.run("thread", 50)
        events = source.drain()
        assert_agreement(told, events)
        assert only(told[0].pid, events, Exited).facts.loginuid == 0xFFFFFFFF
        assert len(source.degraded) == 4
        assert "setsid, setpgid and set*id are seen only at" in " ".join(source.degraded)
    finally:
        source.close()


class HeadersOnly(btf.KernelBtf):
    """The data in this kernel's headers, which do not have audit's struct."""

    def __init__(self, _bcc: object) -> None:
        super().__init__()

    def offset(self, struct: str, path: str) -> int | None:
        """Return the real offset, None for members that are private to the kernel."""
        return None if struct == "audit_context" else super().offset(struct, path)


def test_kernel_without_btf(monkeypatch: pytest.MonkeyPatch, procfs: Procfs, truth: Truth) -> None:
    """With its headers each process is reported; older processes come from procfs, as listed."""

    def no_btf() -> None:
        raise SourceUnavailableError("ebpf", "no BTF", "")

    monkeypatch.setattr(btf, "KernelBtf", no_btf)
    monkeypatch.setattr(kernel_headers, "available", lambda: True)
    monkeypatch.setattr(kernel_headers, "KernelHeaders", HeadersOnly)
    monkeypatch.setattr(ebpf_module, "_load", loader.load)
    source, _ = open_source("ebpf", procfs)
    try:
        there = {event.facts.pid for event in source.drain() if isinstance(event, Observed)}
        assert {1, os.getpid()} <= there
        told = [
            one for each in ("spawn", "orphan", "setsid", "pgid") for one in truth.run(each, 20)
        ]
        assert_agreement(told, source.drain())
        again = [event for event in source.resnapshot() if isinstance(event, Observed)]
        assert os.getpid() in {event.facts.pid for event in again}
        assert any("procfs" in what for what in source.degraded)
    finally:
        source.close()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of compiled programs, in a directory as the service manager creates it."""
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("CACHE_DIRECTORY", str(directory))
    return directory / compiled_programs.FILE


def test_programs_from_the_cache_are_those_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch,
    open_ebpf: Callable[..., EbpfSource],
    truth: Truth,
    cache: Path,
) -> None:
    """The second start has no compiler, and reports each process as the first one does."""
    compiled = open_ebpf()
    assert "there is none yet" in compiled.remark
    before = cache.stat().st_mtime_ns
    monkeypatch.setattr(loader, "_compile", None)
    monkeypatch.setattr(ebpf_module, "_load", loader.load)
    cached = open_ebpf()
    assert cached.remark == ""
    assert cache.stat().st_mtime_ns == before
    for source in (compiled, cached):
        source.drain()
    told = truth.run("spawn", 20) + truth.run("setsid", 5) + truth.run("pgid", 5)
    pids = {one.pid for one in told}
    first, second = (source.drain() for source in (compiled, cached))
    assert_agreement(told, first)
    assert in_order(pids, first) == in_order(pids, second)
    own, again = (only(os.getpid(), each.resnapshot(), Observed) for each in (compiled, cached))
    assert own.facts == again.facts


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda file, _key: file.write_bytes(b"short"), "another kernel"),
        (lambda file, _key: file.chmod(0o666), "others can write"),
        (lambda file, _key: os.truncate(file, 1000), "damaged"),
        (
            lambda file, key: compiled_programs.write(
                file,
                key,
                compiled_programs.CompiledPrograms((), dict.fromkeys(loader._TRACEPOINTS, b"")),
            ),
            "the kernel refused",
        ),
        (
            lambda file, key: compiled_programs.write(
                file, key, compiled_programs.CompiledPrograms((), {})
            ),
            "unusable",
        ),
    ],
    ids=["outdated", "writable", "truncated", "refused", "incomplete"],
)
def test_a_cache_that_can_not_be_used_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
    open_ebpf: Callable[..., EbpfSource],
    cache: Path,
    write: Callable[[Path, bytes], object],
    reason: str,
) -> None:
    """The start works all the same, and says why it has compiled."""
    monkeypatch.setattr(ebpf_module, "_load", loader.load)
    open_ebpf()
    good = cache.read_bytes()
    write(cache, good[:32])
    source = open_ebpf()
    assert source.remark.startswith(f"the eBPF programs were compiled; {cache}: ")
    assert reason in source.remark
    assert (cache.read_bytes(), cache.stat().st_mode & 0o777) == (good, 0o600)
    pid, _ = run("/bin/true")
    assert only(pid, source.drain(), Executed)


def test_a_cache_that_can_not_be_written_is_no_failure(
    open_ebpf: Callable[..., EbpfSource], cache: Path
) -> None:
    """Other users could write into the directory, so nothing is kept there."""
    cache.parent.chmod(0o777)
    source = open_ebpf()
    assert "it can't be written: " in source.remark
    assert not cache.exists()


@pytest.fixture
def audited_true() -> Iterator[socket.socket]:
    """A rule for execs of /usr/bin/true, and the socket that receives its records."""
    audit = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)  # NETLINK_AUDIT
    audit.bind((0, 1))  # AUDIT_NLGRP_READLOG
    audit.settimeout(5)
    rule = ("always,exit", "-F", "arch=b64", "-S", "execve", "-F", "exe=/usr/bin/true")
    auditctl("-a", *rule)
    auditctl("-e", "1")
    yield audit
    auditctl("-e", "0")
    auditctl("-d", *rule)
    audit.close()


@pytest.mark.usefixtures("audit_state")
def test_exec_knows_the_stamp_of_its_audit_event(
    ebpf: EbpfSource, audited_true: socket.socket
) -> None:
    """The audit time of an exec is the stamp of its later audit event; without audit it is None."""
    for _ in range(20):
        pid, _ = run("/usr/bin/true")
        stamp = None
        while stamp is None:
            record = audited_true.recv(9000)
            # The kernel can unload an earlier program within any system call of this process, and
            # audits that call.
            if f" pid={pid} ".encode() in record and b" syscall=59 " in record:
                seconds, _, millis = record.split(b"audit(")[1].split(b":")[0].partition(b".")
                stamp = int(seconds) * 1000 + int(millis)
        assert only(pid, ebpf.drain(), Executed).audit_time == stamp
    auditctl("-e", "0")
    pid, _ = run("/usr/bin/true")
    assert only(pid, ebpf.drain(), Executed).audit_time is None


def test_needs_two_capabilities_and_not_root() -> None:
    """A user with CAP_BPF and CAP_PERFMON gets everything."""
    user = AS_NOBODY.format("+bpf,+perfmon").split()
    told = subprocess.run(
        [*user, sys.executable, "-c", OPEN_AND_TELL], capture_output=True, text=True, check=True
    ).stdout.split(maxsplit=2)
    assert told[0] == "ebpf"
    assert int(told[1]) > 10
    assert told[2].strip() == "()"


def test_without_capabilities_says_which() -> None:
    """Without capabilities the next source is used, with the reason and the remedy."""
    user = AS_NOBODY.format("+kill").split()
    first, declined, *_ = subprocess.run(
        [*user, sys.executable, "-c", OPEN_AND_TELL], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert first.startswith(("proc_connector ", "procfs "))
    assert declined.startswith("ebpf not permitted without CAP_BPF and CAP_PERFMON -> grant ")


def test_helper_that_cannot_run_is_an_error(
    monkeypatch: pytest.MonkeyPatch, procfs: Procfs
) -> None:
    """A loader that exits without an answer causes a one-line error."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SourceUnavailableError, match="ended with 1") as caught:
        open_source("ebpf", procfs)
    assert "\n" not in str(caught.value)


def test_ring_that_the_kernel_refuses_is_an_error(procfs: Procfs) -> None:
    """A ring size that is not a power of two is an error."""
    with pytest.raises(SourceUnavailableError, match="EINVAL") as caught:
        open_source("ebpf", procfs, ring_bytes=3 * resource.getpagesize())
    assert "\n" not in str(caught.value)


def test_daemon_side_has_no_compiler(ebpf: EbpfSource) -> None:
    """Opening the source loads neither bcc, LLVM nor libbpf into the process."""
    code = OPEN_AND_TELL + "print(open('/proc/self/maps').read())"
    maps = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "ebpf" in maps.splitlines()[0]
    assert not [name for name in ("libbcc", "LLVM", "libbpf") if name in maps]


def drained(source: Source, seconds: float) -> list[Lost]:
    """Drain for a while, like the daemon, while processes start and end; return the losses."""
    lost: list[Lost] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        subprocess.run(["/bin/true"], check=True)
        lost += [event for event in source.drain() if isinstance(event, Lost)]
    return lost


def test_records_taken_by_another_reader_are_counted(open_ebpf: Callable[..., Source]) -> None:
    """A process that maps the ring can move the reader's position: the counters reveal that."""
    source = open_ebpf()
    assert drained(source, 2.5) == []
    thief = Ring(source.descriptors[1], RING_BYTES)
    try:
        for _ in range(10):
            subprocess.run(["/bin/true"], check=True)
        taken = sum(len(records) for _, records in thief.read())
    finally:
        thief.close()
    assert taken >= 30
    lost = drained(source, 2.5)
    assert {event.kind for event in lost} == {VANISHED}
    assert 0 < sum(event.number for event in lost) <= taken
    assert drained(source, 2.5) == []
