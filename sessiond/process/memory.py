"""Bounds the memory of the process table in bytes: what is given up first is stated here.

Any user decides how long argument lists are, and how many programs a process executes, so a number
of processes is no bound. The sizes are estimates of what CPython needs, checked by a test against
what it takes. What is cut from an argv stays visible: its size is kept, so ``Program.args_cut``
tells that it is a part, and the events say so in ``sessiond.truncated``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from sessiond.process.events import Program, shortened_program
from sessiond.process.table import (
    GRACE,
    Ancestor,
    Lineage,
    Process,
    ProcessTable,
    Relative,
    State,
)

# What a process, one of its states and a program take without what they hold, in bytes.
PROCESS_BYTES: Final = 600
STATE_BYTES: Final = 500
PROGRAM_BYTES: Final = 150
ANCESTOR_BYTES: Final = 300
# An argv stands in memory, and once more in the saved state.
COPIES: Final = 2
# What is left of an argv that is cut.
BRIEF_ARGS: Final = 128


class MemoryLimit:
    """Keeps a table within ``max_bytes``, as far as that can be estimated.

    ``cuts`` counts what was given up, by the step that did: "previous" (argument lists of earlier
    programs), "ended" (of ended processes and of earlier states), "living" (of living processes,
    the least recently active first) and "evicted" (processes). The encoded JSON goes before all of
    these: it is made anew when it is needed. ``used`` is what was last measured, in bytes.
    """

    def __init__(self, table: ProcessTable, max_bytes: int) -> None:
        """Take the table, which may be empty."""
        self.max_bytes = max_bytes
        self.used = 0
        self.cuts: Counter[str] = Counter()
        self._table = table

    def check(self, time: int) -> None:
        """Measure when the table has grown by a quarter, and cut what is too much.

        ``time`` (ns since boot) is until when all records have been read.
        """
        if self._table.grown * 4 > self.max_bytes:
            self._table.grown = 0
            self._limit(time)

    def _limit(self, time: int) -> None:
        processes = self._reachable(time)
        self.used = _measure(processes)
        if self.used <= self.max_bytes:
            return
        target = self.max_bytes * 3 // 4
        steps: tuple[Callable[[list[Process], int], None], ...] = (
            self._forget_json,
            self._cut_previous,
            self._cut_ended,
            self._cut_living,
            self._evict,
        )
        for step in steps:
            step(processes, target)
            self.used = _measure(processes)
            if self.used <= target:
                return

    def _reachable(self, time: int) -> list[Process]:
        """All processes: those found by pid, least recently active first, then their relatives.

        States that no event to come can ask for are dropped on the way.
        """
        found: dict[Process, None] = {}
        waiting = [holder for process in self._table for holder in self._table.holders(process.pid)]
        while waiting:
            more: list[Process] = []
            for process in waiting:
                if process in found:
                    continue
                found[process] = None
                states = process.states
                while len(states) > 1 and states[1].time + GRACE < time:
                    del states[0]
                relatives: list[Relative] = [process.creator]
                for state in states:
                    relatives += (state.group_leader, state.session_leader, state.entry_leader)
                more += [each for each in relatives if isinstance(each, Process)]
            waiting = more
        return list(found)

    def _forget_json(self, processes: list[Process], _target: int) -> None:
        for process in processes:
            for state in process.states:
                state.stale()

    def _cut_previous(self, processes: list[Process], _target: int) -> None:
        brief = _Brief()
        for process in processes:
            for state in process.states:
                if any(map(_has_more, state.previous)):
                    state.previous = tuple([brief.of(program) for program in state.previous])
                    state.stale()
        self.cuts["previous"] += brief.number

    def _cut_ended(self, processes: list[Process], _target: int) -> None:
        brief = _Brief()
        # A living process shares its program with the children that it has forked.
        kept = {id(p.states[-1].program) for p in processes if p.end is None}
        for process in processes:
            for state in process.states:
                if id(state.program) not in kept:
                    _cut(state, brief)
        self.cuts["ended"] += brief.number

    def _cut_living(self, processes: list[Process], target: int) -> None:
        brief = _Brief()
        chosen: set[int] = set()
        for process in processes:
            if self.used - brief.saved <= target:
                break
            for state in process.states:
                brief.of(state.program)
                chosen.add(id(state.program))
        for process in processes:
            for state in process.states:
                if id(state.program) in chosen:
                    _cut(state, brief)
        self.cuts["living"] += brief.number

    def _evict(self, processes: list[Process], target: int) -> None:
        number = len(processes) * (self.used - target) // self.used + 1
        self.cuts["evicted"] += self._table.evict(number)
        processes[:] = self._reachable(0)


class _Brief:
    """Programs with the beginning of their argv only; one that many share stays one."""

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
            brief = shortened_program(program, BRIEF_ARGS)
            # The program is kept with it: another one could get its id.
            made = self._made[id(program)] = program, brief
            self.number += 1
            self.saved += (len(program.args or b"") - BRIEF_ARGS) * COPIES
        return made[1]


def _has_more(program: Program) -> bool:
    return program.args is not None and len(program.args) > BRIEF_ARGS


def _cut(state: State, brief: _Brief) -> None:
    if _has_more(state.program):
        state.program = brief.of(state.program)
        state.stale()


def _measure(processes: list[Process]) -> int:
    total = 0
    programs: dict[int, Program] = {}
    lineages: set[Lineage] = set()
    ancestors: set[Ancestor] = set()
    for process in processes:
        if process.lineage is not None and process.lineage not in lineages:
            lineages.add(process.lineage)
            ancestors.update(process.lineage.ancestors)
        total += PROCESS_BYTES + len(process.cgroup or b"")
        for state in process.states:
            total += STATE_BYTES + len(state.working_directory or b"")
            total += 0 if state.cached is None else len(state.cached)
            programs[id(state.program)] = state.program
            for program in state.previous:
                programs[id(program)] = program
    for ancestor in ancestors:
        total += ANCESTOR_BYTES
        programs[id(ancestor.program)] = ancestor.program
    for program in programs.values():
        total += PROGRAM_BYTES + len(program.executable or b"")
        total += COPIES * len(program.args or b"")
    return total
