"""The process table: every process of the host, with its states over time and its relatives.

A process is (pid, start), never only a pid. A process changes over time (exec, session, group,
ids), so it has a short history of states; an event that is read late is enriched with the state at
its own time. Relatives are references: an ended leader or creator is kept, with all its fields, as
long as a process in the table refers to it. All times are ns of CLOCK_BOOTTIME and arguments: this
module reads no clock, file or socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from enum import Enum
from typing import Any, Final, NamedTuple

from sessiond.process import entry
from sessiond.process.argv import shortened_program
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
from sessiond.units import SECOND, TICK, UNSET_ID

# How long a superseded state of a process is kept: an audit event without an EOE record stays open
# for up to two seconds.
GRACE: Final = 3 * SECOND
# How long an unwritten exec can be found: a starved daemon may read nothing for that long.
UNREPORTED_GRACE: Final = 60 * SECOND
# Maximum number of earlier programs, and of states, of a process.
MAX_PREVIOUS: Final = 8
MAX_STATES: Final = 256
# Maximum number of cgroup paths; processes in forgotten cgroups keep the path they started with.
MAX_CGROUPS: Final = 65_536
MAX_CGROUP_BYTES: Final = 8 << 20


# Bytes of an earlier program's argv that are kept.
PREVIOUS_ARGS: Final = 512
# Maximum number of ancestors of a process, and bytes of argv kept of each.
MAX_ANCESTORS: Final = 20
ANCESTOR_ARGS: Final = 256
# Estimated growth of the table per state, and per byte of argv, including JSON.
STATE_GROWTH: Final = 4096
ARGS_GROWTH: Final = 12
UNLIMITED: Final = 1 << 60
INIT: Final = 1  # the pid of init, which adopts processes whose parent has ended
MAY_HAVE_ADOPTED: Final = "process.parent: its parent in /proc, which may have adopted it"
STANDS_IN: Final = "process.parent: ended unseen; the session leader, an ancestor, takes its place"
# The program of a process while it is unknown.
UNKNOWN: Final = Program(b"", None, None, None)


class Itself(Enum):
    """Represents "the process itself" as a relative.

    A real self-reference would be a cycle, and ended processes are freed by reference counting.
    """

    ITSELF = 0


ITSELF: Final = Itself.ITSELF


class Reference(NamedTuple):
    """The identity of a process without its data, which ended processes keep of their relatives.

    It also stands for a process that ended unseen, before the daemon started: then only the pid is
    known, and ``start`` is 0. ``entry`` is set if it was an entry leader; ``entry.start`` is the
    latest possible start, ``dated`` says that a login record contains it.
    """

    pid: int
    start: int
    entity_id: str
    entry: Entry | None = None
    dated: bool = False

    @property
    def gone(self) -> bool:
        """Whether it ended unseen, before the daemon started."""
        return self.start == 0


class Ancestor:
    """An ancestor as its descendants need it: its state when it forked the next one."""

    __slots__ = ("entity_id", "euid", "loginuid", "mounts", "pid", "program", "start", "uid")

    def __init__(
        self,
        pid: int,
        start: int,
        entity_id: str,
        program: Program,
        ids: tuple[int, int, int | None],
        mounts: int | None,
    ) -> None:
        """Take its identity, its program, and its real, effective and login user ids.

        ``mounts`` is the mount namespace in which the program's path was resolved.
        """
        self.mounts = mounts
        self.pid = pid
        self.start = start
        self.entity_id = entity_id
        self.program = program
        self.uid, self.euid, self.loginuid = ids


class Lineage:
    """The ancestors of a process, nearest first, at most MAX_ANCESTORS.

    It is made when a process forks, shared by all children forked in the same state, and includes
    ancestors that end later. ``broken`` says that some are missing, because they ended before the
    daemon started. ``cached`` belongs to the encoder.
    """

    __slots__ = ("ancestors", "broken", "cached")

    def __init__(self, ancestors: tuple[Ancestor, ...], *, broken: bool = False) -> None:
        """Take the ancestors, nearest first."""
        self.ancestors = ancestors
        self.broken = broken
        self.cached: object = None


class State:
    """The state of a process from ``time`` until its next state; immutable once made.

    ``cached`` belongs to the encoder: the state as JSON, which ``stale`` removes. ``audit_time`` is
    the stamp of this exec's audit event (ms since the epoch), if known; ``matched`` says that the
    audit event has arrived, ``reported`` that the exec was written. ``observed`` is when procfs
    provided the state, if it did. ``program_unknown`` says that an exec may have been lost.
    ``groups`` are the supplementary ones, None if unknown. ``descent`` is the lineage of the
    children forked in this state, None before the first one.
    """

    __slots__ = (
        "audit_time",
        "cached",
        "descent",
        "entry_leader",
        "executed",
        "facts",
        "group_inferred",
        "group_leader",
        "groups",
        "matched",
        "observed",
        "previous",
        "program",
        "program_unknown",
        "reported",
        "session_inferred",
        "session_leader",
        "time",
        "working_directory",
    )

    def __init__(
        self,
        time: int,
        facts: Facts,
        program: Program,
        working_directory: bytes | None,
        previous: tuple[Program, ...],
    ) -> None:
        """Make a state without relatives: the table sets them before others see it."""
        self.time = time
        self.facts = facts
        self.program = program
        self.working_directory = working_directory
        self.previous = previous
        self.group_leader: Relative = None
        self.session_leader: Relative = None
        self.entry_leader: Relative = None
        self.session_inferred = False
        self.group_inferred = False
        self.executed = False
        self.program_unknown = False
        self.groups: tuple[int, ...] | None = None
        self.observed: int | None = None
        self.audit_time: int | None = None
        self.matched = False
        self.reported = False
        self.cached: Sized | None = None
        self.descent: Lineage | None = None

    def stale(self) -> None:
        """Drop the cached JSON, which lacks something that is known now."""
        self.cached = None
        self.descent = None

    @property
    def leads_session(self) -> bool:
        """Whether the process is the leader of its session in this state."""
        return self.session_leader is ITSELF

    @property
    def awaits_line(self) -> bool:
        """Whether it is of an exec whose line is still to come."""
        return self.executed and not self.reported and self.observed is None


class Verdict(NamedTuple):
    """A filter's decision about a process, with the filter's name; "" if no filter decided.

    ``action`` is "keep", "mark", "drop" or "fold".
    """

    filter: str
    action: str

    @property
    def withholds(self) -> bool:
        """Whether the lines of the process's life are withheld."""
        return self.action in ("drop", "fold")


class Process:
    """One process: its identity, and its states, oldest first; the last one is the current one.

    ``creator`` is the process that forked it, ``lineage`` its ancestors at that time. ``exact``
    says that ``start`` is the kernel's own value, not rounded down to a tick; ``found`` that it is
    known from procfs, not from its fork. ``end`` and ``status`` (as of wait(2)) are None until it
    ends; if its end was lost, it has an ``end`` and no ``status``. ``creator_note`` describes a
    doubt about the creator, ``entry_inferred`` names the evidence for an inferred entry,
    ``entry_note`` the part of the entry that a user could have forged. ``verdict`` is the filters'
    decision, ``withheld`` says that they withheld its introduction, ``gained`` that it or an
    ancestor has gained privileges since, so that it is written.
    """

    __slots__ = (
        "cgroup",
        "connection",
        "creator",
        "creator_note",
        "creator_observed",
        "drawn",
        "end",
        "entity_id",
        "entry_inferred",
        "entry_note",
        "entry_source",
        "entry_type",
        "exact",
        "found",
        "gained",
        "group_exit",
        "introduced",
        "latest",
        "lineage",
        "pid",
        "predecessor",
        "session_reported",
        "start",
        "states",
        "status",
        "verdict",
        "withheld",
    )

    def __init__(self, pid: int, start: int, entity_id: str, *, exact: bool) -> None:
        """Make a process without states: the table adds the first one at once."""
        self.pid = pid
        self.start = start
        self.entity_id = entity_id
        self.exact = exact
        self.states: list[State] = []
        self.creator: Process | Reference | None = None
        self.lineage: Lineage | None = None
        self.creator_observed = False  # from procfs, so that it may be a later parent
        self.creator_note: str | None = None
        self.found = False
        self.predecessor: Process | None = None  # the process that had the pid before
        self.end: int | None = None
        self.status: int | None = None
        self.group_exit: bool | None = None
        self.cgroup: bytes | None = None
        self.connection: bytes | None = None
        self.entry_type: str | None = None
        self.entry_source: str | None = None
        self.entry_note: str | None = None
        self.entry_inferred: str | None = None
        self.introduced = False  # a line about it was written
        self.drawn = False  # its fork or exec was written, so that Session View draws it
        self.session_reported = False  # its setsid was written
        self.verdict: Verdict | None = None
        self.withheld = False
        self.gained = False
        self.latest = start  # the latest date of its written events; no later event precedes it

    def __repr__(self) -> str:
        name = self.states[-1].program.comm if self.states else b"?"
        return f"Process({self.pid}, {self.start}, {name!r})"

    @property
    def reference(self) -> Reference:
        """Its identity, without the process."""
        return Reference(self.pid, self.start, self.entity_id)

    @property
    def state(self) -> State:
        """The current or last state."""
        return self.states[-1]

    @property
    def states_in_lines(self) -> list[State]:
        """The states up to the first exec whose line is still to come, at least one state."""
        states = self.states
        for index, state in enumerate(states):
            if state.awaits_line:
                return states[: max(index, 1)]
        return states

    def at(self, time: int) -> State:
        """Return the state at ``time``; the first known one for an earlier time."""
        states = self.states
        latest = states[-1]
        if latest.time <= time or len(states) == 1:
            return latest
        for state in reversed(states):
            if state.time <= time:
                return state
        return states[0]

    def is_same(self, start: int, *, exact: bool) -> bool:
        """Return whether a start time from another source means this process."""
        if self.exact and exact:
            return self.start == start
        return self.start // TICK == start // TICK


Relative = Process | Reference | Itself | None


class ProcessView:
    """The subject of a line: a process in one of its states, with attributes from the table.

    ``parent_now`` is its parent in that state, None if it is the creator or unknown.
    ``foreign_mounts`` is the mount namespace in which its executable's path was resolved, None if
    it is the host's.
    """

    __slots__ = ("cgroup", "foreign_mounts", "parent_now", "process", "state")

    def __init__(
        self,
        process: Process,
        state: State,
        cgroup: bytes | None,
        parent_now: Process | None,
        foreign_mounts: int | None,
    ) -> None:
        """Take the process, its state, and what the table adds."""
        self.process = process
        self.state = state
        self.cgroup = cgroup
        self.parent_now = parent_now
        self.foreign_mounts = foreign_mounts


class ProcessTable:
    """The processes of the host, kept up to date by the events of a source.

    ``identify`` makes the entity id of (pid, start). At most ``max_processes`` can be found by pid;
    beyond that, ended ones are evicted first, then the oldest ones (``evicted`` counts both).
    Processes to which only relatives refer do not count. ``grown`` estimates the growth in bytes;
    the memory limit resets it.
    """

    def __init__(
        self, identify: Callable[[int, int], str], *, max_processes: int = 262_144
    ) -> None:
        """Start empty."""
        self._identify = identify
        self._max_processes = max_processes
        self._by_pid: dict[int, Process] = {}
        self._ended: deque[Process] = deque()
        self.cgroups: dict[int, bytes] = {}
        self._cgroup_bytes = 0
        self.presumed: dict[Process, None] = {}
        self.evicted = 0
        self.grown = 0
        self.reused_pids = 0

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Process]:
        return iter(self._by_pid.values())

    @property
    def host(self) -> Facts | None:
        """The facts of pid 1, else of kernel threads: their namespaces are the host's.

        The kernel hides the namespaces of a pid 1 whose first thread has ended.
        """
        for pid in (1, 2):
            process = self._by_pid.get(pid)
            if process is not None and process.state.facts.mount_namespace is not None:
                return process.state.facts
        return None

    def knows(self, facts: Facts) -> bool:
        """Return whether a snapshot could add nothing about a living process."""
        process = self._by_pid.get(facts.pid)
        if process is None or process.end is not None or process.start != facts.start:
            return False
        state = process.state
        return facts.kernel_thread or (
            not state.program_unknown
            and state.program.args is not None
            and state.groups is not None
            and self.cgroup_of(process, state) is not None
        )

    def known_facts(self, facts: Facts) -> Facts | None:
        """Return the facts of a process to which a snapshot could add nothing, otherwise None.

        They are the table's own if they are the same, so that memory has them once.
        """
        if not self.knows(facts):
            return None
        own = self._by_pid[facts.pid].state.facts
        return own if own == facts else facts

    def get(self, pid: int) -> Process | None:
        """Return the process that has the pid, or had it last."""
        return self._by_pid.get(pid)

    def holder(self, pid: int, time: int, slack: int = 0) -> Process | None:
        """Return the holder of the pid at ``time``, which may be up to ``slack`` too early."""
        process = self._by_pid.get(pid)
        while process is not None and process.start > time + slack:
            process = process.predecessor
        if process is None or (process.end is not None and process.end < time):
            return None
        return process

    def holders(self, pid: int) -> Iterator[Process]:
        """Yield all known holders of the pid, newest first."""
        process = self._by_pid.get(pid)
        while process is not None:
            yield process
            process = process.predecessor

    @staticmethod
    def make(pid: int, start: int, entity_id: str) -> Process:
        """Return a new process without states, not in the table, for ``put_back``."""
        return Process(pid, start, entity_id, exact=start % TICK != 0)

    def refer(self, pid: int, start: int) -> Reference:
        """Return the identity of a process that is not in the table."""
        return Reference(pid, start, self._identify(pid, start))

    def put_back(self, processes: Iterable[Process]) -> None:
        """Fill an empty table with the processes of an earlier run."""
        for process in sorted(processes, key=lambda process: process.start):
            process.predecessor = self._by_pid.pop(process.pid, None)
            self._by_pid[process.pid] = process
            if process.end is not None:
                self._ended.append(process)
        self._ended = deque(sorted(self._ended, key=lambda process: process.end or 0))
        self.grown = UNLIMITED
        self._cgroup_bytes = sum(map(len, self.cgroups.values()))

    def forked(self, event: Forked) -> Process:
        """Add a new process, which inherits its creator's current state."""
        facts = event.facts
        creator = self._identified(event.creator_pid, event.creator_start, exact=True)
        known = self._identified(facts.pid, facts.start, exact=True)
        if known is not None and (known.end is None or known.start == facts.start):
            # The snapshot saw it already, or one of its own events came first.
            known.found = False
            if creator is not None:
                self.descend(known, creator, creator.state)
                self._relate(known, known.states[0], None)
                if known.entry_inferred is not None:
                    known.entry_type = known.entry_inferred = None
                    known.state.entry_leader = None
                    self._enter(known, known.state)
            return known
        process = self._new(facts)
        if creator is None:
            program = Program(event.comm, None, None, None)
            process.states.append(State(event.time, facts, program, event.working_directory, ()))
            self._relate(process, process.state, None)
            return process
        origin = creator.state
        if (
            event.working_directory is not None
            and event.working_directory != origin.working_directory
        ):
            # chdir is not traced: a fork reveals it.
            origin = self._follow(creator, event.time, origin.facts, cwd=event.working_directory)
        if event.inherited and _has_changed(facts, origin.facts):
            # Without tracepoints for system calls, a fork reveals setsid and the like.
            origin = self._follow(creator, event.time, _as_creator(facts, origin.facts))
            if origin.leads_session:
                self._enter(creator, origin)
        self.descend(process, creator, origin)
        process.cgroup = creator.cgroup
        facts = _filled(facts, origin.facts)
        program = origin.program
        if event.comm and event.comm != program.comm:
            # The creator may have renamed itself (prctl(2)), as runc does: a fork reveals that.
            program = program._replace(comm=event.comm)
        process.states.append(State(event.time, facts, program, origin.working_directory, ()))
        self.grown += STATE_GROWTH
        self._relate(process, process.state, (creator, origin))
        return process

    def executed(self, event: Executed) -> Process:
        """Apply an exec: the process continues with another program."""
        process = self._known(event.facts, event.time, event.program)
        before = process.state
        state = _after_exec(before, event)
        state.audit_time = event.audit_time
        state.group_inferred = event.facts.pgid is None and state.facts.pgid is not None
        self._append(process, state)
        self._relate(process, state, (process, before))
        self._enter(process, state)
        return process

    def changed(self, event: Changed) -> Process:
        """Apply a change of session, process group or ids."""
        process = self._known(event.facts, event.time, None)
        state = self._follow(process, event.time, event.facts)
        if event.what == "session":
            self._enter(process, state)
        elif event.what == "ids":
            state.groups = event.groups
        return process

    def exited(self, event: Exited) -> Process:
        """Apply the end of a process, which is found for a while, and kept while referenced."""
        process = self._known(event.facts, event.time, None)
        before = process.state.facts
        facts = event.facts
        if facts is not before:  # usually it is the same object
            facts = _filled(facts, before)
            if (before.tty_major or before.tty_minor) and facts.sid == before.sid:
                # A hang-up removes the terminal before the process ends.
                facts = facts._replace(tty_major=before.tty_major, tty_minor=before.tty_minor)
            if facts != before:
                self._follow(process, event.time, facts)
        self._end(process, event.time, event.status, group_exit=event.group_exit)
        return process

    def ended(self, process: Process, time: int, status: int | None = None) -> None:
        """Note that a process has ended, known from its exit_group or its absence.

        If only its absence shows that, the status is lost; ``presumed`` then holds the process.
        """
        if process.end is None and status is None:
            self.presumed[process] = None
        self._end(process, time, status, group_exit=None)

    def mark_program_unknown(self, process: Process, time: int) -> None:
        """Mark the program as unknown from ``time`` on, because an exec may have been lost."""
        if process.end is not None or process.state.program_unknown:
            return
        before = process.state
        facts = before.facts
        state = State(time, facts, UNKNOWN, before.working_directory, before.previous)
        state.program_unknown = True
        self._append(process, state)
        self._relate(process, state, (process, before))

    def audited_exec(self, event: Executed, *, session_known: bool) -> tuple[Process, State]:
        """Apply an exec that only audit reported.

        The facts lack what audit records do not contain. ``session_known`` says that each setsid is
        reported too: then a new process is in its parent's session.
        """
        facts = event.facts
        process = self.holder(facts.pid, event.time, TICK)
        if process is None:
            process = self._new(facts)
            process.states.append(State(event.time, facts, event.program, None, ()))
            self._adopt(process)
        if event.time < process.start:
            # Audit uses a coarse clock: the stamp can be a tick before the process's start.
            event = event._replace(time=process.start)
        before = process.state
        if before.time > event.time and len(process.states) > 1:
            return process, self._inserted_exec(process, event)
        looked_up = before.observed is not None and before.observed >= event.time
        if (
            len(process.states) == 1
            and not before.executed
            and (looked_up or before.time == event.time)
        ):
            # First observed after this exec: there is no earlier state.
            before.program = event.program
            before.working_directory = event.working_directory or before.working_directory
            before.executed = True
            before.stale()
            if session_known and before.facts.sid == process.pid:
                # It leads a session by an unreported setsid, which came after this exec.
                before.facts = before.facts._replace(sid=None, pgid=None)
                before.session_leader = before.group_leader = before.entry_leader = None
        else:
            process = self.executed(event)
        state = process.state
        if state.session_leader is None and session_known and isinstance(process.creator, Process):
            of_parent = process.creator.at(event.time).session_leader
            state.session_leader = process.creator if of_parent is ITSELF else of_parent
            state.session_inferred = True
            if state.entry_leader is None:
                self._enter(process, state)
        return process, state

    def _inserted_exec(self, process: Process, event: Executed) -> State:
        """Insert a late exec at its time; later states stay."""
        states = process.states
        index = sum(state.time <= event.time for state in states)
        before = states[max(0, index - 1)]
        state = _after_exec(before, event)
        states.insert(index, state)
        self._relate(process, state, (process, before))
        self._enter(process, state)
        for later in states[index + 1 :]:
            if not later.program_unknown:
                break
            later.program, later.previous = state.program, state.previous
            later.working_directory = later.working_directory or state.working_directory
            later.stale()
        return state

    def _observe(self, event: Observed, same: dict[Any, Any]) -> Process:
        """Add a process as procfs shows it, or complete a known one.

        ``same`` holds shared values.
        """
        facts = event.facts
        process = self._by_pid.get(facts.pid)
        if process is None or not process.is_same(facts.start, exact=_is_exact(facts)):
            process = self._new(facts)
            process.found = True
            program = same.setdefault(event.program, event.program)
            cwd = same.setdefault(event.working_directory, event.working_directory)
            state = State(facts.start, facts, program, cwd, ())
            state.observed = event.time
            process.states.append(state)
        elif process.end is None and not self.knows(facts):
            self._complete(process, event, same)
        if event.cgroup is not None:
            process.cgroup = same.setdefault(event.cgroup, event.cgroup)
        groups = event.supplementary_groups
        if groups is not None and process.end is None:
            process.state.groups = same.setdefault(groups, groups)
        process.connection = event.connection or process.connection
        if event.cgroup is not None and facts.cgroup_id is not None:
            self.name_cgroup(facts.cgroup_id, event.cgroup)
        return process

    def name_cgroup(self, cgroup_id: int, path: bytes) -> None:
        """Store a cgroup's path; forget cgroups without processes if there are too many."""
        self._cgroup_bytes += len(path) - len(self.cgroups.pop(cgroup_id, b""))
        self.cgroups[cgroup_id] = path
        if len(self.cgroups) > MAX_CGROUPS or self._cgroup_bytes > MAX_CGROUP_BYTES:
            self._forget_cgroups()

    def _forget_cgroups(self) -> None:
        """Keep the cgroups of processes, and the newest of the others.

        Users with a delegated subtree can create any number of cgroups, which must not push out
        those of containers.
        """
        used = {process.state.facts.cgroup_id for process in self if process.end is None}
        newest = list(reversed(self.cgroups))
        kept: set[int] = set()
        size = 0
        for in_use, share in ((True, 1), (False, 2)):
            for cgroup_id in newest:
                if (cgroup_id in used) is not in_use:
                    continue
                size += len(self.cgroups[cgroup_id])
                if len(kept) >= MAX_CGROUPS // share or size > MAX_CGROUP_BYTES // share:
                    break
                kept.add(cgroup_id)
        self.cgroups = {number: path for number, path in self.cgroups.items() if number in kept}
        self._cgroup_bytes = sum(map(len, self.cgroups.values()))

    def snapshot(self, observed: Iterable[Observed]) -> list[Process]:
        """Add all processes of procfs, in any order; a second pass finds relatives."""
        # A host with many processes runs few programs: keep each once in memory.
        same: dict[Any, Any] = {}
        pairs = [(self._observe(event, same), event) for event in observed]
        pairs.sort(key=lambda pair: (pair[0].start, pair[0].pid))
        orphans: list[tuple[Process, Login | None]] = []
        for process, event in pairs:
            self._adopt(process)
            # A partial event is followed by one with the rest.
            if not event.partial and self._lacks_known_ancestors(process):
                orphans.append((process, event.login))
        processes = [process for process, _ in pairs]
        if orphans:
            self._infer_entries(orphans)
            self._pass_entries_on(processes)
        return processes

    def reconcile(self, observed: list[Observed], time: int) -> list[Process]:
        """Check the table against a snapshot taken at ``time``; return the missing processes.

        Processes missing from the snapshot have ended; unknown ones in it are added.
        """
        missing = self.absent(observed, time, ended=time)
        self.snapshot(observed)
        return missing

    def absent(self, observed: Iterable[Observed], time: int, *, ended: int) -> list[Process]:
        """End the processes missing from a snapshot begun at ``time``; return them.

        Their end is dated ``ended``, or later if a later event of them is known.
        """
        present = {event.facts.pid: event.facts for event in observed}
        missing = []
        for process in list(self._by_pid.values()):
            if process.end is not None or process.start > time:
                continue
            facts = present.get(process.pid)
            if facts is None or not process.is_same(facts.start, exact=_is_exact(facts)):
                state = process.state
                known = max(state.time, state.observed or 0, process.latest)
                self.ended(process, max(ended, known))
                missing.append(process)
        return missing

    def forget(self, time: int, awaited: Callable[[Process], bool] = lambda _: False) -> None:
        """Drop the processes that ended before ``time``, and those over the limit.

        A process whose end is still ``awaited`` by the stream is kept.
        """
        while self._ended and (self._ended[0].end or 0) < time and not awaited(self._ended[0]):
            self._drop(self._ended.popleft())
        self.evict(len(self._by_pid) - self._max_processes)

    def evict(self, number: int, *, living: bool = True) -> int:
        """Drop ``number`` processes, ended ones first; return how many were dropped.

        Without ``living`` drop only ended ones.
        """
        number = max(0, min(number, len(self._by_pid) if living else len(self._ended)))
        for _ in range(number):
            if self._ended:
                self._drop(self._ended.popleft())
            else:
                self._drop(next(iter(self._by_pid.values())))
        self.evicted += number
        return number

    def connected(self, process: Process, connection: bytes) -> None:
        """Store the client address of an sshd process, also for the logins it has accepted."""
        process.connection = connection
        server = self._server_of(process)
        session = process.state.facts.audit_session
        of_session = None
        if server is not None and session not in (None, UNSET_ID):
            of_session = Entry(
                server.type, entry.source_address(connection), inferred=entry.BY_SESSION
            )
        for other in self:
            if of_session is not None and other.state.facts.audit_session == session:
                self._correct_entry(other, of_session)
            if (
                other.entry_type in entry.LOGIN_TYPES
                and other.entry_inferred is None
                and (other.entry_source is None or other.entry_note is not None)
            ):
                other.entry_source, other.entry_note = _source_of(other)
                for state in other.states:
                    state.stale()

    def _correct_entry(self, process: Process, found: Entry) -> None:
        """Replace the inferred entry of a process by a found one."""
        for state in process.states:
            leader = state.entry_leader
            if isinstance(leader, Reference) and leader.entry is not None:
                known = leader.entry
                if known.type != "container":
                    better = found._replace(start=known.start)
                    state.entry_leader = leader._replace(entry=better)
                    state.stale()
        if process.entry_inferred is not None and process.entry_type != "container":
            process.entry_type, process.entry_source = found.type, found.source
            process.entry_note, process.entry_inferred = found.note, found.inferred
            for state in process.states:
                state.stale()

    def cgroup_of(self, process: Process, state: State) -> bytes | None:
        """Return the cgroup's path in that state, None if unknown."""
        cgroup_id = state.facts.cgroup_id
        if cgroup_id is not None and cgroup_id in self.cgroups:
            return self.cgroups[cgroup_id]
        return process.cgroup

    def view(self, process: Process, state: State) -> ProcessView:
        """Return the view for a line about the process in this state."""
        creator = process.creator
        moved = creator is not None and state.facts.ppid not in (0, creator.pid)
        parent_now = self.parent_now(state) if moved else None
        mounts = state.program.mount_namespace
        host = self.host
        foreign = mounts if host is not None and mounts != host.mount_namespace else None
        return ProcessView(process, state, self.cgroup_of(process, state), parent_now, foreign)

    def parent_now(self, state: State) -> Process | None:
        """Return the parent in that state, after any reparenting; None if unknown."""
        return self._identified(state.facts.ppid, state.facts.parent_start, exact=True)

    # Identity

    def _identified(self, pid: int, start: int | None, *, exact: bool) -> Process | None:
        """Return the process of that identity; the pid's current holder if the start is unknown."""
        process = self._by_pid.get(pid)
        if start is None:
            return process if process is not None and process.end is None else None
        while process is not None:
            if process.start == start or process.is_same(start, exact=exact):
                return process
            process = process.predecessor
        return None

    def _known(self, facts: Facts, time: int, program: Program | None) -> Process:
        """Return the process of an event; create it from the event's facts if it is unknown."""
        process = self._identified(facts.pid, facts.start, exact=_is_exact(facts))
        if process is None:
            process = self._new(facts)
            unknown = Program(program.comm if program else b"", None, None, None)
            process.states.append(State(min(facts.start, time), facts, unknown, None, ()))
            self._relate(process, process.state, None)
        return process

    def _new(self, facts: Facts) -> Process:
        entity_id = self._identify(facts.pid, facts.start)
        process = Process(facts.pid, facts.start, entity_id, exact=_is_exact(facts))
        # Re-insert at the end: the dict stays ordered by activity, and eviction takes the front.
        predecessor = self._by_pid.pop(process.pid, None)
        if predecessor is not None:
            self.reused_pids += 1
            if predecessor.end is None:
                self.ended(predecessor, process.start)
            process.predecessor = predecessor
        self._by_pid[process.pid] = process
        return process

    # Relatives

    def descend(self, process: Process, creator: Process, state: State) -> None:
        """Set the creator of a process, and the creator's state at the fork."""
        process.creator, process.creator_observed = creator, False
        process.creator_note = None
        lineage = state.descent
        if lineage is None:
            program = state.program
            if len(program.args or b"") > ANCESTOR_ARGS:
                program = shortened_program(program, ANCESTOR_ARGS)
            facts = state.facts
            ids = facts.uid, facts.euid, facts.loginuid
            mounts = program.mount_namespace or facts.mount_namespace
            nearest = Ancestor(creator.pid, creator.start, creator.entity_id, program, ids, mounts)
            above = creator.lineage.ancestors[: MAX_ANCESTORS - 1] if creator.lineage else ()
            lineage = state.descent = Lineage((nearest, *above), broken=is_torn(creator))
        process.lineage = lineage

    def _relate(self, process: Process, state: State, origin: tuple[Process, State] | None) -> None:
        """Copy groups, and relatives with matching ids, from the state it originates from."""
        facts = state.facts
        state.group_leader = self._leader(process, facts.pgid, origin, group=True)
        state.session_leader = self._leader(process, facts.sid, origin, group=False)
        if origin is not None:
            source, before = origin
            state.groups = before.groups
            inherited = before.entry_leader
            if inherited is ITSELF and source is not process:
                inherited = source
            state.entry_leader = inherited

    def _leader(
        self,
        process: Process,
        pid: int | None,
        origin: tuple[Process, State] | None,
        *,
        group: bool,
    ) -> Relative:
        if pid is None or pid == 0:
            return None
        if pid == process.pid:
            return ITSELF
        if origin is not None:
            source, before = origin
            if (before.facts.pgid if group else before.facts.sid) == pid:
                leader = before.group_leader if group else before.session_leader
                if leader is ITSELF:
                    leader = source
                if leader is not None and leader is not process:
                    return leader
        # The kernel does not reuse the id of a living group or session, so the last holder of the
        # pid that can have led it is the leader.
        for holder in self.holders(pid):
            if holder.start <= process.state.time if process.states else True:
                return holder
        return None

    def _adopt(self, process: Process) -> None:
        """Find the relatives of a process from procfs, as far as they are known by now."""
        state = process.state
        if state.group_leader is None or state.session_leader is None:
            state.group_leader = self._leader(process, state.facts.pgid, None, group=True)
            state.session_leader = self._leader(process, state.facts.sid, None, group=False)
            state.stale()
        if process.creator is None and state.facts.ppid:
            parent = self._identified(state.facts.ppid, state.facts.parent_start, exact=True)
            # A younger parent has adopted it: the creator is unknown.
            if parent is not None and parent.start <= process.start:
                self._descend_from_parent(process, parent, state)
        if state.entry_leader is None:
            self._enter(process, state)

    def _descend_from_parent(self, process: Process, parent: Process, state: State) -> None:
        """Set the creator from the parent that procfs shows, which may have adopted the process.

        A process in another session than its parent, which it does not lead, descends from the
        leader of that session.
        """
        facts, init = state.facts, parent.pid == INIT
        apart = facts.sid not in (None, 0, process.pid, parent.state.facts.sid)
        if process.found and init and apart:
            leader = state.session_leader
            if isinstance(leader, Process):
                self.descend(process, leader, leader.state)
            else:
                process.creator = self.refer(facts.sid or 0, 0)
            process.creator_note = STANDS_IN
        elif (
            process.found
            and init
            and facts.sid == process.pid
            and entry.is_of_a_login(facts, self.cgroup_of(process, state))
        ):
            return  # init does not create a login's processes: the creator has ended
        else:
            self.descend(process, parent, parent.state)
            # Init creates the processes in its own session, systemd those of a unit. The parent of
            # a container's first process is often set by clone(2) with CLONE_PARENT.
            made = facts.sid != process.pid or entry.is_of_a_unit(self.cgroup_of(process, state))
            namespaces = facts.pid_namespace, parent.state.facts.pid_namespace
            inside = None not in namespaces and namespaces[0] != namespaces[1]
            if process.found and ((init and not made) or apart or inside):
                process.creator_note = MAY_HAVE_ADOPTED
        process.creator_observed = True

    # Processes whose entry has ended

    def _lacks_known_ancestors(self, process: Process) -> bool:
        """Return whether to look up the entry of a process, because all its ancestors have ended.

        Children of init count as well, because it may have adopted them.
        """
        state = process.state
        facts = state.facts
        creator = process.creator
        if not process.found or process.end is not None or facts.pid <= 2 or facts.kernel_thread:
            return False
        if process.entry_inferred is not None or not (
            creator is None or creator.pid == INIT or isinstance(creator, Reference)
        ):
            return False
        if state.entry_leader is ITSELF:
            return process.entry_type in ("unknown", "init")
        # Session 0 is the kernel's; the leader of another session is known or has ended.
        return state.entry_leader is None and state.session_leader is None and bool(facts.sid)

    def _infer_entries(self, orphans: list[tuple[Process, Login | None]]) -> None:
        """Determine the entries of processes whose ancestors have ended."""
        sessions: dict[int | None, Entry] = {}
        gone: dict[int, Reference] = {}
        if any(map(_needs_others, (process.state for process, _ in orphans))):
            sessions, gone = self._known_sessions()
        host = self.host
        for process, login in orphans:
            state = process.state
            facts = state.facts
            found = entry.infer(
                facts,
                self.cgroup_of(process, state),
                host,
                session=sessions.get(facts.audit_session),
                login=login,
                connection=process.connection,
            )
            if state.leads_session:
                state.entry_leader = ITSELF
                process.entry_type, process.entry_source = found.type, found.source
                process.entry_note, process.entry_inferred = found.note, found.inferred
            else:
                sid = facts.sid or 0
                if sid not in gone:
                    dated = found.start is not None and found.start <= process.start
                    began = found._replace(start=found.start if dated else process.start)
                    gone[sid] = self.refer(sid, 0)._replace(entry=began, dated=dated)
                state.entry_leader = gone[sid]
            state.stale()

    def _pass_entries_on(self, observed: list[Process]) -> None:
        """Apply the found entries to earlier descendants.

        ``observed`` are the processes of a snapshot, or of a part of one: then the descendants may
        be anywhere in the table.
        """
        heirs = filter(_may_inherit, self if len(observed) < len(self) else observed)
        for process in sorted(heirs, key=lambda heir: heir.start):
            if _is_guess(process):
                process.state.entry_leader = process.entry_type = None
            self._adopt(process)
            process.state.stale()

    def _known_sessions(self) -> tuple[dict[int | None, Entry], dict[int, Reference]]:
        """Return the entries of audit sessions with living processes, and ended entry leaders."""
        sessions: dict[int | None, Entry] = {}
        gone: dict[int, Reference] = {}
        for process in self:
            if process.end is not None:
                continue
            leader = process if process.state.entry_leader is ITSELF else process.state.entry_leader
            if isinstance(leader, Reference) and leader.entry is not None:
                gone[leader.pid] = leader
            session = process.state.facts.audit_session
            if session in (None, UNSET_ID):
                continue
            server = self._server_of(process) if process.connection is not None else None
            if server is not None and process.connection is not None:
                source = entry.source_address(process.connection)
                sessions[session] = Entry(server.type, source, inferred=entry.BY_SESSION)
            elif (
                isinstance(leader, Process)
                and leader.entry_type in entry.SESSION_TYPES
                and leader.entry_inferred is None
                and leader.state.facts.audit_session == session
            ):
                sessions.setdefault(
                    session,
                    Entry(
                        leader.entry_type, leader.entry_source, leader.entry_note, entry.BY_SESSION
                    ),
                )
        return sessions, gone

    def _server_of(self, process: Process) -> entry.LoginServer | None:
        state = process.state
        creator = None
        if isinstance(process.creator, Process):
            before = process.creator.state
            creator = entry.ProcessFacts(before.facts, before.program)
        return entry.server_of(entry.ProcessFacts(state.facts, state.program), creator, self.host)

    def _enter(self, process: Process, state: State) -> None:
        """Apply the entry rules to the process."""
        facts = state.facts
        if facts.sid != facts.pid and state.entry_leader is not None:
            # Only a session leader can be an entry leader; others have inherited it by now.
            return
        if process.entry_inferred is not None and state.entry_leader is ITSELF:
            return  # a later program of the process is no better evidence
        parent: entry.ProcessFacts | None = None
        grandparent: entry.ProcessFacts | None = None
        parent_pid, inherited = facts.ppid, None
        if process.creator is not None:
            parent_pid = process.creator.pid
        if isinstance(process.creator, Process):
            origin = process.creator.at(process.start)
            parent = entry.ProcessFacts(origin.facts, origin.program)
            before = process.creator.creator
            if isinstance(before, Process):
                source = before.at(process.creator.start)
                grandparent = entry.ProcessFacts(source.facts, source.program)
            inherited = _entry_of(process.creator, origin)
        elif isinstance(state.entry_leader, Reference):
            inherited = state.entry_leader
        of_session = _entry_of(state.session_leader, None)
        of_group = _entry_of(state.group_leader, None)
        decision = entry.decide(
            entry.EntryCandidate(
                process=entry.ProcessFacts(facts, state.program),
                parent_pid=parent_pid,
                parent=parent,
                grandparent=grandparent,
                cgroup=self.cgroup_of(process, state),
                host=self.host,
                type=process.entry_type if state.entry_leader is ITSELF else None,
                parent_entered=inherited is not None,
                session_entered=of_session is not None,
                group_entered=of_group is not None,
            )
        )
        match decision.origin:
            case entry.Origin.ITSELF:
                state.entry_leader = ITSELF
                process.entry_type, process.entry_note = decision.type, decision.note
                process.entry_inferred = None
                if decision.type in entry.LOGIN_TYPES:
                    process.entry_source, process.entry_note = _source_of(process)
            case entry.Origin.PARENT:
                state.entry_leader = inherited
            case entry.Origin.SESSION:
                state.entry_leader = of_session
            case entry.Origin.GROUP:
                state.entry_leader = of_group
            case entry.Origin.NONE:
                state.entry_leader = None

    # States

    def _follow(self, process: Process, time: int, facts: Facts, cwd: bytes | None = None) -> State:
        """Add a state that differs in facts or working directory, not in the program."""
        before = process.state
        facts = _filled(facts, before.facts)
        state = State(time, facts, before.program, cwd or before.working_directory, before.previous)
        state.session_inferred = before.session_inferred
        state.group_inferred = before.group_inferred and facts.pgid == before.facts.pgid
        state.program_unknown = before.program_unknown
        self._append(process, state)
        self._relate(process, state, (process, before))
        return state

    def _append(self, process: Process, state: State) -> None:
        self.grown += STATE_GROWTH + ARGS_GROWTH * len(state.program.args or b"")
        states = process.states
        if state.time < states[-1].time:
            # The source has the kernel's clock and order; a procfs look-up can be ahead of it.
            state.time = states[-1].time
        states.append(state)
        while len(states) > MAX_STATES or states[1].time + _grace(states[0]) < state.time:
            del states[0]

    def _complete(self, process: Process, event: Observed, same: dict[Any, Any]) -> None:
        """Fill in attributes from procfs that are not known yet."""
        state = process.state
        if state.program_unknown:
            if not event.partial:
                self._settle(process, event)
            return
        program = state.program
        partial = program.executable is None or program.args is None
        if partial and program.executable in (None, event.program.executable):
            state.program = same.setdefault(event.program, event.program)
        state.facts = _filled(state.facts, event.facts)
        state.working_directory = state.working_directory or event.working_directory
        state.stale()

    def _settle(self, process: Process, event: Observed) -> None:
        """Resolve an unknown program: procfs shows the same program as before, or another."""
        states = process.states
        unknown = [state for state in states if state.program_unknown]
        known = [state.program for state in states if not state.program_unknown]
        if (
            known
            and known[-1].executable == event.program.executable
            and (event.program.args is None or known[-1].args == event.program.args)
        ):
            for state in unknown:
                state.program, state.program_unknown = known[-1], False
                state.stale()
            return
        state = self._follow(process, event.time, _filled(event.facts, process.state.facts))
        state.program, state.program_unknown = event.program, False
        state.working_directory = event.working_directory or state.working_directory

    def _end(
        self, process: Process, time: int, status: int | None, *, group_exit: bool | None
    ) -> None:
        if process.end is None:
            process.end, process.status, process.group_exit = time, status, group_exit
            self._ended.append(process)

    def _drop(self, process: Process) -> None:
        """Remove a process from the index; reduce it to the data that others need."""
        newest = self._by_pid.get(process.pid)
        if newest is process:
            del self._by_pid[process.pid]
        else:
            while newest is not None and newest.predecessor is not process:
                newest = newest.predecessor
            if newest is not None:
                newest.predecessor = process.predecessor
        process.predecessor = None
        # An ended process appears only as a parent or leader, with its own relatives by identity.
        # Without this reduction a chain of forks would keep its first process forever.
        if isinstance(process.creator, Process):
            process.creator = process.creator.reference
        del process.states[:-1]
        state = process.state
        state.group_leader = _cut(state.group_leader)
        state.session_leader = _cut(state.session_leader)
        state.entry_leader = _cut(state.entry_leader)


def is_torn(process: Process) -> bool:
    """Return whether ancestors of a process are unknown: they ended before the daemon started."""
    if process.lineage is not None and process.lineage.broken:
        return True
    return process.found and (
        process.creator_note is not None or (process.creator is None and process.pid > 2)
    )


def _grace(state: State) -> int:
    """Return how long a superseded state is kept, in ns."""
    return UNREPORTED_GRACE if state.awaits_line else GRACE


def _after_exec(before: State, event: Executed) -> State:
    """Return the state that an exec makes of the one ``before`` it."""
    state = State(
        event.time,
        _filled(event.facts, before.facts),
        event.program,
        event.working_directory or before.working_directory,
        _with_previous(before),
    )
    state.executed = True
    return state


def _with_previous(before: State) -> tuple[Program, ...]:
    """Return the earlier programs of the state after an exec, with the beginning of their argv."""
    brief = shortened_program(before.program, PREVIOUS_ARGS)
    return (*before.previous, brief)[-MAX_PREVIOUS:]


def _source_of(process: Process) -> tuple[str | None, str | None]:
    """Return the client's address of a login, from the connection of a server process above it.

    Otherwise the login's environment is used, which its user can write; the second value is a note
    about that.
    """
    server = process.creator
    while isinstance(server, Process) and entry.login_server(server.state.program.comm) is not None:
        if server.connection is not None:
            return entry.source_address(server.connection), None
        server = server.creator
    if process.connection is None:
        return None, None
    return entry.source_address(process.connection), entry.BY_ENVIRONMENT


def _entry_of(relative: Relative, state: State | None) -> Relative:
    """Return the entry leader of a relative, in that state or now."""
    if not isinstance(relative, Process):
        return None
    leader = (state or relative.state).entry_leader
    return relative if leader is ITSELF else leader


def _may_inherit(process: Process) -> bool:
    """Return whether a process may inherit an entry that was found for an ancestor."""
    if not process.found or process.end is not None:
        return False
    return process.state.entry_leader is None or _is_guess(process)


def _is_guess(process: Process) -> bool:
    """Return whether a process is its own entry only because nothing better was known."""
    return process.entry_type == "unknown" and process.entry_inferred is None


def _needs_others(state: State) -> bool:
    """Return whether processes of the same session may show the entry of this one."""
    return not state.leads_session or state.facts.audit_session not in (None, UNSET_ID)


def _cut(relative: Relative) -> Relative:
    return relative.reference if isinstance(relative, Process) else relative


def _is_exact(facts: Facts) -> bool:
    # One exact start in ten million is a whole number of ticks; comparing ticks then does no harm.
    return facts.start % TICK != 0


def _has_changed(child: Facts, creator: Facts) -> bool:
    """Return whether a new child has other groups, terminal or ids than its creator's known ones.

    With its own user namespace (clone(2)) it has its own capabilities there.
    """
    # mypyc types a slice of a named tuple as one of its members.
    known: tuple[Any, ...] = creator
    new: tuple[Any, ...] = child
    return (
        child.user_namespace == creator.user_namespace
        and not child.kernel_thread
        and (new[_GROUPS] != known[_GROUPS] or new[_IDENTITY] != known[_IDENTITY])
    )


def _as_creator(child: Facts, creator: Facts) -> Facts:
    """Return the facts of a creator, updated with those that its child has just inherited."""
    known: tuple[Any, ...] = creator
    new: tuple[Any, ...] = child
    before, between = slice(None, _GROUPS.start), slice(_GROUPS.stop, _IDENTITY.start)
    after = slice(_IDENTITY.stop, None)
    return Facts._make(
        (*known[before], *new[_GROUPS], *known[between], *new[_IDENTITY], *known[after])
    )


# The indices in Facts of pgid and sid, and of the members from the terminal to the audit session.
_GROUPS: Final = slice(4, 6)
_IDENTITY: Final = slice(7, 21)


def _filled(new: Facts, old: Facts) -> Facts:
    """Return the newer facts, with older ones where the newer are None."""
    if new is old or None not in new:
        return new
    older: tuple[Any, ...] = old
    newer: tuple[Any, ...] = new
    return Facts._make(o if n is None else n for n, o in zip(newer, older, strict=True))
