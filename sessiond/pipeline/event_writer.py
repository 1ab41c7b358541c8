"""Composes lines from an event, its process and the ``sessiond.*`` fields.

Pure: no I/O, and all times are ns since boot and arguments. The pipeline decides which event and
process a line is about; ``sessiond.ecs`` encodes the parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import Arguments
from sessiond.config.schema import EventSettings
from sessiond.ecs.audit_cache import AuditEventCache, EncodedAuditEvent
from sessiond.ecs.chain import SEAL_SIZE, LineChain
from sessiond.ecs.decoders import signal_name
from sessiond.ecs.fit import fitted
from sessiond.ecs.line import PROCESS_EVENTS, DocumentEncoder
from sessiond.ecs.process import RELATIVE_ARGS, ProcessEncoder, is_brief_cut
from sessiond.ecs.wall_clock import Step
from sessiond.filters.account import Taken
from sessiond.filters.stage import FilterStage
from sessiond.pipeline.losses import GAP, Loss
from sessiond.process.argv import is_cut, seems_rewritten, split_args
from sessiond.process.events import Program
from sessiond.process.from_audit import shortened
from sessiond.process.table import (
    ITSELF,
    Process,
    ProcessView,
    Reference,
    Relative,
    State,
    is_torn,
)
from sessiond.text import display
from sessiond.units import SECOND, UNSET_ID

_BY_AUDIT: Final = b'["auditd"]'
_BY_SESSIOND: Final = b'["sessiond"]'
# Actions that introduce a process to the stream.
_INTRODUCTIONS: Final = ("fork", "exec", "already_running")
# Actions that occur once per process.
_ONCE: Final = frozenset(("already_running", "fork", "setsid", "end"))
# The action for a change of the wall clock.
CLOCK_CHANGED: Final = "sessiond-clock-changed"
# A title of this length may be cut: the kernel keeps 128 bytes.
MIN_CUT_TITLE: Final = 32
_UNFINISHED: Final = "audit: the end of the event was lost"
_NO_HISTORY: Final = "process.previous: programs executed before sessiond saw the process"
_SHOWN: Final = (
    "process",
    "process.parent",
    "process.group_leader",
    "process.session_leader",
    "process.entry_leader",
)
# The relatives that are written with their parent.
_WITH_PARENT: Final = ("process.session_leader", "process.entry_leader")
_REWRITTEN: Final = "read from memory that the process seems to have overwritten"
_CHANGED: Final = "process.args: changed before audit read them"
_TORN: Final = "sessiond.ancestors: incomplete; some had ended unseen"
_NOT_DATED: Final = "process.entry_leader.start: the latest possible; the leader had ended unseen"


@dataclass
class Probe:
    """A canary: ``audited`` once audit has reported it, ``traced`` once the source has."""

    pid: int
    audited: bool = False
    traced: bool = False


@dataclass(frozen=True)
class Encoders:
    """The JSON encoders of processes, whole lines and audit events."""

    processes: ProcessEncoder
    documents: DocumentEncoder
    descriptions: AuditEventCache


@dataclass(frozen=True, kw_only=True)
class LineOptions:
    """Options of lines, from the configuration and the host.

    ``source`` is the name of the process source, ``exact`` whether it reports every exec; ``event``
    are the settings of the same name; ``why_unknown`` is the reason that a line gives for an
    unknown relative, ``why_without_args`` that for unknown arguments.
    """

    source: str
    exact: bool
    event: EventSettings
    why_unknown: str
    why_without_args: str


class EventWriter:
    """Makes lines and keeps them until ``take``.

    ``context`` returns the ECS fields for a cgroup's path. ``counts`` are the lines by action,
    ``unaudited`` those without an audit event, ``warnings`` the problems of audit events,
    ``shortened`` the number of lines that were too long, ``repeated`` of those skipped because the
    output has them from an earlier run, ``withheld`` of audit events without a line because of a
    filter. ``filters`` is None without filters.
    """

    def __init__(
        self,
        options: LineOptions,
        encoders: Encoders,
        context: Callable[[bytes], Mapping[str, Any]],
    ) -> None:
        """Start without lines."""
        self.counts: Counter[str] = Counter()
        self.unaudited = 0
        self.warnings = 0
        self.shortened = 0
        self.repeated = 0
        self.withheld = 0
        self.written_after = 0
        self.filters: FilterStage | None = None
        self.canary: Probe | None = None
        self.chain: LineChain | None = None
        self._written: frozenset[str] = frozenset()
        self._context = context
        self._lines: list[bytes] = []
        self._own_events = 0
        self.encode_with(encoders)
        self.use(options)

    def use(self, options: LineOptions) -> None:
        """Use other options from now on."""
        self._options = options
        self._event = options.event
        source = options.source
        self._by_source = b'["%b"]' % source.encode()
        self._by_both = b'["auditd","%b"]' % source.encode() if source != "auditd" else _BY_AUDIT

    def encode_with(self, encoders: Encoders) -> None:
        """Use other encoders from now on; the caller sets the number of the next line."""
        self._processes = encoders.processes
        self._documents = encoders.documents
        self._descriptions = encoders.descriptions

    def forget_names(self) -> None:
        """Forget the names of users and groups, because an id has a new name."""
        self._processes.forget_names()
        self._descriptions.forget_names()

    @property
    def process_encoder(self) -> ProcessEncoder:
        """The encoder of ``process`` objects with the current configuration."""
        return self._processes

    @property
    def sequence(self) -> int:
        """The ``event.sequence`` of the last line."""
        return self._documents.sequence

    @sequence.setter
    def sequence(self, number: int) -> None:
        self._documents.sequence = number

    @property
    def seal(self) -> bytes:
        """The seal of the last line; b"" without event.chain."""
        return self.chain.previous if self.chain is not None else b""

    @seal.setter
    def seal(self, seal: bytes) -> None:
        if self.chain is not None:
            self.chain.previous = seal

    def leave_out(self, written: Collection[str], *, after: int) -> None:
        """Skip lines of events whose ids are in ``written``: the output has them already.

        ``written`` are all ids that it has ``after`` that sequence number. Skipped lines get no
        number.
        """
        self._written = frozenset(written)
        self.written_after = after

    def leave_out_none(self) -> None:
        """Stop skipping lines: all input of the earlier run has been processed."""
        self._written = frozenset()

    @property
    def known_after(self) -> int:
        """The number after which the output's lines matter to a later run."""
        return self.written_after if self._written else self.sequence

    @property
    def waiting(self) -> int:
        """The number of lines to take."""
        return len(self._lines)

    @property
    def size(self) -> int:
        """The bytes of the lines to take."""
        return sum(map(len, self._lines))

    def take(self) -> list[bytes]:
        """Return the lines made since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def is_canary(self, pid: int) -> bool:
        """Return whether the pid is the canary's."""
        return self.canary is not None and pid == self.canary.pid

    def user_name(self, uid: int) -> str | None:
        """Return the name of a user, if it is known yet and names are wanted."""
        name: str | None = self._processes.user(uid).get("name")
        return name

    # Events of processes

    def execution(
        self,
        event: AuditEvent,
        view: ProcessView,
        argv: Arguments,
        *,
        note: str = "",
        changed: bool = False,
    ) -> None:
        """Write an audited exec, which led to the state of ``view``.

        ``argv`` is that of the audit record; ``note`` names missing information; ``changed`` says
        that the record has another argv than the tracer read.
        """
        state = view.state
        override: dict[str, Any] = {}
        args, whole = argv.values, argv.whole
        if args and split_args(state.program.args or b"") != tuple(args):
            # If the tracer's argv is cut, the audit record has the whole.
            shown = shortened(args, self._event.max_args_bytes)
            whole = whole and shown is args
            override = self._processes.arguments(shown, cut=not whole, number=argv.number)
        details = self._details(view, own_args_cut=not whole if args else None)
        if note:
            details["incomplete"] = [note]
        if changed:
            details.setdefault("incomplete", []).append(_CHANGED)
        description = self._descriptions.recall(event)
        # The source's time is the same after a restart. Without one the audit stamp is used.
        by_audit = bool(note) or not self._options.exact
        self._write(
            description,
            view,
            "exec",
            state.time,
            details,
            override=override,
            event=event,
            event_id=self._documents.audit_id(event.time, event.serial) if by_audit else None,
        )

    def end(self, view: ProcessView, event: AuditEvent | None) -> None:
        """Write the end of a process, with its exit_group event, if any."""
        process, state = view.process, view.state
        time = process.end
        assert time is not None  # noqa: S101 -- the process has ended
        if event is not None:
            description = self._descriptions.recall(event)
        else:
            self.unaudited += 1
            description = self._unaudited("end", state)
        details = self._details(view)
        if process.status is None:
            details.setdefault("incomplete", []).append(
                "process.exit_code: the end was not seen, only that the process is gone"
            )
        elif process.status & 0x7F:
            details["signal"] = _signal(process.status)
        self._write(description, view, "end", time, details, event=event)

    def audited(
        self,
        event: AuditEvent,
        view: ProcessView,
        action: str | None,
        time: int,
        *,
        late: bool = False,
    ) -> None:
        """Write any other audit event of a known process.

        ``late``: the event is written after younger ones; it keeps its date.
        """
        description = self._descriptions.describe(event, enriched=True)
        override: dict[str, Any] | None = None
        if description.directory and view.state.working_directory is None:
            override = {"working_directory": description.directory}
        details = self._details(view)
        self._write(
            description, view, action, time, details, override=override, event=event, late=late
        )

    def traced(self, action: str, view: ProcessView, time: int) -> None:
        """Write an event that only the process source reported."""
        self.unaudited += 1
        description = self._unaudited(action, view.state)
        self._write(description, view, action, time, self._details(view))

    def introduce(self, view: ProcessView, time: int, *, repeated: bool) -> None:
        """Write that a process was running at ``time``; ``repeated``: once more."""
        state = view.state
        self.unaudited += 1
        description = self._unaudited("already_running", state)
        details = self._details(
            view, own_args_cut=is_brief_cut(state.program) or None, introduces=True
        )
        # Each repetition has its own id; the first one is the same after a crash.
        number = time if repeated else None
        self._write(description, view, "already_running", time, details, number=number)

    def unenriched(self, event: AuditEvent, time: int, note: str = "") -> None:
        """Write an audit event of an unknown process; ``note`` says why it is unknown."""
        description = self._descriptions.describe(event, enriched=False)
        details: dict[str, Any] = {"incomplete": [note]} if note else {}
        if not event.complete:
            details.setdefault("incomplete", []).append(_UNFINISHED)
        self._warn(description, details)
        self._encode(
            description,
            date=self._processes.date(time),
            event_id=self._documents.audit_id(event.time, event.serial),
            providers=_BY_AUDIT,
            more={"sessiond": details} if details else None,
            event=event,
        )

    # Events about sessiond itself

    def write_self_event(
        self,
        action: str,
        time: int,
        details: Mapping[str, Any],
        message: str,
        *,
        window: tuple[int, int] | None = None,
        event_id: str | None = None,
    ) -> None:
        """Write an event about sessiond: sessiond-lost, -degraded, -recovered, -clock-changed.

        ``window`` is its start and end, in ns since boot like ``time``. ``event_id`` is needed if a
        later run may write the event again.
        """
        self._own_events += 1
        self.unaudited += 1
        event: dict[str, Any] = {
            "kind": "pipeline_error",
            "action": action,
            "category": ["process"],
            "type": ["info"],
            "outcome": "success" if action == "sessiond-recovered" else "failure",
        }
        if action == CLOCK_CHANGED:
            event |= {"kind": "event", "category": ["host"], "type": ["change"]}
            event["outcome"] = "success"
        if window is not None:
            event["start"] = self._processes.date(window[0])
            event["end"] = self._processes.date(window[1])
        document: dict[str, Any] = {"message": message, "event": event, "sessiond": dict(details)}
        self._encode(
            self._descriptions.encode(document, [], enriched=True),
            date=self._processes.date(time),
            event_id=event_id or self._documents.self_event_id(f"{time:x}-{self._own_events:x}"),
            providers=_BY_SESSIOND,
            more=None,
        )

    def loss(self, loss: Loss, time: int) -> None:
        """Write a loss: the window, the hop, the count and the reason."""
        begin, end = self._processes.date(loss.since), self._processes.date(loss.until)
        details: dict[str, Any] = {"hop": loss.hop, "reason": loss.reason}
        what = loss.reason
        if loss.hop != GAP:
            details |= {"count": loss.number, "unit": loss.unit}
            what = f"{loss.hop}, {loss.number} {loss.unit}: {loss.reason}"
        if loss.kinds:
            details["kinds"] = loss.kinds
        self.write_self_event(
            "sessiond-lost",
            time,
            {"loss": details},
            f"blind from {begin} to {end}: {what}",
            window=(loss.since, loss.until),
            event_id=self._documents.self_event_id(
                f"{loss.hop}-{loss.since:x}-{loss.until:x}-{loss.number:x}"
            ),
        )

    def clock_step(self, step: Step, before: int) -> None:
        """Write that the wall clock was set; it was ``before`` ns ahead of CLOCK_BOOTTIME."""
        seconds = (step.offset - before) / SECOND
        where = "forward" if seconds > 0 else "back"
        self.write_self_event(
            CLOCK_CHANGED,
            step.noticed,
            {"clock": {"step": seconds, "old_offset": before, "new_offset": step.offset}},
            f"the clock of the host was set {where} by {abs(seconds):.3f} s",
            event_id=self._documents.self_event_id(f"clock-{step.since:x}-{step.offset:x}"),
        )

    # Filtered events

    def example(self, view: ProcessView) -> bytes:
        """Return the ``process`` object of a process that has ended."""
        process, state = view.process, view.state
        return self._processes.block(process, state, time=process.end or state.time, ended=True)

    def folded(
        self,
        filter_name: str,
        count: int,
        window: tuple[int, int],
        time: int,
        example: bytes,
        event_id: str,
    ) -> None:
        """Write that ``count`` events of a kind occurred between two times in ns since boot.

        ``example`` is the JSON of the process of one of them.
        """
        self._of_filter(
            {"action": "sessiond-folded", "category": ["process"], "type": ["info"]},
            {"name": filter_name, "action": "fold", "count": count},
            f"{count} of this kind, folded by {filter_name}",
            window,
            time,
            event_id,
            example,
        )

    def filtered(self, taken: Taken) -> None:
        """Write how many lines a filter removed in a window."""
        name, action = taken.verdict
        what = {"name": name, "action": action, "lines": taken.lines, "bytes": taken.bytes}
        self._of_filter(
            {"kind": "metric", "action": "sessiond-filtered", "category": ["process"]}
            | {"type": ["info"]},
            what,
            f"{taken.lines} lines were not written because of {name}",
            (taken.since, taken.until),
            taken.until,
            self._documents.self_event_id(f"filter-{taken.since:x}-{action}-{name}"),
            None,
        )

    def _of_filter(
        self,
        event: dict[str, Any],
        what: dict[str, Any],
        message: str,
        window: tuple[int, int],
        time: int,
        event_id: str,
        example: bytes | None,
    ) -> None:
        self.unaudited += 1
        event["start"] = self._processes.date(window[0])
        event["end"] = self._processes.date(window[1])
        document = {"message": message, "event": event, "sessiond": {"filter": what}}
        self._encode(
            self._descriptions.encode(document, [], enriched=True),
            date=self._processes.date(time),
            event_id=event_id,
            providers=_BY_SESSIOND,
            more=None,
            process=example,
            filtered=False,
        )

    # The parts of a line

    def _unaudited(self, action: str, state: State) -> EncodedAuditEvent:
        """Return the audit part of an event without an audit record, from the process's state."""
        category, types = PROCESS_EVENTS[action]
        outcome = "unknown" if action in ("end", "already_running") else "success"
        facts = state.facts
        document: dict[str, Any] = {
            "event": {"action": action, "category": category, "type": types, "outcome": outcome},
        }
        user: dict[str, Any] = dict(self._processes.user(facts.uid))
        if facts.loginuid not in (None, UNSET_ID):
            assert facts.loginuid is not None  # noqa: S101 -- narrows the type
            user["audit"] = self._processes.user(facts.loginuid)
        if user:
            document["user"] = user
        if facts.audit_session not in (None, UNSET_ID):
            document["auditd"] = {"session": str(facts.audit_session)}
        return self._descriptions.encode(document, [], enriched=True)

    def _details(
        self, view: ProcessView, *, own_args_cut: bool | None = None, introduces: bool = False
    ) -> dict[str, Any]:
        """Return the ``sessiond.*`` fields of a process in an event.

        ``own_args_cut`` says whether the process's own argv is cut, if the event knows better;
        ``introduces`` says that the event belongs to an inventory.
        """
        process, state = view.process, view.state
        details: dict[str, Any] = {}
        if self.is_canary(process.pid):
            details["canary"] = True
        facts = state.facts
        creator = process.creator
        if creator is not None and facts.ppid != creator.pid and facts.ppid:
            details["reparented_to"] = {"pid": facts.ppid}
            if view.parent_now is not None:
                details["reparented_to"]["entity_id"] = view.parent_now.entity_id
        if (
            creator is None
            or state.program.args is None
            or state.session_leader is None
            or state.group_leader is None
            or state.session_inferred
            or state.group_inferred
            or process.found
        ):
            incomplete = self._incomplete(process, state)
            if process.found and self._options.exact and not introduces:
                incomplete.append(_NO_HISTORY)
            if incomplete:
                details["incomplete"] = incomplete
        self._add_doubts(view, details, alone=introduces)
        if state.program.deleted:
            details["executable_deleted"] = True
        cut = _cut_arguments(state, creator)
        if is_cut(state.program) if own_args_cut is None else own_args_cut:
            cut.insert(0, "process.args")
        if cut:
            details["truncated"] = cut
        if self._event.include_namespaces:
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

    def _add_doubts(self, view: ProcessView, details: dict[str, Any], *, alone: bool) -> None:
        """Note which parts of an entry, a path or arguments are inferred or could be forged.

        ``alone``: the line shows only the identities of relatives.
        """
        process, state = view.process, view.state
        notes: list[str | None] = []
        entry: Relative = process if state.entry_leader is ITSELF else state.entry_leader
        if isinstance(entry, Process):
            notes += entry.entry_inferred, entry.entry_note
        elif isinstance(entry, Reference) and entry.entry is not None:
            known = entry.entry
            notes += known.inferred, known.note, None if entry.dated else _NOT_DATED
        relatives = (
            process,
            process.creator,
            state.group_leader,
            state.session_leader,
            state.entry_leader,
        )
        for name, relative in zip(_SHOWN, relatives, strict=True):
            found = process if relative is ITSELF else relative
            if not isinstance(found, Process) or not found.found:
                continue
            if alone and relative is not process:
                continue
            if found.creator_note is not None and name in _WITH_PARENT:
                notes.append(f"{name}.{found.creator_note.removeprefix('process.')}")
            if seems_rewritten(found.states[-1].program):
                notes.append(f"{name}.args: {_REWRITTEN}")
        present = [note for note in notes if note is not None]
        if present:
            details.setdefault("incomplete", []).extend(present)
        if view.foreign_mounts is not None:
            details["mount_namespace"] = view.foreign_mounts

    def _incomplete(self, process: Process, state: State) -> list[str]:
        notes = []
        if state.program.args is None and state.program.executable is not None:
            notes.append(f"process.args: {self._options.why_without_args}")
        if process.creator is None and process.pid > 2:
            notes.append(f"process.parent: {self._options.why_unknown}")
        elif process.creator_note is not None:
            notes.append(process.creator_note)
        # Processes started by the kernel may be in session and group 0, which have no leader.
        if state.session_leader is None and state.facts.sid != 0:
            notes.append(f"process.session_leader: {self._options.why_unknown}")
        elif state.session_inferred:
            notes.append("process.session_leader: inferred from the process that forked it")
        if state.group_leader is None and state.facts.pgid != 0:
            notes.append(f"process.group_leader: {self._options.why_unknown}")
        elif state.group_inferred:
            notes.append("process.group_leader: inferred from the process that forked it")
        return notes

    def _write(
        self,
        description: EncodedAuditEvent,
        view: ProcessView,
        action: str | None,
        time: int,
        details: dict[str, Any],
        *,
        override: dict[str, Any] | None = None,
        event: AuditEvent | None = None,
        event_id: str | None = None,
        number: int | None = None,
        late: bool = False,
    ) -> None:
        """Join an event with its process and write the line.

        ``event_id`` is the id, unless it follows from the process and the action; ``number``
        distinguishes several events of one kind of a process.
        """
        process, state, cgroup = view.process, view.state, view.cgroup
        # A fork precedes all other events of the process, even if it is written late.
        if action != "fork" and not late:
            time = process.latest = max(time, process.latest)
        if event is not None and not event.complete:
            details.setdefault("incomplete", []).append(_UNFINISHED)
        self._warn(description, details)
        more: dict[str, Any] = {}
        if cgroup is not None:
            more.update(self._context(cgroup))
            if self._event.include_cgroup:
                details["cgroup"] = display(cgroup)
        brief = action == "already_running"
        ancestors = None if brief else self._processes.ancestors(process)
        if ancestors is not None:
            details["ancestors"] = ancestors
        if self._event.ancestors and not brief and is_torn(process):
            details.setdefault("incomplete", []).append(_TORN)
        if details:
            more["sessiond"] = details
        if brief:
            block = self._processes.brief(process, state)
        else:
            block = self._processes.block(
                process,
                state,
                time=time,
                ended=action == "end",
                title=self._title(description, process, state, action),
                override=override,
            )
        written = self._encode(
            description,
            date=self._processes.date(time),
            event_id=event_id or self._id_of(process, state, action, event, number),
            providers=self._by_source if event is None else self._by_both,
            more=more,
            process=block,
            brief=brief,
            view=view,
            event=event,
        )
        if written and action in _INTRODUCTIONS:
            process.introduced = True
            process.withheld = False
            process.drawn = process.drawn or action != "already_running"

    def _title(
        self, description: EncodedAuditEvent, process: Process, state: State, action: str | None
    ) -> str | None:
        title = description.title
        stale = _is_stale(title, process, state, executes=action == "exec")
        return None if stale else title

    def _id_of(
        self,
        process: Process,
        state: State,
        action: str | None,
        event: AuditEvent | None,
        number: int | None,
    ) -> str:
        """Make the ``event.id`` from the event itself, independently of how it was read."""
        if number is not None:
            return f"{process.entity_id}-{action}-{number:x}"
        if action in _ONCE:
            return f"{process.entity_id}-{action}"
        if event is not None and action != "exec":
            return self._documents.audit_id(event.time, event.serial)
        return f"{process.entity_id}-{action}-{state.time:x}"

    def _warn(self, description: EncodedAuditEvent, details: dict[str, Any]) -> None:
        if description.warnings:
            self.warnings += len(description.warnings)
            details["warnings"] = description.warnings

    def _encode(
        self,
        description: EncodedAuditEvent,
        *,
        date: str,
        event_id: str,
        providers: bytes,
        more: dict[str, Any] | None,
        process: bytes | None = None,
        brief: bool = False,
        view: ProcessView | None = None,
        event: AuditEvent | None = None,
        filtered: bool = True,
    ) -> bool:
        """Make the line; return False if a filter withholds it."""
        self.counts[description.action] += 1
        if event_id in self._written:
            self.repeated += 1
            return True
        line = self._documents.line(
            description,
            date=date,
            event_id=event_id,
            providers=providers,
            more=more,
            process=process,
            brief=brief,
        )
        if self.filters is not None and filtered:
            wanted = self.filters.line(line, description.action, view, event)
            if wanted is None:
                self._withdraw(description.action, event)
                return False
            line = wanted
        room = self._event.max_line_bytes - (SEAL_SIZE if self.chain is not None else 0)
        if len(line) > room:
            self.shortened += 1
            line = fitted(line, room)
        if self.chain is not None:
            line = self.chain.seal(line)
        self._lines.append(line)
        return True

    def _withdraw(self, action: str, event: AuditEvent | None) -> None:
        """Undo counting and numbering of a line that is not written."""
        self.counts[action] -= 1
        self._documents.sequence -= 1
        if event is None:
            self.unaudited -= 1
        else:
            self.withheld += 1


def _is_stale(title: str | None, process: Process, state: State, *, executes: bool) -> bool:
    """Return whether a title is that of an earlier program of the process.

    The kernel reads the title once per task, at its first event, and repeats it
    (audit_log_proctitle in kernel/auditsc.c). At an exec it is the title of the new or of the
    previous program; a process whose exec was not audited may have set its title itself.
    ``executes``: the title is that of an exec.
    """
    if title is None or not state.previous:
        return False
    args = state.program.args
    if not args or args.rstrip(b"\0").replace(b"\0", b" ").decode("latin-1").startswith(title):
        return False  # the usual case
    if _is_title_of(title, state.program):
        return False
    if executes or len(state.previous) > 1 or _is_title_of(title, state.previous[0]):
        return True
    return any(state.matched for state in process.states)


def _is_title_of(title: str, program: Program) -> bool:
    """Return whether the title or the program's arguments are a prefix of the other."""
    args = " ".join([display(argument) for argument in program.argv]).rstrip()
    shown = title.rstrip()
    if not program.args_cut and len(shown) < MIN_CUT_TITLE:
        return args == shown
    length = min(len(args), len(shown))
    return length > 0 and args[:length] == shown[:length]


def _cut_arguments(state: State, creator: Relative) -> list[str]:
    """Return the fields of earlier programs and of relatives with a cut argv."""
    cut = []
    if state.previous and _any_cut(state.previous):
        cut.append("process.previous.args")
    if _args_cut(creator, state):
        cut.append("process.parent.args")
    if _args_cut(state.group_leader, state):
        cut.append("process.group_leader.args")
    if _args_cut(state.session_leader, state):
        cut.append("process.session_leader.args")
    if _args_cut(state.entry_leader, state):
        cut.append("process.entry_leader.args")
    return cut


def _any_cut(programs: tuple[Program, ...]) -> bool:
    for program in programs:  # noqa: SIM110 -- a generator costs as much as the loop
        if is_cut(program):
            return True
    return False


def _args_cut(relative: Relative, state: State) -> bool:
    if isinstance(relative, Process):
        program = relative.states[-1].program
    elif relative is ITSELF:
        program = state.program
    else:
        return False
    # Program.args_cut, asked for five times a line.
    args, size = program.args, program.args_size
    return args is not None and (
        len(args) > RELATIVE_ARGS or (size is not None and len(args) < size)
    )


def _signal(status: int) -> dict[str, Any]:
    number = status & 0x7F
    signal: dict[str, Any] = {"number": number, "core_dumped": bool(status & 0x80)}
    signal["name"] = signal_name(number)
    return signal
