"""The pipeline: audit records and process events in, enriched lines out. No I/O; time is given.

    pipeline.feed_process(source.drain())          events of the process source
    pipeline.feed_audit(client.receive(), ...)     records of the audit socket
    pipeline.unknown_pids()                        processes to look up, without an exact source
    pipeline.poll(now)                             the lines that are ready

An exact source (eBPF, the proc connector) reports every fork, exec and exit, so each exec, setsid
and end that it reports is written once, whatever audit reports. An audit event is joined with its
process event: an exec by the stamp that both have, an end with its exit_group. A report of one side
waits a while for the other (joins.py). Without such a source the audit events themselves update the
table, helped by look-ups in procfs.

Times are ns of CLOCK_BOOTTIME; an audit stamp is wall-clock time in ms and is converted with the
offset of the wall clock (``follow_clock``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sessiond.audit.reassembler import AuditEvent, Reassembler
from sessiond.audit.record import (
    LOGIN,
    NO_ARGUMENTS,
    NO_CALL,
    Arguments,
    arguments,
    decode,
    fields,
    from_user_space,
    hex_number,
    login_fields,
    number,
)
from sessiond.config.filters import Filters
from sessiond.config.schema import EventSettings
from sessiond.ecs.audit_cache import AUDITBEAT_ACTIONS
from sessiond.ecs.wall_clock import Step
from sessiond.filters.pressure import Level
from sessiond.filters.stage import FilterStage
from sessiond.pipeline import snapshot
from sessiond.pipeline.config_changes import ConfigChange, config_change, is_config_change
from sessiond.pipeline.event_writer import Encoders, EventWriter, LineOptions
from sessiond.pipeline.inventory import Introduction, Inventory
from sessiond.pipeline.joins import (
    HOLD,
    MAX_EXPIRED,
    EndJoin,
    ExecJoin,
    Hearing,
    SessionJoin,
    Waiting,
    may_have,
)
from sessiond.pipeline.losses import Loss, Losses, account
from sessiond.process.argv import is_cut, join_args
from sessiond.process.entry import login_server, source_address
from sessiond.process.events import (
    VANISHED,
    Changed,
    Executed,
    Exited,
    Facts,
    Forked,
    Lost,
    Observed,
    ProcessEvent,
)
from sessiond.process.from_audit import (
    contradicts,
    execution,
    forked,
    kept_args,
)
from sessiond.process.memory import MemoryLimit
from sessiond.process.table import GRACE, Process, ProcessTable, ProcessView, Relative, State
from sessiond.units import MILLISECOND, SECOND, TICK

EXEC_CALLS: Final = ("execve", "execveat")
_NO_FILTERS: Final = Filters()
# How long an ended process can still be found by pid after audit has reported everything: as long
# as reports wait for each other, and as long again.
SETTLED: Final = 2 * HOLD


@dataclass
class Counters:
    """Counters of the pipeline; see ``Pipeline.account`` for their balance.

    ``merged`` are the audit events without their own line, because another line has their content.
    ``filtered`` are those that a setting excludes. ``unaudited_execs`` are the execs that the
    source reported and audit did not, by reason:

    - uncovered: no loaded rule covers execve and execveat.
    - conditional: every rule that covers them has conditions.
    - missing: a rule should have caused an audit event.
    - dropped: a never rule took it, which does in the kernel what a filter does here.
    """

    audit_events: int = 0
    process_events: Counter[str] = field(default_factory=Counter)
    merged: int = 0
    filtered: int = 0
    joined_ends: int = 0
    unjoined_execs: int = 0
    unaudited_execs: Counter[str] = field(default_factory=Counter)
    late_execs: int = 0
    unenriched: int = 0


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """Options of the pipeline, from the configuration and the host.

    ``source`` is the name of the process source, ``exact`` whether it reports every fork, exec and
    exit. ``audited`` are the syscalls that the loaded rules can record, ``always_audited`` those
    that they record for every process: the pipeline waits only for events that can arrive.
    ``dropped_by_kernel`` are the filters whose never rules (filters/never.py) are loaded, too, with
    these; ``always_audited`` holds for all other processes. ``audit_is_silent`` says that there are
    no audit events at all. ``event`` are the settings of the same name, ``filters`` the configured
    filters, ``max_memory`` (bytes) limits the table.
    """

    source: str
    exact: bool
    audited: frozenset[str] = frozenset(("execve", "execveat", "exit_group", "setsid"))
    always_audited: frozenset[str] = frozenset(("execve", "execveat", "exit_group", "setsid"))
    audit_is_silent: bool = False
    dropped_by_kernel: Mapping[str, frozenset[bytes]] = field(default_factory=dict)
    event: EventSettings
    filters: Filters = _NO_FILTERS
    assembler_timeout: int = 2 * SECOND
    max_in_flight: int = 8192
    max_memory: int = 64 << 20
    replay: bool = False


class NamesOfEvents(Protocol):
    """User and group names in a log, event by event."""

    @property
    def waiting(self) -> bool:
        """Return whether there are names to take."""

    def learn(self, stamp: bytes, /) -> bool:
        """Take the names of the event with that stamp; return whether a name of an id changed."""
        ...


SyscallName = Callable[[bytes, bytes], str]


class Pipeline:
    """Joins audit events and process events, enriches them and encodes them.

    ``syscall_name`` returns the name for the arch= and syscall= fields of a SYSCALL record;
    ``names`` are those in the events of a log.
    """

    def __init__(
        self,
        options: PipelineOptions,
        *,
        table: ProcessTable,
        encoders: Encoders,
        syscall_name: SyscallName,
        context: Callable[[bytes], Mapping[str, Any]],
        names: NamesOfEvents | None = None,
    ) -> None:
        """Start empty."""
        self.options = options
        self._log_names = names
        self.table = table
        self.clock = encoders.processes.clock
        self.counters = Counters()
        self.lines = EventWriter(_line_options(options), encoders, context)
        self._context = context
        self._filters: FilterStage | None = None
        self.losses = Losses()
        self.memory = MemoryLimit(table, options.max_memory)
        # The last changes of the audit configuration, for the daemon's monitor.
        self.notices: deque[ConfigChange] = deque(maxlen=64)
        self._syscall_name = syscall_name
        self._assembler = Reassembler(
            timeout=options.assembler_timeout,
            max_in_flight=options.max_in_flight,
            of_log=options.replay,
        )
        self._names: dict[tuple[bytes, bytes], str] = {}
        self._ready: list[AuditEvent] = []
        # Whether more events have waited long enough than the last poll has written.
        self.overdue = False
        self._execs = ExecJoin()
        self._ends = EndJoin()
        self._sessions = SessionJoin()
        self._hearing = Hearing()
        self._wanted: set[int] = set()
        self._connecting: set[int] = set()
        self._inventory = Inventory()
        self._snapshot: int | None = None  # time of the first snapshot
        self._fed: int | None = None  # when both inputs were last read
        # The latest time and the highest serial in a log, of events that do not wait.
        self._latest_of_log = (0, 0)
        self._use_filters()

    def use(self, options: PipelineOptions) -> None:
        """Apply other rules or another process source; the reassembler's limits stay."""
        self.options = options
        self.lines.use(_line_options(options))
        self._use_filters()
        if not options.event.inventory:
            self._inventory.clear()

    @property
    def _inventory_period(self) -> int:
        event = self.options.event
        return int(event.inventory_period * SECOND) if event.inventory else 0

    def encode_with(self, encoders: Encoders) -> None:
        """Use other encoders; the numbering of lines continues."""
        number = self.lines.sequence
        self.lines.encode_with(encoders)
        self.lines.sequence = number
        self._use_filters()

    def _use_filters(self, *, decided: bool = False) -> None:
        """Apply the options' filters; ``decided``: decisions about processes exist, or will.

        Without filters there is no filter stage, but an existing one stays: its decisions about
        processes hold until they end.
        """
        rules, encoder = self.options.filters, self.lines.process_encoder
        renamed = AUDITBEAT_ACTIONS if self.options.event.event_actions == "auditbeat" else {}
        if self._filters is not None:
            self._filters.use(rules, encoder, renamed=renamed)
        elif rules or decided:
            self._filters = FilterStage(rules, encoder, self._context, renamed=renamed)
            self._filters.set_host_mounts(self._host_mounts)
        self.lines.filters = self._filters

    @property
    def _host_mounts(self) -> int | None:
        host = self.table.host
        return None if host is None else host.mount_namespace

    # Input

    def follow_clock(self, began: int, ended: int, wall_offset: int) -> Step | None:
        """Take CLOCK_REALTIME minus CLOCK_BOOTTIME (ns); write a step, and return it.

        It was measured from ``began`` to ``ended`` (ns since boot). Call this before feeding the
        input read until ``began``.
        """
        before = self.clock.offset
        step = self.clock.follow(began, ended, wall_offset)
        if step is not None:
            self.report_step(step, before)
        return step

    def report_step(self, step: Step, before: int) -> None:
        """Write that the wall clock was set; it was ``before`` ns ahead of CLOCK_BOOTTIME."""
        self.lines.clock_step(step, before)

    def feed_audit(
        self,
        batch: Iterable[tuple[int, bytes]],
        *,
        now: int,
        drained: bool = True,
    ) -> None:
        """Take (record type, payload) pairs as they were read from the audit socket.

        ``drained`` says that the socket was empty afterwards.
        """
        self._fed = now
        if drained:
            self._hearing.drained = now
        self._take(self._assembler.feed(batch, now))

    def feed_process(self, events: Sequence[ProcessEvent]) -> None:
        """Take the process source's events, in order."""
        counts = self.counters.process_events
        table = self.table
        observed: list[Observed] = []
        execs_lost = self._mark_programs_unknown(events)
        if self._filters is not None:
            self._filters.set_host_mounts(self._host_mounts)
        for event in events:
            counts[type(event).__name__] += 1
            if isinstance(event, Observed):
                observed.append(event)
                self._await_connection(event.facts, event.program.comm)
                continue
            if observed:
                self._observed(observed)
                observed = []
            if isinstance(event, Exited):
                self._exited(table.exited(event), event)
            elif isinstance(event, Forked):
                self._forked(event, execs_lost=execs_lost)
            elif isinstance(event, Executed):
                process = table.executed(event)
                if self._filters is not None:
                    self._filters.executed(process)
                self._executed(process, process.state)
            elif isinstance(event, Changed):
                self._changed(event)
            elif isinstance(event, Lost):
                reason = _TAKEN if event.kind == VANISHED else _RING_FULL
                self.lost(event.time, "tracer", event.number, reason, kind=event.kind)
            else:
                table.name_cgroup(event.cgroup_id, event.path)
        if observed:
            self._observed(observed)

    def _changed(self, event: Changed) -> None:
        process = self.table.changed(event)
        if self._filters is not None:
            self._filters.changed(process)
        if process.withheld:
            self._release_if_privileged(process)
        if event.what == "session":
            self._session(process, event.time)

    def _observed(self, observed: list[Observed]) -> None:
        processes = self.table.snapshot(observed)
        if self._snapshot is None:
            self._snapshot = max(event.time for event in observed)
        if not self.options.exact:
            # Later ones were looked up because an event names them, perhaps their own exec.
            processes = [process for process in processes if process.start < self._snapshot]
        if self.options.event.inventory:
            unread = {event.facts.pid for event in observed if event.partial}
            self._inventory.add(processes, unread)

    def _view(
        self, process: Process, state: State, time: int, *, introduces: bool = False
    ) -> ProcessView:
        """Return the view for a line about the process at ``time``; write introductions first.

        ``introduces`` says that the line itself introduces the process: a fork or an exec.
        """
        self._introduce(process, state, time)
        if self._writes_forks or (self._filters is not None and self._filters.withheld_any):
            self._write_forks(process, state, itself=not introduces)
        return self.table.view(process, state)

    @property
    def _writes_forks(self) -> bool:
        """Whether to write the forks that trees need; never in a replay."""
        return self.options.event.fork_events not in ("none", False) and not self.options.replay

    def _write_forks(self, process: Process, state: State, *, itself: bool) -> None:
        """Write the forks of a process and of its relatives that no line has introduced.

        For processes that a filter withheld, write the withheld introduction.
        """
        draws = self._writes_forks
        unwritten: list[Process] = []
        waiting: list[tuple[Process, State]] = [(process, state)]
        while waiting:
            for relative in _relatives(*waiting.pop()):
                if not isinstance(relative, Process) or relative is process:
                    continue
                if relative in unwritten:
                    continue
                if relative.withheld or (draws and not relative.drawn):
                    relative.drawn = True
                    first = relative.states[0]
                    if not first.facts.kernel_thread:
                        unwritten.append(relative)
                        last = relative.states_in_lines[-1]
                        waiting.append((relative, last if relative.withheld else first))
        missing = process.withheld or (draws and not process.drawn)
        if itself and missing and not state.facts.kernel_thread:
            process.drawn = True
            unwritten.append(process)
        for relative in sorted(unwritten, key=lambda process: (process.start, process.pid)):
            if (due := self._inventory.pop(relative)) is not None:
                self._write_introductions([due], needed=True)
            if relative.withheld:
                self._write_withheld(relative)
                continue
            view = self.table.view(relative, relative.states[0])
            self.lines.traced("fork", view, relative.start)

    def _write_withheld(self, process: Process) -> None:
        """Write the introduction of a withheld process, because another line needs it.

        From then on the process is written like any other.
        """
        if self._filters is not None:
            self._filters.release(process)
        process.withheld = False
        # A later exec has its own line.
        states = process.states_in_lines
        first, last = states[0], states[-1]
        executed = next((state for state in reversed(states) if state.executed), None)
        if executed is not None:
            self.lines.traced("exec", self.table.view(process, executed), executed.time)
        elif first.observed is not None:
            self.lines.introduce(self.table.view(process, first), first.observed, repeated=False)
        else:
            self.lines.traced("fork", self.table.view(process, last), process.start)

    def _release_if_privileged(self, process: Process) -> None:
        """Write a dropped process from now on, if its last change gave it privileges."""
        filters, states = self._filters, process.states
        if filters is None or len(states) < 2:
            return
        before, after = (self.table.cgroup_of(process, state) for state in states[-2:])
        if filters.has_gained(process, before, after):
            process.gained = True
            self._view(process, process.state, process.state.time)

    def _withholds(
        self, process: Process, state: State, action: str, event: AuditEvent | None = None
    ) -> bool:
        """Return whether a filter withholds a line of a process's life."""
        filters = self._filters
        if filters is None or self.lines.is_canary(process.pid):
            return False
        cgroup = before = self.table.cgroup_of(process, state)
        dropped = process.verdict is not None and process.verdict.withholds
        if dropped and action == "exec" and (index := process.states.index(state)):
            before = self.table.cgroup_of(process, process.states[index - 1])
        if not filters.withholds(process, state, cgroup, action, event, cgroup_before=before):
            return False
        process.latest = max(process.latest, state.time)
        if event is not None:
            self.counters.filtered += 1
        return True

    def _fold(self, process: Process, state: State) -> None:
        """Count the end of a process that a filter folds; write the first of a kind at once."""
        assert self._filters is not None  # noqa: S101 -- only filters withhold
        view, lines = self.table.view(process, state), self.lines
        found = self._filters.fold_end(view, lambda: lines.example(view))
        if found is not None and found[1]:
            time = process.end or state.time
            name = f"{process.entity_id}-folded-{time:x}"
            lines.folded(found[0].filter, 1, (time, time), time, lines.example(view), name)

    def report_filtered(self, now: int, *, all_: bool = False) -> None:
        """Write the due counts of folded and removed lines; with ``all_`` all of them."""
        if self._filters is None:
            return
        for process in self._filters.overdue(now):
            self._view(process, process.state, now)
        due = self._filters.due(now, all_=all_)
        for kind, window in due.folds:
            self.lines.folded(
                kind.filter,
                window.count,
                (window.first, window.last),
                now,
                window.example or b"{}",
                window.name,
            )
        for taken in due.taken:
            self.lines.filtered(taken)

    def _introduce(self, process: Process, state: State, time: int) -> None:
        """Write the introductions that must precede a line about a process at ``time``.

        These are its own and those of its relatives, unless the inventory has written them.
        """
        if not self._inventory:
            return
        introductions: list[Introduction] = []
        waiting = [(process, state)]
        while waiting:
            subject, then = waiting.pop()
            for relative in (subject, *_relatives(subject, then)):
                if not isinstance(relative, Process):
                    continue
                if (due := self._inventory.pop(relative)) is not None:
                    moved = due._replace(time=max(min(due.time, time), relative.start))
                    introductions.append(moved)
                    waiting.append((relative, relative.state))
        introductions.sort(key=lambda due: (due.process.start, due.process.pid))
        self._write_introductions(introductions, needed=True)

    def _write_introductions(
        self, introductions: Iterable[Introduction], *, needed: bool = False
    ) -> None:
        """Write introductions; ``needed``: another line mentions the processes."""
        for process, time, repeated in introductions:
            state = process.at(time)
            if not needed and self._withholds(process, state, "already_running"):
                continue
            view = self.table.view(process, state)
            self.lines.introduce(view, time, repeated=repeated)

    def _forked(self, event: Forked, *, execs_lost: bool) -> None:
        process = self.table.forked(event)
        if self._filters is not None and isinstance(process.creator, Process):
            self._filters.forked(process, process.creator)
        if event.inherited and isinstance(process.creator, Process):
            self._session_by_fork(process.creator, event.time)
        # Forked for an accepted connection, or within an older one.
        self._await_connection(event.facts, event.comm, event.creator_pid)
        if execs_lost:
            self.table.mark_program_unknown(process, event.time + 1)
        wanted = self.options.event.fork_events in ("all", True) and not event.facts.kernel_thread
        if wanted and not self._withholds(process, process.states[0], "fork"):
            view = self._view(process, process.states[0], event.time, introduces=True)
            self.lines.traced("fork", view, event.time)

    def _await_connection(self, facts: Facts, comm: bytes, *others: int) -> None:
        """Request a look-up of a login server's client; the server runs as root."""
        if facts.euid == 0 and login_server(comm) is not None:
            self._connecting.update((facts.pid, *others))

    def _mark_programs_unknown(self, events: Sequence[ProcessEvent]) -> bool:
        """Mark all programs as unknown if execs were lost since the last call."""
        lost = [event for event in events if isinstance(event, Lost) and event.kind in _EXEC_LOSSES]
        for event in lost[:1]:
            since = self._fed if self._fed is not None else event.time
            for process in self.table:
                self.table.mark_program_unknown(process, since)
        return bool(lost)

    def lost(
        self,
        time: int,
        hop: str,
        count: int,
        reason: str,
        *,
        since: int | None = None,
        kind: str = "",
    ) -> None:
        """Note a loss between ``since`` and ``time``, both ns since boot.

        Without ``since`` it began after the last feeding of records. The loss is counted at once;
        ``poll`` writes it to the stream, at most once a second per hop.
        """
        if since is None:
            since = time if self._fed is None else min(self._fed, time)
        self.losses.note(hop, count, reason, since=since, until=time, kind=kind)

    def reconcile(self, events: list[ProcessEvent], *, since: int, time: int) -> int:
        """Check the table after a loss against the source's new snapshot, begun at ``time``.

        ``events`` are the snapshot and the events since, by time; the loss began after ``since``.
        Processes missing from the snapshot have ended at an unknown time: from ``since`` on, no
        event is attributed to them. Returns the number of these processes.
        """
        self.feed_process(events)
        observed = [event for event in events if isinstance(event, Observed)]
        return len(self.table.absent(observed, time, ended=since))

    # State between runs

    def save(self, now: int) -> bytes:
        """Return the state, without lines, as bytes for ``restore``.

        ``now`` is in ns since boot. Call this when the lines of ``poll`` are written.
        """
        ends, exit_groups = self._ends.snapshot()
        sessions = self._sessions.snapshot()
        exec_events, execs = self._execs.snapshot()
        needed = (*exit_groups, *ends, *sessions, *(process for process, _ in execs))
        table, numbers = snapshot.save_table(self.table, now, needed)
        event = snapshot.save_event
        state = snapshot.SavedPipeline(
            time=now,
            drained=self._hearing.drained,
            sequence=self.lines.sequence,
            written_after=self.lines.known_after,
            seal=self.lines.seal,
            table=table,
            open=[event(pending) for pending in self._assembler.open_events()],
            ready=[event(pending) for pending in self._ready],
            exec_events=[(waiting.due, event(waiting.event)) for waiting in exec_events],
            execs=[
                (numbers[process], process.states.index(state))
                for process, state in execs
                if state in process.states
            ],
            exit_groups=[
                (numbers[process], waiting.due, event(waiting.event))
                for process, waiting in exit_groups.items()
            ],
            ends=[(numbers[process], time) for process, time in ends.items()],
            filters=None if self._filters is None else self._filters.save(),
            sessions=[(numbers[process], time) for process, time in sessions.items()],
        )
        return snapshot.encode(state)

    def restore(self, data: bytes) -> int:
        """Restore the state of ``save``, before anything was fed; return its ``now``.

        Raises SavedStateError if that is impossible; the pipeline is then unchanged.
        """
        state = snapshot.decode(data)
        event, at = snapshot.restore_event, snapshot.at
        processes, listed = snapshot.restored_processes(self.table, state.table)
        exit_groups = {
            at(processes, number): Waiting(due, event(saved))
            for number, due, saved in state.exit_groups
        }
        ends = {at(processes, number): time for number, time in state.ends}
        execs = []
        for of, index in state.execs:
            process = at(processes, of)
            execs.append((process, at(process.states, index)))
        sessions = {at(processes, number): time for number, time in state.sessions}
        snapshot.fill(self.table, listed, state.table)
        self._ends.restore(ends, exit_groups)
        self._sessions.restore(sessions)
        for due, saved in state.exec_events:
            self._execs.hold_event(event(saved), due)
        for process, executed in execs:
            self._execs.hold(process, executed)
        self._ready = [event(saved) for saved in state.ready]
        self._assembler.reopen(event(saved) for saved in state.open)
        self._hearing.drained = state.drained
        self.lines.sequence = state.sequence
        self.lines.written_after = state.written_after
        self.lines.seal = state.seal
        if state.filters is not None:
            self._use_filters(decided=True)
            assert self._filters is not None  # noqa: S101 -- just created
            self._filters.restore(state.filters, processes)
        self.counters.audit_events += self.in_flight - self._assembler.in_flight
        return state.time

    # Output

    def unknown_pids(self) -> set[int]:
        """Return the pids to look up before ``poll``; feed the results as Observed events.

        Call it again after feeding, for the relatives of the processes found.
        """
        wanted, self._wanted = self._wanted, set()
        if not wanted and not self.options.exact:
            wanted = self._unknown_relatives()
        return wanted

    def connecting(self) -> set[int]:
        """Return the pids whose connections to look up before ``poll``."""
        connecting, self._connecting = self._connecting, set()
        return connecting

    def connected(self, connections: Mapping[int, bytes]) -> None:
        """Take the connections found, in the format of SSH_CONNECTION."""
        for pid, connection in connections.items():
            process = self.table.get(pid)
            if process is not None and process.connection is None:
                self.table.connected(process, connection)

    def poll(self, now: int) -> list[bytes]:
        """Handle what is ready or overdue; return the lines. ``overdue`` says that more is."""
        # While a task waits for room in the backlog, records of others come between its own.
        self._take(self._assembler.expire(self._hearing.heard(now)))
        ready, self._ready = self._ready, []
        for event in ready:
            self._audit_event(event, now)
            if self.options.replay and self.table.presumed:
                self._write_presumed(now)
        self._write_presumed(now)
        waiting_since = self._expire(now)
        # Audit may still deliver events of this time, about processes that have ended since.
        read_until = min(now, self._hearing.drained)
        if self.options.replay:
            read_until = self._hearing.latest  # the events after it are still open
        # Waiting events need the states of their processes.
        read_until = min(read_until, waiting_since)
        self.table.forget(self._settled(read_until), self._ends.awaits)
        self.memory.check(read_until)
        for loss in self.losses.due(now):
            self.lines.loss(loss, now)
        if self._filters is not None:
            self.report_filtered(now)
        self._inventory.repeat(self.table, now, self._inventory_period)
        self._write_introductions(self._inventory.take(now))
        return self.lines.take()

    def _settled(self, read_until: int) -> int:
        """Return the time before which ended processes are needed by no event any more.

        At hundreds of processes a second, most of the table are those that have just ended.
        """
        if self.options.replay or not self.options.exact:
            return read_until - GRACE  # relatives are found by pid alone
        oldest = self._assembler.oldest
        if oldest is not None:
            read_until = min(read_until, self._boot(oldest))
        return read_until - SETTLED

    def press(self, level: Level) -> bool:
        """Fold the noisiest user's repeated events while lines can't be written fast enough.

        Call it once a second; ``level`` says whether that is so. Returns whether events may be
        folded: under pressure, unless the options forbid it.
        """
        if not self.options.event.fold_under_pressure:
            level = Level.CALM
        if level > Level.CALM and self._filters is None:
            self._use_filters(decided=True)
        if self._filters is not None:
            self._filters.pressure.press(level)
        return level == Level.PRESSED

    def report_loss(self, loss: Loss, now: int) -> None:
        """Count and write a loss at once, without merging it with others of its hop."""
        self.losses.report(loss)
        self.lines.loss(loss, now)

    def flush(self, now: int) -> list[bytes]:
        """Handle everything in flight, at the end of the input."""
        self._take(self._assembler.flush())
        lines = self.poll(now)
        events, execs = self._execs.flush()
        for event in events:
            self._unjoined_exec(event)
        for process, state in execs:
            self._unaudited_exec(process, state)
        for process, time in self._sessions.flush():
            self._traced_session(process, time)
        exit_groups, ends = self._ends.flush()
        for process, event in exit_groups:
            self._end_by_audit(process, event)
        for process in ends:
            self._end(process, None)
        for loss in self.losses.flush():
            self.lines.loss(loss, now)
        lines += self.poll(now)
        self.report_filtered(now, all_=True)
        return lines + self.lines.take()

    def deadline(self) -> int | None:
        """Return when to call ``poll`` even without input; None: never."""
        parts = (self._assembler, self._execs, self._ends, self._sessions)
        due = (
            *(part.deadline() for part in parts),
            self._inventory.deadline,
            None if self._filters is None else self._filters.deadline,
        )
        return min((time for time in due if time is not None), default=None)

    def awaits_audit(self, now: int) -> bool:
        """Return whether anything has waited for audit longer than usual (a lagging socket)."""
        return any(part.is_overdue(now) for part in (self._execs, self._ends, self._sessions))

    @property
    def in_flight(self) -> int:
        """The number of audit events that are read and not yet written."""
        return self._assembler.in_flight + len(self._ready) + len(self._execs) + len(self._ends)

    @property
    def records(self) -> int:
        """The number of audit records received."""
        return self._assembler.records

    @property
    def malformed(self) -> int:
        """The number of malformed audit records."""
        return self._assembler.malformed

    @property
    def unseen(self) -> int:
        """The number of missing serials among the audit events, as a hint."""
        return self._assembler.unseen

    @property
    def waiting(self) -> int:
        """The number of lines that are ready for the next ``poll``."""
        return self.lines.waiting

    def account(self) -> dict[str, Any]:
        """The ledger of audit events, which balances at every moment.

        An event counts as received with its first record. Each is written as a line, merged into
        an earlier line, excluded by a setting, or in flight.
        """
        return account(
            self.counters.audit_events + self._assembler.in_flight,
            written=self.lines.counts.total() - self.lines.unaudited,
            merged=self.counters.merged,
            filtered=self.counters.filtered + self.lines.withheld,
            in_flight=self.in_flight,
        )

    def status(self) -> dict[str, Any]:
        """The counters, as ``sessiond status`` shows them."""
        counters = self.counters
        filters = {} if self._filters is None else {"filters": self._filters.status()}
        return filters | {
            "audit_records": self._assembler.records,
            "audit_records_malformed": self._assembler.malformed,
            "audit_records_late": self._assembler.late,
            "audit_events": counters.audit_events,
            "audit_events_unfinished": self._assembler.unfinished,
            "audit_events_in_flight": self.in_flight,
            "ends_joined": counters.joined_ends,
            "execs_unjoined": counters.unjoined_execs,
            "execs_unaudited": dict(counters.unaudited_execs),
            "execs_late": counters.late_execs,
            "unenriched": counters.unenriched,
            "warnings": self.lines.warnings,
            "lines_shortened": self.lines.shortened,
            "process_events": dict(counters.process_events),
            "lines": dict(self.lines.counts),
            "table": {
                "processes": len(self.table),
                "evicted": self.table.evicted,
                "pids_reused": self.table.reused_pids,
                "bytes": self.memory.used,
                "cut": dict(self.memory.cuts),
            },
        }

    # Audit events

    def _take(self, events: list[AuditEvent]) -> None:
        if not events:
            return
        self.counters.audit_events += len(events)
        self._ready += events
        self._hearing.latest = max(self._hearing.latest, *(self._boot(e) for e in events))
        if not self.options.exact and not self.options.replay:
            for event in events:
                pid = number(event.call.pid)
                if pid:
                    self._wanted.add(pid)

    def _name(self, arch: bytes, syscall: bytes) -> str:
        key = arch, syscall
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._syscall_name(arch, syscall)
        return name

    def _audit_event(self, event: AuditEvent, now: int) -> None:
        if self._log_names is not None and self._log_names.waiting:
            seconds, milliseconds = divmod(event.time, 1000)
            stamp = b"audit(%d.%03d:%d)" % (seconds, milliseconds, event.serial)
            if self._log_names.learn(stamp):
                self.lines.forget_names()
        call = event.call
        name = self._name(call.arch, call.syscall) if call is not NO_CALL else ""
        if self.options.replay:
            self._follow_clock_of_log(event, name)
        if name in EXEC_CALLS:
            if call.success == b"yes":
                self._exec(event, now + HOLD)
            elif not self._is_wanted_failure(event):
                self.counters.filtered += 1
            elif self.options.event.event_actions == "auditbeat":
                # Auditbeat's action is "executed" too: Session View would show the process.
                self.counters.unenriched += 1
                self.lines.unenriched(event, self._boot(event))
            else:
                self._other(event)
        elif name == "exit_group":
            self._exit_group(event, now)
        elif name == "setsid" and call.success == b"yes":
            self._setsid(event)
        elif name in _FORKS and self.options.replay:
            self._introduce_by_fork(event)
            self._other(event)
            self._fork_by_audit(event)
        else:
            self._other(event)

    def _follow_clock_of_log(self, event: AuditEvent, call: str) -> None:
        """Notice in a log that its host's wall clock was set back: stamps fall while serials rise.

        Time since boot goes on then, so that processes keep their relatives. A system call that has
        waited, such as accept(2), has an old stamp too: only ``call``s that do not wait count, and
        the stamps of others may be from before a step.
        """
        if _is_of_daemon(event):
            return
        latest, serial = self._latest_of_log
        if call not in _WITHOUT_WAITING:
            event.opened = latest + _SET_BACK
            return
        event.opened = _ANY_TIME
        time = self._boot(event)
        if time < latest - _SET_BACK and event.serial > serial:
            self.clock.follow(latest, latest, self.clock.offset)
            self.clock.follow(latest, latest, event.time * MILLISECOND - latest)
            time = latest
        self._latest_of_log = max(latest, time), max(serial, event.serial)

    def _is_wanted_failure(self, event: AuditEvent) -> bool:
        wanted = self.options.event.exec_failures
        return wanted == "all" or (wanted == "no_enoent" and event.call.exit != _ENOENT)

    def _boot(self, event: AuditEvent) -> int:
        """Convert the stamp of an event to ns since boot."""
        return self.clock.since_boot(event.time * MILLISECOND, event.opened)

    # Execs

    def _executed(self, process: Process, state: State) -> None:
        """Take an exec of the source; audit's event may have arrived, or arrive later."""
        if _executed_by_kernel(process):
            state.matched = True
            self._traced_exec(process, state)
        for waiting in self._execs.take_events():
            self._exec(waiting.event, waiting.due)
        if state.matched:
            return
        if self.options.audited.isdisjoint(EXEC_CALLS) or self._is_left_to_tracer(process, state):
            self._unaudited_exec(process, state)
        else:
            self._execs.hold(process, state)

    def _is_left_to_tracer(self, process: Process, state: State) -> bool:
        """Return whether the kernel drops audit's event of an exec, as a filter would."""
        dropped = self.options.dropped_by_kernel
        if not dropped or self._filters is None:
            return False
        cgroup = self.table.cgroup_of(process, state)
        return self._filters.filter_of(process, state, cgroup) in dropped

    def _exec(self, event: AuditEvent, due: int) -> None:
        """Take an exec of audit; the source has until ``due`` to report it."""
        pid = number(event.call.pid)
        if not self.options.exact:
            process, state = self._audited_exec(event, pid)
            self._exec_line(event, process, state)
            return
        begin = self._boot(event) - TICK
        found = self._execs.match(event, self.table.holders(pid), begin)
        if found is None:
            self._execs.hold_event(event, due)
        else:
            self._joined_exec(event, *found)

    def _joined_exec(self, event: AuditEvent, process: Process, state: State) -> None:
        """Take an exec that both sides have reported."""
        if state.reported:
            # The line was written without audit; the event adds nothing to it.
            self.counters.late_execs += 1
            self.counters.merged += 1
        else:
            self._exec_line(event, process, state)

    def _unaudited_exec(self, process: Process, state: State) -> None:
        """Write an exec that audit did not report, and count the reason."""
        if self.options.event.processes == "all":
            self._traced_exec(process, state)
        self.counters.unaudited_execs[self._why_unaudited(process)] += 1

    def _why_unaudited(self, process: Process) -> str:
        if self.options.audited.isdisjoint(EXEC_CALLS):
            return "uncovered"
        verdict = process.verdict
        if verdict is not None and verdict.filter in self.options.dropped_by_kernel:
            return "dropped"
        return "missing" if "execve" in self.options.always_audited else "conditional"

    def _traced_exec(self, process: Process, state: State) -> None:
        canary = self.lines.canary
        if canary is not None and process.pid == canary.pid:
            canary.traced = True
        state.reported = True
        if not self._withholds(process, state, "exec"):
            view = self._view(process, state, state.time, introduces=True)
            self.lines.traced("exec", view, state.time)

    def _unjoined_exec(self, event: AuditEvent) -> None:
        """Write an exec that the tracer did not report, with the table's data of the process."""
        pid = number(event.call.pid)
        # A process with access to the program's memory can change argv before audit reads it.
        begin = self._boot(event) - TICK
        found = self._execs.match(event, self.table.holders(pid), begin, any_args=True)
        if found is not None:
            self._joined_exec(event, *found)
            return
        self.counters.unjoined_execs += 1
        if self.lines.canary is not None and self.lines.is_canary(pid):
            self.lines.canary.audited = True
        time = self._boot(event)
        if self.table.holder(pid, time, TICK) is None:
            self._other(event, "process: the tracer did not see it")
            return
        process, state = self._audited_exec(event, pid)
        note = "process: the tracer did not see this exec"
        self._exec_line(event, process, state, note)

    def _audited_exec(self, event: AuditEvent, pid: int) -> tuple[Process, State]:
        """Update the table by an audited exec, without a tracer."""
        time = self._boot(event)
        known = self._caller(event, pid, time, executed=True)
        parent = self.table.holder(number(event.call.ppid), time, TICK)
        return self.table.audited_exec(
            execution(event, time, known, parent),
            session_known="setsid" in self.options.audited,
        )

    def _caller(
        self, event: AuditEvent, pid: int, time: int, *, executed: bool = False
    ) -> Process | None:
        """Return the process with the pid at ``time``, by the table and the event's own fields.

        Without an exact source an end can be missed and the pid be reused. ``executed`` says that
        the event is an exec.
        """
        process = self.table.holder(pid, time, TICK)
        if process is None or self.options.exact:
            return process
        claims = event.syscall or _message_fields(event)
        if not contradicts(claims, process, time, executed=executed):
            return process
        if process.end is None:
            self.table.ended(process, max(process.state.time, time - 1))
            if self.options.replay:
                self._write_presumed(time)
        return None

    def _introduce_by_fork(self, event: AuditEvent) -> None:
        """Take the process that forked from the record, if nothing has told of it before.

        It counts as started with this fork, as others count as started with their first exec.
        """
        time = self._boot(event)
        pid = number(event.call.pid)
        if not pid or event.call.success != b"yes" or self._caller(event, pid, time) is not None:
            return
        ppid = number(event.call.ppid)
        parent = self.table.holder(ppid, time, TICK)
        seen = execution(event, time, None, parent)
        start = None if parent is None else parent.start
        comm = seen.program.comm
        process = self.table.forked(Forked(time, seen.facts, ppid, start, comm, None))
        process.state.program = seen.program
        process.state.stale()

    def _fork_by_audit(self, event: AuditEvent) -> None:
        """Take the child of a fork from its record, if no source reports it."""
        time = self._boot(event)
        creator = self.table.holder(number(event.call.pid), time, TICK)
        fork = forked(event, time, creator) if creator is not None else None
        if fork is None:
            return
        child = self.table.get(fork.facts.pid)
        if child is not None and child.end is None and child.start >= time:
            # A vfork returns after the child's exec.
            if child.creator is None and creator is not None:
                self.table.descend(child, creator, creator.at(time))
            return
        self.table.forked(fork)

    def _is_ended(self, process: Process) -> bool:
        """Return whether the end of a process is written: further events come too late."""
        return process.end is not None and not self._ends.awaits(process)

    def _login_by_audit(self, event: AuditEvent, process: Process, time: int) -> None:
        """Take the login user and the audit session of a process from a LOGIN record."""
        login = next((r for r in event.records if r.type == LOGIN), None)
        if login is not None and not self.options.exact:
            values = login_fields(login.text)
            facts = process.state.facts._replace(
                loginuid=number(values.get("auid")), audit_session=number(values.get("ses"))
            )
            self.table.changed(Changed(time, facts, "login"))

    def _connected_by_message(self, event: AuditEvent, process: Process) -> None:
        """Take the client's address from a message of a login server, such as sshd, of root."""
        record = event.records[0]
        if record.type not in _OF_LOGINS or process.connection is not None:
            return
        if login_server(process.state.program.comm) is None:
            return
        told = fields(record.text)
        address = fields(told.get("msg", b"").strip(b"'")).get("addr")
        if told.get("uid") == b"0" and address is not None and source_address(address):
            self.table.connected(process, address)

    def _exec_line(self, event: AuditEvent, process: Process, state: State, note: str = "") -> None:
        if state.program.executable is None:
            self._learn_program(process, state, event)
        self._write_waiting(process, state.time)
        canary = self.lines.canary
        if canary is not None and process.pid == canary.pid and not note:
            canary.audited = canary.traced = True
        state.reported = True
        withheld = self._withholds(process, state, "exec", event)
        if withheld and not is_cut(state.program):
            return
        # If the tracer read the whole argv during the exec, the records have the same.
        is_whole = state.audit_time is not None and not is_cut(state.program)
        argv = (
            NO_ARGUMENTS
            if is_whole and state.program.args is not None
            else arguments(event.records, self.options.event.max_args_bytes)
        )
        # Audit reads the memory later: a debugger of the process can have changed it by then.
        changed = state.audit_time is not None and not may_have(state.program, argv)
        if changed:
            argv = NO_ARGUMENTS
        if not withheld:
            view = self._view(process, state, state.time, introduces=True)
            self.lines.execution(event, view, argv, note=note, changed=changed)
        if argv.values and is_cut(state.program):
            self._refine(state, argv)

    def _close_events_of(self, process: Process) -> None:
        """Close the incomplete audit events of an ended process: their missing records are lost."""
        ended = process.end or 0
        for event in self._assembler.close_of(process.pid, lambda e: self._boot(e) <= ended):
            self.counters.audit_events += 1
            self._audit_event(event, self._fed or ended)

    def _write_waiting(self, process: Process, before: int | None) -> None:
        """Write the process's events ``before`` a time that still wait for audit."""
        for state in self._execs.of(process, before):
            self._unaudited_exec(process, state)
        began = self._sessions.match(process) if before is None else None
        if began is not None:
            self._traced_session(process, began)

    def _learn_program(self, process: Process, state: State, event: AuditEvent) -> None:
        """Take the program from the audit event, if the source was too late to read it."""
        exec_ = execution(event, state.time, process, None)
        for later in process.states[process.states.index(state) :]:
            if later.executed and later is not state:
                return
            later.program = exec_.program
            later.working_directory = exec_.working_directory or later.working_directory
            later.stale()

    def _refine(self, state: State, argv: Arguments) -> None:
        """Replace an argv that the tracer cut by the audit record's, up to a limit."""
        program = state.program
        kept = kept_args(argv.values)
        if len(kept) >= len(program.args or b""):
            size = len(join_args(argv.values))
            if not argv.whole:
                size = max(size + 1, program.args_size or 0)
            state.program = program._replace(args=kept, args_size=size, args_count=argv.number)
            state.stale()

    # Ends

    def _exit_group(self, event: AuditEvent, now: int) -> None:
        pid = number(event.call.pid)
        time = self._boot(event)
        process = self._ends.caller(self.table.holders(pid), time)
        presumed = process if process is not None else self._presumed_caller(event, pid)
        if presumed is not None and self._is_presumed(presumed):
            self.table.presumed.pop(presumed, None)
            self._ends.match(presumed)
            presumed.end = max(presumed.end or 0, time)
            presumed.status = _exit_code(event) << 8
            self._end(presumed, event)
            return
        if process is None:
            process = self.table.get(pid)
            if self.options.exact and (process is None or _presumed_ended(process)):
                # The process is only presumed dead: this exit_group may belong to a later process
                # that reused its pid.
                self._other(event, "process: not known")
                return
        if not self.options.exact and process is not None:
            process = None if _presumed_ended(process) else self._caller(event, pid, time)
        if process is None and self.options.replay:
            self._other(event, "process: the log does not tell of it before its end")
        elif process is None:
            self._other(event, "process: it ended before it could be looked up")
        elif self._ends.match(process):
            self._end(process, event)
        elif self._ends.is_announced(process):
            # Two threads called exit_group at the same time: the first one counts.
            self.counters.merged += 1
        elif self.options.exact and process.end is None:
            self._ends.hold_event(process, event, now)
        elif process.end is None or not self.options.exact:
            self._end_by_audit(process, event)
        else:
            # The end was written before, after the deadline. The audit event still counts as
            # joined; it adds nothing to the end.
            self.counters.joined_ends += 1
            self.counters.merged += 1

    def _end_by_audit(self, process: Process, event: AuditEvent) -> None:
        """End a process by its exit_group, if no tracer reports its end."""
        code = _exit_code(event)
        time = max(self._boot(event), process.state.time)
        self.table.ended(process, time, code << 8)
        self._end(process, event)

    def _presumed_caller(self, event: AuditEvent, pid: int) -> Process | None:
        """Return the process that was found missing, if this exit_group is its end.

        No daemon ran when it ended, but the kernel queued the record. Another process can have
        reused its pid in that time, but hardly with the same parent.
        """
        ppid = number(event.call.ppid)
        for process in self.table.holders(pid):
            if self._is_presumed(process) and process.state.facts.ppid == ppid:
                return process
        return None

    def _is_presumed(self, process: Process) -> bool:
        """Return whether a process was found missing and its end is not written yet."""
        waits = process in self.table.presumed or self._ends.awaits(process)
        return waits and _presumed_ended(process)

    def _write_presumed(self, now: int) -> None:
        """Write the ends that were inferred since the last call.

        A replay does so at once, before the line that the end follows from: where its input is cut
        into blocks must not matter.
        """
        presumed, self.table.presumed = self.table.presumed, {}
        for process in presumed:
            self._presumed(process, now)

    def _presumed(self, process: Process, now: int) -> None:
        """Take the end of a process that is known only from its absence or its exit_group."""
        event = self._ends.match_event(process)
        if event is not None:
            process.status = _exit_code(event) << 8
        if event is None and self.options.exact and not self.options.audit_is_silent:
            # Audit's records of it may still be on their way.
            self._ends.hold(process, now)
        else:
            self._end(process, event)

    def _exited(self, process: Process, event: Exited) -> None:
        if event.facts.kernel_thread:
            # Not reported: the kernel, not a user, starts it; audit requests cause some of them.
            return
        exit_group = self._ends.match_event(process)
        if exit_group is not None or self.options.audit_is_silent:
            self._end(process, exit_group)
        else:
            self._ends.hold(process, event.time)

    def _end(self, process: Process, event: AuditEvent | None) -> None:
        if self._assembler.in_flight and self.options.exact:
            self._close_events_of(process)
        for unjoined in self._execs.events_of(process.pid):
            self._unjoined_exec(unjoined)
        self._write_waiting(process, None)
        if event is not None:
            self.counters.joined_ends += 1
        if event is not None or self.options.event.processes == "all" or _is_written(process):
            assert process.end is not None  # noqa: S101 -- the process has ended
            last = process.at(process.end)
            if self._withholds(process, last, "end", event):
                self._fold(process, last)
            else:
                self.lines.end(self._view(process, last, process.end), event)
        for state in process.states:
            state.stale()

    # Sessions

    def _setsid(self, event: AuditEvent) -> None:
        pid = number(event.call.pid)
        time = self._boot(event)
        process = self._sessions.caller(self.table.holders(pid), time)
        if process is None or not self.options.exact:
            process = self._caller(event, pid, time)
        if process is None:
            self._other(event, "process: not known")
            return
        self._sessions.match(process)
        if process.session_reported:
            # A process becomes session leader only once: the line was written without audit.
            self.counters.merged += 1
            return
        state = next((s for s in process.states if s.time >= time - TICK and s.leads_session), None)
        if state is None:
            # Without a tracer that reports sessions, the audit event does.
            facts = process.state.facts._replace(pgid=pid, sid=pid, tty_major=0, tty_minor=0)
            state = self.table.changed(Changed(time, facts, "session")).state
        process.session_reported = True
        if not self._withholds(process, state, "setsid", event):
            view = self._view(process, state, time)
            self.lines.audited(event, view, "setsid", max(state.time, time))

    def _session(self, process: Process, time: int) -> None:
        """Take a new session from the source."""
        if process.session_reported or any(state.leads_session for state in process.states[:-1]):
            # The audit event came first and is written.
            return
        if "setsid" in self.options.audited:
            self._sessions.hold(process, time)
        else:
            self._traced_session(process, time)

    def _session_by_fork(self, creator: Process, time: int) -> None:
        """Take a session that a child of its leader reveals; no tracepoint reported it."""
        state = creator.state
        if state.time == time and state.leads_session:
            self._session(creator, time)

    def _traced_session(self, process: Process, time: int) -> None:
        if self.options.event.processes == "all":
            process.session_reported = True
            state = process.at(time)
            if not self._withholds(process, state, "setsid"):
                self.lines.traced("setsid", self._view(process, state, time), time)

    # Everything else

    def _filters_event(self, event: AuditEvent, process: Process, state: State) -> bool:
        """Return whether a filter, or the pressure of lines, withholds any other event."""
        assert self._filters is not None  # noqa: S101 -- only filters withhold
        cgroup = self.table.cgroup_of(process, state)
        if self._filters.drops(event, process, state, cgroup):
            return True
        return self._filters.folds_event(
            event,
            process,
            state,
            cgroup,
            lambda: self.lines.example(self.table.view(process, state)),
        )

    def _other(self, event: AuditEvent, note: str = "") -> None:
        """Write any other event, enriched by its pid if the kernel provided it."""
        if is_config_change(event):
            self.notices.append(config_change(event, self.lines.user_name))
        stamp = self._boot(event)
        pid = number(event.call.pid) or _pid_of(event)
        process = self._caller(event, pid, stamp) if pid else None
        if process is None:
            self.counters.unenriched += 1
            self.lines.unenriched(event, stamp, note)
            return
        if self.options.replay:
            self._connected_by_message(event, process)
        if process.withheld and any(record.type == LOGIN for record in event.records):
            process.gained = True
        late = _stands_alone(event) or self._is_ended(process)
        time = max(stamp, process.latest)
        state = process.at(time)
        if late:
            state = _state_of_record(process, event, stamp)
            time = max(stamp, state.time, process.start)
        elif event.call is not NO_CALL and state is not process.states[-1]:
            state = _state_of_ids(process, event, state, stamp)
            time = max(time, state.time)
        if self._filters is not None and self._filters_event(event, process, state):
            self.counters.filtered += 1
        else:
            view = self._view(process, state, time)
            self.lines.audited(event, view, None, time, late=late)
        self._login_by_audit(event, process, time)

    # Deadlines

    def _expire(self, now: int) -> int:
        """Write the events that have waited long enough; return since when others have.

        Those wait for the next poll, so that the lines of one poll do not fill the memory.
        """
        self.overdue = not self._expire_some(now)
        while self.overdue and self.lines.size < MAX_LINES:
            self.overdue = not self._expire_some(now)
        if not self.overdue:
            return now
        due = (part.deadline() for part in (self._execs, self._ends, self._sessions))
        return min((time for time in due if time is not None), default=now) - HOLD

    def _expire_some(self, now: int) -> bool:
        """Write some events that have waited long enough, in the order of a process's life.

        Returns False if more remain.
        """
        for event in self._execs.expire_events(now):
            self._unjoined_exec(event)
        execs = self._execs.expire(now, self._hearing)
        for process, state in execs:
            self._unaudited_exec(process, state)
        sessions = self._sessions.expire(now, self._hearing)
        for process, time in sessions:
            self._write_waiting(process, time)
            self._traced_session(process, time)
        ends = self._ends.expire(now, self._hearing)
        for process in ends:
            self._end(process, None)
        for process, event in self._ends.expire_events(now):
            self._end_by_audit(process, event)
        return max(len(execs), len(sessions), len(ends)) < MAX_EXPIRED

    def _unknown_relatives(self) -> set[int]:
        """Return the pids of relatives that ready events need and the table lacks."""
        unknown: set[int] = set()
        for event in self._ready:
            process = self.table.get(number(event.call.pid))
            pids = {number(event.call.ppid)}
            if process is not None:
                facts = process.state.facts
                pids |= {facts.ppid, facts.pgid or 0, facts.sid or 0}
            unknown |= {pid for pid in pids if pid and self.table.get(pid) is None}
        return unknown


def _line_options(options: PipelineOptions) -> LineOptions:
    return LineOptions(
        source=options.source,
        exact=options.exact,
        event=options.event,
        why_unknown=(
            "the log does not tell" if options.replay else "it was gone before anyone looked"
        ),
        why_without_args="the log does not tell" if options.replay else "could not be read",
    )


def _relatives(process: Process, state: State) -> tuple[Relative, ...]:
    """Return the creator and the leaders of a process in a state."""
    return process.creator, state.group_leader, state.session_leader, state.entry_leader


# The kinds of Lost that can include an exec; the proc connector does not know kinds.
_EXEC_LOSSES: Final = frozenset(("exec", "event", VANISHED))
_FORKS: Final = ("fork", "vfork", "clone", "clone3")
_ENOENT: Final = b"-2"
# Bytes of lines in one poll after which no more events expire.
MAX_LINES: Final = 2 << 20
# USER_ACCT, CRED_ACQ, USER_START, USER_LOGIN: sshd has accepted a client.
_OF_LOGINS: Final = frozenset((1101, 1103, 1105, 1112))
# How far stamps must fall, in ns, and the calls whose stamp is that of their end ("" is none).
_SET_BACK: Final = 5 * SECOND
_ANY_TIME: Final = 1 << 62
_WITHOUT_WAITING: Final = frozenset(("", *EXEC_CALLS, "exit_group", "setsid", *_FORKS))
_RING_FULL: Final = "the tracer's buffer was full"
_TAKEN: Final = "they vanished from the tracer's buffer: another process takes them out"


def _pid_of(event: AuditEvent) -> int:
    """Return the pid of a record without a system call; the kernel fills it in."""
    return next((number(fields(r.text).get("pid")) for r in event.records), 0)


def _is_of_daemon(event: AuditEvent) -> bool:
    """Return whether it is of the audit daemon, which has its own serials."""
    return bool(event.records) and 1200 <= event.records[0].type < 1300


def _stands_alone(event: AuditEvent) -> bool:
    """Return whether it is a kernel record without a system call, such as SECCOMP.

    The event is complete only once no other record can follow; by then the process may run another
    program.
    """
    return event.call is NO_CALL and not from_user_space(event.records[0].type)


def _state_of_record(process: Process, event: AuditEvent, stamp: int) -> State:
    """Return the process's state when a record was made; the stamp can be a tick earlier."""
    state = process.at(stamp)
    executable = decode(fields(event.records[0].text).get("exe", b""))
    for later in reversed(process.states):
        if later.time <= stamp:
            break
        if later.time <= stamp + TICK and executable in (None, later.program.executable):
            return later
    return state


def _state_of_ids(process: Process, event: AuditEvent, state: State, stamp: int) -> State:
    """Return the first state with the ids of a call, from ``state`` until a tick after its stamp.

    The stamp can be a tick earlier than the call: the process may have changed its user in between.
    """
    wanted = number(event.syscall.get("uid")), number(event.syscall.get("euid"))
    for each in process.states[process.states.index(state) :]:
        if each.time > stamp + TICK and each is not state:
            break
        if (each.facts.uid, each.facts.euid) == wanted:
            return each
    return state


def _message_fields(event: AuditEvent) -> Mapping[str, bytes]:
    """Return the kernel's fields about the sender of a user message; none for other records."""
    record = event.records[0]
    return fields(record.text) if from_user_space(record.type) else {}


def _exit_code(event: AuditEvent) -> int:
    """Return the argument of an exit_group event."""
    return hex_number(event.call.a0) & 0xFF


def _executed_by_kernel(process: Process) -> bool:
    """Return whether the kernel itself executed the process (kernel/umh.c), without a syscall.

    Examples are core dump handlers and modprobe; audit has no event for these execs.
    """
    creator = process.creator
    by_kernel = isinstance(creator, Process) and creator.state.facts.kernel_thread
    return by_kernel and len(process.state.previous) == 1


def _is_written(process: Process) -> bool:
    return any(state.reported for state in process.states)


def _presumed_ended(process: Process) -> bool:
    return process.end is not None and process.status is None
