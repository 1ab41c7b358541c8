"""Processes as ECS objects: known values are present, unknown ones absent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from process.test_table import observe
from support.auditlog import FixedNames

from sessiond.ecs.process import (
    ProcessEncoder,
    capability_names,
    exit_code,
    tty_is_terminal,
)
from sessiond.ecs.wall_clock import WallClock
from sessiond.process.argv import join_args
from sessiond.process.events import Executed, Exited, Facts, Forked, Observed, Program
from sessiond.process.table import Process, ProcessTable
from sessiond.units import SECOND

BOOT = 1_777_629_600 * SECOND  # 2026-05-01T10:00:00Z


def facts(pid: int, start: int, ppid: int, **more: Any) -> Facts:
    known: dict[str, Any] = {
        "parent_start": None, "pgid": pid, "sid": pid, "vpid": pid, "tty_major": 0, "tty_minor": 0,
        "uid": 0, "euid": 0, "suid": 0, "fsuid": 0, "gid": 0, "egid": 0, "sgid": 0, "fsgid": 0,
        "cap_permitted": 0, "cap_effective": 0, "loginuid": None, "audit_session": None,
        "pid_namespace": 1, "mount_namespace": 2, "user_namespace": 3, "network_namespace": 4,
        "cgroup_id": None,
    }  # fmt: skip
    return Facts(pid=pid, start=start, ppid=ppid, **{**known, **more})


def program(name: str, *args: str) -> Program:
    argv = join_args(each.encode() for each in (name, *args))
    return Program(name.encode(), b"/bin/" + name.encode(), argv, None)


@pytest.fixture
def table() -> ProcessTable:
    """A shell on a terminal, a session leader, below init."""
    table = ProcessTable(lambda pid, _start: f"p{pid}")
    table.snapshot(
        [
            Observed(1, facts(1, 1, 0), program("init"), b"/", None),
            Observed(SECOND, facts(60, SECOND + 1, 1, tty_major=136, tty_minor=2),
                     program("bash"), b"/root", None),
        ]
    )  # fmt: skip
    return table


def child_of_shell(table: ProcessTable, **more: Any) -> Process:
    """A child of the shell that executes ls, in the shell's group and session."""
    told = facts(61, 2 * SECOND, 60, pgid=60, sid=60, tty_major=136, tty_minor=2, **more)
    table.forked(Forked(2 * SECOND, told, 60, SECOND + 1, b"bash", b"/srv"))
    return table.executed(Executed(3 * SECOND, told, program("ls", "-l"), b"/srv"))


def block(process: Process, time: int = 4 * SECOND, **more: Any) -> dict[str, Any]:
    encoder = ProcessEncoder(
        FixedNames(),
        WallClock.constant(BOOT),
        full=more.pop("full", ALL),
        identify=lambda pid, _start: f"gone-{pid}",
    )
    made: dict[str, Any] = json.loads(encoder.block(process, process.at(time), time=time, **more))
    return made


ALL = frozenset(("parent", "group_leader", "session_leader", "entry_leader"))


def test_a_process_and_its_relatives(table: ProcessTable) -> None:
    """All of them have the same members; the process itself has further ones."""
    made = block(child_of_shell(table))
    assert (made["pid"], made["entity_id"], made["name"]) == (61, "p61", "ls")
    assert made["start"] == "2026-05-01T10:00:02.000000Z"
    assert (made["args"], made["args_count"], made["command_line"]) == (["ls", "-l"], 2, "ls -l")
    assert (made["executable"], made["working_directory"]) == ("/bin/ls", "/srv")
    assert made["tty"] == {"char_device": {"major": 136, "minor": 2}}
    assert made["interactive"] is True
    assert made["user"] == {"id": "0", "name": "root"}
    assert made["previous"] == [{"executable": "/bin/bash", "args": ["bash"], "args_count": 1}]
    for relative in ("parent", "group_leader", "session_leader", "entry_leader"):
        assert made[relative]["pid"] == 60, relative
        assert made[relative]["executable"] == "/bin/bash", relative
    assert made["session_leader"]["same_as_process"] is False
    assert made["session_leader"]["parent"] == {
        "entity_id": "p1", "pid": 1, "start": "2026-05-01T10:00:00.000000Z",
    }  # fmt: skip
    assert "previous" not in made["parent"]


def test_a_leader_is_marked_as_itself(table: ProcessTable) -> None:
    """The shell is its own leader, in full."""
    shell = table.get(60)
    assert shell is not None
    made = block(shell)
    for leader in ("group_leader", "session_leader"):
        assert made[leader]["same_as_process"] is True
        assert made[leader]["entity_id"] == made["entity_id"]


def test_an_end_has_its_code(table: ProcessTable) -> None:
    """This includes a parent that ended before the event."""
    child = child_of_shell(table)
    table.exited(Exited(5 * SECOND, child.state.facts, 3 << 8))
    made = block(child, 5 * SECOND, ended=True)
    assert (made["exit_code"], made["end"]) == (3, "2026-05-01T10:00:05.000000Z")
    shell = table.get(60)
    assert shell is not None
    table.exited(Exited(6 * SECOND, shell.state.facts, 9))
    assert "exit_code" not in block(child, 5 * SECOND)["parent"]
    assert block(child, 7 * SECOND)["parent"]["exit_code"] == 137


def test_what_is_not_known_is_absent(table: ProcessTable) -> None:
    """No value is null or empty."""
    unknown = facts(70, 2 * SECOND, 0, pgid=None, sid=None, cap_effective=None, vpid=None)
    process = observe(
        table, Observed(2 * SECOND, unknown, Program(b"", None, None, None), None, None)
    )
    made = block(process)
    assert not {"name", "executable", "args", "command_line", "working_directory"} & made.keys()
    assert not {"parent", "group_leader", "session_leader", "tty", "thread"} & made.keys()
    assert "null" not in json.dumps(made)


def test_other_relatives_are_identities(table: ProcessTable) -> None:
    """They have what the tree of processes needs."""
    made = block(child_of_shell(table), full=frozenset({"session_leader"}))
    identity = {"entity_id": "p60", "pid": 60, "start": "2026-05-01T10:00:01.000000Z"}
    assert made["parent"] == identity
    assert made["group_leader"] == {**identity, "same_as_process": False}
    assert made["session_leader"]["executable"] == "/bin/bash"


def test_a_moment_has_its_own_program(table: ProcessTable) -> None:
    """An event before the exec has the earlier program."""
    child = child_of_shell(table)
    assert block(child, 2 * SECOND)["name"] == "bash"
    assert block(child, 3 * SECOND)["name"] == "ls"


def test_a_pid_of_its_own_namespace_is_told(table: ProcessTable) -> None:
    """The pid is written only if it differs."""
    assert block(child_of_shell(table, vpid=7))["vpid"] == 7
    assert "vpid" not in block(child_of_shell(table))["parent"]


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (11 | 0x80, 139)]
)
def test_an_exit_code_is_the_shells(status: int, code: int) -> None:
    """The code is 128 plus the number of the signal that ended the process."""
    assert exit_code(status) == code


def test_capabilities_have_names() -> None:
    """Values of a newer kernel are shown as numbers."""
    assert capability_names(1 << 0 | 1 << 39 | 1 << 60) == ["CAP_CHOWN", "CAP_BPF", "60"]


@pytest.mark.parametrize(
    ("device", "terminal"),
    [((136, 0), True), ((4, 64), True), ((5, 1), True), ((5, 0), False), ((0, 0), False)],
)
def test_a_terminal_is_what_a_person_can_sit_at(device: tuple[int, int], terminal: bool) -> None:
    """That is a pseudo terminal, a serial line, or a console."""
    assert tty_is_terminal(*device) is terminal


def test_unseen_leaders_have_their_pids(table: ProcessTable) -> None:
    """The kernel still has the ids of its group and session; a later process differs."""
    told = facts(70, 2 * SECOND, 60, pgid=50, sid=40)
    table.forked(Forked(2 * SECOND, told, 60, SECOND + 1, b"bash", b"/srv"))
    process = table.executed(Executed(3 * SECOND, told, program("ls"), b"/srv"))
    made = block(process)
    assert made["group_leader"] == {"entity_id": "gone-50", "pid": 50, "same_as_process": False}
    assert made["session_leader"] == {"entity_id": "gone-40", "pid": 40, "same_as_process": False}
