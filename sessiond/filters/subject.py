"""The values of a process's fields for conditions, from the table, without making a line.

They are the values that a line would have. For filters that remove lines, values that a user could
have forged do not count (``Trust``): a path counts only in the host's mount namespace, and for a
drop only for a file of root; an entry counts only if a program of root established it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from sessiond.config.conditions import Subject
from sessiond.ecs.process import ProcessEncoder, capability_names, tty_is_terminal
from sessiond.process.events import Facts, Program
from sessiond.process.table import ITSELF, Ancestor, Process, Reference, Relative, State
from sessiond.text import display
from sessiond.units import UNSET_ID

Values = Sequence[object]
_NONE: Final[Values] = ()


class Trust(IntEnum):
    """Which values of a field are trusted."""

    ANY = 0  # for filters that only add to lines
    HOST = 1  # paths in the host's mount namespace, entries established by root
    ROOT = 2  # and only files of root


class Surroundings:
    """Data besides the process that the values of fields depend on.

    ``encoder`` has the names of users; ``context`` returns the fields of a cgroup; ``host_mounts``
    is the host's mount namespace, None if unknown.
    """

    def __init__(
        self,
        encoder: ProcessEncoder,
        context: Callable[[bytes], Mapping[str, Any]],
        host_mounts: int | None,
    ) -> None:
        """Take the data."""
        self.encoder = encoder
        self.context = context
        self.host_mounts = host_mounts

    def trusts(self, program: Program, mounts: int | None, trust: Trust) -> bool:
        """Return whether a program's path counts; it was resolved in the namespace ``mounts``."""
        if trust is Trust.ANY:
            return True
        if self.host_mounts is not None and mounts != self.host_mounts:
            return False
        return trust is not Trust.ROOT or program.owner == 0

    def users(self, uid: int | None, member: str) -> Values:
        """Return the id or the name of a user."""
        if uid is None or uid == UNSET_ID:
            return _NONE
        return _member(self.encoder.user(uid), member)

    def groups(self, gid: int, member: str) -> Values:
        """Return the id or the name of a group."""
        return _member(self.encoder.group(gid), member)


def _member(named: Mapping[str, str], member: str) -> Values:
    value = named.get(member)
    return _NONE if value is None else (value,)


def _text(value: bytes | None) -> Values:
    return (display(value),) if value else _NONE


def _name_of(program: Program) -> Values:
    if program.executable is None:
        return _text(program.comm)
    executable = display(program.executable)
    return (executable.rpartition("/")[2] or display(program.comm) or executable,)


class AncestorSubject(Subject):
    """An ancestor, as it was when it forked the next process."""

    def __init__(self, ancestor: Ancestor, around: Surroundings, trust: Trust) -> None:
        """Take the ancestor; ``trust`` says which of its values count."""
        self._ancestor = ancestor
        self._around = around
        self._trust = trust

    def ancestors(self) -> Sequence[Subject]:
        """Return none: conditions select an ancestor from the process's own list."""
        return ()

    def values(self, name: str) -> Values:
        """Return the values of ``ancestor.NAME``."""
        name = name.removeprefix("ancestor.")
        each, around = self._ancestor, self._around
        if name in ("executable", "name"):
            if not around.trusts(each.program, each.mounts, self._trust):
                return _NONE
            return (
                _text(each.program.executable) if name == "executable" else _name_of(each.program)
            )
        if name == "pid":
            return (each.pid,)
        if name == "entity_id":
            return (each.entity_id,)
        if name == "start":
            return (around.encoder.date(each.start),)
        if name.startswith("user.audit."):
            return around.users(each.loginuid, name.removeprefix("user.audit."))
        if name.startswith("user."):
            return around.users(each.euid, name.removeprefix("user."))
        if name.startswith("real_user."):
            return around.users(each.uid, name.removeprefix("real_user."))
        return _arguments(each.program, name)


class ProcessSubject(Subject):
    """A process in one of its states; ``cgroup`` is its path, ``trust`` which values count."""

    def __init__(
        self,
        process: Process,
        state: State,
        cgroup: bytes | None,
        around: Surroundings,
        trust: Trust,
    ) -> None:
        """Take the process and its state."""
        self._process = process
        self._state = state
        self._cgroup = cgroup
        self._around = around
        self.trust = trust
        self._arguments: dict[str, Values] = {}

    def ancestors(self) -> Sequence[Subject]:
        """Return the ancestors, nearest first."""
        lineage = self._process.lineage
        if lineage is None:
            return ()
        return [AncestorSubject(each, self._around, self.trust) for each in lineage.ancestors]

    def values(self, name: str) -> Values:
        """Return the values of a field for which ``is_of_process`` is true."""
        state, around = self._state, self._around
        if name in ("process.args", "process.command_line"):
            # Several filters use them, and they are long.
            found = self._arguments.get(name)
            if found is None:
                member = name.removeprefix("process.")
                found = self._arguments[name] = _arguments(state.program, member)
            return found
        facts = state.facts
        if name.startswith("process."):
            return self._of_process(name.removeprefix("process."))
        if name.startswith("user.audit."):
            return around.users(facts.loginuid, name.removeprefix("user.audit."))
        if name.startswith("user."):
            return around.users(facts.uid, name.removeprefix("user."))
        if name == "auditd.session":
            session = facts.audit_session
            return _NONE if session in (None, UNSET_ID) else (str(session),)
        if name == "sessiond.mount_namespace":
            mounts = state.program.mount_namespace
            foreign = mounts is not None and mounts != around.host_mounts
            return (mounts,) if foreign else _NONE
        if self._cgroup is None:
            return _NONE
        return path_values(around.context(self._cgroup), name)

    def _of_process(self, name: str) -> Values:
        relative, _, member = name.partition(".")
        if relative == "parent":
            creator = self._process.creator
            if isinstance(creator, Process):
                return self._shared(creator, creator.at(self._process.start), member)
            return _identity(creator, member, self._around)
        if relative in ("group_leader", "session_leader", "entry_leader"):
            leaders = {
                "group_leader": self._state.group_leader,
                "session_leader": self._state.session_leader,
                "entry_leader": self._state.entry_leader,
            }
            return self._of_leader(leaders[relative], member)
        return self._own(name)

    def _of_leader(self, leader: Relative, member: str) -> Values:
        process = self._process if leader is ITSELF else leader
        if member == "same_as_process":
            return _NONE if leader is None else (process is self._process,)
        if process is None:
            return _NONE
        if isinstance(process, Reference):
            if process.entry is not None and member.startswith("entry_meta."):
                entry = process.entry
                return self._entry(member, entry.type, entry.source, entry.note)
            return _identity(process, member, self._around)
        if member.startswith("entry_meta."):
            return self._entry(member, process.entry_type, process.entry_source, process.entry_note)
        if member.startswith("parent."):
            return _identity(process.creator, member.removeprefix("parent."), self._around)
        state = self._state if process is self._process else process.state
        return self._shared(process, state, member)

    def _entry(self, member: str, kind: str | None, source: str | None, note: str | None) -> Values:
        if self.trust is not Trust.ANY and note is not None:
            return _NONE
        value = kind if member == "entry_meta.type" else source
        return _NONE if value is None else (value,)

    def _own(self, member: str) -> Values:
        """Return a member that only the event's process has, or one that relatives have too."""
        state, around = self._state, self._around
        facts = state.facts
        if member.startswith("saved_user."):
            return around.users(facts.suid, member.removeprefix("saved_user."))
        if member.startswith("saved_group."):
            return around.groups(facts.sgid, member.removeprefix("saved_group."))
        if member.startswith("supplemental_groups."):
            wanted = member.removeprefix("supplemental_groups.")
            return [value for gid in state.groups or () for value in around.groups(gid, wanted)]
        if member == "thread.capabilities.effective":
            return capability_names(facts.cap_effective or 0)
        if member == "thread.capabilities.permitted":
            return capability_names(facts.cap_permitted or 0)
        if member.startswith("previous."):
            wanted = member.removeprefix("previous.")
            found: list[object] = []
            for program in state.previous:
                if wanted == "executable":
                    found += _text(program.executable)
                else:
                    found += _arguments(program, wanted)
            return found
        return self._shared(self._process, state, member)

    def _shared(self, process: Process, state: State, member: str) -> Values:
        """Return a member that a process and its relatives have in a line."""
        program, facts, around = state.program, state.facts, self._around
        if member in ("executable", "name"):
            mounts = program.mount_namespace or facts.mount_namespace
            if not around.trusts(program, mounts, self.trust):
                return _NONE
            return _text(program.executable) if member == "executable" else _name_of(program)
        kind, _, wanted = member.partition(".")
        if wanted in ("id", "name"):
            return _of_ids(facts, kind, wanted, around)
        if member == "working_directory":
            return _text(state.working_directory)
        if member in ("args", "args_count", "command_line"):
            return _arguments(program, member)
        if member == "interactive":
            return (tty_is_terminal(facts.tty_major, facts.tty_minor),)
        if kind == "tty":
            known = bool(facts.tty_major or facts.tty_minor)
            value = facts.tty_major if member.endswith("major") else facts.tty_minor
            return (value,) if known else _NONE
        if member == "vpid":
            return _NONE if facts.vpid in (None, 0, process.pid) else (facts.vpid,)
        return _identity(process, member, around)


def _of_ids(facts: Facts, kind: str, wanted: str, around: Surroundings) -> Values:
    match kind:
        case "user":
            return around.users(facts.euid, wanted)
        case "real_user":
            return around.users(facts.uid, wanted)
        case "group":
            return around.groups(facts.egid, wanted)
        case "real_group":
            return around.groups(facts.gid, wanted)
    return _NONE


def _identity(process: Process | Reference | None, member: str, around: Surroundings) -> Values:
    if process is None:
        return _NONE
    match member:
        case "entity_id":
            return (process.entity_id,)
        case "pid":
            return (process.pid,)
        case "start" if process.start:
            return (around.encoder.date(process.start),)
    return _NONE


def _arguments(program: Program, member: str) -> Values:
    if not program.args:
        return _NONE
    argv = program.argv
    if member == "args_count":
        return (len(argv),)
    shown = [display(each) for each in argv]
    return shown if member == "args" else (" ".join(shown),)


def path_values(document: Any, name: str) -> Values:  # noqa: ANN401 - JSON
    """Return the values at a dotted path of a document; each member of a list counts."""
    found: list[Any] = [document]
    for step in name.split("."):
        below: list[Any] = []
        for each in found:
            if isinstance(each, Mapping):
                value = each.get(step)
                if isinstance(value, list):
                    below += value
                elif value is not None:
                    below.append(value)
        found = below
    return [each for each in found if not isinstance(each, Mapping)]


_OF_PROCESS: Final = ("systemd.", "container.", "orchestrator.", "user.audit.", "ancestor.")
# Fields that a process does not have before its end, or that only audit records contain.
_OF_EVENT: Final = ("process.title", "process.Ext.ancestry", "process.end", "process.exit_code")


def is_of_process(field: str) -> bool:
    """Return whether a field belongs to the process itself, independent of the event."""
    if field.startswith("process."):
        ends = field.endswith((".exit_code", ".end", ".group_leader.start"))
        return field not in _OF_EVENT and not ends and not field.startswith("process.parent.group")
    named = field in ("user.id", "user.name", "auditd.session", "sessiond.mount_namespace")
    return named or field.startswith(_OF_PROCESS)
