"""Limits the memory of the process table in bytes, and defines the order in which data is cut.

Any user controls the length of argument lists and the number of programs that a process executes,
so a maximum number of processes is not enough. The sizes are estimates of CPython's memory usage,
which a test checks. A cut argv stays recognisable: its size is kept, so that ``Program.args_cut``
is true and events list it in ``sessiond.truncated``.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from sessiond.process.argv import shortened_program
from sessiond.process.events import Program
from sessiond.process.table import (
    GRACE,
    UNLIMITED,
    Process,
    ProcessTable,
    Relative,
    State,
)

# Bytes of a process, a state and a program, without their contents.
PROCESS_BYTES: Final = 600
STATE_BYTES: Final = 500
PROGRAM_BYTES: Final = 150
ANCESTOR_BYTES: Final = 300
# An argv is in memory, and again in the saved state.
COPIES: Final = 2
# Processes measured per check: about 10 ms of work.
MEASURED_AT_ONCE: Final = 1000
# Cut programs whose originals are kept, so that those who share one find it.
_MAX_MADE: Final = 64
# Remaining bytes of a cut argv.
BRIEF_ARGS: Final = 128


class MemoryLimit:
    """Keeps a table within ``max_bytes``, as far as that can be estimated.

    Living processes without their arguments do not count: they are never forgotten. ``cuts`` counts
    the cuts by step: "previous" (argument lists of earlier programs), "ended" (of ended processes
    and of earlier states), "living" (of living processes, the least recently active first) and
    "evicted" (ended processes). The cached JSON is dropped before all of these: it can be made
    again. ``used`` is the last measured size, in bytes.
    """

    def __init__(self, table: ProcessTable, max_bytes: int) -> None:
        """Take the table, which may be empty."""
        self.max_bytes = max_bytes
        self.used = 0
        self.cuts: Counter[str] = Counter()
        self._table = table
        self._walk: _Walk | None = None
        # How much the table may grow before it is measured again, in bytes.
        self._room = max_bytes // 4

    def check(self, time: int) -> None:
        """Measure the table when it may have outgrown the limit, and cut the excess.

        Measuring a large table is spread over several calls, unless the table may outgrow the limit
        in that time. All records up to ``time`` (ns since boot) have been read.
        """
        much = self._table.grown > self._room
        if much:
            self._table.grown = 0
        if self._walk is None:
            if not much:
                return
            self._walk = _Walk(self._table)
            much = False
        if self._walk.go(time, UNLIMITED if much else MEASURED_AT_ONCE):
            walk, self._walk = self._walk, None
            self.used = walk.size.total
            counted = walk.size.counted
            if counted > self.max_bytes:
                counted = self._cut(walk.found)
            self._room = max(self.max_bytes - counted, self.max_bytes // 16)

    def _cut(self, processes: list[Process]) -> int:
        """Cut step by step until the limit is met; return the remaining bytes that count."""
        target = self.max_bytes * 3 // 4
        steps: tuple[Callable[[list[Process], int], None], ...] = (
            self._forget_json,
            self._cut_previous,
            self._cut_ended,
            self._cut_living,
            self._evict,
        )
        counted = _measure(processes).counted
        for step in steps:
            step(processes, counted - target)
            size = _measure(processes)
            self.used, counted = size.total, size.counted
            if counted <= target:
                break
        return counted

    def _forget_json(self, processes: list[Process], _excess: int) -> None:
        for process in processes:
            for state in process.states:
                state.stale()

    def _cut_previous(self, processes: list[Process], excess: int) -> None:
        brief = _Brief()
        for process in processes:
            for state in process.states:
                if any(map(_has_more, state.previous)):
                    state.previous = tuple([brief.of(program) for program in state.previous])
                    state.stale()
            if brief.saved >= excess:
                break
        self.cuts["previous"] += brief.number

    def _cut_ended(self, processes: list[Process], excess: int) -> None:
        brief = _Brief()
        # A living process shares its program with its children.
        kept = {id(p.states[-1].program) for p in processes if p.end is None}
        for process in processes:
            for state in process.states:
                if id(state.program) not in kept:
                    _cut(state, brief)
            if brief.saved >= excess:
                break
        self.cuts["ended"] += brief.number

    def _cut_living(self, processes: list[Process], excess: int) -> None:
        brief = _Brief()
        chosen: set[int] = set()
        for process in processes:
            if excess <= 0:
                break
            for program in [state.program for state in process.states]:
                if _has_more(program) and id(program) not in chosen:
                    chosen.add(id(program))
                    excess -= _surplus(program)
        for process in processes:
            for state in process.states:
                if id(state.program) in chosen:
                    _cut(state, brief)
        self.cuts["living"] += brief.number

    def _evict(self, processes: list[Process], excess: int) -> None:
        counted = _measure(processes).counted
        ended = sum(process.end is not None for process in processes)
        number = ended * excess // counted + 1
        self.cuts["evicted"] += self._table.evict(number, living=False)
        walk = _Walk(self._table)
        walk.go(0, UNLIMITED)
        processes[:] = walk.found


class _Walk:
    """Finds and measures all processes, in steps.

    ``found`` are those found by pid, least recently active first, and their relatives.
    """

    def __init__(self, table: ProcessTable) -> None:
        self.found: list[Process] = []
        self.size = _Size()
        self._seen: set[Process] = set()
        # A living process is found by its pid, so only ended ones need a search.
        self._waiting = deque(holder for process in table for holder in table.holders(process.pid))

    def go(self, time: int, number: int) -> bool:
        """Continue with ``number`` processes; return whether all are done.

        States that no later event can need are dropped along the way.
        """
        waiting = self._waiting
        for _ in range(number):
            if not waiting:
                break
            process = waiting.popleft()
            if process in self._seen:
                continue
            self._seen.add(process)
            self.found.append(process)
            states = process.states
            while len(states) > 1 and states[1].time + GRACE < time:
                del states[0]
            relatives: list[Relative] = [process.creator]
            for state in states:
                relatives += (state.group_leader, state.session_leader, state.entry_leader)
            waiting += [
                relative for relative in relatives if isinstance(relative, Process) and relative.end
            ]
            self.size.add(process)
        return not waiting


class _Brief:
    """Programs with only the beginning of their argv; shared programs stay shared.

    It forgets them from time to time, because it keeps the originals in memory: a program that
    processes of different times share is then made again.
    """

    def __init__(self) -> None:
        self.number = 0
        self.saved = 0
        self._made: dict[int, tuple[Program, Program]] = {}

    def of(self, program: Program) -> Program:
        """Return the program with at most BRIEF_ARGS bytes of its argv."""
        if not _has_more(program):
            return program
        made = self._made.get(id(program))
        if made is None:
            if len(self._made) >= _MAX_MADE:
                self._made.clear()
            brief = shortened_program(program, BRIEF_ARGS)
            # The original is kept as well: otherwise another program could get its id.
            made = self._made[id(program)] = program, brief
            self.number += 1
            self.saved += _surplus(program)
        return made[1]


def _has_more(program: Program) -> bool:
    return program.args is not None and len(program.args) > BRIEF_ARGS


def _surplus(program: Program) -> int:
    """Return the bytes that cutting a program saves."""
    return (len(program.args or b"") - BRIEF_ARGS) * COPIES


def _cut(state: State, brief: _Brief) -> None:
    if _has_more(state.program):
        state.program = brief.of(state.program)
        state.stale()


class _Size:
    """Adds up the sizes of processes; shared objects count once.

    ``total`` is the size in bytes, ``counted`` the part that can be cut.
    """

    def __init__(self) -> None:
        self.total = 0
        self.counted = 0
        # The objects are kept with their ids: otherwise another object could get the id.
        self._shared: dict[int, object] = {}

    def add(self, process: Process) -> None:
        """Add a process with everything that it refers to, except other processes."""
        size = PROCESS_BYTES + len(process.cgroup or b"")
        if process.lineage is not None and self._is_new(process.lineage):
            for ancestor in process.lineage.ancestors:
                if self._is_new(ancestor):
                    size += ANCESTOR_BYTES + self._program(ancestor.program)
        for state in process.states:
            size += STATE_BYTES + len(state.working_directory or b"")
            size += 0 if state.cached is None else len(state.cached)
            size += self._program(state.program) + sum(map(self._program, state.previous))
        self.total += size
        self.counted += size if process.end is not None else size - PROCESS_BYTES - STATE_BYTES

    def _is_new(self, shared: object) -> bool:
        known = id(shared) in self._shared
        self._shared[id(shared)] = shared
        return not known

    def _program(self, program: Program) -> int:
        if not self._is_new(program):
            return 0
        args = COPIES * len(program.args or b"")
        return PROGRAM_BYTES + len(program.executable or b"") + args


def _measure(processes: list[Process]) -> _Size:
    size = _Size()
    for process in processes:
        size.add(process)
    return size
