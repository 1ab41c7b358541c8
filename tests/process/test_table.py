"""The process table: identities, states over time, relatives, and bounded memory."""

import gc
import sys
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compiled import interpreted

from sessiond.process.entry import BY_INIT, BY_LOGIND, BY_SESSION, LOGIN_GONE
from sessiond.process.events import (
    Changed,
    Entry,
    Executed,
    Exited,
    Facts,
    Forked,
    Login,
    Observed,
    Program,
)
from sessiond.process.table import (
    ITSELF,
    MAX_ANCESTORS,
    MAX_CGROUP_BYTES,
    MAX_CGROUPS,
    MAY_HAVE_ADOPTED,
    STANDS_IN,
    Process,
    ProcessTable,
    Reference,
    is_torn,
)
from sessiond.units import SECOND

INIT = 1


def facts(pid: int, start: int, ppid: int = INIT, **more: object) -> Facts:
    known: dict[str, object] = {
        "parent_start": None,
        "pgid": pid,
        "sid": pid,
        "vpid": pid,
        "tty_major": 0,
        "tty_minor": 0,
        "uid": 0,
        "euid": 0,
        "suid": 0,
        "fsuid": 0,
        "gid": 0,
        "egid": 0,
        "sgid": 0,
        "fsgid": 0,
        "cap_permitted": 0,
        "cap_effective": 0,
        "loginuid": None,
        "audit_session": None,
        "pid_namespace": 1,
        "mount_namespace": 2,
        "user_namespace": 3,
        "network_namespace": 4,
        "cgroup_id": 5,
    }
    return Facts(pid=pid, start=start, ppid=ppid, **{**known, **more})  # type: ignore[arg-type]


def program(name: str) -> Program:
    return Program(name.encode(), f"/bin/{name}".encode(), name.encode() + b"\0", None)


def observed(pid: int, start: int, name: str, ppid: int = INIT, **more: object) -> Observed:
    return Observed(start, facts(pid, start, ppid, **more), program(name), b"/", None)


def observe(table: ProcessTable, event: Observed) -> Process:
    """Let the table observe one process of procfs."""
    (process,) = table.snapshot([event])
    return process


def fork(pid: int, time: int, creator: Process, **more: object) -> Forked:
    was = creator.state.facts
    inherited = {"pgid": was.pgid, "sid": was.sid, "ppid": creator.pid, **more}
    child = facts(pid, time, **inherited)  # type: ignore[arg-type]
    return Forked(time, child, creator.pid, creator.start, b"", None)


def execute(process: Process, time: int, name: str, **more: object) -> Executed:
    now = process.state.facts._replace(**more)  # type: ignore[arg-type]
    return Executed(time, now, program(name), None)


def leave(process: Process, time: int, status: int = 0) -> Exited:
    return Exited(time, process.state.facts, status)


def name_of(process: Process, time: int | None = None) -> bytes:
    return (process.state if time is None else process.at(time)).program.comm


@pytest.fixture
def table() -> ProcessTable:
    """A host with an init, a daemon that leads its session, and a shell on a terminal."""
    table = ProcessTable(lambda pid, start: f"{pid}@{start}")
    table.snapshot(
        [
            observed(INIT, 1, "init", ppid=0),
            observed(50, 5 * SECOND + 1, "sshd"),
            observed(60, 6 * SECOND + 1, "bash", ppid=50, tty_major=136),
        ]
    )
    return table


def at(table: ProcessTable, pid: int) -> Process:
    process = table.get(pid)
    assert process is not None
    return process


def test_a_child_inherits_what_its_creator_is(table: ProcessTable) -> None:
    """Program, group and session are the creator's until the child changes them."""
    shell = at(table, 60)
    child = table.forked(fork(61, 10 * SECOND + 1, shell))
    assert child.creator is shell
    assert name_of(child) == b"bash"
    assert child.state.session_leader is shell
    assert child.state.group_leader is shell
    assert shell.state.session_leader is ITSELF


def test_each_moment_has_its_own_program(table: ProcessTable) -> None:
    """Several execs of one process: an event that is read late gets the program of its time."""
    child = table.forked(fork(61, 10 * SECOND + 1, at(table, 60)))
    table.executed(execute(child, 10 * SECOND + 10, "env"))
    table.executed(execute(child, 10 * SECOND + 20, "nice"))
    table.executed(execute(child, 10 * SECOND + 30, "ls"))
    times = (10 * SECOND + 5, 10 * SECOND + 15, 10 * SECOND + 25, 10 * SECOND + 35)
    assert [name_of(child, time) for time in times] == [b"bash", b"env", b"nice", b"ls"]
    assert [p.comm for p in child.state.previous] == [b"bash", b"env", b"nice"]


def test_a_leader_that_has_ended_is_kept_whole_while_referred_to(table: ProcessTable) -> None:
    """Hours after its end a session leader still has every field."""
    shell = at(table, 60)
    child = table.forked(fork(61, 10 * SECOND + 1, shell))
    table.exited(leave(shell, 11 * SECOND, 3 << 8))
    table.forget(11 * SECOND + 3600 * SECOND)
    assert table.get(60) is None
    leader = child.state.session_leader
    assert isinstance(leader, Process)
    assert (leader.pid, name_of(leader), leader.end, leader.status) == (
        60,
        b"bash",
        11 * SECOND,
        3 << 8,
    )
    assert leader.creator == Reference(50, 5 * SECOND + 1, f"50@{5 * SECOND + 1}")


def test_an_unreferenced_process_is_freed_after_the_grace(table: ProcessTable) -> None:
    """An ended process is found for a while, then reference counting frees its memory."""
    child = table.forked(fork(61, 10 * SECOND + 1, at(table, 60)))
    table.exited(leave(child, 11 * SECOND))
    references = sys.getrefcount(child)
    table.forget(11 * SECOND)
    assert table.get(61) is child
    table.forget(11 * SECOND + 1)
    assert table.get(61) is None
    assert sys.getrefcount(child) < references


def test_a_chain_of_forks_does_not_keep_its_first_process(table: ProcessTable) -> None:
    """Each generation forks the next one and ends: memory stays that of a few processes."""
    gc.collect()  # objects of other tests
    gc.disable()
    try:
        process = at(table, 60)
        for generation in range(1, 500):
            now = 10 * SECOND + generation * SECOND
            child = table.forked(fork(100 + generation, now + 1, process))
            table.exited(leave(process, now + 2))
            table.forget(now + 3)
            process = child
        alive = sum(isinstance(each, Process) for each in gc.get_objects())
    finally:
        gc.enable()
    assert alive < 40


def line(process: Process) -> list[tuple[int, bytes]]:
    """Return the ancestors: pid and name of each, nearest first."""
    lineage = process.lineage
    return [] if lineage is None else [(a.pid, a.program.comm) for a in lineage.ancestors]


def test_a_line_of_descent_outlives_its_processes(table: ProcessTable) -> None:
    """Each ancestor has its program at the fork, long after all have ended."""
    shell = at(table, 60)
    script = table.forked(fork(61, 10 * SECOND + 1, shell))
    table.executed(execute(script, 10 * SECOND + 2, "script"))
    worker = table.forked(fork(62, 10 * SECOND + 3, script))
    table.executed(execute(script, 10 * SECOND + 4, "other"))
    for ended in (script, shell):
        table.exited(leave(ended, 11 * SECOND))
    table.forget(11 * SECOND + 3600 * SECOND)
    last = table.forked(fork(63, 4000 * SECOND, worker))
    assert line(worker) == [(61, b"script"), (60, b"bash"), (50, b"sshd"), (1, b"init")]
    assert line(last) == [(62, b"script"), *line(worker)]


def test_siblings_share_their_line_of_descent(table: ProcessTable) -> None:
    """All children of a shell share it; it has at most MAX_ANCESTORS."""
    shell = at(table, 60)
    first = table.forked(fork(61, 10 * SECOND + 1, shell))
    second = table.forked(fork(62, 10 * SECOND + 2, shell))
    assert first.lineage is second.lineage
    process = first
    for generation in range(1, 50):
        process = table.forked(fork(100 + generation, 11 * SECOND + generation, process))
    assert [pid for pid, _ in line(process)] == list(range(148, 148 - MAX_ANCESTORS, -1))


def test_a_reused_pid_is_another_process(table: ProcessTable) -> None:
    """The new process has no data of the old one, and each is found at its time."""
    shell = at(table, 60)
    old = table.forked(fork(61, 10 * SECOND + 1, shell))
    table.executed(execute(old, 10 * SECOND + 2, "old"))
    table.exited(leave(old, 10 * SECOND + 3, 7 << 8))
    new = table.forked(fork(61, 10 * SECOND + 4, shell))
    assert new is not old
    assert new.entity_id != old.entity_id
    assert (new.end, new.status, new.state.previous, name_of(new)) == (None, None, (), b"bash")
    assert table.holder(61, 10 * SECOND + 2) is old
    assert table.holder(61, 10 * SECOND + 5) is new


def test_a_missed_end_is_noted_when_the_pid_is_reused(table: ProcessTable) -> None:
    """A process whose end was lost can't continue under a pid of another process."""
    shell = at(table, 60)
    old = table.forked(fork(61, 10 * SECOND + 1, shell))
    table.forked(fork(61, 20 * SECOND + 1, shell))
    assert old.end == 20 * SECOND + 1
    assert old.status is None
    assert list(table.presumed) == [old]


def test_a_missed_end_is_not_dated_before_the_process_was_seen(table: ProcessTable) -> None:
    """The loss may have begun earlier: a line about the process may have that date."""
    seen = 9 * SECOND
    cron = observe(table, observed(70, 7 * SECOND + 1, "cron")._replace(time=seen))
    table.absent([], seen + SECOND, ended=seen - 1)
    assert cron.end == seen


def test_the_creator_stays_the_parent_after_reparenting(table: ProcessTable) -> None:
    """A double fork: creator and current parent are distinguished."""
    middle = table.forked(fork(61, 10 * SECOND + 1, at(table, 60)))
    daemon = table.forked(fork(62, 10 * SECOND + 2, middle))
    table.exited(leave(middle, 10 * SECOND + 3))
    table.executed(execute(daemon, 10 * SECOND + 4, "daemon", ppid=INIT, parent_start=1))
    assert daemon.creator is middle
    assert table.parent_now(daemon.state) is at(table, INIT)


def test_setsid_makes_a_leader_of_the_process_itself(table: ProcessTable) -> None:
    """Before it has its creator's session, afterwards its own."""
    child = table.forked(fork(61, 10 * SECOND + 1, at(table, 60)))
    new = child.state.facts._replace(sid=61, pgid=61, tty_major=0)
    table.changed(Changed(10 * SECOND + 5, new, "session"))
    assert child.at(10 * SECOND + 4).session_leader is at(table, 60)
    assert child.at(10 * SECOND + 5).session_leader is ITSELF
    assert child.state.group_leader is ITSELF


def test_a_change_of_directory_shows_when_the_process_forks(table: ProcessTable) -> None:
    """chdir is not traced; each fork reveals the creator's directory."""
    shell = at(table, 60)
    event = fork(61, 10 * SECOND + 1, shell)._replace(working_directory=b"/srv")
    child = table.forked(event)
    assert child.state.working_directory == b"/srv"
    assert shell.at(10 * SECOND).working_directory == b"/"
    assert shell.at(10 * SECOND + 1).working_directory == b"/srv"


def test_a_snapshot_and_the_tracer_mean_the_same_process(table: ProcessTable) -> None:
    """procfs rounds the start to a tick; the first known start stays the identity."""
    rough = observe(table, observed(70, 7 * SECOND, "cron"))
    event = Executed(9 * SECOND, facts(70, 7 * SECOND + 123_456), program("job"), None)
    assert table.executed(event) is rough
    assert rough.start == 7 * SECOND


def test_facts_that_a_snapshot_repeats_are_in_memory_once(table: ProcessTable) -> None:
    """After a restart nearly all processes are known; others may need more data of procfs."""
    event = observed(70, 7 * SECOND + 1, "sh")
    shell = observe(table, event._replace(cgroup=b"/", supplementary_groups=()))
    again = Facts(*event.facts)
    assert again is not shell.state.facts
    assert table.known_facts(again) is shell.state.facts
    moved = again._replace(pgid=50)
    assert table.known_facts(moved) is moved
    assert table.known_facts(again._replace(start=8 * SECOND + 1)) is None
    shell.state.groups = None
    assert table.known_facts(again) is None


def test_an_event_of_an_unknown_process_makes_it_known(table: ProcessTable) -> None:
    """After a loss: members that the event lacks stay unknown."""
    event = Executed(9 * SECOND, facts(80, 8 * SECOND + 1, ppid=999, sid=998), program("x"), None)
    process = table.executed(event)
    assert process.creator is None
    assert process.state.session_leader is None
    assert name_of(process) == b"x"


def test_after_a_loss_the_table_is_checked_against_the_host(table: ProcessTable) -> None:
    """Missing processes have ended; unknown ones are added."""
    child = table.forked(fork(61, 10 * SECOND + 1, at(table, 60)))
    there = [
        observed(INIT, 1, "init", ppid=0),
        observed(50, 5 * SECOND + 1, "sshd"),
        observed(60, 6 * SECOND + 1, "bash", ppid=50),
        observed(90, 12 * SECOND + 1, "new", ppid=60),
    ]
    assert table.reconcile(there, 20 * SECOND) == [child]
    assert child.end == 20 * SECOND
    assert at(table, 90).creator is at(table, 60)


def test_the_ceiling_is_kept_and_counted() -> None:
    """Beyond the limit ended processes are dropped first, then the oldest ones."""
    table = ProcessTable(lambda pid, start: f"{pid}@{start}", max_processes=10)
    for pid in range(1, 12):
        observe(table, observed(pid, pid * SECOND + 1, "p", ppid=0))
    table.exited(leave(at(table, 5), 20 * SECOND))
    table.forget(20 * SECOND)
    assert table.get(5) is None
    assert table.get(1) is not None
    observe(table, observed(99, 30 * SECOND + 1, "p", ppid=0))
    table.forget(30 * SECOND)
    assert table.get(1) is None
    assert (len(table), table.evicted) == (10, 2)


def test_after_a_lost_exec_the_program_is_unknown(table: ProcessTable) -> None:
    """It is unknown until procfs provides it: neither the old program nor a guess."""
    shell = at(table, 60)
    table.mark_program_unknown(shell, 10 * SECOND)
    assert name_of(shell, 9 * SECOND) == b"bash"
    assert name_of(shell) == b""
    observe(table, observed(60, 6 * SECOND + 1, "vim", ppid=50)._replace(time=12 * SECOND))
    assert name_of(shell, 11 * SECOND) == b""
    assert name_of(shell, 12 * SECOND) == b"vim"


def test_a_doubt_without_cause_leaves_no_trace(table: ProcessTable) -> None:
    """procfs shows the earlier program: no exec was lost."""
    shell = at(table, 60)
    table.mark_program_unknown(shell, 10 * SECOND)
    observe(table, observed(60, 6 * SECOND + 1, "bash", ppid=50)._replace(time=12 * SECOND))
    assert name_of(shell, 11 * SECOND) == b"bash"


def test_a_late_audit_event_of_a_lost_exec_is_put_where_it_belongs(table: ProcessTable) -> None:
    """Later execs stay the latest; states after the lost exec get its program."""
    child = table.forked(fork(61, 10 * SECOND + 1, at(table, 60)))
    table.mark_program_unknown(child, 10 * SECOND + 2)
    end = child.state.facts._replace(ppid=INIT)
    table.exited(Exited(12 * SECOND, end, 0))
    process, state = table.audited_exec(execute(child, 11 * SECOND, "ls"), session_known=True)
    assert process is child
    assert state.program.comm == b"ls"
    assert name_of(child, 10 * SECOND + 1) == b"bash"
    assert name_of(child, 14 * SECOND) == b"ls"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_history_leaves_only_the_living(data: st.DataObject) -> None:
    """Any history leaves only living processes in the table, and never wrong relatives."""
    table = ProcessTable(lambda pid, start: f"{pid}@{start}")
    table.snapshot([observed(INIT, 1, "init", ppid=0)])
    living = {INIT: at(table, INIT)}
    creators: dict[int, Process] = {}
    clock = count(SECOND + 1, 7)
    for _ in range(data.draw(st.integers(1, 60))):
        now = next(clock)
        process = living[data.draw(st.sampled_from(sorted(living)))]
        action = data.draw(st.sampled_from(["fork", "exec", "setsid", "exit"]))
        if action == "fork":
            pid = (
                data.draw(st.integers(2, 12).filter(lambda pid: pid not in living))
                if len(living) < 10
                else None
            )
            if pid is not None:
                living[pid] = table.forked(fork(pid, now, process))
                creators[pid] = process
        elif action == "exec":
            table.executed(execute(process, now, f"p{now}"))
        elif action == "setsid":
            new = process.state.facts._replace(sid=process.pid, pgid=process.pid)
            table.changed(Changed(now, new, "session"))
        elif process.pid != INIT:
            table.exited(leave(process, now))
            del living[process.pid]
    for pid, process in living.items():
        assert table.get(pid) is process
        assert pid == INIT or process.creator is creators[pid]
    table.forget(next(clock) + SECOND)
    assert {process.pid for process in table} == set(living)


@interpreted
def test_cgroups_are_forgotten_when_there_are_too_many(
    table: ProcessTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest entries are dropped first; a repeated one counts as new."""
    monkeypatch.setattr("sessiond.process.table.MAX_CGROUPS", 4)
    for number in (1, 2, 3, 4, 1, 5):
        table.name_cgroup(number, b"/%d" % number)
    assert table.cgroups == {1: b"/1", 5: b"/5"}


def test_groups_go_with_the_identity(table: ProcessTable) -> None:
    """A login drops its parent's groups; its earlier states keep them."""
    shell = observe(
        table, observed(70, 9 * SECOND + 1, "sh")._replace(supplementary_groups=(4, 27))
    )
    child = table.forked(fork(71, 10 * SECOND + 1, shell))
    assert child.state.groups == (4, 27)
    nobody = child.state.facts._replace(uid=65534, euid=65534)
    table.changed(Changed(10 * SECOND + 2, nobody, "ids", (65534,)))
    table.executed(execute(child, 10 * SECOND + 3, "sh"))
    assert [state.groups for state in child.states] == [(4, 27), (65534,), (65534,)]
    assert shell.state.groups == (4, 27)


def test_groups_are_unknown_where_the_source_does_not_see_them_change(table: ProcessTable) -> None:
    """The parent's groups would be wrong."""
    shell = observe(
        table, observed(70, 9 * SECOND + 1, "sh")._replace(supplementary_groups=(4, 27))
    )
    table.changed(Changed(10 * SECOND + 2, shell.state.facts._replace(uid=1), "ids"))
    assert shell.state.groups is None


def test_a_process_without_groups_is_seen_to_have_none(table: ProcessTable) -> None:
    """An empty list from procfs replaces the inherited groups."""
    seen = observed(70, 9 * SECOND + 1, "sh")
    shell = observe(table, seen._replace(supplementary_groups=(4, 27)))
    observe(table, seen._replace(supplementary_groups=()))
    assert shell.state.groups == ()


def test_execs_stamped_before_the_start_keep_their_order(table: ProcessTable) -> None:
    """The audit stamp is from a coarse clock, a tick before the start in procfs."""
    observe(table, observed(61, 10 * SECOND, "bash", ppid=60))
    child = at(table, 61)
    for name in ("one", "two", "three", "four"):
        table.audited_exec(execute(child, 10 * SECOND - 4_000_000, name), session_known=True)
    assert name_of(child) == b"four"
    assert name_of(child, 11 * SECOND) == b"four"


@pytest.mark.parametrize(("number", "name"), [(70_000, b"x"), (3_000, b"x" * 4_000)])
def test_a_container_keeps_its_cgroup_whoever_makes_others(number: int, name: bytes) -> None:
    """Empty cgroups of a user, many or with long names, displace only each other."""
    table = ProcessTable(lambda pid, start: f"{pid}@{start}")
    table.name_cgroup(7, b"/docker/abc")
    (process,) = table.snapshot([observed(500, SECOND, "sh", cgroup_id=7)])
    for cgroup_id in range(1_000, 1_000 + number):
        table.name_cgroup(cgroup_id, b"/user.slice/%b" % name)
    assert table.cgroup_of(process, process.state) == b"/docker/abc"
    assert len(table.cgroups) <= MAX_CGROUPS
    assert sum(map(len, table.cgroups.values())) <= MAX_CGROUP_BYTES
    assert 1_000 + number - 1 in table.cgroups  # it may be about to get a process


# Processes older than the daemon

SSH = Login("logind", b"sshd", b"192.0.2.7", b"pts/0", 10 * SECOND)
LOGGED_IN: dict[str, Any] = {"loginuid": 1000, "audit_session": 7}


def test_a_process_that_outlives_its_login_has_its_ended_leader(table: ProcessTable) -> None:
    """The pid comes from the kernel; the leader is an ancestor, and replaces the parent."""
    job = observed(80, 20 * SECOND + 1, "sh", pgid=70, sid=70, **LOGGED_IN)
    inside = observed(81, 21 * SECOND + 1, "make", ppid=80, pgid=81, sid=81, **LOGGED_IN)
    table.snapshot([inside, job._replace(login=SSH)])
    gone = Reference(
        70, 0, "70@0", Entry("sshd", "192.0.2.7", None, BY_LOGIND, 10 * SECOND), dated=True
    )
    for pid in (80, 81):
        assert at(table, pid).state.entry_leader == gone
    assert at(table, 80).creator == Reference(70, 0, "70@0")
    assert at(table, 80).creator_note == STANDS_IN
    assert at(table, 81).creator is at(table, 80)
    assert at(table, 80).state.session_leader is None
    assert is_torn(at(table, 80))
    assert is_torn(at(table, 81))


def test_what_a_gone_leader_left_stays_with_it(table: ProcessTable) -> None:
    """This includes another program, another session, and children."""
    job = observed(80, 20 * SECOND + 1, "sh", pgid=70, sid=70, **LOGGED_IN)
    table.snapshot([job._replace(login=SSH)])
    gone = at(table, 80).state.entry_leader
    table.executed(execute(at(table, 80), 30 * SECOND, "make"))
    changed = at(table, 80).state.facts._replace(pgid=80, sid=80)
    table.changed(Changed(31 * SECOND, changed, "session"))
    child = table.forked(fork(82, 32 * SECOND, at(table, 80)))
    table.executed(execute(child, 33 * SECOND, "cc"))
    assert at(table, 80).state.entry_leader == child.state.entry_leader == gone


def test_two_processes_of_one_ended_session_have_one_entry(table: ProcessTable) -> None:
    """Its start is that of the older one: without a record no earlier time is known."""
    some: dict[str, Any] = {"pgid": 70, "sid": 70}
    table.snapshot([observed(80, 20 * SECOND + 1, "sh", **some)])
    table.snapshot([observed(90, 30 * SECOND + 1, "sh", **some)])
    first, second = (at(table, pid).state.entry_leader for pid in (80, 90))
    assert first == second
    assert isinstance(first, Reference)
    assert first.entry == Entry("init", inferred=BY_INIT, start=20 * SECOND + 1)
    assert not first.dated


def test_a_server_that_a_login_left_behind_is_its_own_entry(table: ProcessTable) -> None:
    """tmux: init did not create it; its entry stays through execs."""
    table.snapshot([observed(80, 20 * SECOND + 1, "tmux", **LOGGED_IN)._replace(login=SSH)])
    server = at(table, 80)
    assert server.creator is None
    assert server.state.entry_leader is ITSELF
    assert (server.entry_type, server.entry_source) == ("sshd", "192.0.2.7")
    table.executed(execute(server, 30 * SECOND, "bash"))
    assert (server.entry_type, server.entry_inferred) == ("sshd", BY_LOGIND)


def test_the_server_of_a_login_tells_for_the_whole_audit_session(table: ProcessTable) -> None:
    """Its connection becomes known later, and replaces an address from the environment."""
    listener = at(table, 50)
    job = observed(80, 20 * SECOND + 1, "sh", pgid=70, sid=70, **LOGGED_IN)
    table.snapshot(
        [
            observed(55, 10 * SECOND + 1, "sshd", ppid=50, pgid=50, sid=50, **LOGGED_IN),
            job._replace(connection=b"192.0.2.66 1 192.0.2.1 22"),
            observed(81, 21 * SECOND + 1, "tmux", **LOGGED_IN),
            observed(90, 22 * SECOND + 1, "tmux", **{**LOGGED_IN, "audit_session": 8}),
        ]
    )
    assert at(table, 81).entry_inferred == LOGIN_GONE
    table.connected(at(table, 55), b"192.0.2.7 4711 192.0.2.1 22")
    left = at(table, 80).state.entry_leader
    assert isinstance(left, Reference)
    assert left.entry is not None
    assert left.entry[:4] == ("sshd", "192.0.2.7", None, BY_SESSION)
    server = at(table, 81)
    assert (server.entry_type, server.entry_source) == ("sshd", "192.0.2.7")
    assert at(table, 90).entry_type == "unknown"
    assert listener.entry_type == "init"


def test_another_login_process_of_the_audit_session_tells_as_well(table: ProcessTable) -> None:
    """The console's terminal is sufficient: the environment is not used."""
    console = observed(
        85, 10 * SECOND + 1, "login", pgid=85, sid=85, tty_major=4, tty_minor=1, **LOGGED_IN
    )
    server = observed(86, 20 * SECOND + 1, "tmux", **LOGGED_IN)
    table.snapshot([server._replace(connection=b"192.0.2.66 1 192.0.2.1 22"), console])
    found = at(table, 86)
    assert (found.entry_type, found.entry_source) == ("console", None)
    assert found.entry_inferred == BY_SESSION


@pytest.mark.parametrize(
    ("member", "note"),
    [
        (observed(80, 20 * SECOND + 1, "cron"), MAY_HAVE_ADOPTED),
        (
            observed(80, 20 * SECOND + 1, "cron")._replace(cgroup=b"/system.slice/cron.service"),
            None,
        ),
        (observed(80, 20 * SECOND + 1, "agetty", pgid=80, sid=1), None),
        (observed(80, 20 * SECOND + 1, "make", ppid=60, pgid=80, sid=60), None),
        (observed(80, 20 * SECOND + 1, "make", ppid=60, pgid=80, sid=50), MAY_HAVE_ADOPTED),
        (observed(80, 20 * SECOND + 1, "sh", ppid=60, pid_namespace=9), MAY_HAVE_ADOPTED),
    ],
    ids=["by init", "of a unit", "in its session", "of the shell", "of another", "in a container"],
)
def test_a_parent_that_may_have_adopted_it_is_not_vouched_for(
    table: ProcessTable, member: Observed, note: str | None
) -> None:
    """A note says so, unless its unit or its session shows who started it."""
    table.snapshot([member])
    process = at(table, 80)
    assert process.creator is at(table, member.facts.ppid)
    assert process.creator_note == note


def test_a_session_leader_that_lives_stands_for_the_parent(table: ProcessTable) -> None:
    """Orphans of an open login keep its shell as ancestor."""
    table.snapshot([observed(80, 20 * SECOND + 1, "make", pgid=80, sid=60)])
    process = at(table, 80)
    assert process.creator is at(table, 60)
    assert process.creator_note == STANDS_IN
    assert process.state.entry_leader is at(table, 60)


def test_a_late_fork_corrects_an_inferred_entry(table: ProcessTable) -> None:
    """The snapshot saw an orphan; then the tracer reports its creator."""
    table.snapshot([observed(80, 20 * SECOND + 1, "sh", ppid=1, pgid=80, sid=80)])
    assert at(table, 80).entry_inferred == BY_INIT
    shell = at(table, 60)
    table.forked(fork(80, 20 * SECOND + 1, shell, pgid=80, sid=80))
    process = at(table, 80)
    assert process.creator is shell
    assert (process.found, process.creator_note, process.entry_inferred) == (False, None, None)
    assert process.state.entry_leader is shell


def test_what_is_read_in_parts_has_its_entry_in_the_end(table: ProcessTable) -> None:
    """First the kernel's facts of all processes, then the procfs data of each, in any order."""
    job = observed(80, 20 * SECOND + 1, "sh", pgid=70, sid=70, **LOGGED_IN)
    make = observed(81, 21 * SECOND + 1, "make", ppid=80, pgid=70, sid=70, **LOGGED_IN)
    server = observed(82, 22 * SECOND + 1, "tmux", ppid=81, **LOGGED_IN)
    table.snapshot([each._replace(partial=True) for each in (job, make, server)])
    assert at(table, 80).state.entry_leader is None
    table.snapshot([server])
    table.snapshot([make])
    table.snapshot([job._replace(login=SSH)])
    gone = at(table, 80).state.entry_leader
    assert isinstance(gone, Reference)
    assert gone.entry is not None
    assert gone.entry.type == "sshd"
    assert at(table, 81).state.entry_leader == gone
    assert at(table, 82).state.entry_leader == gone
