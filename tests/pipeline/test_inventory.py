"""The inventory: older processes are written once, before any line that mentions them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ecs_schema.validate import validate
from support.scripted import Actor, pipeline
from support.story import Bench, T

from sessiond.config.schema import EventSettings
from sessiond.pipeline import inventory
from sessiond.process.events import Observed, Program
from sessiond.units import SECOND

DAY = 86_400 * SECOND


def told(documents: list[dict[str, Any]], action: str = "already_running") -> list[int]:
    """Return the pids of the events of a kind, in order."""
    return [each["process"]["pid"] for each in documents if each["event"]["action"] == action]


def stranger(bench: Bench, pid: int, **facts: Any) -> Observed:
    """Return a process of a snapshot: a child of the shell."""
    shell = bench.host.shell
    own = shell.facts._replace(pid=pid, start=6 * SECOND + pid, ppid=60, vpid=pid, **facts)
    program = Program(b"sleep", b"/bin/sleep", b"sleep\x0060\x00", None)
    return Observed(9 * SECOND, own, program, b"/", None)


def test_each_living_process_is_written_once() -> None:
    """The line has its relatives with names, and is valid ECS."""
    bench = Bench(inventory=True)
    written = bench.settle()
    assert told(written) == [1, 60]
    event = written[1]
    assert validate(event) == []
    assert event["event"] | {"id": "", "sequence": 0} == {
        "kind": "event",
        "action": "already_running",
        "category": ["process"],
        "type": ["info"],
        "outcome": "unknown",
        "id": "",
        "sequence": 0,
        "module": "auditd",
        "provider": ["ebpf"],
    }
    assert event["@timestamp"] == "2026-05-01T10:00:06.000000Z"
    process = event["process"]
    assert (process["executable"], process["args"]) == ("/bin/bash", ["bash"])
    assert process["parent"].keys() == {"entity_id", "pid", "start", "name"}
    assert process["session_leader"]["same_as_process"]
    assert process["entry_leader"]["entry_meta"] == {"type": "init"}


def test_nothing_is_written_if_disabled() -> None:
    """Neither at the start nor later."""
    bench = Bench(inventory=False, inventory_period=60)
    bench.tell(after=DAY)
    assert bench.settle() == []


def test_threads_of_the_kernel_are_left_out() -> None:
    """They execute no program, and a host has hundreds of them."""
    bench = Bench(inventory=True)
    bench.tell(stranger(bench, 99, kernel_thread=True), stranger(bench, 100))
    assert told(bench.settle()) == [1, 60, 100]


def test_a_process_is_introduced_before_a_line_speaks_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its relatives too, oldest first; the other processes are written later, once."""
    monkeypatch.setattr(inventory, "BATCH", 0)
    bench = Bench(inventory=True)
    bench.tell(stranger(bench, 100), stranger(bench, 101))
    child = bench.child(61)
    executed, records = child.execute("ls", T + 3)
    bench.tell(executed, audit=records)
    bench.settle()
    actions = [(each["event"]["action"], each["process"]["pid"]) for each in bench.written]
    assert actions == [("already_running", 1), ("already_running", 60), ("exec", 61)]
    monkeypatch.setattr(inventory, "BATCH", 1)
    bench.settle()
    assert told(bench.written) == [1, 60, 100, 101]


def test_a_partial_process_is_written_when_complete() -> None:
    """Unless another line mentions it earlier; it is not written twice."""
    bench = Bench(inventory=True)
    bench.settle()
    one, two = stranger(bench, 100), stranger(bench, 101)
    unread = [
        each._replace(program=each.program._replace(args=None), partial=True) for each in (one, two)
    ]
    bench.tell(*unread)
    assert told(bench.settle()) == [1, 60]
    child, forked = Actor(bench.host, 100, one.facts.start, one.facts, one.program).fork(102, T + 3)
    executed, records = child.execute("ls", T + 4)
    bench.tell(forked, executed, audit=records)
    assert told(bench.settle()) == [1, 60, 100]
    bench.tell(one, two)
    written = bench.settle()
    assert told(written) == [1, 60, 100, 101]
    assert written[-1]["process"]["args"] == ["sleep", "60"]


def test_a_partial_process_is_not_written_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A snapshot after a loss may precede its turn in the inventory."""
    monkeypatch.setattr(inventory, "BATCH", 0)
    bench = Bench(inventory=True)
    one = stranger(bench, 100)
    bench.tell(one)
    bench.tell(one._replace(partial=True))
    monkeypatch.setattr(inventory, "BATCH", 50)
    bench.settle()
    bench.tell(one)
    child, forked = Actor(bench.host, 100, one.facts.start, one.facts, one.program).fork(102, T + 3)
    executed, records = child.execute("ls", T + 4)
    bench.tell(forked, executed, audit=records)
    bench.settle()
    assert told(bench.written) == [1, 60, 100]


def test_an_introduction_is_dated_before_what_it_introduces() -> None:
    """An audit record can be older than the snapshot, but not older than the process."""
    bench = Bench(inventory=True)
    shell = bench.host.shell
    _, records = shell.execute("vi", 5 * SECOND + 500_000_000)
    bench.tell(audit=records)
    bench.settle()
    dates = [each["@timestamp"] for each in bench.written if each["process"]["pid"] == 60]
    assert dates == sorted(dates)


def test_a_few_are_written_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While more remain, the next poll is due at once, and live events are handled in between."""
    monkeypatch.setattr(inventory, "BATCH", 10)
    bench = Bench(inventory=True)
    bench.tell(*(stranger(bench, pid) for pid in range(100, 150)))
    assert len(bench.written) == 10
    assert bench.pipeline.deadline() == 0
    child = bench.child(61)
    executed, records = child.execute("ls", T + 3)
    bench.tell(executed, audit=records)
    assert told(bench.written, "exec") == [61]
    assert len(told(bench.written)) < 52
    bench.settle()
    assert sorted(told(bench.written)) == [1, 60, *range(100, 150)]
    assert bench.pipeline.deadline() is None


def test_introduced_processes_are_not_in_the_inventory() -> None:
    """After a loss, the inventory has only processes that started in the meantime."""
    bench = Bench(inventory=True)
    child = bench.child(61)
    executed, records = child.execute("ls", T + 3)
    bench.tell(executed, audit=records)
    bench.settle()
    seen = Observed(T + 9 * SECOND, child.facts, child.program, b"/", None)
    bench.pipeline.reconcile(
        [*bench.host.snapshot(), seen, stranger(bench, 100)], since=T, time=T + 9 * SECOND
    )
    bench.settle()
    assert told(bench.written) == [1, 60, 100]


def test_a_restart_writes_only_new_processes() -> None:
    """The state has the introduced processes, and those still to be written."""
    bench = Bench(inventory=True)
    bench.settle()
    state = bench.pipeline.save(bench.now)
    bench.pipeline = pipeline(inventory=True)
    bench.pipeline.restore(state)
    bench.written.clear()
    bench.pipeline.feed_process([*bench.host.snapshot(), stranger(bench, 100)])
    assert told(bench.settle()) == [100]


def test_an_interrupted_inventory_continues_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stop during an inventory loses nothing."""
    monkeypatch.setattr(inventory, "BATCH", 1)
    bench = Bench(inventory=True)
    bench.tell()
    assert told(bench.written) == [1]
    state = bench.pipeline.save(bench.now)
    bench.pipeline = pipeline(inventory=True)
    bench.pipeline.restore(state)
    bench.pipeline.feed_process(bench.host.snapshot())
    assert told(bench.settle()) == [1, 60]


def test_all_are_repeated_after_a_period() -> None:
    """They have new ids; ended processes are left out."""
    bench = Bench(inventory=True, inventory_period=3600)
    bench.tell(stranger(bench, 100))
    bench.settle()
    ended, records = bench.child(61).exit(0, T + 5)
    bench.tell(ended, audit=records)
    assert bench.pipeline.deadline() is not None
    bench.tell(after=3600 * SECOND)
    bench.settle()
    assert told(bench.written) == [1, 60, 100, 1, 60, 100]
    identities = [each["event"]["id"] for each in bench.written]
    assert len(set(identities)) == len(identities)
    again = [each for each in bench.written if each["event"]["action"] == "already_running"][3]
    assert again["@timestamp"] > "2026-05-01T11:00:00"


def test_a_repetition_is_written_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each poll handles a few, however many there are; a reload can end the repetition."""
    monkeypatch.setattr(inventory, "BATCH", 10)
    bench = Bench(inventory=True, inventory_period=3600)
    bench.tell(*(stranger(bench, pid) for pid in range(100, 150)))
    for _ in range(9):
        bench.tell()
    bench.written.clear()
    bench.tell(after=3600 * SECOND)
    assert len(bench.written) == 10
    assert bench.pipeline.deadline() == 0
    options = bench.pipeline.options
    bench.pipeline.use(replace(options, event=EventSettings(inventory=False)))
    bench.tell()
    assert len(bench.written) == 10
    assert bench.pipeline.deadline() is None


def test_a_looked_up_process_is_written_only_if_older() -> None:
    """Without an exact source a new process is looked up for its exec, which introduces it."""
    bench = Bench(inventory=True, source="procfs", exact=False)
    new = stranger(bench, 100)
    facts = new.facts._replace(start=T + SECOND)
    bench.tell(stranger(bench, 99), new._replace(time=T + 2 * SECOND, facts=facts))
    assert told(bench.settle()) == [1, 60]


def test_an_inventory_is_short() -> None:
    """It omits capabilities of root, and real and saved ids that equal the effective ones."""
    everything = (1 << 41) - 1
    bench = Bench(inventory=True)
    bench.tell(
        stranger(bench, 100, cap_effective=everything, cap_permitted=everything),
        stranger(bench, 101, euid=7, suid=7, cap_effective=1, cap_permitted=1),
        stranger(bench, 102, euid=7, suid=0, uid=8),
    )
    found = {each["process"]["pid"]: each["process"] for each in bench.settle()}
    assert not found[100].keys() & {"thread", "saved_user", "saved_group", "real_user"}
    assert found[101]["thread"]["capabilities"]["effective"] == ["CAP_CHOWN"]
    assert (found[102]["saved_user"]["id"], found[102]["real_user"]["id"]) == ("0", "8")


def test_long_arguments_are_cut_and_counted() -> None:
    """The cut is marked; the next event of the process has all arguments."""
    bench = Bench(inventory=True)
    long = stranger(bench, 100)
    args = b"java\0" + b"-classpath\0" * 100
    bench.tell(long._replace(program=Program(b"java", b"/bin/java", args, None)))
    event = bench.settle()[2]
    assert event["process"]["args_count"] == 101
    assert len(" ".join(event["process"]["args"])) <= 256
    assert event["sessiond"]["truncated"] == ["process.args"]
