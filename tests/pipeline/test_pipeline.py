"""The pipeline: the reports of audit and of the tracer become one line for each action."""

from datetime import datetime
from typing import Any

import pytest
from ecs_schema.validate import validate
from hypothesis import given, settings
from hypothesis import strategies as st
from support.daemon import value
from support.scripted import BOOT, Actor, Records, documents
from support.story import Bench, Story, T

from sessiond.audit.record import PROCTITLE
from sessiond.pipeline.joins import HOLD
from sessiond.pipeline.pipeline import MAX_LINES
from sessiond.process.events import Changed, Lost, Observed, ProcessEvent
from sessiond.units import MILLISECOND, SECOND


def only(written: list[dict[str, Any]], action: str) -> dict[str, Any]:
    (found,) = [each for each in written if each["event"]["action"] == action]
    return found


@pytest.fixture
def bench() -> Bench:
    """An exact source reports every fork, exec and exit."""
    return Bench()


def test_an_exec_is_joined_and_enriched(bench: Bench) -> None:
    """An event of audit and of the tracer is one line, with the relatives at its time."""
    event, records = bench.child().execute("ls", T + 2_000_000, "-l")
    bench.tell(event, audit=records)
    line = only(bench.settle(), "exec")
    process = line["process"]
    assert line["event"]["provider"] == ["auditd", "ebpf"]
    assert line["auditd"]["data"]["syscall"] == "execve"
    assert (process["args"], process["executable"]) == (["ls", "-l"], "/bin/ls")
    assert process["parent"]["executable"] == "/bin/bash"
    assert process["session_leader"]["pid"] == 60
    assert process["previous"] == [{"executable": "/bin/bash", "args": ["bash"], "args_count": 1}]
    assert line["@timestamp"] == "2026-05-01T10:00:10.002000Z"


def test_the_audit_event_may_come_before_the_tracers(bench: Bench) -> None:
    """It waits for the tracer's event; the line is the same."""
    event, records = bench.child().execute("ls", T + 2_000_000)
    bench.tell(audit=records)
    assert bench.written == []
    bench.tell(event, after=1_000_000)
    assert only(bench.settle(), "exec")["process"]["name"] == "ls"


def test_two_execs_in_one_tick_are_distinguished(bench: Bench) -> None:
    """They have one pid and one audit stamp, but different programs: each line has its own."""
    child = bench.child()
    first, first_records = child.execute("env", T + 100_000)
    second, second_records = child.execute("ls", T + 200_000)
    bench.tell(first, second, audit=first_records + second_records)
    assert [each["process"]["name"] for each in bench.settle()] == ["env", "ls"]


def test_a_lost_record_is_not_replaced_by_the_next_exec_s(bench: Bench) -> None:
    """They have one pid, one audit stamp and one program; only the arguments differ."""
    child = bench.child()
    first, _ = child.execute("sh", T + 100_000, "one")
    second, records = child.execute("sh", T + 200_000, "two")
    bench.tell(first, audit=records)
    bench.tell(second, after=1_000_000)
    told = [(each["process"]["args"], each["event"]["provider"]) for each in bench.settle()]
    assert told == [(["sh", "one"], ["ebpf"]), (["sh", "two"], ["auditd", "ebpf"])]


def test_a_changed_argv_makes_no_second_exec(bench: Bench) -> None:
    """The user can write to the memory while audit waits for room in its backlog."""
    executed, records = bench.child().execute("sh", T + 100_000, "one")
    changed = [(kind, text.replace(b"one", b"two")) for kind, text in records]
    bench.tell(executed, audit=changed)
    bench.settle()
    assert bench.actions() == ["exec"]
    assert bench.pipeline.status()["execs_unjoined"] == 0


def test_a_changed_argv_replaces_no_cut_one(bench: Bench) -> None:
    """A debugger changes the memory between the tracer, which read a part, and audit."""
    executed, records = bench.child().execute("sh", T + 100_000, "one", "two")
    program = executed.program._replace(args=b"sh\0one\0", args_size=11)
    changed = [(kind, text.replace(b"one", b"own")) for kind, text in records]
    bench.tell(executed._replace(program=program), audit=changed)
    (line,) = bench.settle()
    assert line["process"]["args"] == ["sh", "one"]
    assert line["sessiond"]["truncated"] == ["process.args"]
    assert "process.args: changed before audit read them" in line["sessiond"]["incomplete"]


@pytest.mark.parametrize("audit_first", [True, False])
def test_an_end_is_one_line_in_any_order(bench: Bench, audit_first: bool) -> None:
    """audit's exit_group and the tracer's exit are one end."""
    event, records = bench.child().exit(3, T + 5_000_000)
    if audit_first:
        bench.tell(audit=records)
        bench.tell(event, after=1_000_000)
    else:
        bench.tell(event)
        bench.tell(audit=records, after=1_000_000)
    assert bench.actions() == ["end"]
    line = bench.written[0]
    assert line["process"]["exit_code"] == 3
    assert line["process"]["end"] == line["@timestamp"]
    assert line["auditd"]["data"]["syscall"] == "exit_group"


def test_a_signal_is_an_end_too(bench: Bench) -> None:
    """There is no audit record; the line has the signal."""
    bench.tell(bench.child().die(9, T + 5_000_000))
    line = only(bench.settle(), "end")
    assert line["event"]["provider"] == ["ebpf"]
    assert line["process"]["exit_code"] == 137
    assert line["sessiond"]["signal"] == {"number": 9, "name": "SIGKILL", "core_dumped": False}


def test_a_call_right_after_a_change_of_user_is_the_new_user_s(bench: Bench) -> None:
    """The stamp of its record is that of the clock's last tick, before the change."""
    child = bench.child()
    facts = child.facts._replace(uid=65534, euid=65534)
    failed = child.fail_to_execute(T + 1_000_000)
    told = [(kind, text.replace(b"uid=0", b"uid=65534")) for kind, text in failed]
    bench.tell(Changed(T + 500_000, facts, "ids"), audit=told)
    assert only(bench.settle(), "exec-failed")["process"]["user"]["id"] == "65534"


def test_nothing_is_written_of_a_process_after_its_end(bench: Bench) -> None:
    """A late exec is still written before the end."""
    child = bench.child()
    event, records = child.execute("ls", T + 1_000_000)
    bench.tell(event, child.die(15, T + 2_000_000))
    bench.tell(audit=records, after=50_000_000)
    assert bench.actions() == ["exec", "end"]


def test_setsid_by_audit_and_by_the_tracer_is_one_line(bench: Bench) -> None:
    """The process is its own session leader in the line."""
    changed, records = bench.child().set_session(T + 3_000_000)
    bench.tell(changed, audit=records)
    line = only(bench.settle(), "setsid")
    assert line["process"]["session_leader"]["same_as_process"] is True
    assert line["process"]["parent"]["pid"] == 60


def test_an_incomplete_event_is_written_before_the_end(bench: Bench) -> None:
    """No more records can follow, and no event of a process is written after its end."""
    child = bench.child()
    failed = child.fail_to_execute(T + 1_000_000)
    end, records = child.exit(0, T + 2_000_000)
    bench.tell(end, audit=failed[:-1] + records)
    bench.settle()
    assert bench.actions() == ["exec-failed", "end"]
    assert bench.pipeline.status()["audit_events_unfinished"] == 1


def test_a_waiting_setsid_is_written_before_the_end(bench: Bench) -> None:
    """Its record was lost, the record of the end was not."""
    child = bench.child()
    session, _ = child.set_session(T + 1_000_000)
    end, records = child.exit(0, T + 2_000_000)
    bench.tell(session, end, audit=records)
    bench.settle()
    assert bench.actions() == ["setsid", "end"]
    assert bench.written[0]["@timestamp"] < bench.written[1]["@timestamp"]


def test_processes_with_one_pid_in_one_tick_are_distinguished(bench: Bench) -> None:
    """Sessions and ends of three processes are joined with their own audit events."""
    bench.child()  # the same pid is assigned repeatedly
    told: list[ProcessEvent] = []
    records: Records = []
    for number in range(3):
        begin = T + 200_000 + number * 600_000
        child, forked = bench.host.shell.fork(62, begin)
        session, session_records = child.set_session(begin + 100_000)
        told.extend((forked, session))
        records += session_records
        if number == 1:
            told.append(child.die(9, begin + 200_000))
            continue
        end, end_records = child.exit(number, begin + 200_000)
        told.append(end)
        records += end_records
    bench.tell(*told, audit=records)
    lines = bench.settle()
    starts = [f"p62-{T + 200_000 + number * 600_000}" for number in range(3)]
    for action in ("setsid", "end"):
        found = {
            line["process"]["entity_id"]: line["event"]["provider"]
            for line in lines
            if line["event"]["action"] == action
        }
        assert sorted(found) == starts
        audited = [who for who in starts if found[who] == ["auditd", "ebpf"]]
        assert audited == (starts if action == "setsid" else [starts[0], starts[2]])
    for line in lines:
        if line["event"]["action"] == "end" and "auditd" in line:
            assert int(line["auditd"]["data"]["a0"], 16) == line["process"]["exit_code"]


def test_a_helper_of_the_kernel_is_reported_by_the_tracer(bench: Bench) -> None:
    """Its exec has no system call and no audit event; its later execs are audited."""
    worker = bench.host.shell.fork(70, T)[0]
    worker.facts = worker.facts._replace(ppid=2, sid=0, pgid=0, kernel_thread=True)
    helper, forked = worker.fork(71, T + 1_000)
    helper.facts = helper.facts._replace(kernel_thread=False)
    first, _ = helper.execute("core-reader", T + 2_000)
    second, records = helper.execute("sh", T + 3_000)
    observed = Observed(T, worker.facts, worker.program, None, None)
    bench.tell(observed, forked._replace(facts=helper.facts), first, second, audit=records)
    by_kernel, audited = bench.settle()
    assert (by_kernel["process"]["name"], audited["process"]["name"]) == ("core-reader", "sh")
    assert by_kernel["event"]["provider"] == ["ebpf"]
    assert audited["event"]["provider"] == ["auditd", "ebpf"]
    assert by_kernel["process"]["parent"]["pid"] == 70
    assert "incomplete" not in by_kernel.get("sessiond", {})


def test_a_failed_exec_changes_nothing_and_says_why(bench: Bench) -> None:
    """The event has the process as it is."""
    bench.tell(audit=bench.child().fail_to_execute(T + 1_000_000))
    line = only(bench.settle(), "exec-failed")
    assert line["event"]["outcome"] == "failure"
    assert line["error"]["code"] == "EACCES"
    assert line["process"]["executable"] == "/bin/bash"


def test_the_creator_stays_the_parent_after_reparenting(bench: Bench) -> None:
    """A double fork: the process in the middle has ended when the daemon executes its program."""
    middle = bench.child(61)
    daemon, forked = middle.fork(62, T + 2_000_000)
    bench.tell(forked, middle.exit(0, T + 3_000_000)[0])
    daemon.facts = daemon.facts._replace(ppid=1, parent_start=1)
    event, records = daemon.execute("sleep", T + 4_000_000)
    bench.tell(event, audit=records)
    line = only(bench.settle(), "exec")
    assert line["process"]["parent"]["pid"] == 61
    assert line["process"]["parent"]["exit_code"] == 0
    assert line["sessiond"]["reparented_to"] == {"pid": 1, "entity_id": "p1-1"}


def test_an_unknown_process_has_only_audit_s_data(bench: Bench) -> None:
    """No relative is guessed, and the reason is a text."""
    stranger = Actor(
        bench.host, 999, T, bench.host.shell.facts._replace(pid=999), bench.host.shell.program
    )
    bench.tell(audit=stranger.execute("ls", T + 1_000_000)[1])
    line = only(bench.settle(), "exec")
    assert line["process"]["pid"] == 999
    assert "entity_id" not in line["process"]
    assert line["sessiond"]["incomplete"] == ["process: the tracer did not see it"]


def test_a_lost_record_is_reported(bench: Bench) -> None:
    """An event without its end is written late, and marked."""
    event, records = bench.child().execute("ls", T + 1_000_000)
    bench.tell(event, audit=records[:-1])
    line = only(bench.settle(), "exec")
    assert "audit: the end of the event was lost" in line["sessiond"]["incomplete"]


def test_a_loss_of_the_tracer_is_an_event_in_the_stream(bench: Bench) -> None:
    """The event has the hop and the number, so that an analyst knows where data is missing."""
    bench.tell(Lost(T, "exec", 812))
    line = only(bench.settle(), "sessiond-lost")
    assert line["event"]["kind"] == "pipeline_error"
    assert line["sessiond"]["loss"]["count"] == 812
    assert line["sessiond"]["loss"]["hop"] == "tracer"


def test_a_loss_begins_at_the_last_read(bench: Bench) -> None:
    """Lines that are written in between, without reading, do not shorten the window."""
    bench.tell()
    bench.pipeline.poll(bench.now + 5 * SECOND)
    bench.tell(Lost(T + 6 * SECOND, "exec", 1), after=6 * SECOND)
    line = only(bench.settle(), "sessiond-lost")
    began, ended = (datetime.fromisoformat(line["event"][name]) for name in ("start", "end"))
    assert (ended - began).total_seconds() == 6


def test_after_lost_execs_no_program_is_guessed(bench: Bench) -> None:
    """The child may have executed a program: its end does not show the shell's."""
    child, forked = bench.host.shell.fork(61, T + 1)
    bench.tell(forked, child.exit(0, T + 2_000_000)[0], Lost(T + 3_000_000, "exec", 1))
    line = only(bench.settle(), "end")
    assert "executable" not in line["process"]
    assert "args" not in line["process"]


def test_lines_are_numbered_without_a_gap(bench: Bench) -> None:
    """A gap in event.sequence means a loss after sessiond."""
    for pid in range(61, 71):
        child = bench.child(pid, T + pid)
        event, records = child.execute("true", T + pid * 1_000_000)
        ended, end_records = child.exit(0, T + pid * 1_000_000 + 500)
        bench.tell(event, ended, audit=records + end_records)
    assert [each["event"]["sequence"] for each in bench.settle()] == list(range(1, 21))


def test_the_same_event_has_the_same_id_when_it_is_read_again() -> None:
    """After a crash a reader can distinguish a repeated line from a new event."""
    ids = []
    for _ in range(2):
        bench = Bench()
        child = bench.child()
        event, records = child.execute("ls", T + 1_000_000)
        bench.tell(event, child.die(9, T + 2_000_000), audit=records)
        ids.append([each["event"]["id"] for each in bench.settle()])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


@pytest.mark.parametrize("wanted", ["all", True])
def test_every_fork_is_written_if_configured(wanted: object) -> None:
    """This includes a child that no other line mentions."""
    bench = Bench(fork_events=wanted)
    bench.child()
    forked = [each for each in bench.settle() if each["process"]["pid"] == 61]
    assert only(forked, "fork")["process"]["name"] == "bash"


@pytest.mark.parametrize(("wanted", "told"), [("needed", [62]), ("none", []), (False, [])])
def test_a_fork_is_written_before_the_exec_of_a_child(wanted: object, told: list[int]) -> None:
    """A subshell executes nothing: without its fork, its child would have no parent."""
    bench = Bench(fork_events=wanted)
    bench.child(63)  # no line needs it
    subshell = bench.child(62)
    child, forked = subshell.fork(64, T + 2_000_000)
    event, records = child.execute("ls", T + 4_000_000)
    bench.tell(forked, event, audit=records)
    lines = [each for each in bench.settle() if each["process"]["pid"] not in (1, 60)]
    assert [each["process"]["pid"] for each in lines if each["event"]["action"] == "fork"] == told
    assert lines[-1]["event"]["action"] == "exec"
    assert all(each["@timestamp"] == each["process"]["start"] for each in lines[:-1])


def test_a_process_that_is_older_has_its_fork_when_a_child_executes() -> None:
    """Session View draws only forks, execs and ends, not the inventory's lines."""
    bench = Bench(fork_events="needed", inventory=True)
    event, records = bench.child().execute("ls", T + 2_000_000)
    bench.tell(event, audit=records)
    steps = [(each["event"]["action"], each["process"]["pid"]) for each in bench.settle()]
    assert steps == [
        ("already_running", 1),
        ("already_running", 60),
        ("fork", 1),
        ("fork", 60),
        ("exec", 61),
    ]


def test_a_session_leader_that_never_executes_has_its_fork_first() -> None:
    """An example is the server that tmux forks; its fork is written once."""
    bench = Bench(fork_events="needed")
    child = bench.child()
    event, records = child.set_session(T + 2_000_000)
    bench.tell(event, audit=records)
    bench.tell(child.exit(0, T + 9_000_000)[0])
    steps = [each["event"]["action"] for each in bench.settle() if each["process"]["pid"] == 61]
    assert steps == ["fork", "setsid", "end"]


def test_an_event_that_waits_has_a_deadline(bench: Bench) -> None:
    """The daemon sleeps no longer than until the first deadline."""
    assert bench.pipeline.deadline() is None
    bench.tell(bench.child().exit(0, T)[0])
    deadline = bench.pipeline.deadline()
    assert deadline is not None
    assert deadline <= T + HOLD + SECOND


def test_events_that_are_overdue_do_not_fill_the_memory(bench: Bench) -> None:
    """After a loss of records thousands have waited: a poll writes some MB, the next ones go on."""
    pipeline = bench.pipeline
    children = [bench.child(pid, T + pid) for pid in range(1000, 1200)]
    bench.tell(*(child.execute("ls", T + SECOND, "-" * 30_000)[0] for child in children))
    bench.now += 2 * SECOND
    pipeline.feed_audit([], now=bench.now)
    polls = [pipeline.poll(bench.now)]
    while pipeline.overdue:
        polls.append(pipeline.poll(bench.now))
    assert sum(map(len, polls)) == len(children)
    assert len(polls) > 1
    assert max(sum(map(len, lines)) for lines in polls) < 2 * MAX_LINES


def test_at_the_end_nothing_stays_behind(bench: Bench) -> None:
    """flush writes all waiting reports."""
    child = bench.child()
    event, records = child.execute("ls", T + 1_000_000)
    bench.tell(event, child.exit(0, T + 2_000_000)[0], audit=records[:-1])
    actions = [each["event"]["action"] for each in documents(bench.pipeline.flush(bench.now))]
    assert actions == ["exec", "end"]
    assert bench.pipeline.in_flight == 0


def test_without_a_tracer_audit_updates_the_table() -> None:
    """The pipeline returns unknown pids; an ended process is written with audit's data."""
    bench = Bench(source="procfs", exact=False)
    child, _ = bench.host.shell.fork(61, T + 1)
    _, records = child.execute("ls", T + 1_000_000)
    bench.pipeline.feed_audit(records, now=T)
    assert 61 in bench.pipeline.unknown_pids()
    line = only(documents(bench.pipeline.poll(T)), "exec")
    assert line["process"]["executable"] == "/bin/ls"
    assert line["process"]["parent"]["pid"] == 60
    assert line["process"]["session_leader"]["pid"] == 60
    assert "group_leader" not in line["process"]


def test_the_account_is_balanced_at_any_moment(bench: Bench) -> None:
    """Every audit event is written, joined or in flight."""
    child = bench.child()
    event, records = child.execute("ls", T + 1_000_000)
    bench.tell(event, audit=records[:2])
    assert bench.pipeline.account()["balanced"] is True
    bench.tell(audit=records[2:])
    bench.tell(child.exit(0, T + 2_000_000)[0])
    assert bench.pipeline.account()["balanced"] is True
    bench.settle()
    assert bench.pipeline.account()["balanced"] is True


def _told(written: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((each["event"]["action"], each["event"]["id"]) for each in written)


CUTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20), st.integers(0, 40)), max_size=24)


@settings(max_examples=60, deadline=None)
@given(CUTS)
def test_batches_do_not_change_the_lines(
    cuts: list[tuple[int, int, int]],
) -> None:
    """Any batches, with the tracer ahead or not, yield the same valid lines in order."""
    straight = Bench()
    events, records = Story(straight.host).turn(1000, 1000)
    straight.tell(*events, audit=records)
    expected = _told(straight.settle())

    bench = Bench()
    story = Story(bench.host)
    for some, more, milliseconds in [*cuts, (1000, 1000, 0)]:
        events, records = story.turn(some, more)
        bench.tell(*events, audit=records, after=milliseconds * MILLISECOND)
    written = bench.settle()
    assert _told(written) == expected
    assert [problem for each in written for problem in validate(each)] == []
    for pid in range(61, 67):
        own = [each for each in written if each["process"]["pid"] == pid]
        dates = [each["@timestamp"] for each in own]
        assert dates == sorted(dates)
        assert own[-1]["event"]["action"] == "end"


def test_events_of_one_stamp_keep_their_order_whenever_they_are_read() -> None:
    """The offset between the clocks varies by some microseconds between measurements."""
    bench = Bench(source="procfs", exact=False)
    child, _ = bench.host.shell.fork(61, T + 1)
    _, first = child.execute("ls", T + 2_000_000)
    _, second = child.execute("id", T + 2_000_001)
    _, third = child.execute("env", T + 2_000_002)
    _, end = child.exit(0, T + 2_000_003)
    for records, jitter in ((first, 0), (second, 0), (third, 30_000), (end, -30_000)):
        bench.pipeline.follow_clock(bench.now, bench.now, BOOT + jitter)
        bench.pipeline.feed_audit(records, now=bench.now)
        bench.written += documents(bench.pipeline.poll(bench.now))
    told = [(each["event"]["action"], each["process"]["name"]) for each in bench.settle()]
    assert told == [("exec", "ls"), ("exec", "id"), ("exec", "env"), ("end", "env")]


# The state of a process at the time of its lines


def test_the_end_has_the_terminal_that_the_process_had(bench: Bench) -> None:
    """A cut connection removes the terminal first: the session was interactive nevertheless."""
    child = bench.child()
    assert child.facts.tty_major
    child.facts = child.facts._replace(tty_major=0, tty_minor=0)
    bench.tell(child.die(1, T + 5))
    end = only(bench.settle(), "end")["process"]
    assert end["tty"]["char_device"]["major"] == bench.host.shell.facts.tty_major
    assert end["interactive"]


def test_a_process_that_left_its_terminal_for_a_session_has_none(bench: Bench) -> None:
    """The program itself has given up its terminal."""
    child = bench.child()
    child.facts = child.facts._replace(tty_major=0, tty_minor=0)
    changed, records = child.set_session(T + 5)
    bench.tell(changed, audit=records)
    bench.tell(child.die(1, T + 6))
    assert "tty" not in only(bench.settle(), "end")["process"]


def titled(records: Records, title: bytes) -> Records:
    return [
        (kind, text.partition(b"proctitle=")[0] + b"proctitle=" + title.hex().encode())
        if kind == PROCTITLE
        else (kind, text)
        for kind, text in records
    ]


def test_a_title_of_an_earlier_program_is_left_out(bench: Bench) -> None:
    """The kernel keeps the first title of a task: ``bash -c '/bin/true X'``."""
    child = bench.child()
    title = b"bash\0-c\0/bin/true X"
    for name, args in (("bash", ("-c", "/bin/true X")), ("true", ("X",))):
        executed, records = child.execute(name, T + 5, *args)
        bench.tell(executed, audit=titled(records, title))
    ended, records = child.exit(0, T + 6)
    bench.tell(ended, audit=titled(records, title))
    told = [(each["event"]["action"], each["process"].get("title")) for each in bench.settle()]
    assert told == [("exec", "bash -c /bin/true X"), ("exec", None), ("end", None)]


def test_a_title_of_the_forked_program_is_left_out(bench: Bench) -> None:
    """The record repeats an earlier title, such as that of a setsid before the exec."""
    child = bench.child()
    executed, records = child.execute("ls", T + 5)
    bench.tell(executed, audit=titled(records, b"bash"))
    assert "title" not in only(bench.settle(), "exec")["process"]


def test_a_title_that_a_server_gave_itself_before_the_exec_is_left_out(bench: Bench) -> None:
    """As sshd does before the shell: ``sshd: ann@pts/1``."""
    child = bench.child()
    executed, records = child.execute("ls", T + 5, "-l")
    bench.tell(executed, audit=titled(records, b"sshd: ann@pts/1"))
    ended, records = child.exit(0, T + 6)
    bench.tell(ended, audit=titled(records, b"sshd: ann@pts/1"))
    assert [each["process"].get("title") for each in bench.settle()] == [None, None]


def test_a_title_of_its_own_is_written() -> None:
    """The title has the arguments, or is the process's own if it has no earlier audit events."""
    bench = Bench()
    child = bench.child()
    executed, records = child.execute("ls", T + 5, "-l")
    bench.tell(executed, audit=titled(records, b"ls -l"))
    assert only(bench.settle(), "exec")["process"]["title"] == "ls -l"
    bench = Bench(audited=frozenset(("exit_group",)), always_audited=frozenset(("exit_group",)))
    child = bench.child()
    bench.tell(child.execute("ls", T + 5, "-l")[0])
    ended, records = child.exit(0, T + 6)
    bench.tell(ended, audit=titled(records, b"ls: at work"))
    assert only(bench.settle(), "end")["process"]["title"] == "ls: at work"


def test_cut_arguments_are_counted_as_they_were(bench: Bench) -> None:
    """This applies to the exec, the end, and every reference to the process."""
    child = bench.child()
    executed, _ = child.execute("ls", T + 5)
    args = b"ls\0" + b"x\0" * 100
    program = executed.program._replace(args=args, args_size=9000, args_count=4500)
    bench.tell(executed._replace(program=program))
    grandchild, forked = child.fork(62, T + 6)
    bench.tell(forked, grandchild.die(9, T + 7))
    executed, _ = child.execute("id", T + 8)
    bench.tell(executed, child.die(9, T + 9))
    counts = [
        (each["event"]["action"], value(each, f"process.{place}args_count"))
        for each in bench.settle()
        for place in ("", "parent.")
        if value(each, f"process.{place}executable") == "/bin/ls"
    ]
    assert counts == [("exec", 4500), ("end", 4500), ("end", 4500)]
    assert bench.written[-1]["process"]["previous"][-1]["args_count"] == 4500


def seccomp(bench: Bench, pid: int, name: str, time: int) -> tuple[int, bytes]:
    """A SECCOMP record, which has no system call's record beside it."""
    seconds, milliseconds = divmod(bench.host.stamp(time), 1000)
    text = (
        f"audit({seconds}.{milliseconds:03d}:999): auid=0 uid=0 gid=0 ses=1 pid={pid}"
        f' comm="{name}" exe="/bin/{name}" sig=0 arch=c000003e syscall=62 compat=0 ip=0x1'
        " code=0x7ffc0000"
    )
    return 1326, text.encode()


def test_a_lone_record_has_the_program_and_the_time_of_its_stamp(bench: Bench) -> None:
    """It is written when no other record can follow; by then the process runs another program."""
    child = bench.child()
    for name, time in (("env", T + 20_000_000), ("ls", T + 200_000_000)):
        executed, records = child.execute(name, time)
        bench.tell(executed, audit=records)
    bench.tell(audit=[seccomp(bench, child.pid, "env", T + 90_000_000)])
    line = next(each for each in bench.settle() if each["event"]["action"] not in ("exec", "end"))
    assert line["process"]["executable"] == "/bin/env"
    assert line["@timestamp"] == "2026-05-01T10:00:10.088000Z"


def test_a_lone_record_just_after_an_exec_is_of_the_new_program(bench: Bench) -> None:
    """Its stamp, from a clock with ticks of 4 ms, precedes the exec; its own path decides."""
    child = bench.child()
    executed, records = child.execute("ls", T + 1_000_000)
    bench.tell(executed, audit=records)
    bench.tell(audit=[seccomp(bench, child.pid, "ls", T + 2_000_000)])
    line = next(each for each in bench.settle() if each["event"]["action"] not in ("exec", "end"))
    assert line["process"]["executable"] == "/bin/ls"


def test_an_ended_process_is_soon_forgotten(bench: Bench) -> None:
    """Once audit has reported everything about it; memory holds the living ones."""
    exited, records = bench.child().exit(0, T + 1_000_000)
    bench.tell(exited, audit=records)
    bench.tell(after=HOLD)
    assert bench.pipeline.table.get(61) is not None
    bench.tell(after=SECOND)
    assert bench.pipeline.table.get(61) is None


def test_a_process_found_missing_is_kept_until_its_end_is_written(bench: Bench) -> None:
    """Its end is dated at the beginning of the loss, and audit may still report an exec."""
    bench.child()
    bench.now = T + 10 * SECOND
    bench.pipeline.reconcile([*bench.host.snapshot()], since=T + 1, time=bench.now)
    bench.tell()
    assert bench.pipeline.table.get(61) is not None
    bench.tell(after=SECOND)
    assert bench.pipeline.table.get(61) is None


def test_an_ended_process_is_kept_for_an_event_that_is_still_open(bench: Bench) -> None:
    """A lone record waits for others for two seconds, and is written with its process."""
    child = bench.child()
    executed, records = child.execute("ls", T + 1_000_000)
    bench.tell(executed, audit=records)
    exited, ending = child.exit(0, T + 30_000_000)
    bench.tell(
        exited, audit=[seccomp(bench, child.pid, "ls", T + 20_000_000), *ending], after=40_000_000
    )
    bench.tell(after=SECOND + 800 * MILLISECOND)
    assert bench.pipeline.table.get(61) is not None
    line = next(each for each in bench.settle() if each["event"]["action"] not in ("exec", "end"))
    assert line["process"]["executable"] == "/bin/ls"
    assert bench.pipeline.table.get(61) is None


def test_with_auditbeats_names_a_failed_exec_is_no_process() -> None:
    """Auditbeat's action is "executed": a viewer would draw a process that never existed."""
    bench = Bench(event_actions="auditbeat")
    records = bench.child().fail_to_execute(T + 5)
    bench.tell(audit=records)
    line = only(bench.settle(), "executed")
    assert line["event"]["outcome"] == "failure"
    assert not {"entity_id", "entry_leader", "session_leader"} & set(line["process"])
    assert line["process"]["parent"] == {"pid": 60}
    assert bench.pipeline.account()["balanced"]


def test_a_fork_brings_its_creator_up_to_date(bench: Bench) -> None:
    """Without tracepoints for setsid, setpgid and setuid, a child shows their effects."""
    child = bench.child()
    child.facts = child.facts._replace(sid=child.pid, pgid=child.pid, uid=1000, euid=1000)
    grandchild, forked = child.fork(62, T + 6)
    bench.tell(forked._replace(inherited=True))
    bench.tell(child.fork(63, T + 7)[1]._replace(inherited=True))
    executed, records = grandchild.execute("ls", T + 8)
    bench.tell(executed, audit=records)
    told = bench.settle()
    (session,) = [each for each in told if each["event"]["action"] == "setsid"]
    assert session["process"]["pid"] == child.pid
    line = only(told, "exec")["process"]
    assert line["parent"]["user"]["id"] == "1000"
    assert line["session_leader"]["pid"] == line["group_leader"]["pid"] == child.pid


def test_a_new_user_namespace_is_the_childs_alone(bench: Bench) -> None:
    """Its creator has neither its capabilities nor its ids."""
    child = bench.child()
    grandchild, forked = child.fork(62, T + 6)
    facts = forked.facts._replace(user_namespace=99, uid=65534, euid=65534)
    bench.tell(forked._replace(inherited=True, facts=facts))
    executed, records = grandchild.execute("ls", T + 8)
    bench.tell(executed, audit=records)
    assert only(bench.settle(), "exec")["process"]["parent"]["user"]["id"] == "0"


def test_a_program_that_is_no_file_any_more_is_marked(bench: Bench) -> None:
    """It was deleted later, or is a memfd."""
    child = bench.child()
    executed, records = child.execute("ls", T + 5)
    gone = executed._replace(program=executed.program._replace(deleted=True))
    bench.tell(gone, audit=records)
    assert only(bench.settle(), "exec")["sessiond"]["executable_deleted"] is True
