"""The two reports of one action: held, matched, and released when audit has no more to report."""

from __future__ import annotations

import pytest
from support.story import Bench, T

from sessiond.pipeline.joins import (
    HOLD,
    MAX_EXPIRED,
    MAX_HOLD,
    EndJoin,
    ExecJoin,
    Hearing,
    SessionJoin,
)
from sessiond.process.table import Process
from sessiond.units import MILLISECOND, SECOND


@pytest.fixture
def process() -> Process:
    """A process that has executed a program at T."""
    bench = Bench()
    event, _ = bench.child(time=T).execute("ls", T)
    bench.pipeline.feed_process([event])
    found = bench.pipeline.table.get(event.facts.pid)
    assert found is not None
    return found


def test_audit_is_done_when_the_socket_was_empty_afterwards() -> None:
    """It also waits for the usual hold: a record may still be on its way to the socket."""
    hearing = Hearing()
    assert not hearing.is_done(T, T + HOLD)
    hearing.drained = T
    assert not hearing.is_done(T, T + HOLD - 1)
    assert hearing.is_done(T, T + HOLD)


def test_audit_is_done_when_something_younger_has_come() -> None:
    """Records arrive in the order of their creation, however long the queue is."""
    hearing = Hearing()
    hearing.latest = T + HOLD - 1
    assert not hearing.is_done(T, T + HOLD)
    hearing.latest = T + HOLD
    assert hearing.is_done(T, T + HOLD)


def test_audit_is_heard_up_to_when_its_socket_was_empty() -> None:
    """Unread records may belong to events that are open."""
    hearing = Hearing()
    hearing.drained = T
    assert hearing.heard(T + SECOND) == T
    assert hearing.heard(T + MAX_HOLD + SECOND) == T + SECOND


def test_many_reports_expire_some_at_a_time() -> None:
    """After a loss of records thousands wait: their lines must not be in memory all at once."""
    hearing, join = Hearing(), EndJoin()
    hearing.drained = T + HOLD
    processes = [Process(pid, pid, str(pid), exact=True) for pid in range(MAX_EXPIRED + 1)]
    for process in processes:
        join.hold(process, T)
    assert join.expire(T + HOLD, hearing) == processes[:-1]
    assert join.deadline() == T + HOLD
    assert join.expire(T + HOLD, hearing) == processes[-1:]


def test_nothing_waits_for_ever() -> None:
    """A socket that lags behind for longer delays nothing any more."""
    assert not Hearing().is_done(T, T + MAX_HOLD - 1)
    assert Hearing().is_done(T, T + MAX_HOLD)


def test_an_exec_that_waits_is_let_go_once(process: Process) -> None:
    """Expire, flush, or a later line of its process releases it."""
    hearing = Hearing()
    hearing.drained = T + HOLD
    join = ExecJoin()
    join.hold(process, process.state)
    assert join.deadline() == T + HOLD
    assert join.expire(T + HOLD - 1, hearing) == []
    assert join.expire(T + HOLD, hearing) == [(process, process.state)]
    assert join.deadline() is None
    join.hold(process, process.state)
    assert join.of(process, T) == []
    assert join.of(process, T + 1) == [process.state]
    join.hold(process, process.state)
    assert join.flush() == ([], [(process, process.state)])
    assert join.flush() == ([], [])


def test_an_end_waits_and_is_matched_by_its_exit_group(process: Process) -> None:
    """The order of the two reports does not matter."""
    join = EndJoin()
    assert not join.match(process)
    join.hold(process, T)
    assert join.match(process)
    assert join.deadline() is None
    assert join.match_event(process) is None


def test_a_session_is_matched_by_pid_and_time(process: Process) -> None:
    """The stamp of a setsid may be slightly older than the source's time."""
    join = SessionJoin()
    join.hold(process, T)
    assert join.caller([process], T - MILLISECOND) is process
    assert join.caller([process], T + 10 * MILLISECOND) is None
    join.match(process)
    assert join.flush() == []


# The pipeline with its joins: the source's events are written, whatever audit reports.


def test_an_exec_without_an_audit_event_is_written() -> None:
    """A rule should have caused an audit event: status counts it as missing."""
    bench = Bench()
    event, _ = bench.child().execute("hidden", T + MILLISECOND)
    bench.tell(event)
    (line,) = [each for each in bench.settle() if each["event"]["action"] == "exec"]
    assert line["event"]["provider"] == ["ebpf"]
    assert line["process"]["name"] == "hidden"
    assert bench.pipeline.status()["execs_unaudited"] == {"missing": 1}


def test_a_late_audit_event_makes_no_second_line() -> None:
    """It is counted, and the account stays balanced."""
    bench = Bench()
    event, records = bench.child().execute("late", T + MILLISECOND)
    bench.tell(event)
    bench.settle()
    bench.tell(audit=records)
    written = bench.settle()
    assert [each["event"]["action"] for each in written].count("exec") == 1
    assert bench.pipeline.status()["execs_late"] == 1
    assert bench.pipeline.account()["balanced"]


def test_an_exec_that_no_rule_covers_waits_for_nothing() -> None:
    """It is written at once."""
    bench = Bench(audited=frozenset())
    event, _ = bench.child().execute("ls", T + MILLISECOND)
    bench.tell(event)
    assert [each["event"]["action"] for each in bench.written] == ["exec"]
    assert bench.pipeline.status()["execs_unaudited"] == {"uncovered": 1}


def test_an_exec_is_written_before_the_end_of_its_process() -> None:
    """This applies even if its exit_group is the only audit event."""
    bench = Bench()
    child = bench.child()
    event, _ = child.execute("short", T + MILLISECOND)
    end, records = child.exit(3, T + 2 * MILLISECOND)
    bench.tell(event, end, audit=records)
    assert [each["event"]["action"] for each in bench.settle()] == ["exec", "end"]


def test_only_audited_processes_are_written_if_configured() -> None:
    """event.processes: audited leaves out the exec, and the end of its process."""
    bench = Bench(processes="audited")
    hidden, told = bench.child(61), bench.child(62)
    event, _ = hidden.execute("hidden", T + MILLISECOND)
    other, records = told.execute("told", T + 2 * MILLISECOND)
    bench.tell(event, other, hidden.die(9, T + 3 * MILLISECOND), told.die(9, T + 4 * MILLISECOND))
    bench.tell(audit=records)
    written = [(each["event"]["action"], each["process"]["name"]) for each in bench.settle()]
    assert written == [("exec", "told"), ("end", "told")]


def test_a_host_needs_no_rule() -> None:
    """Without rules an end does not wait either."""
    bench = Bench(audited=frozenset(), always_audited=frozenset(), audit_is_silent=True)
    child = bench.child()
    event, _ = child.execute("ls", T + MILLISECOND)
    bench.tell(event, child.die(15, T + 2 * MILLISECOND))
    assert [each["event"]["action"] for each in bench.written] == ["exec", "end"]


def test_an_exec_that_audit_reports_late_precedes_an_end_that_nobody_saw() -> None:
    """The tracer lost both; audit's record was on its way when the process was found missing."""
    bench = Bench()
    child = bench.child(61, T + 1)
    _, records = child.execute("ls", T + 2 * MILLISECOND)
    bench.now = T + 4 * MILLISECOND
    bench.pipeline.reconcile([*bench.host.snapshot()], since=T + MILLISECOND, time=bench.now)
    bench.tell()
    bench.tell(audit=records, after=20 * MILLISECOND)
    lines = [each for each in bench.settle() if each.get("process", {}).get("pid") == 61]
    assert [each["event"]["action"] for each in lines] == ["exec", "end"]
    assert lines[0]["process"]["entity_id"] == lines[1]["process"]["entity_id"]
    assert lines[0]["@timestamp"] <= lines[1]["@timestamp"]
