"""Process data from audit events alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.auditlog import event

from sessiond.audit.record import CWD, EXECVE, SYSCALL
from sessiond.process.from_audit import execution, shortened, terminal, working_directory
from sessiond.process.table import ProcessTable
from sessiond.units import UNSET_ID

CALL = (
    b"arch=c000003e syscall=59 success=yes exit=0 ppid=60 pid=61 auid=1000 uid=1000 gid=100 "
    b"euid=0 suid=0 fsuid=0 egid=100 sgid=100 fsgid=100 tty=pts3 ses=7 "
    b'comm="id" exe="/usr/bin/id"'
)


def test_an_unknown_process_begins_with_its_exec() -> None:
    """Ids, terminal and program come from the record; other members are unknown."""
    told = event((SYSCALL, CALL), (EXECVE, b'argc=2 a0="id" a1="-u"'), (CWD, b'cwd="/srv/a b"'))
    executed = execution(told, 5_000, None, None)
    facts, program = executed.facts, executed.program
    assert (executed.time, facts.start, facts.pid, facts.ppid) == (5_000, 5_000, 61, 60)
    assert (facts.uid, facts.euid, facts.gid, facts.loginuid) == (1000, 0, 100, 1000)
    assert (facts.tty_major, facts.tty_minor, facts.audit_session) == (136, 3, 7)
    assert (facts.pgid, facts.sid, facts.cgroup_id) == (None, None, None)
    assert (program.comm, program.executable, program.argv) == (
        b"id", b"/usr/bin/id", (b"id", b"-u"),
    )  # fmt: skip
    assert (program.args_cut, program.deleted) == (False, False)
    assert executed.working_directory == b"/srv/a b"


def test_a_known_process_keeps_what_the_record_does_not_tell() -> None:
    """Its start, its session and its namespaces."""
    table = ProcessTable(lambda pid, start: f"{pid}-{start}")
    first = execution(event((SYSCALL, CALL)), 5_000, None, None)
    process = table.executed(first._replace(facts=first.facts._replace(sid=60, pid_namespace=9)))
    later = execution(event((SYSCALL, CALL.replace(b"euid=0", b"euid=8"))), 9_000, process, None)
    assert (later.facts.start, later.facts.sid, later.facts.pid_namespace) == (5_000, 60, 9)
    assert later.facts.euid == 8


def test_what_a_cut_record_does_not_tell_is_unknown_or_as_before() -> None:
    """A limit of syslog has cut it: root is not meant."""
    table = ProcessTable(lambda pid, start: f"{pid}-{start}")
    cut = event((SYSCALL, CALL[: CALL.index(b" euid")]))
    first = execution(cut, 5_000, None, None)
    facts = first.facts
    assert (facts.uid, facts.gid, facts.loginuid) == (1000, 100, 1000)
    assert {facts.euid, facts.suid, facts.fsuid, facts.egid, facts.sgid} == {UNSET_ID}
    assert (facts.audit_session, first.program.euid) == (None, None)
    process = table.executed(execution(event((SYSCALL, CALL)), 5_000, None, None))
    facts = execution(cut, 9_000, process, None).facts
    assert (facts.uid, facts.euid, facts.egid, facts.audit_session) == (1000, 0, 100, 7)
    assert (facts.tty_major, facts.tty_minor) == (136, 3)


def test_a_deleted_executable_has_its_path_alone() -> None:
    """The kernel's suffix becomes a separate attribute."""
    told = event((SYSCALL, CALL.replace(b'"/usr/bin/id"', b'"/tmp/x (deleted)"')))
    program = execution(told, 0, None, None).program
    assert (program.executable, program.deleted) == (b"/tmp/x", True)


@pytest.mark.parametrize("cut", [b'"', b'" (deleted)"', b""])
def test_an_executable_without_a_name_is_unknown(cut: bytes) -> None:
    """A limit has cut the record there."""
    told = event((SYSCALL, CALL.replace(b'"/usr/bin/id"', cut)))
    assert execution(told, 0, None, None).program.executable is None


def test_an_argv_of_which_a_part_is_missing_is_cut() -> None:
    """Two of three arguments arrived."""
    told = event((SYSCALL, CALL), (EXECVE, b'argc=3 a0="id" a1="' + b"x" * 300 + b'"'))
    assert execution(told, 0, None, None).program.args_cut


def test_without_its_record_the_working_directory_is_not_known() -> None:
    """The value is None, not empty."""
    assert working_directory(event((SYSCALL, CALL))) is None


@pytest.mark.parametrize(
    ("name", "device"),
    [
        (b"pts3", (136, 3)),
        (b"pts300", (136, 300)),
        (b"pts1048576", (0, 0)),
        (b"tty2", (4, 2)),
        (b"ttyS0", (4, 64)),
        (b"console", (5, 1)),
        (b"(none)", (0, 0)),
        (b"", (0, 0)),
        (b"pts99999999", (0, 0)),
    ],
)
def test_a_terminal_has_its_numbers(name: bytes, device: tuple[int, int]) -> None:
    """Numbers as the kernel has them, as in Documentation/admin-guide/devices.txt for most."""
    assert terminal(name) == device


def test_many_pseudo_terminals_have_their_numbers() -> None:
    """Their numbers go on beyond the 256 of the first major number's old meaning."""
    opened: list[tuple[int, int]] = []
    try:
        while len(opened) < 300:
            opened.append(os.openpty())
        name = os.ttyname(opened[-1][1])
        device = Path(name).stat().st_rdev
    except OSError:
        pytest.skip("no 300 pseudo terminals are available here")
    finally:
        for pair in opened:
            for descriptor in pair:
                os.close(descriptor)
    found = terminal(name.removeprefix("/dev/").replace("/", "").encode())
    assert found == (os.major(device), os.minor(device))


@given(st.lists(st.binary(max_size=20)), st.integers(0, 100))
def test_shortened_is_the_beginning_and_fits(args: list[bytes], limit: int) -> None:
    """Each argument also costs its NUL; at most the last one is cut."""
    short = shortened(args, limit)
    size = sum(map(len, args)) + len(args)
    assert (short is args) == (size <= limit)
    assert sum(map(len, short)) + max(0, len(short) - 1) <= limit or short is args
    assert short[:-1] == args[: max(0, len(short) - 1)]
    if short:
        assert args[len(short) - 1].startswith(short[-1])
