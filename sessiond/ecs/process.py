"""A process and its relatives as ECS ``process`` objects, in JSON.

The members that every reference to a process shares (parent, group leader, session leader, entry
leader and the process itself) are serialised once per state and reused as bytes: a shell that
starts a thousand programs is written a thousand times, and encoded once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson

from sessiond.ecs.redaction import Redactor
from sessiond.ecs.wall_clock import WallClock
from sessiond.process.argv import is_cut, shortened_program, split_args
from sessiond.process.events import Facts, Program
from sessiond.process.table import ITSELF, Lineage, Process, Reference, Relative, State
from sessiond.text import display
from sessiond.units import UNSET_ID

# include/uapi/linux/tty.h and Documentation/admin-guide/devices.txt
TTY_MAJOR: Final = 4
CONSOLE_MAJOR: Final = 5
UNIX98_PTY_MAJORS: Final = range(136, 144)


# Bytes of a process's arguments in an inventory event.
MAX_BRIEF_ARGS: Final = 256
_MAX_REMEMBERED: Final = 1024
_MAX_FAMILIES: Final = 128
# Bytes of argv in a reference to a process (parent, leaders).
RELATIVE_ARGS: Final = 2048


class NameLookup(Protocol):
    """Names of users and groups: None if unknown, or before the answer. Never blocks."""

    def user(self, uid: int) -> str | None:
        """The name of a user id."""

    def group(self, gid: int) -> str | None:
        """The name of a group id."""

    def user_id(self, name: str) -> int | None:
        """The id of a user's name."""


# include/uapi/linux/capability.h, by number
CAPABILITIES: Final = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID "
    "CAP_SETUID CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST "
    "CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO "
    "CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE "
    "CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM "
    "CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
).split()


@lru_cache(maxsize=1024)
def capability_names(bits: int) -> list[str]:
    """Return the names of the capabilities in a set; an unknown one is its number."""
    known = len(CAPABILITIES)
    return [
        CAPABILITIES[number] if number < known else str(number)
        for number in range(64)
        if bits >> number & 1
    ]


def tty_is_terminal(major: int, minor: int) -> bool:
    """Return whether a controlling terminal is interactive: pts, tty, serial or console."""
    return major in UNIX98_PTY_MAJORS or major == TTY_MAJOR or (major, minor) == (CONSOLE_MAJOR, 1)


class ProcessEncoder:
    """Makes the JSON of ``process`` objects.

    ``clock`` converts times to dates; ``full`` names the relatives that are written in full (the
    others have only their identity); ``redact`` removes secrets from argument lists, if configured;
    ``identify`` makes the entity id of a pid and its start, which is 0 for a leader that ended
    unseen; ``ancestors`` is the maximum number of ancestors in a line.
    """

    def __init__(
        self,
        names: NameLookup,
        clock: WallClock,
        *,
        full: frozenset[str] = frozenset(
            ("parent", "group_leader", "session_leader", "entry_leader")
        ),
        redact: Redactor | None = None,
        ancestors: int = 0,
        identify: Callable[[int, int], str],
    ) -> None:
        """Take the options of the documents."""
        self._ancestors = ancestors
        self._identify = identify
        self._names = names
        self.clock = clock
        self._full = full
        self._redact = redact
        self._users: dict[tuple[int, str | None], dict[str, str]] = {}
        self._groups: dict[tuple[int, str | None], dict[str, str]] = {}
        self._terminals_and_users: dict[tuple[int, ...], bytes] = {}
        self._owns: dict[tuple[object, ...], bytes] = {}
        self._families: dict[tuple[object, ...], bytes] = {}
        self._unnamed = False  # a requested name is not known yet

    def forget_names(self) -> None:
        """Forget names, because an id has a new one. Encoded processes keep their names."""
        self._terminals_and_users.clear()
        self._owns.clear()

    def date(self, time: int) -> str:
        """Format a time in ns since boot as an ECS date."""
        return self.clock.date(time)

    def user(self, uid: int) -> dict[str, str]:
        """Return ``{"id": ..., "name": ...}`` of a user; the name if it is known.

        It is empty for UNSET_ID, which no process has: a record does not tell the user.
        """
        if uid == UNSET_ID:
            return {}
        name = self._names.user(uid)
        if name is None:
            self._unnamed = True
        return _named(self._users, uid, name)

    def group(self, gid: int) -> dict[str, str]:
        """Return ``{"id": ..., "name": ...}`` of a group, as ``user`` does."""
        if gid == UNSET_ID:
            return {}
        name = self._names.group(gid)
        if name is None:
            self._unnamed = True
        return _named(self._groups, gid, name)

    def program(self, program: Program, own: dict[str, Any]) -> None:
        """Add the members of a program: name, executable, args, args_count, command_line."""
        if program.executable is not None:
            executable = display(program.executable)
            own["name"] = executable.rpartition("/")[2] or display(program.comm) or executable
            own["executable"] = executable
        elif program.comm:
            own["name"] = display(program.comm)
        if program.args:
            args = split_args(program.args)
            own.update(self.arguments(args, cut=is_cut(program), number=program.args_count))

    def arguments(
        self,
        args: tuple[bytes, ...] | list[bytes],
        *,
        cut: bool = False,
        number: int | None = None,
    ) -> dict[str, Any]:
        """Return ``args``, ``args_count`` and ``command_line`` of an argv.

        ``cut`` says that ``args`` is only a part; the whole argv has ``number`` arguments, None if
        that is unknown.
        """
        shown = [display(argument) for argument in args]
        if self._redact is not None:
            shown = self._redact.arguments(shown, cut=cut)
        result: dict[str, Any] = {"args": shown}
        count = number if cut else len(shown)
        if count is not None:
            result["args_count"] = count
        # An argv of only empty strings has a list, but no command line.
        line = " ".join(shown)
        if line:
            result["command_line"] = line
        return result

    # Pieces that are encoded once per state. Each starts with a comma, so that any number of them
    # can be joined after the first member of the object.

    def _encoded(self, process: Process, state: State) -> _Encoded:
        cached = state.cached
        # Pieces of another encoder were made with other settings.
        if isinstance(cached, _Encoded) and cached.by is self:
            return cached
        self._unnamed = False
        brief = shortened_program(state.program, RELATIVE_ARGS)
        encoded = _Encoded(self, self._shared(process, state, brief))
        if not self._unnamed:
            # If a name is not known yet, it is encoded again next time.
            state.cached = encoded
        return encoded

    def _shared(self, process: Process, state: State, program: Program, **better: object) -> bytes:
        """Return the members of every reference to a process; ``better`` override the facts."""
        facts = state.facts
        own: dict[str, Any] = {}
        self.program(program, own)
        if state.working_directory:
            own["working_directory"] = display(state.working_directory)
        own.update(better)
        vpid = b""
        if facts.vpid is not None and facts.vpid not in (0, process.pid):
            vpid = b',"vpid":%d' % facts.vpid
        return b"%b%b,%b%b" % (
            self._identity(process),
            vpid,
            orjson.dumps(own)[1:-1] + b"," if own else b"",
            self._terminal_and_users(facts),
        )

    def _terminal_and_users(self, facts: Facts) -> bytes:
        major, minor = facts.tty_major, facts.tty_minor
        key = (major, minor, facts.euid, facts.egid, facts.uid, facts.gid)
        found = self._terminals_and_users.get(key)
        if found is None:
            own: dict[str, Any] = {"interactive": tty_is_terminal(major, minor)}
            if major or minor:
                own["tty"] = {"char_device": {"major": major, "minor": minor}}
            accounts = {
                "user": self.user(facts.euid),
                "group": self.group(facts.egid),
                "real_user": self.user(facts.uid),
                "real_group": self.group(facts.gid),
            }
            own |= {member: account for member, account in accounts.items() if account}
            found = orjson.dumps(own)[1:-1]
            if not self._unnamed:
                if len(self._terminals_and_users) >= _MAX_REMEMBERED:
                    self._terminals_and_users.clear()
                self._terminals_and_users[key] = found
        return found

    def block(
        self,
        process: Process,
        state: State,
        *,
        time: int,
        ended: bool = False,
        title: str | None = None,
        override: dict[str, Any] | None = None,
    ) -> bytes:
        """Return the whole ``process`` object of an event at ``time`` (ns since boot).

        ``ended`` adds the end and the exit code; ``title`` is that of the audit record;
        ``override`` are members that replace those of the table (such as the whole argv): the
        shared bytes are then not used.
        """
        encoded = self._encoded(process, state)
        shared = encoded.shared
        if override or len(state.program.args or b"") > RELATIVE_ARGS:
            shared = self._shared(process, state, state.program, **(override or {}))
        if encoded.own is None:
            encoded.own = self._remembered_own(state)
        parts = [b"{", shared, encoded.own]
        if ended and process.end is not None:
            parts.append(self._end(process))
        if title is not None:
            parts += b',"title":', orjson.dumps(title)
        parts += self._relatives(encoded, process, state, time), self._ancestry(process), b"}"
        return b"".join(parts)

    def ancestors(self, process: Process) -> orjson.Fragment | None:
        """Return the list of ``sessiond.ancestors``: executable and pid of each, nearest first.

        None if no ancestor is known, or none is to be written.
        """
        lineage = process.lineage
        if lineage is None or not self._ancestors:
            return None
        return self._encoded_lineage(lineage).listed

    def _ancestry(self, process: Process) -> bytes:
        lineage = process.lineage
        if lineage is None or not self._ancestors:
            return b""
        return self._encoded_lineage(lineage).ids

    def _encoded_lineage(self, lineage: Lineage) -> _EncodedLineage:
        cached = lineage.cached
        if isinstance(cached, _EncodedLineage) and cached.by is self:
            return cached
        nearest = lineage.ancestors[: self._ancestors]
        listed: list[dict[str, Any]] = []
        for ancestor in nearest:
            own: dict[str, Any] = {"pid": ancestor.pid}
            if ancestor.program.executable is not None:
                own["executable"] = display(ancestor.program.executable)
            listed.append(own)
        ids = orjson.dumps([ancestor.entity_id for ancestor in nearest])
        encoded = _EncodedLineage(self, b',"Ext":{"ancestry":%b}' % ids, orjson.dumps(listed))
        lineage.cached = encoded
        return encoded

    def brief(self, process: Process, state: State) -> bytes:
        """Return the ``process`` object of an inventory: relatives only by id, pid, start and name.

        It omits capabilities of root, real and saved ids that equal the effective ones, and
        arguments beyond MAX_BRIEF_ARGS bytes. The JSON is not cached.
        """
        facts = state.facts
        override: dict[str, Any] = {}
        if is_brief_cut(state.program):
            shown = split_args((state.program.args or b"")[:MAX_BRIEF_ARGS])
            override = self.arguments(shown, cut=True, number=state.program.argc)
        shared = self._shared(process, state, state.program, **override)
        if (facts.uid, facts.gid) == (facts.euid, facts.egid):
            # They are the last members, in the order of _terminal_and_users.
            shared = shared[: shared.rindex(b',"real_user":')]
        parts = [b"{", shared]
        own = self._own(state)
        if facts.euid == 0:
            own.pop("thread", None)
        if (facts.suid, facts.sgid) == (facts.euid, facts.egid):
            own.pop("saved_user", None)
            own.pop("saved_group", None)
        own.pop("previous", None)
        if own:
            parts.append(b"," + orjson.dumps(own)[1:-1])
        if process.creator is not None:
            parts.append(b',"parent":{%b}' % self._named_identity(process.creator))
        for name, leader, number in (
            ("group_leader", state.group_leader, state.facts.pgid),
            ("session_leader", state.session_leader, state.facts.sid),
            ("entry_leader", state.entry_leader, None),
        ):
            found = process if leader is ITSELF else leader
            if not isinstance(found, Process | Reference):
                if number:
                    parts += b',"%b":' % name.encode(), self._gone(number)
                continue
            same = b',"same_as_process":%b' % (b"true" if found is process else b"false")
            meta = self._entry_meta(found) if name == "entry_leader" else b""
            identity = self._named_identity(found)
            parts.append(b',"%b":{%b%b%b}' % (name.encode(), identity, same, meta))
        parts.append(b"}")
        return b"".join(parts)

    def _named_identity(self, relative: Process | Reference) -> bytes:
        own: dict[str, Any] = {}
        if isinstance(relative, Process):
            self.program(relative.state.program._replace(args=None), own)
        if "name" not in own:
            return self._identity(relative)
        return b'%b,"name":%b' % (self._identity(relative), orjson.dumps(own["name"]))

    def _remembered_own(self, state: State) -> bytes:
        # All children of a shell have the same ids, capabilities and earlier programs.
        facts = state.facts
        key = (
            facts.suid,
            facts.sgid,
            facts.cap_effective,
            facts.cap_permitted,
            state.groups,
            state.previous,
        )
        own = self._owns.get(key)
        if own is None:
            self._unnamed = False
            members = self._own(state)
            own = b"," + orjson.dumps(members)[1:-1] if members else b""
            if not self._unnamed:
                if len(self._owns) >= _MAX_REMEMBERED:
                    self._owns.clear()
                self._owns[key] = own
        return own

    def _own(self, state: State) -> dict[str, Any]:
        """Return the members that only the event's process has, not a reference."""
        facts = state.facts
        saved = {"saved_user": self.user(facts.suid), "saved_group": self.group(facts.sgid)}
        own: dict[str, Any] = {member: account for member, account in saved.items() if account}
        if state.groups:
            own["supplemental_groups"] = [self.group(gid) for gid in state.groups]
        sets: dict[str, Any] = {}
        if facts.cap_effective:
            sets["effective"] = capability_names(facts.cap_effective)
        if facts.cap_permitted:
            sets["permitted"] = capability_names(facts.cap_permitted)
        if sets:
            own["thread"] = {"capabilities": sets}
        previous = [image for program in state.previous if (image := self._image(program))]
        if previous:
            own["previous"] = previous
        return own

    def _image(self, program: Program) -> dict[str, Any]:
        image: dict[str, Any] = {}
        self.program(program, image)
        image.pop("name", None)
        image.pop("command_line", None)
        return image

    def _end(self, process: Process) -> bytes:
        end = f',"end":"{self.date(process.end or 0)}"'
        if process.status is not None:
            end += f',"exit_code":{exit_code(process.status)}'
        return end.encode()

    # Relatives

    def _relatives(self, encoded: _Encoded, process: Process, state: State, time: int) -> bytes:
        """Return the parent and the leaders, as they were at ``time``.

        They are the same for most events of a process, so the bytes are cached together with the
        data that they depend on.
        """
        creator = process.creator
        over = isinstance(creator, Process) and creator.end is not None and creator.end <= time
        parent_pid = _parent_pid(process)
        made_of = _made_of(creator, parent_pid, over, state, time)
        if encoded.made_of == made_of:
            return encoded.relatives
        # All children of a shell have the same relatives, unless they lead a group or session.
        relatives = self._families.get(made_of)
        if relatives is not None:
            encoded.made_of, encoded.relatives = made_of, relatives
            return relatives
        parts: list[bytes] = []
        if creator is not None:
            parts += b',"parent":', self._parent(creator, time)
        elif parent_pid:
            parts.append(b',"parent":{"pid":%d}' % parent_pid)
        for name, leader, number in (
            ("group_leader", state.group_leader, state.facts.pgid),
            ("session_leader", state.session_leader, state.facts.sid),
            ("entry_leader", state.entry_leader, None),
        ):
            if leader is not None:
                parts += b',"%b":' % name.encode(), self._leader(name, leader, process, state, time)
            elif number:
                parts += b',"%b":' % name.encode(), self._gone(number)
        relatives = b"".join(parts)
        made_of = _made_of(creator, parent_pid, over, state, time)  # all are encoded now
        if None not in made_of:
            encoded.made_of, encoded.relatives = made_of, relatives
            if ITSELF not in made_of:
                if len(self._families) >= _MAX_FAMILIES:
                    self._families.clear()
                self._families[made_of] = relatives
        return relatives

    def _gone(self, number: int) -> bytes:
        """Return a leader that ended unseen: only its pid is known, as the id of its group.

        The kernel does not reuse that pid while the group lives, and no process starts at 0: the
        entity id is the same in every event, and differs from that of any later process.
        """
        entity_id = self._identify(number, 0).encode()
        return b'{"entity_id":"%b","pid":%d,"same_as_process":false}' % (entity_id, number)

    def _identity(self, relative: Reference | Process) -> bytes:
        """Return the members that the tree of processes needs, without braces."""
        if isinstance(relative, Reference) and relative.gone:
            return b'"entity_id":"%b","pid":%d' % (relative.entity_id.encode(), relative.pid)
        # Neither string needs JSON escapes.
        return b'"entity_id":"%b","pid":%d,"start":"%b"' % (
            relative.entity_id.encode(),
            relative.pid,
            self.date(relative.start).encode(),
        )

    def _parent(self, parent: Process | Reference, time: int) -> bytes:
        if isinstance(parent, Reference) or "parent" not in self._full:
            return b"{%b}" % self._identity(parent)
        state = parent.at(time)
        parts = [b"{", self._encoded(parent, state).shared]
        if parent.end is not None and parent.end <= time:
            parts.append(self._end(parent))
        leader = parent if state.group_leader is ITSELF else state.group_leader
        if isinstance(leader, Process | Reference):
            parts.append(b',"group_leader":{%b}' % self._identity(leader))
        parts.append(b"}")
        return b"".join(parts)

    def _leader(
        self, name: str, leader: Relative, process: Process, state: State, time: int
    ) -> bytes:
        if leader is ITSELF:
            return self._as_leader(name, process, state, same=True)
        if isinstance(leader, Process) and name in self._full:
            what = leader.at(time)
            encoded = self._encoded(leader, what)
            found = encoded.as_leader.get(name)
            if found is None:
                found = encoded.as_leader[name] = self._as_leader(name, leader, what, same=False)
            return found
        assert isinstance(leader, Process | Reference)  # noqa: S101 -- narrows the type
        meta = self._entry_meta(leader) if name == "entry_leader" else b""
        return b'{%b,"same_as_process":false%b}' % (self._identity(leader), meta)

    def _as_leader(self, name: str, leader: Process, state: State, *, same: bool) -> bytes:
        parts = [
            b"{",
            self._encoded(leader, state).shared,
            b',"same_as_process":true' if same else b',"same_as_process":false',
        ]
        if name != "group_leader" and leader.creator is not None:
            parts.append(b',"parent":{%b}' % self._identity(leader.creator))
        if name == "entry_leader":
            parts.append(self._entry_meta(leader))
        parts.append(b"}")
        return b"".join(parts)

    def _entry_meta(self, leader: Process | Reference) -> bytes:
        """Return the ``entry_meta`` members of an entry leader, with a comma before them.

        For a leader that ended unseen they include the latest possible start: without a start,
        Session View opens no session.
        """
        start = b""
        if isinstance(leader, Process):
            kind, source = leader.entry_type, leader.entry_source
        elif leader.entry is not None:
            kind, source = leader.entry.type, leader.entry.source
            start = b',"start":"%b"' % self.date(leader.entry.start or 0).encode()
        else:
            return b""
        if kind is None:
            return b""
        meta: dict[str, Any] = {"type": kind}
        if source is not None:
            meta["source"] = {"ip": source}
        return b'%b,"entry_meta":%b' % (start, orjson.dumps(meta))


class _Encoded:
    """The JSON of one state, encoded piece by piece on demand."""

    __slots__ = ("as_leader", "by", "made_of", "own", "relatives", "shared")

    def __init__(self, by: ProcessEncoder, shared: bytes) -> None:
        """Take the encoder, and the members of every reference to the process."""
        self.by = by
        self.shared = shared
        self.own: bytes | None = None
        self.as_leader: dict[str, bytes] = {}
        self.made_of: tuple[object, ...] | None = None
        self.relatives = b""

    def __len__(self) -> int:
        """Return the size of the JSON in bytes, including shared pieces."""
        size = len(self.shared) + len(self.own or b"") + len(self.relatives)
        return size + sum([len(leader) for leader in self.as_leader.values()])


class _EncodedLineage:
    """The JSON of a lineage: ``process.Ext`` and the list of ``sessiond.ancestors``."""

    __slots__ = ("by", "ids", "listed")

    def __init__(self, by: ProcessEncoder, ids: bytes, listed: bytes) -> None:
        """Take the encoder and the pieces."""
        self.by = by
        self.ids = ids
        self.listed = orjson.Fragment(listed)


_NOBODY: Final = b""


def _parent_pid(process: Process) -> int | None:
    """Return the pid of a parent that is known only from a record of the process."""
    first = process.states[0].facts
    return first.ppid if process.creator is None and first.parent_start is None else None


def _made_of(
    creator: Process | Reference | None,
    parent_pid: int | None,
    over: bool,
    state: State,
    time: int,
) -> tuple[object, ...]:
    """Return the data that the JSON of the relatives at ``time`` depends on.

    ``over`` says that the creator has ended. A relative that is not encoded yet is None, an unknown
    leader is its pid.
    """
    return (
        _encoded_at(creator, time, parent_pid),
        over,
        _encoded_at(state.group_leader, time, state.facts.pgid),
        _encoded_at(state.session_leader, time, state.facts.sid),
        _encoded_at(state.entry_leader, time),
    )


def _encoded_at(relative: Relative, time: int, pid: int | None = None) -> object:
    if isinstance(relative, Process):
        return relative.at(time).cached
    return (pid or _NOBODY) if relative is None else relative


def is_brief_cut(program: Program) -> bool:
    """Return whether an inventory event cuts a program's arguments."""
    return len(program.args or b"") > MAX_BRIEF_ARGS


def exit_code(status: int) -> int:
    """Return a shell's exit code for a wait(2) status: 128 + n if signal n ended it."""
    signal = status & 0x7F
    return 128 + signal if signal else status >> 8 & 0xFF


def _named(
    cache: dict[tuple[int, str | None], dict[str, str]], number: int, name: str | None
) -> dict[str, str]:
    found = cache.get((number, name))
    if found is None:
        found = {"id": str(number)} if name is None else {"id": str(number), "name": name}
        if len(cache) > 65_536:
            cache.clear()
        cache[number, name] = found
    return found
