"""A process and its relatives as ECS ``process`` objects, in JSON.

The members that every reference to a process shares (parent, group leader, session leader, entry
leader and the process itself) are serialised once per state and reused as bytes: a shell that
starts a thousand programs is written a thousand times, and encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import orjson

from sessiond.audit.record import display
from sessiond.ecs.time import timestamp
from sessiond.process.events import Program
from sessiond.process.table import ITSELF, Process, Reference, Relative, State

# include/uapi/linux/tty.h and Documentation/admin-guide/devices.txt
TTY_MAJOR: Final = 4
CONSOLE_MAJOR: Final = 5
UNIX98_PTY_MAJORS: Final = range(136, 144)

UNSET_ID: Final = 4294967295


class Names(Protocol):
    """Who has a uid or gid: None where not (or not yet) known. Never blocks."""

    def user(self, uid: int) -> str | None:
        """The name of a user id."""

    def group(self, gid: int) -> str | None:
        """The name of a group id."""


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


def capability_names(bits: int) -> list[str]:
    """Name the capabilities in a set; one the table doesn't know is its number."""
    known = len(CAPABILITIES)
    return [
        CAPABILITIES[number] if number < known else str(number)
        for number in range(64)
        if bits >> number & 1
    ]


def tty_is_terminal(major: int, minor: int) -> bool:
    """Tell whether a controlling terminal is one a person sits at: pts, tty, serial or console."""
    return major in UNIX98_PTY_MAJORS or major == TTY_MAJOR or (major, minor) == (CONSOLE_MAJOR, 1)


class ProcessEncoder:
    """Makes the JSON of ``process`` objects.

    ``boot_time`` is the wall-clock time of boot in ns since the epoch, the same all through a boot;
    ``full`` names the relatives that are written in full (the others with their identity alone);
    ``redact`` rewrites an argument list before it is shown, where the user wants that.
    """

    def __init__(
        self,
        names: Names,
        boot_time: int,
        *,
        full: frozenset[str] = frozenset(
            ("parent", "group_leader", "session_leader", "entry_leader")
        ),
        redact: Callable[[list[str]], list[str]] | None = None,
    ) -> None:
        """Take what the documents depend on."""
        self._names = names
        self._boot_time = boot_time
        self._full = full
        self._redact = redact
        self._users: dict[tuple[int, str | None], dict[str, str]] = {}
        self._groups: dict[tuple[int, str | None], dict[str, str]] = {}

    def date(self, time: int) -> str:
        """Write a time in ns since boot as ECS has it."""
        return timestamp(self._boot_time + time)

    def user(self, uid: int) -> dict[str, str]:
        """Give ``{"id": ..., "name": ...}`` of a user; the name where it is known."""
        return _named(self._users, uid, self._names.user(uid))

    def group(self, gid: int) -> dict[str, str]:
        """Give ``{"id": ..., "name": ...}`` of a group; the name where it is known."""
        return _named(self._groups, gid, self._names.group(gid))

    def program(self, program: Program, own: dict[str, Any]) -> None:
        """Add what a program is: name, executable, args, args_count, command_line."""
        if program.executable is not None:
            executable = display(program.executable)
            own["name"] = executable.rpartition("/")[2] or executable
            own["executable"] = executable
        elif program.comm:
            own["name"] = display(program.comm)
        if program.args:
            own.update(self.arguments(program.args))

    def arguments(self, args: tuple[bytes, ...] | list[bytes]) -> dict[str, Any]:
        """Give ``args``, ``args_count`` and ``command_line`` of an argv."""
        shown = [display(argument) for argument in args]
        if self._redact is not None:
            shown = self._redact(shown)
        result: dict[str, Any] = {"args": shown, "args_count": len(shown)}
        # An argv of nothing but empty strings has a list, but no line to show.
        line = " ".join(shown)
        if line:
            result["command_line"] = line
        return result

    def fragment(self, process: Process, state: State) -> bytes:
        """The members that every reference to the process shares, as JSON without braces."""
        if state.fragment is None:
            state.fragment = orjson.dumps(self._shared(process, state))[1:-1]
        return state.fragment

    def _shared(self, process: Process, state: State) -> dict[str, Any]:
        facts = state.facts
        own: dict[str, Any] = {"entity_id": process.entity_id, "pid": process.pid}
        if facts.vpid is not None and facts.vpid not in (0, process.pid):
            own["vpid"] = facts.vpid
        own["start"] = self.date(process.start)
        self.program(state.program, own)
        if state.working_directory:
            own["working_directory"] = display(state.working_directory)
        major, minor = facts.tty_major, facts.tty_minor
        own["interactive"] = tty_is_terminal(major, minor)
        if major or minor:
            own["tty"] = {"char_device": {"major": major, "minor": minor}}
        own["user"] = self.user(facts.euid)
        own["group"] = self.group(facts.egid)
        own["real_user"] = self.user(facts.uid)
        own["real_group"] = self.group(facts.gid)
        return own

    def block(
        self,
        process: Process,
        state: State,
        *,
        time: int,
        ended: bool = False,
        more: Mapping[str, Any] | None = None,
        override: dict[str, Any] | None = None,
    ) -> bytes:
        """Give the whole ``process`` object of an event at ``time`` (ns since boot).

        ``ended`` adds the end and the exit code. ``more`` are members that the event adds;
        ``override`` are members that the event knows better than the table (an audit record's own
        argv), so the shared bytes are not used.
        """
        own = self._own(process, state, ended=ended)
        if more:
            own.update(more)
        if override:
            shared = orjson.dumps(self._shared(process, state) | override)[1:-1]
        else:
            shared = self.fragment(process, state)
        parts = [b"{", shared]
        if own:
            parts += b",", orjson.dumps(own)[1:-1]
        self._relatives(parts, process, state, time)
        parts.append(b"}")
        return b"".join(parts)

    def _own(self, process: Process, state: State, *, ended: bool) -> dict[str, Any]:
        """The members that only the process of an event has, not a reference to it."""
        facts = state.facts
        own: dict[str, Any] = {
            "saved_user": self.user(facts.suid),
            "saved_group": self.group(facts.sgid),
        }
        if process.groups:
            own["supplemental_groups"] = [self.group(gid) for gid in process.groups]
        capabilities = {
            name: capability_names(bits)
            for name, bits in (
                ("effective", facts.cap_effective),
                ("permitted", facts.cap_permitted),
            )
            if bits
        }
        if capabilities:
            own["thread"] = {"capabilities": capabilities}
        previous = [self._image(program) for program in state.previous]
        if any(previous):
            own["previous"] = [image for image in previous if image]
        if ended and process.end is not None:
            own["end"] = self.date(process.end)
            if process.status is not None:
                own["exit_code"] = exit_code(process.status)
        return own

    def _image(self, program: Program) -> dict[str, Any]:
        image: dict[str, Any] = {}
        self.program(program, image)
        image.pop("name", None)
        image.pop("command_line", None)
        return image

    # Relatives

    def _relatives(self, parts: list[bytes], process: Process, state: State, time: int) -> None:
        parent = process.creator
        if isinstance(parent, Process):
            parts += b',"parent":', self._parent(parent, time)
        elif parent is not None:
            parts += b',"parent":', self._identity(parent)
        for name, leader in (
            ("group_leader", state.group_leader),
            ("session_leader", state.session_leader),
            ("entry_leader", state.entry_leader),
        ):
            if leader is not None:
                parts += f',"{name}":'.encode(), self._leader(name, leader, process, state, time)

    def _identity(self, relative: Reference | Process) -> bytes:
        return orjson.dumps(
            {
                "entity_id": relative.entity_id,
                "pid": relative.pid,
                "start": self.date(relative.start),
            }
        )

    def _parent(self, parent: Process, time: int) -> bytes:
        if "parent" not in self._full:
            return self._identity(parent)
        state = parent.at(time)
        parts = [b"{", self.fragment(parent, state)]
        if parent.end is not None and parent.end <= time:
            end: dict[str, Any] = {"end": self.date(parent.end)}
            if parent.status is not None:
                end["exit_code"] = exit_code(parent.status)
            parts += b",", orjson.dumps(end)[1:-1]
        leader = parent if state.group_leader is ITSELF else state.group_leader
        if isinstance(leader, Process | Reference):
            parts += b',"group_leader":', self._identity(leader)
        parts.append(b"}")
        return b"".join(parts)

    def _leader(
        self, name: str, leader: Relative, process: Process, state: State, time: int
    ) -> bytes:
        same = leader is ITSELF
        if isinstance(leader, Reference) or (not same and name not in self._full):
            assert isinstance(leader, Process | Reference)  # noqa: S101 -- narrows the type
            return self._identity(leader)[:-1] + b',"same_as_process":false}'
        if isinstance(leader, Process):
            who, what = leader, leader.at(time)
        else:
            who, what = process, state
        parts = [
            b"{",
            self.fragment(who, what),
            b',"same_as_process":true' if same else b',"same_as_process":false',
        ]
        if name != "group_leader" and who.creator is not None:
            parts += b',"parent":', self._identity(who.creator)
        if name == "entry_leader" and who.entry_type is not None:
            meta: dict[str, Any] = {"type": who.entry_type}
            if who.entry_source is not None:
                meta["source"] = {"ip": who.entry_source}
            parts += b',"entry_meta":', orjson.dumps(meta)
        parts.append(b"}")
        return b"".join(parts)


def exit_code(status: int) -> int:
    """The code a shell would show for a wait(2) status: 128 + n when signal n ended it."""
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
