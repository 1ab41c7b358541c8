"""Builds hosts, sessions, processes and losses from events; pure.

A recording takes events in any order and from several hosts, and each event only once. Times are
texts in the format of events, which sort correctly as text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Final, TypeVar

import msgspec

from sessiond.viewer.events import (
    Event,
    Own,
    Relative,
    decode,
    groups,
    identity,
    labels,
    names,
    relative,
)

# Maximum number of other events, of failed execs and of executed programs kept per process; further
# ones are counted.
MAX_ACTIVITY: Final = 100
MAX_FAILED_EXECS: Final = 100
MAX_IMAGES: Final = 100
# Missing lines within this time, in seconds, form one gap.
GAP_WINDOW: Final = 2.0
# Maximum time, in seconds, between an ssh client's start and its login on another host.
LOGIN_WINDOW: Final = 30.0

_EXECS: Final = frozenset({"exec", "executed"})
_ENDS: Final = frozenset({"end", "exited"})
_OTHER_LIFE: Final = frozenset({"fork", "already_running", "setsid", ""})


class Image(msgspec.Struct, gc=False):
    """A program that a process executed: time, program, user and sources."""

    time: str
    executable: str
    args: list[str]
    user: str
    providers: tuple[str, ...]


class FailedExec(msgspec.Struct, gc=False):
    """A failed execve: time, path, and the name of the error."""

    time: str
    executable: str
    error: str


class Activity(msgspec.Struct, gc=False):
    """Another event of a process (a file, a connection, a login): action and object."""

    time: str
    action: str
    what: str
    outcome: str


class Process(msgspec.Struct, gc=False):
    """One process, as of its last event; empty text, 0 and None mean unknown.

    ``seen`` says whether it has an event of its own: otherwise it is known only as a relative.
    ``gone`` says that it ended while no daemon ran. ``last`` is the time of its last event.
    """

    id: str
    host: str
    boot: str = ""
    pid: int = 0
    vpid: int = 0
    name: str = ""
    executable: str = ""
    args: list[str] = []
    args_count: int = 0
    title: str = ""
    start: str = ""
    end: str = ""
    exit_code: int | None = None
    signal: str = ""
    core_dumped: bool = False
    gone: bool = False
    user: str = ""
    user_id: str = ""
    real_user: str = ""
    saved_user: str = ""
    group_name: str = ""
    real_group: str = ""
    saved_group: str = ""
    groups: str = ""
    login_user: str = ""
    audit_session: str = ""
    capabilities: str = ""
    directory: str = ""
    interactive: bool = False
    tty: str = ""
    parent: str = ""
    group: str = ""
    session: str = ""
    entry: str = ""
    container: str = ""
    pod: str = ""
    unit: str = ""
    labels: str = ""
    reparented: int = 0
    seen: bool = False
    canary: bool = False
    older: bool = False
    last: str = ""
    events: int = 0
    images: list[Image] = []
    image_count: int = 0
    failed: list[FailedExec] = []
    failed_count: int = 0
    activity: list[Activity] = []
    activity_count: int = 0
    incomplete: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    end_providers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command line; only the name if there are no arguments."""
        return " ".join(self.args) if self.args else self.executable or self.name or "?"

    @property
    def first_command(self) -> str:
        """The command line of its first program."""
        if self.images and self.images[0].args:
            return " ".join(self.images[0].args)
        return self.command

    @property
    def has_failed(self) -> bool:
        """Whether it ended with an exit code other than 0."""
        return bool(self.exit_code)

    @property
    def running(self) -> bool:
        """Whether it has not ended, according to the events."""
        return self.seen and not self.end and not self.gone

    @property
    def typed(self) -> bool:
        """Whether a person typed it: a separate job of the session's shell.

        This is Session View's rule: a terminal, its own group, forked by the session leader.
        """
        return (
            self.interactive
            and self.session not in ("", self.id)
            and self.parent == self.session
            and self.group == self.id
        )


@dataclass(slots=True)
class Session:
    """All processes with the same entry leader."""

    id: str
    host: str
    kind: str = ""
    source: str = ""
    # The processes by start, with the leader first if it is known.
    processes: list[Process] = field(default_factory=list)
    # Processes whose parent is in no session or in another one.
    roots: list[Process] = field(default_factory=list)
    leader: Process | None = None
    # The ssh client process of the login, on this host or another.
    origin: Process | None = None

    @property
    def start(self) -> str:
        """The start of its leader, or of the first known process."""
        if self.leader and self.leader.start:
            return self.leader.start
        return min((each.start for each in self.processes if each.start), default="")

    @property
    def running(self) -> bool:
        """Whether any of its processes has not ended, according to the events."""
        return any(each.running for each in self.processes)

    @property
    def end(self) -> str:
        """The end of the last of its processes; empty while one is running."""
        if self.running:
            return ""
        return max((each.end or each.last for each in self.processes), default="")

    @property
    def user(self) -> str:
        """The login user, or the leader's user without one."""
        for process in self.processes:
            if process.login_user:
                return process.login_user
        first = self.leader if self.leader and self.leader.user else None
        return first.user if first else next((each.user for each in self.processes), "")

    @property
    def users(self) -> list[str]:
        """The users of its processes: first the login user, then the others by time."""
        users = (each.user for each in self.processes if each.user)
        return [user for user in dict.fromkeys((self.user, *users)) if user]

    @property
    def became_root(self) -> bool:
        """Whether the login user was not root, but a process ran as root."""
        return self.user != "root" and any(
            each.user_id == "0" and each is not self.leader for each in self.processes
        )

    @property
    def failures(self) -> int:
        """The number of processes with an exit code other than 0."""
        return sum(each.has_failed for each in self.processes)

    @property
    def count(self) -> int:
        """The number of processes with their own events."""
        return sum(each.seen for each in self.processes)

    @property
    def commands(self) -> list[Process]:
        """The typed commands; without any, the first process's command."""
        typed = [each for each in self.processes if each.typed]
        return typed or [each for each in self.roots if each.seen] or self.processes[:1]


@dataclass(slots=True)
class Loss:
    """A loss: its hop, its number, its start and end, and a text."""

    host: str
    start: str
    end: str
    hop: str
    count: int
    text: str


@dataclass(slots=True)
class Finding:
    """An alert about a process: the rule, its level, and the techniques of ATT&CK."""

    host: str
    time: str
    process: str  # its entity id; empty for a finding about the host
    rule: str
    level: str
    techniques: list[str]

    @property
    def start(self) -> str:
        """The time, as the start of a loss."""
        return self.time

    @property
    def end(self) -> str:
        """The time, as the end of a loss."""
        return self.time


@dataclass(slots=True)
class Host:
    """One host: its addresses, and the times of the first and last event of each boot."""

    name: str
    addresses: set[str] = field(default_factory=set)
    boots: dict[str, tuple[str, str]] = field(default_factory=dict)
    # The time of the last complete inventory, by boot.
    inventories: dict[str, str] = field(default_factory=dict)

    @property
    def last_boot(self) -> str:
        """The boot of the latest event."""
        return max(self.boots, key=self.boots.__getitem__, default="")


class Recording:
    """Collects events; ``sessions`` then returns what they contain."""

    def __init__(self) -> None:
        """Start empty."""
        self.hosts: dict[str, Host] = {}
        self.processes: dict[str, Process] = {}
        self.losses: list[Loss] = []
        # The findings about each process, by its id; those about no process by an empty one.
        self.findings: dict[str, list[Finding]] = {}
        self.events = 0
        # Lines that are not events of sessiond.
        self.refused = 0
        self._entries: dict[str, tuple[str, str]] = {}  # entry leader: type, source
        self._sequences: dict[tuple[str, str], tuple[int, str]] = {}
        self._ids: set[int] = set()
        self._shared: dict[object, object] = {}
        self._lists: dict[bytes, str] = {}

    def feed(self, line: bytes) -> Event | None:
        """Take one line; return its event, None for an invalid or a repeated line."""
        try:
            event = decode(line)
            datetime.fromisoformat(event.timestamp)
            return event if self.add(event) else None
        except (msgspec.DecodeError, ValueError):  # also of a relative, which is decoded later
            self.refused += bool(line.strip())
            return None

    def add(self, event: Event) -> bool:
        """Take one event; return False, without effect, if it was taken before."""
        head = event.event
        if head.id:
            key = hash(head.id)
            if key in self._ids:
                return False
            self._ids.add(key)
        self.events += 1
        host = self._host(event)
        if head.sequence:
            self._watch_sequence(host.name, event)
        if head.kind == "pipeline_error":
            self._add_loss(host.name, event)
        elif head.kind == "alert":
            self._add_finding(host.name, event)
        elif event.process is not None and event.process.entity_id:
            self._add_event(host, event, event.process)
        return True

    def sessions(self) -> list[Session]:
        """Return all sessions by their start, each with its processes and the roots of its tree."""
        self._find_gone()
        found: dict[str, Session] = {}
        for process in self.processes.values():
            key = process.entry or f"none-{process.host}-{process.boot}"
            session = found.get(key)
            if session is None:
                kind, source = self._entries.get(key, ("", ""))
                session = found[key] = Session(key, process.host, kind, source)
                session.leader = self.processes.get(key)
            session.processes.append(process)
        listed = [each for each in found.values() if any(one.seen for one in each.processes)]
        for session in listed:
            session.processes.sort(key=lambda each: (each.id != session.id, each.start, each.pid))
            inside = {each.id for each in session.processes}
            session.roots = _roots(session, inside)
        self._link(listed)
        return sorted(listed, key=lambda each: (each.start, each.id))

    def children(self) -> dict[str, list[Process]]:
        """Return the children of each process by its id, by start."""
        found: dict[str, list[Process]] = {}
        for process in self.processes.values():
            if process.parent and process.parent != process.id:
                found.setdefault(process.parent, []).append(process)
        for children in found.values():
            children.sort(key=lambda each: (each.start, each.pid))
        return found

    def ancestors(self, process: Process) -> list[Process]:
        """Return its parent, the parent's parent and so on, as far as they are known."""
        found: list[Process] = []
        known = {process.id}
        above = self.processes.get(process.parent)
        while above is not None and above.id not in known:
            known.add(above.id)
            found.append(above)
            above = self.processes.get(above.parent)
        return found

    # --- one event --------------------------------------------------------------------------------

    def _host(self, event: Event) -> Host:
        block, time = event.host, event.timestamp
        name = block.name or block.hostname or "?"
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = Host(name)
        if block.ip:
            host.addresses.update(block.ip)
        first, last = host.boots.get(block.boot.id, (time, time))
        if time > last or time <= first:
            host.boots[block.boot.id] = min(first, time), max(last, time)
        return host

    def _watch_sequence(self, host: str, event: Event) -> None:
        sequence, time = event.event.sequence, event.timestamp
        key = (host, event.host.boot.id)
        before, then = self._sequences.get(key, (sequence, time))
        self._sequences[key] = sequence, time
        missing = sequence - before - 1
        if missing <= 0:
            return
        last = self.losses[-1] if self.losses else None
        if last and last.hop == "file" and last.host == host and apart(last.end, then) < GAP_WINDOW:
            last.end = max(last.end, time)
            last.count += missing
        else:
            start, end = sorted((then, time))
            last = Loss(host, start, end, "file", missing, "")
            self.losses.append(last)
        what = "1 line is" if last.count == 1 else f"{last.count} lines are"
        last.text = f"{what} not in these files"

    def _add_loss(self, host: str, event: Event) -> None:
        head, ours = event.event, event.sessiond
        start, end = head.start or event.timestamp, head.end or event.timestamp
        if ours is not None and ours.loss is not None:
            loss = ours.loss
            text = event.message or f"{loss.count} {loss.unit} lost: {loss.reason}"
            self.losses.append(Loss(host, start, end, loss.hop, loss.count, text))
        elif head.action == "sessiond-degraded":
            self.losses.append(Loss(host, start, end, "health", 0, event.message or head.action))

    def _add_finding(self, host: str, event: Event) -> None:
        process = event.process.entity_id if event.process else ""
        rule = event.rule.name if event.rule else event.message
        level = event.log.level if event.log else ""
        techniques = event.threat.technique.id if event.threat else []
        found = Finding(host, event.timestamp, process, rule or "?", level, techniques)
        self.findings.setdefault(process, []).append(found)

    def _add_event(self, host: Host, event: Event, block: Own) -> None:
        head, time = event.event, event.timestamp
        boot = event.host.boot.id
        process = self._process(block.entity_id, host.name, boot)
        process.seen = True
        process.events += 1
        parent = self._relative(block.parent, process.id, host.name, boot)
        group = self._relative(block.group_leader, process.id, host.name, boot)
        session = self._relative(block.session_leader, process.id, host.name, boot)
        entry = self._relative(block.entry_leader, process.id, host.name, boot)
        if entry and entry not in self._entries:
            self._add_entry(relative(block.entry_leader))
        # Several files can have events of one process in any order: the latest counts.
        if time >= process.last:
            self._fill(process, event, block)
            process.parent = parent or process.parent
            process.group = group or process.group
            process.session = session or process.session
            process.entry = entry or process.entry
            process.last = time
        providers = self._share(tuple(head.provider))
        action = head.action
        if action in _EXECS:
            self._add_image(process, block, time, providers)
        elif action in _ENDS:
            process.end = block.end or time
            process.exit_code = block.exit_code
            process.end_providers = providers
            if event.sessiond is not None and event.sessiond.signal is not None:
                process.signal = event.sessiond.signal.name or str(event.sessiond.signal.number)
                process.core_dumped = event.sessiond.signal.core_dumped
        elif action == "already_running":
            process.older = True
            host.inventories[boot] = max(time, host.inventories.get(boot, ""))
        elif action == "exec-failed":
            process.failed_count += 1
            if process.failed_count <= MAX_FAILED_EXECS:
                process.failed = [*process.failed, _failed_exec(event)]
        elif action not in _OTHER_LIFE:
            process.activity_count += 1
            if process.activity_count <= MAX_ACTIVITY:
                process.activity = [*process.activity, _activity(event)]
        self._add_remarks(process, event, providers)

    def _share(self, value: tuple[str, ...]) -> tuple[str, ...]:
        """Return the same object for equal values: most processes have the same few."""
        return self._shared.setdefault(value, value)  # type: ignore[return-value]

    def _as_text(self, block: msgspec.Raw, read: Callable[[bytes], list[str]]) -> str:
        """Return a part of JSON as one text, the same object for the same part."""
        if not block:
            return ""
        key = bytes(block)
        found = self._lists.get(key)
        if found is None:
            found = self._lists[key] = " ".join(read(key))
        return found

    def _process(self, identity: str, host: str, boot: str) -> Process:
        process = self.processes.get(identity)
        if process is None:
            process = self.processes[identity] = Process(identity, host, boot)
        return process

    def _relative(self, block: msgspec.Raw, of: str, host: str, boot: str) -> str:
        """Take new data from a relative, if there is any, and return its entity id."""
        key = identity(block)
        if not key or key == of:
            return key
        known = self.processes.get(key)
        if known is None:
            known = self.processes[key] = Process(key, host, boot)
        elif known.seen or known.name:
            return known.id
        self._fill_relative(known, relative(block))
        return known.id

    def _fill_relative(self, known: Process, block: Relative) -> None:
        _fill_common(known, block)
        if block.parent is not None and block.parent.entity_id:
            known.parent = block.parent.entity_id
        known.end = block.end
        known.exit_code = block.exit_code

    def _add_entry(self, block: Relative) -> None:
        """Note the entry of an entry leader, which is in its own session, even without an event."""
        meta = block.entry_meta
        if meta is None:
            return
        self._entries[block.entity_id] = meta.type, meta.source.ip if meta.source else ""
        leader = self.processes.get(block.entity_id)
        if leader is not None and not leader.seen:
            leader.entry = leader.id

    def _fill(self, process: Process, event: Event, block: Own) -> None:
        """Update a process with an event's data; fields that the event lacks stay."""
        _fill_common(process, block)
        if block.vpid:
            process.vpid = block.vpid
        process.title = block.title
        if block.thread is not None and block.thread.capabilities is not None:
            process.capabilities = self._as_text(block.thread.capabilities.effective, names)
        else:
            process.capabilities = ""
        if block.saved_user is not None:
            process.saved_user = block.saved_user.shown
        if block.real_group is not None:
            process.real_group = block.real_group.shown
        if block.saved_group is not None:
            process.saved_group = block.saved_group.shown
        process.groups = self._as_text(block.supplemental_groups, groups)
        process.labels = self._as_text(event.labels, labels)
        if event.user is not None and event.user.audit is not None:
            process.login_user = event.user.audit.shown
        if event.auditd is not None and event.auditd.session:
            process.audit_session = event.auditd.session
        if event.container is not None and event.container.id:
            container = event.container
            process.container = f"{container.runtime} {container.id}".strip()
        if event.orchestrator is not None:
            pod = event.orchestrator
            process.pod = f"{pod.type} {pod.resource.type} {pod.resource.id}".strip()
        if event.systemd is not None:
            process.unit = event.systemd.user_unit or event.systemd.unit

    def _add_image(
        self, process: Process, block: Own, time: str, providers: tuple[str, ...]
    ) -> None:
        image = Image(time, block.executable, block.args, process.user, providers)
        process.image_count += 1
        process.images = sorted([*process.images, image], key=lambda each: each.time)
        if len(process.images) > MAX_IMAGES:
            del process.images[1]  # the first one and the latest say most

    def _add_remarks(self, process: Process, event: Event, providers: tuple[str, ...]) -> None:
        ours = event.sessiond
        if ours is not None:
            if ours.incomplete:
                process.incomplete = _joined(process.incomplete, ours.incomplete)
            if ours.truncated:
                process.truncated = _joined(process.truncated, ours.truncated)
            if ours.reparented_to is not None:
                process.reparented = ours.reparented_to.pid
            process.canary = process.canary or ours.canary
        if providers != process.providers:
            process.providers = self._share(_joined(process.providers, providers))
        if event.tags and list(process.tags) != event.tags:
            process.tags = self._share(_joined(process.tags, event.tags))

    # --- afterwards -------------------------------------------------------------------------------

    def _find_gone(self) -> None:
        """Find processes that ended without an event: before a boot, or before an inventory."""
        last_boot = {name: host.last_boot for name, host in self.hosts.items()}
        gaps: dict[str, list[Loss]] = {}
        for loss in self.losses:
            if loss.hop == "gap":
                gaps.setdefault(loss.host, []).append(loss)
        for process in self.processes.values():
            if process.end:
                process.gone = False
                continue
            inventory = self.hosts[process.host].inventories.get(process.boot, "")
            process.gone = process.boot != last_boot[process.host] or any(
                process.last <= gap.start and gap.end <= inventory
                for gap in gaps.get(process.host, ())
            )

    def _link(self, sessions: list[Session]) -> None:
        """Find for each ssh login the ssh process that made it, by address and time."""
        clients = [
            (started, each)
            for each in self.processes.values()
            if each.name == "ssh" and (started := moment(each.start)) is not None
        ]
        clients.sort(key=itemgetter(0))
        for session in sessions if clients else ():
            began = moment(session.start)
            if session.kind != "sshd" or not session.source or began is None:
                continue
            first = bisect_left(clients, began - LOGIN_WINDOW, key=itemgetter(0))
            last = bisect_right(clients, began, key=itemgetter(0))
            near = (each for _, each in reversed(clients[first:last]))
            session.origin = next((one for one in near if self._may_come_from(session, one)), None)

    def _may_come_from(self, session: Session, client: Process) -> bool:
        near = session.source in self.hosts[client.host].addresses or (
            client.host == session.host and session.source.startswith(("127.", "::1"))
        )
        return (
            near and client.entry != session.id and (not client.end or client.end >= session.start)
        )


def moment(time: str) -> float | None:
    """Return a date of the output as seconds since the epoch; None for an invalid date."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return None


def apart(earlier: str, later: str) -> float:
    """Return the seconds between two dates; infinite if one is invalid."""
    one, other = moment(earlier), moment(later)
    return float("inf") if one is None or other is None else abs(other - one)


Mark = TypeVar("Mark", Loss, Finding)


def during(session: Session, marks: Iterable[Mark]) -> Iterator[Mark]:
    """Return the losses or findings on the session's host during the session."""
    start, end = session.start, session.end
    for mark in marks:
        if mark.host == session.host and mark.end >= start and (not end or mark.start <= end):
            yield mark


def find(recording: Recording, wanted: str, sessions: list[Session]) -> list[Process | Session]:
    """Return the matches of a pid, an entity id, or the beginning of one.

    The entity id of an entry leader stands for its session; a pid finds all processes that had it,
    and for an entry leader its session.
    """
    leaders = {each.id: each for each in sessions}
    if wanted in leaders:
        return [leaders[wanted]]
    if wanted in recording.processes:
        return [recording.processes[wanted]]
    found = [
        each
        for each in recording.processes.values()
        if (str(each.pid) == wanted and each.seen) or each.id.startswith(wanted)
    ]
    found.sort(key=lambda each: each.start)
    return [leaders.get(each.id, each) for each in found]


def _roots(session: Session, inside: set[str]) -> list[Process]:
    """Return the processes from which all others of a session descend, including the leader.

    If the events contain a cycle of descent, its earliest process is one of them.
    """
    below: dict[str, list[Process]] = {}
    for each in session.processes:
        below.setdefault(each.parent, []).append(each)
    roots: list[Process] = []
    reached: set[str] = set()
    for certain in (True, False):
        for each in session.processes:
            if each.id in reached:
                continue
            if certain and each.id != session.id and _is_in(each, inside):
                continue
            roots.append(each)
            waiting = [each]
            while waiting:
                process = waiting.pop()
                if process.id not in reached:
                    reached.add(process.id)
                    waiting += below.get(process.id, ())
        if len(reached) == len(session.processes):
            break
    return sorted(roots, key=lambda each: (each.id != session.id, each.start, each.pid))


def _is_in(process: Process, inside: set[str]) -> bool:
    return process.parent in inside and process.parent != process.id


def _fill_common(process: Process, block: Relative | Own) -> None:
    process.pid = block.pid or process.pid
    process.start = block.start or process.start
    process.name = block.name or process.name
    process.executable = block.executable or process.executable
    if block.args:
        process.args = block.args
        process.args_count = block.args_count
    process.directory = block.working_directory or process.directory
    if block.interactive is not None:
        process.interactive = block.interactive
    if block.tty is not None:
        process.tty = f"{block.tty.char_device.major}:{block.tty.char_device.minor}"
    if block.user is not None:
        process.user_id = block.user.id
        process.user = block.user.shown
    if block.group is not None:
        process.group_name = block.group.shown
    if block.real_user is not None:
        process.real_user = block.real_user.shown


def _failed_exec(event: Event) -> FailedExec:
    summary = event.auditd.summary if event.auditd else None
    path = event.file.path or event.file.name if event.file else ""
    if not path and summary is not None and summary.object is not None:
        path = summary.object.primary
    return FailedExec(event.timestamp, path, event.error.code if event.error else "")


def _activity(event: Event) -> Activity:
    """Return a short text about another event's object: the file, the address, the account."""
    file = event.file.path or event.file.name if event.file else ""
    there = event.destination or event.source
    address = (there.ip or there.address) if there else ""
    if there and address and there.port:
        address += f" port {there.port}"
    summary = event.auditd.summary if event.auditd else None
    about = summary.object.primary if summary and summary.object else ""
    head = event.event
    return Activity(event.timestamp, head.action, file or address or about, head.outcome)


def _joined(known: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*known, *more)))
