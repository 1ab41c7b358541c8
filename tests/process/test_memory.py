"""The memory of the process table: users control arguments, but not the daemon's size."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from process.test_table import fork, observed
from support.manager import PROJECT

from sessiond.process.events import Executed, Program
from sessiond.process.memory import (
    BRIEF_ARGS,
    MEASURED_AT_ONCE,
    PROCESS_BYTES,
    STATE_BYTES,
    MemoryLimit,
)
from sessiond.process.table import GRACE, PREVIOUS_ARGS, Process, ProcessTable
from sessiond.units import SECOND

MIB = 1 << 20
LONG = b"a\0" * 16_384


def execute(table: ProcessTable, process: Process, time: int, args: bytes = LONG) -> None:
    was = process.state.facts
    table.executed(Executed(time, was, Program(b"x", b"/x", args, len(args)), None))


@pytest.fixture
def table() -> ProcessTable:
    table = ProcessTable(lambda pid, start: f"{pid}@{start}")
    table.snapshot([observed(1, 1, "init", 0)])
    return table


def children(
    table: ProcessTable, number: int, *, execs: int = 1, first: int = 100
) -> list[Process]:
    """Create children of init that repeatedly execute a program with a long argv."""
    init = table.get(1)
    assert init is not None
    made = []
    for pid in range(first, first + number):
        process = table.forked(fork(pid, pid * SECOND // 100, init))
        for _ in range(execs):
            execute(table, process, process.start + 1)
        made.append(process)
    return made


def test_an_earlier_program_keeps_little(table: ProcessTable) -> None:
    """The beginning of its argv is kept, with the original size."""
    (process,) = children(table, 1, execs=3)
    assert process.state.program.args == LONG
    for program in process.state.previous[1:]:
        assert len(program.args or b"") == PREVIOUS_ARGS
        assert program.args_cut


def test_states_of_the_past_are_dropped(table: ProcessTable) -> None:
    """A process without further execs has one state once no event can need the others."""
    (process,) = children(table, 1, execs=9)
    limit = MemoryLimit(table, MIB // 4)
    table.grown = MIB
    limit.check(process.state.time + GRACE)
    assert len(process.states) == 10
    table.grown = MIB
    limit.check(process.state.time + GRACE + 1)
    assert len(process.states) == 1


def test_ended_processes_are_cut_before_living_ones(table: ProcessTable) -> None:
    """The least recently active are cut first; cuts are counted and visible."""
    made = children(table, 300)
    for process in made[:50]:
        table.ended(process, process.state.time + 1, 0)
    limit = MemoryLimit(table, 16 * MIB)
    limit.check(made[-1].state.time)
    bare = 251 * (PROCESS_BYTES + STATE_BYTES)  # of the living processes
    assert 12 * MIB - 2 * len(LONG) < limit.used - bare <= 12 * MIB
    assert limit.cuts["ended"] == 50
    cut = [process.state.program.args_cut for process in made]
    assert cut == sorted(cut, reverse=True)
    assert limit.cuts["living"] == cut.count(True) - 50 > 0
    assert all(len(p.state.program.args or b"") == BRIEF_ARGS for p in made[: cut.count(True)])
    assert limit.cuts["evicted"] == 0


def test_a_table_close_to_the_limit_is_measured_soon_again(table: ProcessTable) -> None:
    """It may not outgrow the limit by much between two measurements."""
    children(table, 90)
    limit = MemoryLimit(table, 6 * MIB)
    limit.check(SECOND)
    assert not limit.cuts
    more = children(table, 10, first=1000)
    limit.check(more[-1].state.time)
    assert limit.cuts
    assert limit.used < 6 * MIB


def test_no_more_is_cut_than_necessary(table: ProcessTable) -> None:
    """Of ended processes those that were active last keep their arguments."""
    made = children(table, 300)
    for process in made:
        table.ended(process, process.state.time + 1, 0)
    limit = MemoryLimit(table, 16 * MIB)
    limit.check(made[-1].state.time)
    assert 12 * MIB - 2 * len(LONG) < limit.used <= 12 * MIB
    cut = [process.state.program.args_cut for process in made]
    assert cut == sorted(cut, reverse=True)
    assert limit.cuts == {"previous": 0, "ended": cut.count(True)}


def test_a_program_that_many_share_is_cut_once(table: ProcessTable) -> None:
    """A shell and its children share one argv, before and after."""
    (shell,) = children(table, 1)
    execute(table, shell, shell.state.time + 1, LONG * 20)
    sharing = [table.forked(fork(pid, 10 * SECOND, shell)) for pid in range(500, 520)]
    limit = MemoryLimit(table, MIB)
    limit.check(11 * SECOND)
    assert limit.cuts["living"] == 1
    assert {id(process.state.program) for process in sharing} == {id(shell.state.program)}


def test_ended_processes_are_forgotten_in_the_end(table: ProcessTable) -> None:
    """When nothing is left to cut: the ones that ended first, and no living process."""
    made = children(table, 3_000)
    for process in made[:1000]:
        table.ended(process, process.state.time + 1, 0)
    limit = MemoryLimit(table, MIB)
    for _ in range(4):
        limit.check(made[0].start)
    assert limit.cuts["evicted"] == table.evicted > 0
    assert table.get(made[0].pid) is None
    assert all(table.get(process.pid) is process for process in made[1000:])


def test_very_many_processes_are_measured_some_at_a_time(table: ProcessTable) -> None:
    """Live events need not wait, unless the table grows fast."""
    children(table, 2 * MEASURED_AT_ONCE)
    limit = MemoryLimit(table, 128 * MIB)
    calls = 0
    while not limit.used:
        limit.check(SECOND)
        calls += 1
    assert calls == 3
    limit.used = 0
    table.grown = 64 * MIB  # within the limit
    limit.check(SECOND)
    assert not limit.used
    table.grown = 128 * MIB
    limit.used = 0
    limit.check(SECOND)
    table.grown = 128 * MIB
    limit.check(SECOND)
    assert limit.used


def test_nothing_is_measured_while_little_is_added(table: ProcessTable) -> None:
    """Measuring all processes is expensive: once per quarter of the limit."""
    limit = MemoryLimit(table, 64 * MIB)
    children(table, 2)
    limit.check(SECOND)
    assert limit.used == 0


_GROW = """
from pathlib import Path
from process.test_memory import *

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

table = ProcessTable(lambda pid, start: f"{pid:032x}@{start}"[:22])
table.snapshot([observed(1, 1, "init", 0)])
limit = MemoryLimit(table, 1 << 40)
before = resident()
init = table.get(1)
for pid in range(2_000, 22_000):
    process = table.forked(fork(pid, pid * SECOND // 100, init))
    execute(table, process, process.start + 1, b"%d\\0" % pid * 20)
after = resident()
while not limit.used:
    table.grown = 1 << 50
    limit.check(0)
print(after - before, limit.used)
"""


def test_the_estimate_is_what_python_takes() -> None:
    """Within 50 %, for 20,000 processes with two states each."""
    ran = subprocess.run(
        [sys.executable, "-c", _GROW],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"},
    )
    really, estimated = map(int, ran.stdout.split())
    assert really / 2 < estimated < really * 2
