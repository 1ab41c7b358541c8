"""The process table as lines of JSON: rows, ``process`` objects, or the facts of one process.

Pure and lazy: each step of ``lines`` handles one process, so that the caller can pause in between.
A step without a line yields empty bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from sessiond.ecs.process import ProcessEncoder
from sessiond.process.table import ITSELF, Process, ProcessTable, Reference, Relative, State
from sessiond.text import display
from sessiond.units import UNSET_ID


class ListRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for processes, with the form of the answer.

    ``rows`` have the members of Row, ``objects`` are the ``process`` objects of events, ``facts``
    have the source of each fact. ``pid`` selects the process that has it or had it last, and its
    ancestors, whatever the other members say. ``session`` is the pid or entity id of a session
    leader; ``user`` the name or id of an effective or login user; ``entry`` a part of the entry
    (type, address, name, container). ``ended`` selects ended processes that others refer to,
    instead of the living ones.
    """

    form: Literal["rows", "objects", "facts"] = "rows"
    session: str | None = None
    user: str | None = None
    entry: str | None = None
    pid: int | None = None
    ended: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A process as ``sessiond ps`` shows it; dates as in events."""

    pid: int
    parent: int | None  # pid of the process that forked it
    ppid: int  # pid of its parent now, 0 for none
    session: int | None  # pid of the session leader
    user: str
    login: str | None
    entry: str | None
    start: str
    end: str | None
    command: str


class Fact(msgspec.Struct, frozen=True, array_like=True):
    """One line of ``sessiond ps --pid``: a fact and its source."""

    name: str
    value: str
    source: str


class FactList(msgspec.Struct, frozen=True, kw_only=True):
    """A process or ancestor with its facts; ``ended`` says that it has ended."""

    pid: int
    ended: bool
    facts: list[Fact]


class End(msgspec.Struct, frozen=True):
    """The last line of an answer; an answer without it is incomplete."""

    end: int  # lines before this one


class ProcessList:
    """Lists the processes of a table.

    ``source`` is the name of the process source; ``context`` returns the ECS fields for a cgroup's
    path.
    """

    def __init__(
        self,
        table: ProcessTable,
        encoder: ProcessEncoder,
        source: str,
        context: Callable[[bytes], Mapping[str, Any]],
    ) -> None:
        """Take the table; ``lines`` reads it."""
        self._table = table
        self._encoder = encoder
        self._source = source
        self._context = context

    def lines(self, request: ListRequest, time: int) -> Iterator[bytes]:
        """Yield the lines that answer a request at ``time`` (ns since boot), then an End."""
        make: dict[str, Callable[[Process], bytes]] = {
            "rows": self._row,
            "objects": lambda process: self._object(process, time),
            "facts": self._facts,
        }
        count = 0
        chosen = self._all(request) if request.pid is None else self._family(request.pid)
        for process in chosen:
            if process is None or (request.pid is None and not self._fits(process, request)):
                yield b""
                continue
            count += 1
            yield make[request.form](process) + b"\n"
        yield msgspec.json.encode(End(count)) + b"\n"

    # Selection

    def _all(self, request: ListRequest) -> Iterator[Process | None]:
        if request.ended:
            yield from self._kept()
            return
        for process in list(self._table):
            yield process if process.end is None else None

    def _kept(self) -> Iterator[Process | None]:
        """Yield the ended processes in the table: those found by pid, and relatives of others."""
        seen: set[int] = set()
        for process in list(self._table):
            yield None
            waiting: list[Relative] = [process, process.predecessor]
            while waiting:
                relative = waiting.pop()
                if not isinstance(relative, Process) or id(relative) in seen:
                    continue
                seen.add(id(relative))
                if relative.end is not None:
                    yield relative
                waiting.append(relative.creator)
                for state in relative.states:
                    waiting += state.group_leader, state.session_leader, state.entry_leader

    def _family(self, pid: int) -> Iterator[Process | None]:
        """Yield the process that has the pid, or had it last, and its ancestors."""
        process = self._table.get(pid)
        if process is None:
            for kept in self._kept():
                if kept is not None and kept.pid == pid:
                    process = kept
                    break
                yield None
        while process is not None:
            yield process
            process = self._whole(process.creator)

    def _whole(self, relative: Process | Reference | None) -> Process | None:
        """Return the process of a reference, if the table has it."""
        if not isinstance(relative, Reference):
            return relative
        holders = self._table.holders(relative.pid)
        return next((holder for holder in holders if holder.start == relative.start), None)

    def _fits(self, process: Process, request: ListRequest) -> bool:
        state = process.state
        if request.session is not None:
            leader = process if state.session_leader is ITSELF else state.session_leader
            if not isinstance(leader, Process | Reference):
                return request.session == str(state.facts.sid)
            if request.session not in (str(leader.pid), leader.entity_id):
                return False
        if request.user is not None and request.user not in self._users(state):
            return False
        if request.entry is None:
            return True
        entry = self._entry(process, state) or ""
        if request.entry == entry or request.entry in entry.split():
            return True
        # A container matches by its whole id, or by any prefix that container engines accept.
        shown = entry.rpartition(" ")[2]
        return entry.startswith("container ") and request.entry.startswith(shown)

    def _users(self, state: State) -> set[str]:
        names = {*self._encoder.user(state.facts.euid).values()}
        if state.facts.loginuid not in (None, UNSET_ID):
            assert state.facts.loginuid is not None  # noqa: S101 -- narrows the type
            names.update(self._encoder.user(state.facts.loginuid).values())
        return names

    # Rows and objects

    def _row(self, process: Process) -> bytes:
        state = process.state
        facts = state.facts
        leader = process if state.session_leader is ITSELF else state.session_leader
        return msgspec.json.encode(
            Row(
                pid=process.pid,
                parent=process.creator.pid if process.creator is not None else None,
                ppid=facts.ppid,
                session=leader.pid if leader is not None else facts.sid or None,
                user=self._user(facts.euid),
                login=self._login(state),
                entry=self._entry(process, state),
                start=self._encoder.date(process.start),
                end=self._encoder.date(process.end) if process.end is not None else None,
                command=self._command(state),
            )
        )

    def _object(self, process: Process, time: int) -> bytes:
        """Return the ``process`` object of an event at ``time``; the JSON is not cached."""
        at = time if process.end is None else process.end
        state = process.at(at)
        relatives = (
            process.creator,
            state.group_leader,
            state.session_leader,
            state.entry_leader,
        )
        states = [
            state,
            *(relative.at(at) for relative in relatives if isinstance(relative, Process)),
        ]
        cached = [shown.cached for shown in states]
        block = self._encoder.block(process, state, time=at, ended=process.end is not None)
        # Caching would keep the JSON of all processes in memory.
        for shown, before in zip(states, cached, strict=True):
            shown.cached = before
        return block

    def _user(self, uid: int) -> str:
        found = self._encoder.user(uid)
        return found.get("name", found["id"])

    def _login(self, state: State) -> str | None:
        loginuid = state.facts.loginuid
        return None if loginuid is None or loginuid == UNSET_ID else self._user(loginuid)

    def _command(self, state: State) -> str:
        program = state.program
        if program.args:
            line = self._encoder.arguments(program.argv, cut=program.args_cut).get("command_line")
            if line is not None:
                return str(line)
        if program.executable is not None:
            return display(program.executable)
        name = display(program.comm) or "?"
        return f"[{name}]" if state.facts.kernel_thread else name

    def _entry(self, process: Process, state: State) -> str | None:
        """Return the entry: its type, and the address, container, terminal or program."""
        leader = process if state.entry_leader is ITSELF else state.entry_leader
        if isinstance(leader, Reference) and leader.entry is not None:
            return f"{leader.entry.type} {leader.entry.source or leader.pid}"
        if not isinstance(leader, Process):
            return None
        kind = leader.entry_type or "unknown"
        if leader.entry_source is not None:
            return f"{kind} {leader.entry_source}"
        own = leader.state
        cgroup = self._table.cgroup_of(leader, own)
        if kind == "container" and cgroup is not None:
            found = self._context(cgroup).get("container", {})
            if "id" in found:
                return f"{kind} {found['id'][:12]}"
        if kind in ("terminal", "console"):
            return f"{kind} {own.facts.tty_major}:{own.facts.tty_minor}"
        return f"{kind} {_name(own)}"

    # Facts

    def _facts(self, process: Process) -> bytes:
        state = process.state
        facts = [fact for fact in self._process_facts(process, state) if fact.value]
        ended = process.end is not None
        return msgspec.json.encode(FactList(pid=process.pid, ended=ended, facts=facts))

    def _process_facts(self, process: Process, state: State) -> Iterator[Fact]:
        own, date = state.facts, self._encoder.date
        read = None
        if state.observed is not None:
            read = f"/proc, read {date(state.observed)}"
        elif process.creator is None or process.creator_observed:
            read = "/proc, when it was first seen"
        ids = self._source if read is None else read
        yield Fact("pid", str(process.pid), "the kernel")
        yield Fact("entity id", process.entity_id, "made of machine, boot, pid and start")
        yield Fact(
            "start", date(process.start), self._source if process.exact else "/proc, to 10 ms"
        )
        if process.end is not None:
            seen = process.status is not None
            yield Fact("end", date(process.end), self._source if seen else "presumed: it is gone")
        program = self._source_of_program(process, state, read)
        yield Fact("executable", display(state.program.executable or b""), program)
        yield Fact("command", self._command(state), program)
        yield Fact("directory", display(state.working_directory or b""), program)
        yield Fact("user", self._user(own.euid), ids)
        yield Fact("login user", self._login(state) or "", ids)
        terminal = f"{own.tty_major}:{own.tty_minor}" if own.tty_major or own.tty_minor else ""
        yield Fact("terminal", terminal, ids)
        creator = process.creator
        yield Fact(
            "forked by",
            str(creator.pid) if creator is not None else "",
            _words(process.creator_note)
            or ("its parent in /proc" if process.creator_observed else self._source),
        )
        if own.ppid and (creator is None or own.ppid != creator.pid):
            yield Fact("parent now", str(own.ppid), ids)
        yield self._leader("group leader", process, state.group_leader, own.pgid, ids)
        inferred = "inferred: its parent's" if state.session_inferred else ids
        yield self._leader("session leader", process, state.session_leader, own.sid, inferred)
        entry = process if state.entry_leader is ITSELF else state.entry_leader
        yield self._leader("entry leader", process, state.entry_leader, None, "the entry rules")
        if isinstance(entry, Process):
            origin = _words(entry.entry_inferred) or "the entry rules"
            if entry.entry_note is not None:
                origin += f"; {entry.entry_note}"
            elif entry.entry_source is not None and entry.entry_inferred is None:
                origin += ", address from the server's connection"
            yield Fact("entry", self._entry(process, state) or "", origin)
        elif entry is not None and entry.entry is not None:
            origin = _words(entry.entry.inferred) or "the entry rules"
            if entry.entry.note is not None:
                origin += f"; {entry.entry.note}"
            yield Fact("entry", self._entry(process, state) or "", origin)
        cgroup = self._table.cgroup_of(process, state)
        if cgroup is not None:
            yield Fact("cgroup", display(cgroup), ids)
            found = self._context(cgroup).get("container", {})
            yield Fact("container", found.get("id", ""), "the path of the cgroup")

    def _source_of_program(self, process: Process, state: State, read: str | None) -> str:
        if state.program_unknown:
            return "doubtful: an exec may have been lost"
        executed = [state for state in process.states if state.executed]
        if executed:
            return f"{self._source}, exec {self._encoder.date(executed[-1].time)}"
        return read or f"{self._source}, fork: that of its parent"

    @staticmethod
    def _leader(
        name: str, process: Process, leader: Relative, pid: int | None, source: str
    ) -> Fact:
        found = process if leader is ITSELF else leader
        if isinstance(found, Process):
            ended = " (ended)" if found.end is not None else ""
            return Fact(name, f"{found.pid} {_name(found.state)}{ended}", source)
        if isinstance(found, Reference):
            return Fact(name, f"{found.pid} (ended)", source)
        return Fact(name, f"{pid} (not known)" if pid else "", source)


def _words(note: str | None) -> str:
    """Return the text of a note of ``sessiond.incomplete`` without its field."""
    return note.partition(": ")[2] if note is not None else ""


def _name(state: State) -> str:
    """Return the name of a program as in ``process.name``."""
    executable = display(state.program.executable or b"")
    return executable.rpartition("/")[2] or display(state.program.comm) or "?"
