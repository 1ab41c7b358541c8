"""The heart: audit records and process events in, enriched lines out. No I/O, and time is given.

    pipeline.feed_process(source.drain())          what the tracer saw
    pipeline.feed_audit(client.receive(), ...)     what the kernel's audit subsystem said
    pipeline.unknown_pids()                        who should be looked up, where no tracer tells
    pipeline.poll(now)                             the lines that are ready

A source that is exact (eBPF, the connector) sees every fork, exec and exit, so an audit event is
joined with the process event it belongs to: an exec by the stamp that both bear, an end with the
exit_group that announced it. What the one has and the other hasn't yet is held for a short while.
Without such a source the audit events themselves move the table, helped by look-ups in procfs.

Times are ns of CLOCK_BOOTTIME; an audit stamp is wall-clock time in ms and is converted with
``wall_offset`` (CLOCK_REALTIME minus CLOCK_BOOTTIME, ns), measured when its records were read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sessiond.audit.assemble import Assembler, AuditEvent
from sessiond.audit.record import CONFIG_CHANGE, NO_CALL, arguments, decode, display, fields, number
from sessiond.ecs.description import Description, Descriptions
from sessiond.ecs.document import PROCESS_EVENTS, DocumentEncoder
from sessiond.ecs.process import UNSET_ID, ProcessEncoder
from sessiond.ledger import Loss, Losses, account
from sessiond.process.audited import MOST_KEPT, execution, shortened
from sessiond.process.events import (
    LEAST_KEPT,
    Changed,
    Executed,
    Exited,
    Forked,
    Lost,
    Observed,
    ProcessEvent,
)
from sessiond.process.table import SECOND, TICK, Process, ProcessTable, Relative, State

MILLISECOND: Final = 1_000_000

# How long one side of a joint event waits for the other. Both leave the kernel within microseconds
# of each other; what takes time is how we read them.
HOLD: Final = 250 * MILLISECOND
# An exit_group can precede the end of its last thread by as long as that takes to unwind.
HOLD_EXIT_GROUP: Final = 5 * SECOND

# The first three of a kind have names in wait(2)'s status; the rest is Linux' own numbering.
SIGNALS: Final = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP "
    "TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
SIGRTMIN: Final = 34  # the C library's, signal(7)


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """What the configuration and the host decide about the pipeline.

    ``source`` is the name of the process source, ``exact`` whether it sees every fork, exec and
    exit. ``audited`` are the syscalls that the loaded rules can bring events of: an end waits for
    its exit_group only where one can come. ``exec_by_source`` writes the execs that the source
    tells of, for where nobody audits them. ``max_args_bytes`` limits one event's argv.
    """

    source: str
    exact: bool
    audited: frozenset[str] = frozenset(("execve", "execveat", "exit_group", "setsid"))
    fork_events: bool = False
    exec_by_source: bool = False
    include_namespaces: bool = False
    include_cgroup: bool = False
    max_args_bytes: int = 1_048_576
    assembler_timeout: int = 2 * SECOND
    max_in_flight: int = 8192
    replay: bool = False


@dataclass
class Counters:
    """What went through; see ``Pipeline.account`` for the identity they obey.

    ``unaudited`` are the lines without an audit event, ``merged`` the audit events without a line
    of their own: what they tell was written before.
    """

    audit_events: int = 0
    process_events: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    unaudited: int = 0
    merged: int = 0
    joined_ends: int = 0
    unjoined_execs: int = 0
    unenriched: int = 0
    warnings: int = 0


class _Waiting:
    """An audit event that waits for its process event until ``due``."""

    __slots__ = ("due", "event")

    def __init__(self, due: int, event: AuditEvent) -> None:
        self.due = due
        self.event = event


@dataclass
class Canary:
    """A process of ours that shall be seen: ``audited`` by audit, ``traced`` by the source."""

    pid: int
    audited: bool = False
    traced: bool = False


class ConfigChange(NamedTuple):
    """Somebody changed the audit configuration, as its CONFIG_CHANGE record tells."""

    text: str  # op=, and what it was done to
    auid: int | None
    user: str | None
    pid: int | None  # of who did it, where there is a SYSCALL record
    comm: str | None


SyscallName = Callable[[bytes, bytes], str]


class Pipeline:
    """Joins audit events and process events, enriches them and encodes them.

    ``syscall_name`` gives the name for the arch= and syscall= fields of a SYSCALL record.
    """

    def __init__(
        self,
        options: PipelineOptions,
        *,
        table: ProcessTable,
        processes: ProcessEncoder,
        documents: DocumentEncoder,
        descriptions: Descriptions,
        syscall_name: SyscallName,
        context: Callable[[bytes], Mapping[str, Any]],
    ) -> None:
        """Start with nothing in flight."""
        self.options = options
        self.table = table
        self.counters = Counters()
        self.losses = Losses()
        # The last changes of the audit configuration, whoever made them; the daemon takes them.
        self.notices: deque[ConfigChange] = deque(maxlen=64)
        self.canary: Canary | None = None
        self._processes = processes
        self._documents = documents
        self._descriptions = descriptions
        self._syscall_name = syscall_name
        self._context = context
        self._assembler = Assembler(
            timeout=options.assembler_timeout,
            max_in_flight=options.max_in_flight,
            ends_with_proctitle=options.replay,
        )
        self._names: dict[tuple[bytes, bytes], str] = {}
        self._ready: list[AuditEvent] = []
        self._execs: deque[_Waiting] = deque()
        self._exit_groups: dict[Process, _Waiting] = {}
        self._ends: dict[Process, int] = {}
        self._sessions: dict[Process, int] = {}
        self._wanted: set[int] = set()
        self._lines: list[bytes] = []
        self._wall_offset = 0
        self._drained = 0
        self._polled: int | None = None
        self._own_events = 0
        self._why_unknown = (
            "the log does not tell" if options.replay else "it was gone before anyone looked"
        )
        self.use(options)

    def use(self, options: PipelineOptions) -> None:
        """Go on with other rules or another process source; the assembler's limits stay."""
        self.options = options
        source = options.source
        self._by_source = b'["%b"]' % source.encode()
        self._by_both = b'["auditd","%b"]' % source.encode() if source != "auditd" else _BY_AUDIT

    def encode_with(
        self, processes: ProcessEncoder, documents: DocumentEncoder, descriptions: Descriptions
    ) -> None:
        """Go on with other encoders; the lines are numbered on."""
        documents.sequence = self._documents.sequence
        self._processes = processes
        self._documents = documents
        self._descriptions = descriptions

    # Input

    def feed_audit(
        self,
        batch: Iterable[tuple[int, bytes]],
        *,
        now: int,
        wall_offset: int,
        drained: bool = True,
    ) -> None:
        """Take (record type, payload) pairs as they were read from the audit socket.

        ``drained`` says that nothing more was there to read.
        """
        self._wall_offset = wall_offset
        if drained:
            self._drained = now
        self._take(self._assembler.feed(batch, now))

    def feed_process(self, events: Sequence[ProcessEvent]) -> None:
        """Take the process source's events, in its order."""
        counts = self.counters.process_events
        table = self.table
        observed: list[Observed] = []
        execs_lost = self._doubt(events)
        for event in events:
            counts[type(event).__name__] += 1
            if isinstance(event, Observed):
                observed.append(event)
                continue
            if observed:
                table.snapshot(observed)
                observed = []
            if isinstance(event, Exited):
                self._exited(table.exited(event), event)
            elif isinstance(event, Forked):
                self._forked(event, doubtful=execs_lost)
            elif isinstance(event, Executed):
                process = table.executed(event)
                if self.options.exec_by_source:
                    self._process_event("exec", process, process.state, event.time)
                if self._execs:
                    self._retry_execs()
            elif isinstance(event, Changed):
                process = table.changed(event)
                if event.what == "session":
                    self._session(process, event.time)
            elif isinstance(event, Lost):
                self.lost(event.time, "tracer", event.number, _RING_FULL, kind=event.kind)
            else:
                table.cgroups[event.cgroup_id] = event.path
        if observed:
            table.snapshot(observed)

    def _forked(self, event: Forked, *, doubtful: bool) -> None:
        process = self.table.forked(event)
        if doubtful:
            self.table.doubt(process, event.time + 1)
        if self.options.fork_events and not event.facts.kernel_thread:
            self._process_event("fork", process, process.states[0], event.time)

    def _doubt(self, events: Sequence[ProcessEvent]) -> bool:
        """Say of nobody what it executes when execs were lost since the last call."""
        lost = [event for event in events if isinstance(event, Lost) and event.kind in _EXEC_LOSSES]
        for event in lost[:1]:
            since = self._polled if self._polled is not None else event.time
            for process in self.table:
                self.table.doubt(process, since)
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
        """Note a loss between ``since`` (the last poll, if None) and ``time``, both ns since boot.

        It is counted at once, and told in the stream by ``poll``, at most once a second for a hop.
        """
        if since is None:
            since = time if self._polled is None else min(self._polled, time)
        self.losses.note(hop, count, reason, since=since, until=time, kind=kind)

    def reconcile(self, events: list[ProcessEvent], *, since: int, time: int) -> int:
        """Check the table after a loss against the source's new snapshot, begun at ``time``.

        ``events`` are the snapshot, and what came meanwhile, by time; the loss began after
        ``since``. Who isn't there any more has ended in between, one can't tell when: from
        ``since`` on, nothing is said to be of them. Returns how many those are.
        """
        self.feed_process(events)
        observed = [event for event in events if isinstance(event, Observed)]
        return len(self.table.absent(observed, time, ended=since))

    def own_event(
        self,
        action: str,
        time: int,
        details: Mapping[str, Any],
        message: str,
        *,
        window: tuple[int, int] | None = None,
    ) -> None:
        """Write an event about ourselves: sessiond-lost, -degraded or -recovered.

        ``window`` is when it began and when it ended, in ns since boot like ``time``.
        """
        self._own_events += 1
        self.counters.unaudited += 1
        event: dict[str, Any] = {
            "kind": "pipeline_error",
            "action": action,
            "category": ["process"],
            "type": ["info"],
            "outcome": "success" if action == "sessiond-recovered" else "failure",
        }
        if window is not None:
            event["start"] = self._processes.date(window[0])
            event["end"] = self._processes.date(window[1])
        document: dict[str, Any] = {"message": message, "event": event, "sessiond": dict(details)}
        self._emit(
            self._descriptions.encode(document, [], enriched=True),
            date=self._processes.date(time),
            event_id=self._documents.own_id(time, self._own_events),
            providers=_BY_OURSELVES,
            more=None,
        )

    def _tell(self, loss: Loss, now: int) -> None:
        """Write a loss into the stream: the window, the hop, the count and the reason."""
        begin, end = self._processes.date(loss.since), self._processes.date(loss.until)
        details: dict[str, Any] = {
            "hop": loss.hop,
            "count": loss.number,
            "unit": loss.unit,
            "reason": loss.reason,
        }
        if loss.kinds:
            details["kinds"] = loss.kinds
        self.own_event(
            "sessiond-lost",
            now,
            {"loss": details},
            f"blind from {begin} to {end}: {loss.hop}, {loss.number} {loss.unit}: {loss.reason}",
            window=(loss.since, loss.until),
        )

    # Output

    def unknown_pids(self) -> set[int]:
        """Who should be looked up before ``poll``: feed what is found as Observed events.

        Call it again after feeding: a process found this way has relatives of its own.
        """
        wanted, self._wanted = self._wanted, set()
        if not wanted and not self.options.exact:
            wanted = self._unknown_relatives()
        return wanted

    def poll(self, now: int) -> list[bytes]:
        """Handle all that is ready or overdue; return its lines."""
        self._polled = now
        self._take(self._assembler.expire(now))
        ready, self._ready = self._ready, []
        for event in ready:
            self._audit_event(event, now)
        presumed, self.table.presumed = self.table.presumed, []
        for process in presumed:
            self._presumed(process)
        if self._execs or self._ends or self._exit_groups or self._sessions:
            self._overdue(now)
        self.table.forget(min(now, self._drained) if self._drained else now)
        for loss in self.losses.due(now):
            self._tell(loss, now)
        lines, self._lines = self._lines, []
        return lines

    def flush(self, now: int) -> list[bytes]:
        """Handle everything that is in flight: nothing more will come."""
        self._take(self._assembler.flush())
        lines = self.poll(now)
        while self._execs:
            self._unjoined_exec(self._execs.popleft().event)
        for process, waiting in list(self._exit_groups.items()):
            self._end_by_audit(process, waiting.event)
        self._exit_groups.clear()
        for process in list(self._ends):
            self._end(process, None)
        self._ends.clear()
        for process, time in list(self._sessions.items()):
            self._process_event("setsid", process, process.at(time), time)
        self._sessions.clear()
        for loss in self.losses.flush():
            self._tell(loss, now)
        return lines + self.poll(now)

    def deadline(self) -> int | None:
        """When ``poll`` should be called even if nothing comes in; None: not at all."""
        due = [self._assembler.deadline()]
        due.append(self._execs[0].due if self._execs else None)
        due.append(next((w.due for w in self._exit_groups.values()), None))
        due.append(next(iter(self._ends.values()), None))
        due.append(next((t + HOLD for t in self._sessions.values()), None))
        return min((d for d in due if d is not None), default=None)

    @property
    def in_flight(self) -> int:
        """How many audit events have been read and not yet written."""
        return (
            self._assembler.in_flight + len(self._ready) + len(self._execs) + len(self._exit_groups)
        )

    @property
    def records(self) -> int:
        """How many audit records were taken."""
        return self._assembler.records

    @property
    def malformed(self) -> int:
        """How many of them could not be read."""
        return self._assembler.malformed

    @property
    def unseen(self) -> int:
        """How many serials are missing among the audit events that came: a hint."""
        return self._assembler.unseen

    @property
    def waiting(self) -> int:
        """How many lines the next ``poll`` will hand out that are there already."""
        return len(self._lines)

    def account(self) -> dict[str, Any]:
        """Where the audit events are that have been received; it is balanced at every moment.

        An event is received with its first record. None is filtered or dropped here: each is
        written as a line, or merged into one that was written before, or in flight.
        """
        return account(
            self.counters.audit_events + self._assembler.in_flight,
            written=self.counters.lines.total() - self.counters.unaudited,
            merged=self.counters.merged,
            in_flight=self.in_flight,
        )

    def status(self) -> dict[str, Any]:
        """The counters, as ``sessiond status`` shows them."""
        counters = self.counters
        return {
            "audit_records": self._assembler.records,
            "audit_records_malformed": self._assembler.malformed,
            "audit_events": counters.audit_events,
            "audit_events_unfinished": self._assembler.unfinished,
            "audit_events_in_flight": self.in_flight,
            "ends_joined": counters.joined_ends,
            "execs_unjoined": counters.unjoined_execs,
            "unenriched": counters.unenriched,
            "warnings": counters.warnings,
            "process_events": dict(counters.process_events),
            "lines": dict(counters.lines),
            "table": {
                "processes": len(self.table),
                "evicted": self.table.evicted,
                "pids_reused": self.table.reused_pids,
            },
        }

    # Audit events

    def _take(self, events: list[AuditEvent]) -> None:
        if not events:
            return
        self.counters.audit_events += len(events)
        self._ready += events
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
        call = event.call
        name = self._name(call.arch, call.syscall) if call is not NO_CALL else ""
        if name in ("execve", "execveat") and call.success == b"yes":
            self._exec(event, now)
        elif name == "exit_group":
            self._exit_group(event, now)
        elif name == "setsid" and call.success == b"yes":
            self._setsid(event)
        else:
            self._other(event)

    def _boot(self, stamp: int) -> int:
        """Convert an audit stamp to ns since boot."""
        return stamp * MILLISECOND - self._wall_offset

    def _exec(self, event: AuditEvent, now: int) -> None:
        pid = number(event.call.pid)
        if not self.options.exact:
            process, state = self._audited_exec(event, pid)
            self._exec_line(event, process, state, state.time)
            return
        found = self._executed(pid, event)
        if found is not None:
            self._exec_line(event, *found, found[1].time)
        else:
            self._execs.append(_Waiting(now + HOLD, event))

    def _executed(self, pid: int, event: AuditEvent) -> tuple[Process, State] | None:
        """The state that an audited exec led to, which no audit event has claimed yet."""
        found: tuple[Process, State] | None = None
        begin = self._boot(event.time) - TICK
        for process in self.table.holders(pid):
            # The oldest that fits: audit events come in the order of the execs.
            for state in reversed(process.states):
                if not state.executed or state.claimed:
                    continue
                if state.audit_time is None:
                    if state.time >= begin:
                        found = process, state
                elif state.audit_time == event.time:
                    found = process, state
        if found is not None:
            found[1].claimed = True
        return found

    def _retry_execs(self) -> None:
        waiting, self._execs = self._execs, deque()
        for item in waiting:
            found = self._executed(number(item.event.call.pid), item.event)
            if found is None:
                self._execs.append(item)
            else:
                self._exec_line(item.event, *found, found[1].time)

    def _unjoined_exec(self, event: AuditEvent) -> None:
        """Write an exec that the tracer didn't see, with what is known of the process otherwise."""
        self.counters.unjoined_execs += 1
        pid = number(event.call.pid)
        if self.canary is not None and pid == self.canary.pid:
            self.canary.audited = True
        time = self._boot(event.time)
        if self.table.holder(pid, time, TICK) is None:
            self._other(event, "process: the tracer did not see it")
            return
        process, state = self._audited_exec(event, pid)
        note = "process: the tracer did not see this exec"
        self._exec_line(event, process, state, state.time, note)

    def _audited_exec(self, event: AuditEvent, pid: int) -> tuple[Process, State]:
        """Move the table by an audited exec, where no tracer did."""
        time = self._boot(event.time)
        known = self.table.holder(pid, time, TICK)
        parent = self.table.holder(number(event.call.ppid), time, TICK)
        return self.table.audited_exec(
            execution(event, time, known, parent),
            session_known="setsid" in self.options.audited,
        )

    def _exec_line(
        self, event: AuditEvent, process: Process, state: State, time: int, note: str = ""
    ) -> None:
        if state.program.executable is None:
            self._learn_program(process, state, event)
        override: dict[str, Any] = {}
        # The audit record's own argv is whole where the tracer's copy is cut.
        args, whole = arguments(event.records)
        if args and state.program.args != tuple(args):
            if state.program.args_cut:
                self._refine(state, args)
            shown = shortened(args, self.options.max_args_bytes)
            whole = whole and shown is args
            override = self._processes.arguments(shown, cut=not whole)
            override["args_count"] = len(args)
        details = self._details(process, state, own_args_cut=bool(args) and not whole)
        if note:
            details["incomplete"] = [note]
        elif self.canary is not None and process.pid == self.canary.pid:
            self.canary.audited = self.canary.traced = True
        description = self._descriptions.recall(event)
        self._finish(
            description, process, state, "exec", time, details, override=override, event=event
        )

    def _learn_program(self, process: Process, state: State, event: AuditEvent) -> None:
        """Take from the audit event what was executed, where the source came too late to see it."""
        told = execution(event, state.time, process, None)
        for each in process.states[process.states.index(state) :]:
            if each.executed and each is not state:
                return
            each.program = told.program
            each.working_directory = told.working_directory or each.working_directory
            each.cached = None

    def _refine(self, state: State, args: list[bytes]) -> None:
        """Keep an argv that the tracer cut as long as the audit record has it, within reason."""
        program = state.program
        kept = shortened(args, MOST_KEPT)
        if len(kept) >= len(program.args or ()):
            size = sum(map(len, args)) + len(args)
            state.program = program._replace(args=tuple(kept), args_size=size)
            state.cached = None

    # Ends

    def _exit_group(self, event: AuditEvent, now: int) -> None:
        pid = number(event.call.pid)
        time = self._boot(event.time)
        process = self._ending(pid, time)
        if process is None:
            process = self.table.get(pid)
            if self.options.exact and (process is None or _presumed_ended(process)):
                # Of who is presumed to have ended, one can't tell whether this is the end of it or
                # that of somebody who got the same pid later.
                self._other(event, "process: not known")
                return
        if process is None:
            self._other(event, "process: it ended before it could be looked up")
        elif process in self._ends:
            del self._ends[process]
            self._end(process, event)
        elif process in self._exit_groups:
            # Two of its threads called exit_group at once: the first decides.
            self.counters.merged += 1
        elif self.options.exact and process.end is None:
            self._exit_groups[process] = _Waiting(now + HOLD_EXIT_GROUP, event)
        elif process.end is None or not self.options.exact:
            self._end_by_audit(process, event)
        else:
            # The end was written already: a deadline was too short. The audit event counts as
            # joined all the same; it says nothing that the end didn't.
            self.counters.joined_ends += 1
            self.counters.merged += 1

    def _ending(self, pid: int, time: int) -> Process | None:
        """Who called exit_group then: of several who had the pid, the first without a match."""
        found = None
        for process in self.table.holders(pid):
            if process.start > time + TICK or (process.end is not None and process.end < time):
                continue
            if process in self._exit_groups:
                continue
            found = process
        return found

    def _end_by_audit(self, process: Process, event: AuditEvent) -> None:
        """End a process by its exit_group, where no tracer told or will tell of its end."""
        code = _exit_code(event)
        time = max(self._boot(event.time), process.state.time)
        self.table.ended(process, time, code << 8)
        self._end(process, event)

    def _presumed(self, process: Process) -> None:
        """Write the end of a process of which only its absence tells, or its exit_group."""
        waiting = self._exit_groups.pop(process, None)
        if waiting is not None:
            process.status = _exit_code(waiting.event) << 8
        self._end(process, None if waiting is None else waiting.event)

    def _exited(self, process: Process, event: Exited) -> None:
        if event.facts.kernel_thread:
            # Nobody's doing, and partly ours: the kernel answers an audit request by a thread.
            return
        waiting = self._exit_groups.pop(process, None)
        if waiting is not None:
            self._end(process, waiting.event)
            return
        # Whatever audit has to tell of the process is told before its end, however it ended.
        self._ends[process] = event.time + HOLD

    def _end(self, process: Process, event: AuditEvent | None) -> None:
        assert process.end is not None  # noqa: S101 -- only ended processes come here
        time = process.end
        state = process.at(time)
        if event is not None:
            self.counters.joined_ends += 1
            description = self._descriptions.recall(event)
        else:
            self.counters.unaudited += 1
            description = self._bare("end", state)
        details = self._details(process, state)
        if process.status is None:
            details.setdefault("incomplete", []).append(
                "process.exit_code: the end was not seen, only that the process is gone"
            )
        elif process.status & 0x7F:
            details["signal"] = _signal(process.status)
        self._finish(description, process, state, "end", time, details, event=event)
        for each in process.states:
            each.cached = None

    # Sessions

    def _setsid(self, event: AuditEvent) -> None:
        pid = number(event.call.pid)
        time = self._boot(event.time)
        process = self.table.holder(pid, time, TICK)
        if process is None:
            self._other(event, "process: not known")
            return
        self._sessions.pop(process, None)
        state = next((s for s in process.states if s.time >= time - TICK and s.leads_session), None)
        if state is None:
            # No tracer tells of sessions here, so the audit event does.
            facts = process.state.facts._replace(pgid=pid, sid=pid, tty_major=0, tty_minor=0)
            state = self.table.changed(Changed(time, facts, "session")).state
        description = self._descriptions.describe(event, enriched=True)
        moment = max(state.time, time)
        details = self._details(process, state)
        self._finish(description, process, state, "setsid", moment, details, event=event)

    def _session(self, process: Process, time: int) -> None:
        if any(state.leads_session for state in process.states[:-1]):
            # The audit event came first and has been written: setsid succeeds once.
            return
        if "setsid" in self.options.audited:
            self._sessions[process] = time
        else:
            self._process_event("setsid", process, process.at(time), time)

    # Everything else

    def _other(self, event: AuditEvent, note: str = "") -> None:
        """Write any other event, enriched by its pid where that is the kernel's own word."""
        if event.records and event.records[0].type == CONFIG_CHANGE:
            self._notice(event)
        stamp = self._boot(event.time)
        pid = number(event.call.pid) or _pid_of(event)
        process = self.table.holder(pid, stamp, TICK) if pid else None
        description = self._descriptions.describe(event, enriched=process is not None)
        if process is not None:
            time = max(stamp, process.latest)
            state = process.at(time)
            details = self._details(process, state)
            self._finish(description, process, state, None, time, details, event=event)
            return
        self.counters.unenriched += 1
        details = {"incomplete": [note]} if note else {}
        if not event.complete:
            details.setdefault("incomplete", []).append(_UNFINISHED)
        self._warn(description, details)
        self._emit(
            description,
            date=self._processes.date(stamp),
            event_id=self._documents.audit_id(event.time, event.serial),
            providers=_BY_AUDIT,
            more={"sessiond": details} if details else None,
        )

    def _notice(self, event: AuditEvent) -> None:
        """Keep for the daemon who changed the audit configuration, and what."""
        told = fields(event.records[0].text)
        call = event.syscall
        auid = number(told["auid"]) if "auid" in told else None
        if auid == UNSET_ID:
            auid = None
        pid = number(call["pid"]) if "pid" in call else None
        comm = decode(call.get("comm", b""))
        text = " ".join(
            f"{name}={display(value)}"
            for name, value in told.items()
            if name not in ("auid", "ses", "subj", "res", "uid", "pid", "tty")
        )
        user = None if auid is None else self._processes.user(auid).get("name")
        self.notices.append(
            ConfigChange(text, auid, user, pid, None if comm is None else display(comm))
        )

    def _process_event(self, action: str, process: Process, state: State, time: int) -> None:
        """Write an event that only the process source told of."""
        self.counters.unaudited += 1
        details = self._details(process, state)
        self._finish(self._bare(action, state), process, state, action, time, details)

    def _bare(self, action: str, state: State) -> Description:
        """The description of an event without an audit record: what the audit record would say."""
        category, types = PROCESS_EVENTS[action]
        outcome = "unknown" if action == "end" else "success"
        facts = state.facts
        document: dict[str, Any] = {
            "event": {"action": action, "category": category, "type": types, "outcome": outcome},
            "user": dict(self._processes.user(facts.uid)),
        }
        if facts.loginuid not in (None, UNSET_ID):
            assert facts.loginuid is not None  # noqa: S101 -- narrows the type
            document["user"]["audit"] = self._processes.user(facts.loginuid)
        if facts.audit_session not in (None, UNSET_ID):
            document["auditd"] = {"session": str(facts.audit_session)}
        return self._descriptions.encode(document, [], enriched=True)

    def _details(
        self, process: Process, state: State, *, own_args_cut: bool | None = None
    ) -> dict[str, Any]:
        """What ``sessiond.*`` tells of a process in an event.

        ``own_args_cut`` says whether the process's own argv is cut, where the event knows better.
        """
        details: dict[str, Any] = {}
        if self.canary is not None and process.pid == self.canary.pid:
            details["canary"] = True
        facts = state.facts
        creator = process.creator
        if creator is not None and facts.ppid != creator.pid and facts.ppid:
            parent = self.table.parent_now(state)
            now = {"pid": facts.ppid}
            details["reparented_to"] = now
            if parent is not None:
                details["reparented_to"] = now | {"entity_id": parent.entity_id}
        if (
            creator is None
            or state.session_leader is None
            or state.group_leader is None
            or state.session_inferred
        ):
            incomplete = self._incomplete(process, state)
            if incomplete:
                details["incomplete"] = incomplete
        cut = ["process.args"] if own_args_cut else []
        if own_args_cut is None and state.program.args_cut:
            cut.append("process.args")
        if _args_cut(creator):
            cut.append("process.parent.args")
        if _args_cut(state.group_leader):
            cut.append("process.group_leader.args")
        if _args_cut(state.session_leader):
            cut.append("process.session_leader.args")
        if _args_cut(state.entry_leader):
            cut.append("process.entry_leader.args")
        if cut:
            details["truncated"] = cut
        if self.options.include_namespaces:
            details["namespaces"] = {
                name: number
                for name, number in (
                    ("pid", facts.pid_namespace),
                    ("mount", facts.mount_namespace),
                    ("user", facts.user_namespace),
                    ("network", facts.network_namespace),
                )
                if number
            }
        return details

    def _incomplete(self, process: Process, state: State) -> list[str]:
        notes = []
        if process.creator is None and process.pid > 2:
            notes.append(f"process.parent: {self._why_unknown}")
        if state.session_leader is None:
            notes.append(f"process.session_leader: {self._why_unknown}")
        elif state.session_inferred:
            notes.append("process.session_leader: taken from the parent, which it was forked by")
        if state.group_leader is None:
            notes.append(f"process.group_leader: {self._why_unknown}")
        return notes

    def _finish(
        self,
        description: Description,
        process: Process,
        state: State,
        action: str | None,
        time: int,
        details: dict[str, Any],
        *,
        override: dict[str, Any] | None = None,
        event: AuditEvent | None = None,
    ) -> None:
        """Join what an event says with its process and write it."""
        time = max(time, process.latest)
        process.latest = time
        if event is not None and not event.complete:
            details.setdefault("incomplete", []).append(_UNFINISHED)
        self._warn(description, details)
        more: dict[str, Any] = {}
        cgroup = self.table.cgroup_of(process, state)
        if cgroup is not None:
            more.update(self._context(cgroup))
            if self.options.include_cgroup:
                details["cgroup"] = display(cgroup)
        if details:
            more["sessiond"] = details
        if action in ("end", "fork", "setsid"):
            event_id = f"{process.entity_id}-{action}"
        elif event is not None:
            event_id = self._documents.audit_id(event.time, event.serial)
        else:
            event_id = f"{process.entity_id}-{action}-{state.time:x}"
        block = self._processes.block(
            process,
            state,
            time=time,
            ended=action == "end",
            title=description.title,
            override=override,
        )
        self._emit(
            description,
            date=self._processes.date(time),
            event_id=event_id,
            providers=self._by_source if event is None else self._by_both,
            more=more,
            process=block,
        )

    def _warn(self, description: Description, details: dict[str, Any]) -> None:
        if description.warnings:
            self.counters.warnings += len(description.warnings)
            details["warnings"] = description.warnings

    def _emit(
        self,
        description: Description,
        *,
        date: str,
        event_id: str,
        providers: bytes,
        more: dict[str, Any] | None,
        process: bytes | None = None,
    ) -> None:
        self.counters.lines[description.action] += 1
        self._lines.append(
            self._documents.line(
                description,
                date=date,
                event_id=event_id,
                providers=providers,
                more=more,
                process=process,
            )
        )

    # Deadlines

    def _overdue(self, now: int) -> None:
        while self._execs and self._execs[0].due <= now:
            self._unjoined_exec(self._execs.popleft().event)
        for process, time in list(self._sessions.items()):
            if time + HOLD > now or self._drained < time:
                break
            del self._sessions[process]
            self._process_event("setsid", process, process.at(time), time)
        # An end waits for its exit_group until the audit socket was seen empty after it.
        while self._ends:
            process, due = next(iter(self._ends.items()))
            if due > now or self._drained < due - HOLD:
                break
            del self._ends[process]
            self._end(process, None)
        for process, waiting in list(self._exit_groups.items()):
            if waiting.due > now:
                break
            del self._exit_groups[process]
            self._end_by_audit(process, waiting.event)

    def _unknown_relatives(self) -> set[int]:
        """Relatives that ready events need and the table doesn't have."""
        unknown: set[int] = set()
        for event in self._ready:
            process = self.table.get(number(event.call.pid))
            pids = {number(event.call.ppid)}
            if process is not None:
                facts = process.state.facts
                pids |= {facts.ppid, facts.pgid or 0, facts.sid or 0}
            unknown |= {pid for pid in pids if pid and self.table.get(pid) is None}
        return unknown


# The kinds of Lost that an exec can be among; the connector can't tell its events apart.
_EXEC_LOSSES: Final = frozenset(("exec", "event"))
_BY_AUDIT: Final = b'["auditd"]'
_BY_OURSELVES: Final = b'["sessiond"]'
_RING_FULL: Final = "the tracer's buffer was full"
_UNFINISHED: Final = "audit: the end of the event was lost"


def _args_cut(relative: Relative) -> bool:
    if not isinstance(relative, Process):
        return False
    program = relative.states[-1].program
    return (program.args_size or 0) > LEAST_KEPT and program.args_cut


def _pid_of(event: AuditEvent) -> int:
    """The pid of a record that is no syscall's; the kernel writes it, also for user space."""
    return next((number(fields(r.text).get("pid")) for r in event.records), 0)


def _exit_code(event: AuditEvent) -> int:
    """The code that an exit_group event was called with."""
    return int(event.call.a0 or b"0", 16) & 0xFF


def _presumed_ended(process: Process) -> bool:
    return process.end is not None and process.status is None


def _signal(status: int) -> dict[str, Any]:
    number = status & 0x7F
    signal: dict[str, Any] = {"number": number, "core_dumped": bool(status & 0x80)}
    signal["name"] = signal_name(number)
    return signal


def signal_name(number: int) -> str:
    """Name a signal as kill -l does; the first two real-time signals are the C library's own."""
    if number <= len(SIGNALS):
        return f"SIG{SIGNALS[number - 1]}"
    above = number - SIGRTMIN
    return f"SIGRTMIN{above:+d}" if above else "SIGRTMIN"
