"""The state of one run, encoded and decoded, is the state of the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compiled import interpreted
from support.manager import PROJECT
from support.scripted import Actor, Host, documents, pipeline
from support.story import Bench, Story, T

from sessiond.errors import SavedStateError
from sessiond.pipeline import snapshot
from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import Facts, Login, Observed
from sessiond.process.table import Process, State, is_torn
from sessiond.restart import event_log
from sessiond.units import MILLISECOND, SECOND

CUTS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 20), st.integers(0, 40), st.booleans()), max_size=24
)


def test_types_of_the_state_are_those_of_modules_that_are_not_compiled() -> None:
    """Mypyc keeps only plain types of members, such as ``str``, and a decoder needs all of them."""
    setup = (PROJECT / "setup.py").read_text("utf-8")
    for kind in (*snapshot._TYPES, *event_log._KINDS):
        if f'"{kind.__module__.replace(".", "/")}.py"' in setup:
            assert {*get_type_hints(kind).values()} <= {str, bytes, int, bool}, kind


def successor(before: Pipeline, now: int) -> Pipeline:
    """Return another pipeline with the state of ``before``."""
    after = pipeline()
    assert after.restore(before.save(now)) == now
    return after


@settings(max_examples=60, deadline=None)
@given(CUTS)
def test_restarts_change_nothing(cuts: list[tuple[int, int, int, bool]]) -> None:
    """Saved and restored at any time, the pipeline writes the same lines to the byte."""
    straight, restarted = Bench(), Bench()
    stories = Story(straight.host), Story(restarted.host)
    for some, more, milliseconds, restart in [*cuts, (1000, 1000, 0, True)]:
        for bench, story in zip((straight, restarted), stories, strict=True):
            events, records = story.turn(some, more)
            bench.tell(*events, audit=records, after=milliseconds * MILLISECOND)
        if restart:
            restarted.pipeline = successor(restarted.pipeline, restarted.now)
            assert restarted.pipeline.account()["balanced"] is True
    assert restarted.settle() == straight.settle()


def test_ended_relatives_are_known_after_a_restart() -> None:
    """A session leader and a parent that ended long ago keep every field."""
    bench = Bench()
    leader, forked = bench.host.shell.fork(61, T + 1)
    changed, _ = leader.set_session(T + 2)
    executed, _ = leader.execute("login", T + 3)
    child, forked_child = leader.fork(62, T + 4)
    exited, _ = leader.exit(0, T + SECOND)
    bench.tell(forked, changed, executed, forked_child, exited)
    bench.settle()
    bench.pipeline = successor(bench.pipeline, bench.now)
    event, records = child.execute("ls", bench.now + 1)
    bench.tell(event, audit=records)
    process = next(
        each["process"] for each in bench.settle() if each["process"].get("name") == "ls"
    )
    assert process["parent"]["executable"] == "/bin/login"
    assert process["session_leader"]["args"] == ["login"]
    assert process["entry_leader"]["pid"] == 60


def test_lines_of_descent_are_known_after_a_restart() -> None:
    """This includes ancestors that only their descendants refer to."""
    bench = Bench(ancestors=3)
    script, forked = bench.host.shell.fork(61, T + 1)
    executed, _ = script.execute("script", T + 2)
    child, forked_child = script.fork(62, T + 3)
    exited, _ = script.exit(0, T + SECOND)
    bench.tell(forked, executed, forked_child, exited)
    bench.settle()
    written = bench.pipeline.save(bench.now)
    bench.pipeline = pipeline(ancestors=3)
    bench.pipeline.restore(written)
    event, records = child.execute("ls", bench.now + 1)
    bench.tell(event, audit=records)
    document = next(
        each for each in bench.settle() if each["process"].get("executable") == "/bin/ls"
    )
    assert document["sessiond"]["ancestors"] == [
        {"pid": 61, "executable": "/bin/script"},
        {"pid": 60, "executable": "/bin/bash"},
        {"pid": 1, "executable": "/sbin/init"},
    ]
    parent = document["process"]["parent"]["entity_id"]
    assert document["process"]["Ext"]["ancestry"][0] == parent
    assert len(document["process"]["Ext"]["ancestry"]) == 3


def test_a_gone_entry_leader_is_known_after_a_restart() -> None:
    """By then /proc has no trace of it, and the login's record may be gone as well."""
    bench = Bench()
    shell = bench.host.shell
    facts = shell.facts._replace(pid=61, start=T, ppid=1, sid=50, pgid=50, audit_session=7)
    login = Login("logind", b"sshd", b"192.0.2.7", None, T - SECOND)
    bench.tell(Observed(T + 1, facts, shell.program, b"/", None, login=login))
    first, second = (
        Actor(bench.host, 61, T, facts, shell.program).fork(pid, T + 2) for pid in (62, 63)
    )
    told = []
    for child, forked in (first, second):
        event, records = child.execute("ls", bench.now + 1)
        bench.tell(forked, event, audit=records)
        told.append(bench.settle()[-1])
        bench.pipeline = successor(bench.pipeline, bench.now)
    before, after = ({**each["process"]["entry_leader"]} for each in told)
    assert (
        before
        == after
        == {
            "entity_id": "p50-0",
            "pid": 50,
            "same_as_process": False,
            "start": "2026-05-01T10:00:09.000000Z",
            "entry_meta": {"type": "sshd", "source": {"ip": "192.0.2.7"}},
        }
    )
    notes = [each["sessiond"]["incomplete"] for each in told]
    assert notes[0] == notes[1]
    assert "process.entry_leader: from logind" in notes[0]
    job = bench.pipeline.table.get(63)
    assert job is not None
    assert is_torn(job)


# Members that are made anew: encoded JSON, values derived from the identities, places in the table.
MADE_ANEW = {
    State: {"cached", "descent"},
    Process: {"pid", "start", "entity_id", "exact", "predecessor"},
}


# Return another value of a member, by its type.
CHANGES: dict[str, Callable[[Any], object]] = {
    "bool": lambda at: not at,
    "int": lambda at: at + 4711,
    "int | None": lambda at: (at or 0) + 4711,
    "bool | None": lambda _: True,
    "bytes | None": lambda _: b"/other",
    "str | None": lambda _: "other",
    "tuple[int, ...] | None": lambda _: (4, 7),
}


@interpreted
@pytest.mark.parametrize(
    ("kind", "saved", "more"),
    [(State, snapshot.SavedState, {"own_facts"}), (Process, snapshot.SavedProcess, {"listed"})],
)
def test_no_member_is_forgotten(
    kind: type[State | Process], saved: type[tuple[object, ...]], more: set[str]
) -> None:
    """A new member of a process or a state is saved, or listed above."""
    fields = set(saved.__annotations__)
    assert set(kind.__slots__) - MADE_ANEW[kind] == fields - more


def test_every_member_comes_back_as_it_was() -> None:
    """Each member has a value that differs from that of a new process or state."""
    bench = Bench()
    child = bench.child()
    executed, records = child.execute("ls", T + 5)
    bench.tell(executed, audit=records)
    process = bench.pipeline.table.get(child.pid)
    assert process is not None
    changed: dict[tuple[str, str], object] = {}
    for owner, of, saved in (
        (process, "process", snapshot.SavedProcess),
        (process.state, "state", snapshot.SavedState),
    ):
        for name, kind in saved.__annotations__.items():
            if name in ("listed", "pid", "start", "time", "end"):
                continue  # distinguishes it from other processes
            change = CHANGES.get(str(getattr(kind, "__forward_arg__", kind)))
            if change is not None and name not in ("facts", "lineage", "program"):
                changed[of, name] = change(getattr(owner, name))
                setattr(owner, name, changed[of, name])
    assert len(changed) > 20
    facts = process.state.facts = Facts._make((*range(4711, 4710 + len(Facts._fields)), True))
    after = successor(bench.pipeline, bench.now).table.get(child.pid)
    assert after is not None
    found = {
        (of, name): getattr(after if of == "process" else after.state, name) for of, name in changed
    }
    assert found == changed
    assert after.state.facts == facts


def test_lines_are_numbered_on() -> None:
    """event.sequence continues."""
    bench = Bench()
    child = bench.child()
    first, first_records = child.execute("ls", T + 1)
    bench.tell(first, audit=first_records)
    bench.pipeline = successor(bench.pipeline, bench.now)
    second, second_records = child.execute("id", T + 10 * MILLISECOND)
    bench.tell(second, audit=second_records)
    assert [each["event"]["sequence"] for each in bench.written] == [1, 2]


def test_ended_processes_without_references_are_left_out() -> None:
    """The size of the state does not depend on past processes."""
    bench = Bench()
    for pid in range(61, 161):
        child, forked = bench.host.shell.fork(pid, T + pid * 1000)
        bench.tell(forked, child.die(9, T + pid * 1000 + 500))
    sizes = [len(bench.pipeline.save(bench.now))]
    bench.tell(after=3 * SECOND)
    sizes.append(len(bench.pipeline.save(bench.now)))
    assert sizes[1] < sizes[0] / 20


@given(st.data())
def test_damage_is_an_error_and_changes_nothing(data: st.DataObject) -> None:
    """Damaged bytes are refused, or are still valid."""
    bench = Bench()
    child = bench.child()
    event, records = child.execute("ls", T + 1)
    bench.tell(event, audit=records[:2])
    state = bytearray(bench.pipeline.save(bench.now))
    for _ in range(data.draw(st.integers(1, 4))):
        state[data.draw(st.integers(0, len(state) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(state)))
    after = pipeline()
    try:
        after.restore(bytes(state[:cut]))
    except SavedStateError:
        assert (len(after.table), after.in_flight, after.deadline()) == (0, 0, None)
        after.feed_process(Host().snapshot())
    after.feed_audit(records, now=bench.now)
    assert documents(after.flush(bench.now + 9 * SECOND))


@pytest.mark.parametrize("damaged", ["", "p1\0", 'p1", "', "p1\n"])
def test_an_invalid_entity_id_is_refused(damaged: str) -> None:
    """It would go into lines as it is."""
    state = snapshot.decode(Bench().pipeline.save(T))
    pid, start, _ = state.table.identities[0]
    table = state.table._replace(identities=[(pid, start, damaged), *state.table.identities[1:]])
    with pytest.raises(SavedStateError):
        pipeline().restore(snapshot.encode(state._replace(table=table)))


def test_an_invalid_number_is_refused() -> None:
    """References are checked before they are used."""
    state = snapshot.decode(Bench().pipeline.save(T))
    broken = state._replace(ends=[(len(state.table.identities), T)])
    with pytest.raises(SavedStateError, match="it has no item"):
        pipeline().restore(snapshot.encode(broken))


def test_a_table_comes_back_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of pieces is read; missing or superfluous pieces are refused."""
    monkeypatch.setattr(snapshot, "PIECE", 1)
    bench = Bench()
    bench.child()
    state = snapshot.decode(bench.pipeline.save(T))
    assert len(state.table.processes) == len(state.table.identities) > 2
    assert len(successor(bench.pipeline, T).table) == len(bench.pipeline.table)
    for pieces in (state.table.processes[:-1], state.table.processes * 2):
        broken = state._replace(table=state.table._replace(processes=pieces))
        with pytest.raises(SavedStateError, match="processes than identities"):
            pipeline().restore(snapshot.encode(broken))
