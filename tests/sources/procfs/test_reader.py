"""procfs: its data is returned unchanged, whatever the bytes; ended and denied are results."""

from __future__ import annotations

import ast
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.argv import join_args, split_args
from sessiond.process.events import Login, Observed
from sessiond.sources.procfs import parse, reader
from sessiond.sources.procfs.logins import LoginRecords
from sessiond.sources.procfs.parse import (
    Stat,
    parse_args,
    parse_cgroup,
    parse_stat,
    parse_status,
    parse_tcp,
    parse_variable,
    split_device,
)
from sessiond.sources.procfs.reader import Procfs
from sessiond.system import clock
from sessiond.system.proc import parse_namespace
from sessiond.units import TICK

ID = "6f2d1a9c" * 8

STATUS = b"""Name:\tcat
Umask:\t0022
State:\tS (sleeping)
Tgid:\t%(tgid)d
Ngid:\t0
Pid:\t%(tgid)d
PPid:\t1
TracerPid:\t0
Uid:\t1000\t1001\t1002\t1003
Gid:\t2000\t2001\t2002\t2003
FDSize:\t256
Groups:\t4 24 1000\x20
NStgid:\t%(tgid)d\t17
NSpid:\t%(tgid)d\t17
NSpgid:\t0\t0
NSsid:\t0\t0
Kthread:\t0
VmPeak:\t    3060 kB
CapInh:\t0000000000000000
CapPrm:\t00000000a80425fb
CapEff:\t0000000000000003
CapBnd:\t000001ffffffffff
"""


def stat_line(
    pid: int,
    *,
    comm: bytes = b"cat",
    state: bytes = b"S",
    ppid: int = 1,
    sid: int = 100,
    tty: int = 0,
    flags: int = 0x400000,
    threads: int = 1,
    start: int = 4200,
    args_end: int = 5000,
) -> bytes:
    fields = [b"0"] * 50
    for number, value in {
        3: state,
        4: b"%d" % ppid,
        5: b"%d" % sid,
        6: b"%d" % sid,
        7: b"%d" % tty,
        9: b"%d" % flags,
        20: b"%d" % threads,
        22: b"%d" % start,
        26: b"4096",
        48: b"%d" % (args_end and 4000),
        49: b"%d" % args_end,
    }.items():
        fields[number - 3] = value
    return b"%d (%b) %b\n" % (pid, comm, b" ".join(fields))


class Tree:
    """A procfs made of files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, pid: int, files: dict[str, bytes] | None = None, **members: object) -> Path:
        """Add a process; ``files`` replace or add, links are files whose name ends in @."""
        directory = self.root / str(pid)
        directory.mkdir()
        content = {
            "stat": stat_line(pid, **members),  # type: ignore[arg-type]
            "status": STATUS % {b"tgid": pid},
            "cmdline": b"cat\0-n\0",
            "cgroup": b"0::/system.slice/cat.service\n",
            "loginuid": b"1000",
            "sessionid": b"7",
            "exe@": b"/usr/bin/cat",
            "cwd@": b"/srv",
            "ns/pid@": b"pid:[4026531836]",
            "ns/mnt@": b"mnt:[4026531841]",
            "ns/user@": b"user:[4026531837]",
            "ns/net@": b"net:[4026531840]",
        }
        (directory / "ns").mkdir()
        for name, data in (content | (files or {})).items():
            if name.endswith("@"):
                os.symlink(data, os.fsencode(directory / name[:-1]))
            else:
                (directory / name).write_bytes(data)
        return directory

    def lookup(self, pid: int) -> Observed:
        """Read a living process."""
        found = Procfs(self.root).lookup(pid)
        assert found is not None
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


# Whole processes


def test_a_process_has_all_data_of_procfs(tree: Tree) -> None:
    """Each member comes from its file."""
    tree.add(100, ppid=1, start=4000)
    tree.add(500, ppid=100, tty=34817, start=4200)
    seen = tree.lookup(500)
    assert seen.facts._asdict() == {
        "pid": 500,
        "start": 4200 * TICK,
        "ppid": 100,
        "parent_start": 4000 * TICK,
        "pgid": 100,
        "sid": 100,
        "vpid": 17,
        "tty_major": 136,
        "tty_minor": 1,
        "uid": 1000,
        "euid": 1001,
        "suid": 1002,
        "fsuid": 1003,
        "gid": 2000,
        "egid": 2001,
        "sgid": 2002,
        "fsgid": 2003,
        "cap_permitted": 0xA80425FB,
        "cap_effective": 3,
        "loginuid": 1000,
        "audit_session": 7,
        "pid_namespace": 4026531836,
        "mount_namespace": 4026531841,
        "user_namespace": 4026531837,
        "network_namespace": 4026531840,
        "cgroup_id": None,
        "kernel_thread": False,
    }
    assert seen.program.comm == b"cat"
    assert seen.program.executable == b"/usr/bin/cat"
    assert seen.program.argv == (b"cat", b"-n")
    assert seen.program.args_size == 7
    assert seen.working_directory == b"/srv"
    assert seen.cgroup == b"/system.slice/cat.service"
    assert seen.supplementary_groups == (4, 24, 1000)
    assert seen.connection is None


def test_a_snapshot_has_every_process_and_nothing_else(tree: Tree) -> None:
    """Other entries of /proc are not processes."""
    tree.add(1, ppid=0)
    tree.add(500)
    (tree.root / "sys").mkdir()
    (tree.root / "self").symlink_to("500")
    (tree.root / "uptime").write_text("1.00 1.00\n")
    assert sorted(each.facts.pid for each in Procfs(tree.root).snapshot()) == [1, 500]


def test_an_ended_process_is_none(tree: Tree) -> None:
    """Its directory is missing, or has become empty since it was opened."""
    (tree.root / "500").mkdir()
    source = Procfs(tree.root)
    assert source.lookup(499) is None
    assert source.lookup(500) is None
    assert source.snapshot() == []
    assert (source.denied, source.malformed) == (0, 0)


def test_rubbish_is_counted_and_left_out(tree: Tree) -> None:
    """An invalid stat affects no other process."""
    tree.add(499, {"stat": b"nonsense"})
    tree.add(500)
    source = Procfs(tree.root)
    assert [each.facts.pid for each in source.snapshot()] == [500]
    assert source.malformed == 1


def test_a_file_that_the_kernel_does_not_have_leaves_its_member_unknown(tree: Tree) -> None:
    """The kernel lacks audit or user namespaces, or is too old for NSpid."""
    directory = tree.add(500)
    for name in ("loginuid", "sessionid", "ns/user"):
        (directory / name).unlink()
    old = (STATUS % {b"tgid": 500}).replace(b"NSpid:\t500\t17\n", b"")
    (directory / "status").write_bytes(old)
    facts = tree.lookup(500).facts
    assert facts.loginuid is facts.audit_session is facts.user_namespace is facts.vpid is None
    assert facts.cap_effective == 3


def test_a_thread_is_no_process(tree: Tree) -> None:
    """Its directory can be opened by its id, but is not listed."""
    tree.add(501, {"status": STATUS % {b"tgid": 500}})
    assert Procfs(tree.root).lookup(501) is None


def test_a_kernel_thread_is_known_by_the_kernels_flag(tree: Tree) -> None:
    """It has no program, no arguments, and no working directory."""
    tree.add(77, {"cmdline": b""}, comm=b"kworker/0:1", ppid=2, sid=0, flags=0x4208060)
    seen = tree.lookup(77)
    assert seen.facts.kernel_thread
    assert seen.program.comm == b"kworker/0:1"
    assert (seen.program.executable, seen.program.args, seen.working_directory) == (
        None,
        None,
        None,
    )


def test_a_zombie_is_found_by_its_pid_and_is_in_no_snapshot(tree: Tree) -> None:
    """Its end is written; the pid's holder is still known, but not its program."""
    tree.add(500, {"cmdline": b""}, state=b"Z", args_end=0)
    source = Procfs(tree.root)
    assert source.snapshot() == []
    seen = source.lookup(500)
    assert seen is not None
    assert seen.program.comm == b"cat"
    assert (seen.program.executable, seen.program.args) == (None, None)


def test_a_process_whose_first_thread_has_ended_is_no_zombie(tree: Tree) -> None:
    """It also has state Z, but it has other threads."""
    directory = tree.add(500, {"cmdline": b""}, state=b"Z", threads=2, args_end=0)
    (directory / "exe").unlink()
    (seen,) = Procfs(tree.root).snapshot()
    assert (seen.program.executable, seen.program.args) == (None, None)


def test_an_argv_over_the_limit_is_cut_and_says_how_long_it_is(tree: Tree) -> None:
    """stat has the start and the end of the argv."""
    tree.add(500, {"cmdline": b"cat\0" + b"x" * 996})
    seen = Procfs(tree.root, args_limit=100).lookup(500)
    assert seen is not None
    assert seen.program.argv == (b"cat", b"x" * 96)
    assert seen.program.args_size == 1000


# stat


def test_comm_may_hold_parentheses_blanks_and_newlines() -> None:
    """Any process can choose such a name: the last parenthesis ends it."""
    comm = b") R 1 1 1\n(x) S"
    parsed = parse_stat(stat_line(500, comm=comm, ppid=33))
    assert (parsed.comm, parsed.state, parsed.ppid) == (comm, b"S", 33)


@given(st.binary(max_size=64))
def test_any_comm_is_returned_unchanged(comm: bytes) -> None:
    """No name moves the fields after it."""
    parsed = parse_stat(stat_line(500, comm=comm, ppid=33))
    assert (parsed.pid, parsed.comm, parsed.ppid) == (500, comm, 33)


@given(st.binary())
def test_any_bytes_are_a_stat_or_an_error(data: bytes) -> None:
    """No exception other than ValueError is raised."""
    try:
        parse_stat(data)
    except ValueError:
        return
    assert data.count(b" ") >= 47


@pytest.mark.parametrize(
    ("number", "device"),
    [
        (0, (0, 0)),
        (1025, (4, 1)),
        (1088, (4, 64)),
        (34816, (136, 0)),
        (35071, (136, 255)),
        (1083392, (136, 256)),
        (-1879013376 & 0xFFFFFFFF, (136, 0x90000)),
        (-1879013376, (136, 0x90000)),
    ],
)
def test_a_terminal_is_split_as_the_kernel_joins_it(number: int, device: tuple[int, int]) -> None:
    """Twelve bits of major in the middle of twenty bits of minor."""
    assert split_device(number) == device


# status


@given(st.binary())
def test_any_bytes_are_a_status_or_an_error(data: bytes) -> None:
    """No exception other than ValueError is raised."""
    try:
        parse_status(data)
    except ValueError:
        return
    assert b"Tgid:" in data


@given(st.lists(st.integers(0, 2**32 - 1), max_size=300))
def test_all_supplementary_groups_are_told(groups: list[int]) -> None:
    """A process can have any number of them."""
    line = b"Groups:\t" + b"".join(b"%d " % group for group in groups) + b"\n"
    data = (STATUS % {b"tgid": 500}).replace(b"Groups:\t4 24 1000 \n", line)
    assert parse_status(data).groups == tuple(groups)


# cmdline


@pytest.mark.parametrize(
    ("data", "args"),
    [
        (b"", ()),
        (b"\0", (b"",)),
        (b"true\0", (b"true",)),
        (b"printf\0\0%s\0\0", (b"printf", b"", b"%s", b"")),
        (b"echo\0\0\0", (b"echo", b"", b"")),
        (b"sh\0-c\0echo a\nb\0", (b"sh", b"-c", b"echo a\nb")),
        (b"no end", (b"no end",)),
        (b"sshd: root@pts/0\0\0\0\0\0", (b"sshd: root@pts/0",)),
        (b"\xff\xfe\0", (b"\xff\xfe",)),
    ],
)
def test_arguments_end_with_a_nul_each(data: bytes, args: tuple[bytes, ...]) -> None:
    """Empty arguments count, the padding after a title does not."""
    assert split_args(parse_args(data)) == args


@given(st.lists(st.binary().map(lambda each: each.replace(b"\0", b"")), min_size=1))
def test_an_argv_is_returned_unchanged(args: list[bytes]) -> None:
    """Any argv is returned unchanged; a title is not an argv."""
    if b" " in args[0] and not any(args[1:]):
        del args[1:]
    assert split_args(parse_args(join_args(args))) == tuple(args)


# exe, cwd


def test_a_deleted_executable_keeps_its_path(tree: Tree) -> None:
    """The kernel's suffix is not part of the name."""
    tree.add(500, {"exe@": b"/tmp/x (deleted)", "cwd@": b"/tmp/d (deleted)"})
    seen = tree.lookup(500)
    assert seen.program.executable == b"/tmp/x"
    assert seen.program.deleted
    assert seen.working_directory == b"/tmp/d"


def test_a_file_can_be_called_deleted(tree: Tree, tmp_path: Path) -> None:
    """A file of this very name then exists in the root directory of the process."""
    there = tmp_path / "x (deleted)"
    there.touch()
    tree.add(500, {"exe@": os.fsencode(there), "root@": b"/"})
    seen = tree.lookup(500)
    assert seen.program.executable == os.fsencode(there)
    assert not seen.program.deleted


# cgroup


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/init.scope\n", "/init.scope"),
        ("0::/\n", "/"),
        # hybrid: systemd's names are in version 2, and repeated in its own hierarchy
        (
            (
                "9:memory:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-1.scope\n"
                "0::/user.slice/user-0.slice/session-1.scope\n"
            ),
            "/user.slice/user-0.slice/session-1.scope",
        ),
        # version 1, with a container that only the controllers show
        (f"9:memory:/docker/{ID}\n1:name=systemd:/a.service\n0::/\n", f"/docker/{ID}"),
        ("3:cpu,cpuacct:/c\n1:name=systemd:/\n0::/\n", "/c"),
        ("0::/a:b:c\n", "/a:b:c"),
        (f"0::/system.slice/docker-{ID}.scope (deleted)\n", f"/system.slice/docker-{ID}.scope"),
        ("0::/../../other\n", "/../../other"),
    ],
)
def test_the_cgroup_is_the_most_informative_path(text: str, path: str) -> None:
    """The order is: a container, version 2, systemd, any path except the root."""
    assert parse_cgroup(text.encode()) == path.encode()


@given(st.binary())
def test_any_bytes_are_cgroups_or_nothing(data: bytes) -> None:
    """A path starts with a slash, or is None."""
    path = parse_cgroup(data)
    assert path is None or path.startswith(b"/")


# ns, environ


@pytest.mark.parametrize(
    ("link", "number"),
    [(b"pid:[4026531836]", 4026531836), (b"pid:[]", None), (b"", None), (b"pid:[x]", None)],
)
def test_a_namespace_is_its_inode(link: bytes, number: int | None) -> None:
    """The kernel writes it into the link."""
    assert parse_namespace(link) == number


@given(st.binary())
def test_any_link_is_a_namespace_or_nothing(link: bytes) -> None:
    """No exception is raised."""
    parse_namespace(link)


@pytest.mark.parametrize(
    ("environment", "connection"),
    [
        (b"A=1\0SSH_CONNECTION=192.0.2.7 1 192.0.2.1 22\0", b"192.0.2.7 1 192.0.2.1 22"),
        (b"SSH_CONNECTION=first\0SSH_CONNECTION=second\0", b"first"),
        (b"MY_SSH_CONNECTION=no\0", None),
        (b"A=\nSSH_CONNECTION=no\0", None),
        (b"SSH_CONNECTION=\0", b""),
        (b"SSH_CONNECTION=cut off", b"cut off"),
        (b"", None),
    ],
)
def test_the_connection_is_a_variable_of_the_environment(
    environment: bytes, connection: bytes | None
) -> None:
    """The first variable of that name counts, at any position."""
    assert parse_variable(environment, b"SSH_CONNECTION") == connection


@given(st.binary())
def test_any_environment_is_searched_safely(environment: bytes) -> None:
    """The result contains no NUL."""
    assert b"\0" not in (parse_variable(environment, b"SSH_CONNECTION") or b"")


def test_only_the_environment_of_an_sshds_child_is_read(tree: Tree) -> None:
    """A session leader below sshd; other environments are not read."""
    environ = {"environ": b"SSH_CONNECTION=192.0.2.7 1 192.0.2.1 22\0"}
    tree.add(100, comm=b"sshd-session")
    tree.add(200, comm=b"bash")
    tree.add(500, environ, ppid=100, sid=500)
    tree.add(501, environ, ppid=100, sid=500)
    tree.add(502, environ, ppid=200, sid=502)
    tree.add(503, environ, ppid=100, sid=503, comm=b"sshd-session")
    assert tree.lookup(500).connection == b"192.0.2.7 1 192.0.2.1 22"
    for pid in (501, 502, 503):
        assert tree.lookup(pid).connection is None


def test_the_login_of_a_child_of_init_is_read(tree: Tree, tmp_path: Path) -> None:
    """init adopts processes whose parent has ended: the login's server may be gone."""
    environ = {"environ": b"SSH_CONNECTION=192.0.2.7 1 192.0.2.1 22\0"}
    tree.add(500, environ, ppid=1, sid=500)
    tree.add(501, environ, ppid=200, sid=501)
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    (sessions / "7").write_bytes(b"SERVICE=login\nTTY=tty1\nAUDIT=7\n")
    (sessions / "7").chmod(0o644)
    logins = LoginRecords(sessions, [], owner=os.getuid())
    adopted, other = (Procfs(tree.root, logins=logins).lookup(pid) for pid in (500, 501))
    assert adopted is not None
    assert other is not None
    assert adopted.connection == b"192.0.2.7 1 192.0.2.1 22"
    assert adopted.login == Login("logind", b"login", None, b"tty1", None)
    assert (other.connection, other.login) == (None, None)
    light = Procfs(tree.root, memory=False, logins=logins).lookup(500)
    assert light is not None
    assert (light.connection, light.login) == (None, adopted.login)


# This host's /proc


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A waiting process."""
    process = subprocess.Popen(
        [sys.executable, "-c", "input()", "", "a b", b"\xff"],
        stdin=subprocess.PIPE,
        cwd=tmp_path,
        start_new_session=True,
    )
    # Popen returns when the exec has succeeded.
    yield process
    process.kill()
    process.communicate()


def test_a_real_process_is_read_correctly(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """The result is compared with the test's knowledge of its child."""
    before = clock.now()
    seen = Procfs().lookup(child.pid)
    assert seen is not None
    facts = seen.facts
    assert (facts.pid, facts.ppid, facts.pgid, facts.sid) == (
        child.pid,
        os.getpid(),
        *[child.pid] * 2,
    )
    assert (facts.uid, facts.euid, facts.gid, facts.egid) == (
        os.getuid(),
        os.geteuid(),
        os.getgid(),
        os.getegid(),
    )
    assert seen.supplementary_groups is not None
    assert set(seen.supplementary_groups) == set(os.getgroups())
    assert before - 60 * 10**9 < facts.start <= before <= seen.time <= clock.now()
    assert (facts.tty_major, facts.tty_minor, facts.kernel_thread) == (0, 0, False)
    assert facts.pid_namespace == os.stat("/proc/self/ns/pid").st_ino
    assert facts.network_namespace == os.stat("/proc/self/ns/net").st_ino
    assert seen.program.executable == os.fsencode(os.path.realpath(sys.executable))
    assert seen.program.argv == (
        os.fsencode(sys.executable),
        b"-c",
        b"input()",
        b"",
        b"a b",
        b"\xff",
    )
    assert seen.program.args_size == sum(len(each) + 1 for each in seen.program.argv)
    assert seen.working_directory == os.fsencode(tmp_path)
    parent = Procfs().lookup(os.getpid())
    assert parent is not None
    assert facts.parent_start == parent.facts.start


def test_a_real_zombie_and_a_real_end(child: subprocess.Popen[bytes]) -> None:
    """It is found by its pid until it is waited for, and then no longer."""
    alive = Procfs().lookup(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = Procfs().lookup(child.pid)
    assert alive is not None
    assert zombie is not None
    assert zombie.facts.start == alive.facts.start
    assert zombie.program.executable is None
    assert child.pid not in {each.facts.pid for each in Procfs().snapshot()}
    child.communicate()
    assert Procfs().lookup(child.pid) is None


def test_a_real_thread_is_no_process() -> None:
    """/proc/TID can be opened, but is not a process."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert Path(f"/proc/{thread.native_id}/stat").exists()
        assert Procfs().lookup(thread.native_id) is None
    finally:
        done.set()
        thread.join()


def test_a_real_deleted_executable_and_one_that_is_called_so(tmp_path: Path) -> None:
    """They are distinguished by the existence of the name, even if the deleted file has a link."""
    sleep = Path("/bin/sleep").read_bytes()
    seen = []
    for name in ("gone", "linked", "here (deleted)"):
        program = tmp_path / name
        program.write_bytes(sleep)
        program.chmod(0o755)
        process = subprocess.Popen([program, "60"])
        try:
            if name == "linked":
                os.link(program, tmp_path / "other link")
            if name != "here (deleted)":
                program.unlink()
            observed = Procfs().lookup(process.pid)
            assert observed is not None
            assert observed.program.executable == os.fsencode(program)
            seen.append(observed.program.deleted)
        finally:
            process.kill()
            process.wait()
    assert seen == [True, True, False]


def test_a_real_memory_file_has_its_name() -> None:
    """A file of memfd_create(2) has a name and no path."""
    memory = os.memfd_create("a program", 0)
    try:
        os.write(memory, Path("/bin/sleep").read_bytes())
        process = subprocess.Popen(
            ["sleep", "60"], executable=f"/proc/self/fd/{memory}", pass_fds=[memory]
        )
        try:
            seen = Procfs().lookup(process.pid)
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(memory)
    assert seen is not None
    assert seen.program.executable == b"/memfd:a program"
    assert seen.program.deleted


def test_a_real_comm_with_a_trap_in_it() -> None:
    """prctl(PR_SET_NAME) accepts any bytes."""
    code = (
        "import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 (\\n\\xff'); print(flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        seen = Procfs().lookup(process.pid)
    finally:
        process.kill()
        process.communicate()
    assert seen is not None
    assert seen.program.comm == b") R 1 (\n\xff"
    assert seen.facts.ppid == os.getpid()


def test_a_program_is_never_mixed_with_the_next(tmp_path: Path) -> None:
    """A process executes two programs in turn, as fast as possible: each has its own argv."""
    for name, other, interpreter in (("one", "two", "bash"), ("two", "one", "sh")):
        (tmp_path / name).write_text(f"exec /bin/{interpreter} {tmp_path / other}\n")
    shell = os.fsencode(os.path.basename(os.path.realpath("/bin/sh")))
    both = {(b"sh", shell, b"sh", b"one"), (b"bash", b"bash", b"bash", b"two")}
    process = subprocess.Popen(["/bin/sh", tmp_path / "one"])
    seen: set[tuple[bytes, ...]] = set()
    lookups = 0
    try:
        deadline = time.monotonic() + 30
        while (lookups < 500 or seen != both) and time.monotonic() < deadline:
            lookups += 1
            observed = Procfs().lookup(process.pid)
            assert observed is not None
            comm, executable, args = observed.program[:3]
            if args is not None:
                assert executable is not None
                names = map(os.path.basename, observed.program.argv)
                seen.add((comm, os.path.basename(executable), *names))
    finally:
        process.kill()
        process.wait()
    assert seen == both


@pytest.mark.parametrize(("changes", "known"), [({"start_code": 7}, False), ({"comm": b"x"}, True)])
def test_an_argv_is_unknown_if_each_reading_meets_an_exec(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], known: bool
) -> None:
    """A process that only renames itself all the time does not hide its argv."""
    readings = 0

    def changing(data: bytes) -> Stat:
        nonlocal readings
        readings += 1
        stat = parse_stat(data)
        return stat._replace(**changes) if readings % 2 else stat

    monkeypatch.setattr(reader, "parse_stat", changing)
    tree.add(500)
    seen = Procfs(tree.root).lookup(500)
    assert seen is not None
    assert seen.program.executable is not None
    assert (seen.program.args is not None) == known


@pytest.mark.kernel
def test_what_is_denied_is_unknown_and_counted(child: subprocess.Popen[bytes]) -> None:
    """Another user sees ids and argv, but neither executable nor namespaces."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            source = Procfs()
            seen = source.lookup(child.pid)
            assert seen is not None
            told = (*seen.program[:3], seen.facts.euid, seen.facts.pid_namespace, source.denied)
            os.write(writing, repr(told).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with open(reading, "rb") as answer:
        comm, executable, args, euid, namespace, denied = ast.literal_eval(answer.read().decode())
    assert comm == os.fsencode(os.path.basename(sys.executable))
    assert split_args(args)[-1] == b"\xff"
    assert euid == 0
    assert executable is namespace is None
    assert denied == 6  # exe, cwd, and four namespaces


@pytest.mark.kernel
def test_a_reused_pid_is_never_half_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends during the read, and its pid is reused at once: it counts as ended."""
    victim = subprocess.Popen(["/bin/sleep", "60"])
    heirs: list[int] = []
    parse_status = parse.parse_status

    def swap(data: bytes) -> parse.ProcStatus:
        if not heirs:
            victim.kill()
            victim.wait()
            heirs.append(_fork_with_pid(victim.pid))
        return parse_status(data)

    monkeypatch.setattr(reader, "parse_status", swap)
    try:
        assert Procfs().lookup(victim.pid) is None
        after = Procfs().lookup(victim.pid)
    finally:
        for heir in heirs:
            os.kill(heir, signal.SIGKILL)
            os.waitpid(heir, 0)
    assert heirs == [victim.pid]
    assert after is not None
    assert after.program.executable == os.fsencode(os.path.realpath(sys.executable))


def _fork_with_pid(pid: int) -> int:
    """Fork until the child has this pid: the kernel uses the number after ns_last_pid."""
    for _ in range(1000):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        if child == pid:
            return child
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    pytest.fail("somebody else always took the pid")


@pytest.mark.kernel
def test_a_real_kernel_thread_is_one() -> None:
    """Pid 2, and the processes that it forked."""
    threads = [each for each in Procfs().snapshot() if each.facts.kernel_thread]
    assert {each.facts.ppid for each in threads} == {0, 2}
    assert all(each.program.executable is None for each in threads)


def test_each_of_many_processes_is_seen() -> None:
    """A start with hundreds of processes misses none."""
    processes = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(300)]
    try:
        seen = Procfs().snapshot()
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
    assert {process.pid for process in processes} <= {one.facts.pid for one in seen}


def test_stat_shows_the_same_process_whether_it_runs_or_waits() -> None:
    """A busy process is not read again; one that executed or ended is."""
    one = parse_stat(stat_line(500))
    assert one.shows_the_same(parse_stat(stat_line(500, state=b"R", flags=0, threads=7)))
    others: list[Stat] = [
        parse_stat(stat_line(500, comm=b"other")),
        parse_stat(stat_line(500, ppid=2)),
        parse_stat(stat_line(500, state=b"Z")),
        one._replace(start_code=8192),
    ]
    assert not any(one.shows_the_same(other) for other in others)


def test_the_boot_has_an_id() -> None:
    """A UUID, which stays the same until the next boot."""
    assert len(clock.boot_id()) == 36
    assert clock.boot_id() == clock.boot_id()


TCP = b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 x
   1: 0100007F:0016 070200C0:C822 01 00000000:00000000 00:00000000 00000000     0        0 12 1 x
"""
TCP6 = b"""\
  sl  local_address                         remote_address                        st
0: 00000000000000000000000001000000:0016 B80D0120000000000000000007000000:C823 01 0:0 0:0 0 0 0 13
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the samples are of a little-endian machine")
def test_connections_are_those_that_are_established() -> None:
    """The peer comes first, as in SSH_CONNECTION; listening sockets are not connections."""
    table = parse_tcp(TCP, TCP6)
    assert table.connections == {
        12: b"192.0.2.7 51234 127.0.0.1 22",
        13: b"2001:db8::7 51235 ::1 22",
    }
    assert table.root_ports == {b"22"}


@pytest.mark.parametrize(
    ("inodes", "accepted"),
    [
        ([5, 12], b"192.0.2.7 51234 127.0.0.1 22"),  # lines without a connection are skipped
        ([20, 12, 13], b"192.0.2.7 51234 127.0.0.1 22"),  # a forward to 192.0.2.9:80
        ([20], b"192.0.2.9 80 127.0.0.1 40000"),  # no process listens any more
        ([11], None),
    ],
)
def test_a_login_server_s_client_uses_a_port_of_root(
    inodes: list[int], accepted: bytes | None
) -> None:
    """Connections that it opens for its user do not."""
    table = parse_tcp(TCP, TCP6)
    table.connections[20] = b"192.0.2.9 80 127.0.0.1 40000"
    assert table.accepted(inodes) == accepted


def test_a_port_of_another_users_is_no_login_servers() -> None:
    """Any user may listen, but only root on the port of logins."""
    assert not parse_tcp(TCP.replace(b" 0        0 11", b" 4242     0 11")).root_ports


@given(st.binary(max_size=300))
def test_any_table_of_connections_is_read(table: bytes) -> None:
    """Invalid lines are skipped."""
    assert isinstance(parse_tcp(b"head\n" + table).connections, dict)


def test_a_process_is_known_by_the_connection_that_it_holds() -> None:
    """Processes without one, and ended processes, are not in the result."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours, theirs = server.getsockname()[1], 0
        with socket.create_connection(server.getsockname()) as client:
            accepted, (_, theirs) = server.accept()
            with accepted:
                client.set_inheritable(False)
                child = subprocess.Popen(["sleep", "9"], stdin=accepted.fileno())
            client_side = f"127.0.0.1 {theirs} 127.0.0.1 {ours}".encode()
            try:
                connections = Procfs().connections([child.pid, 2, 4_000_000])
            finally:
                child.kill()
                child.wait()
    assert connections == {child.pid: client_side}
