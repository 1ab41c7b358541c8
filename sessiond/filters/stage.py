"""The filter stage of the pipeline: filters are evaluated before a line is made, and on the line.

Lines of a process's life (fork, exec, setsid, end, already_running) follow the decision about the
process. Other lines follow the filters with conditions on the event. Pure: time is an argument, in
ns since boot.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from sessiond.audit.reassembler import ANOM_ABEND, AuditEvent
from sessiond.audit.record import CONFIG_CHANGE, LOGIN, NO_CALL, SYSCALL, decode
from sessiond.config.filters import FilterRule
from sessiond.ecs.process import ProcessEncoder, exit_code
from sessiond.filters.account import FilterAccount, Taken
from sessiond.filters.decide import (
    KEEP,
    CompiledRule,
    Decider,
    chose_login,
    gained,
    gained_by_exec,
)
from sessiond.filters.fold import Folds, Window
from sessiond.filters.pressure import UNDER_PRESSURE, Pressure
from sessiond.filters.saved import Kind, SavedFilters
from sessiond.process.table import ITSELF, Process, ProcessView, State, Verdict
from sessiond.process.user import user_of
from sessiond.text import display
from sessiond.units import SECOND

LIFE: Final = frozenset(("fork", "exec", "setsid", "end", "already_running"))
_PROCESS: Final = "process"  # what a kind of processes is a kind of
_INTRODUCTIONS: Final = frozenset(("fork", "exec", "already_running"))
# The kernel writes the key last: the whole record is not parsed for it.
_KEY: Final = re.compile(rb" key=([^ ]+)\s*\Z")
# Assumed length of a line before the first one.
_FIRST_SIZE: Final = 4096
_WINDOW: Final = 600 * SECOND
_SECCOMP: Final = 1326
# Any program can cause these records, without end, and no rule records them.
_AT_WILL: Final = {_SECCOMP: "seccomp", ANOM_ABEND: "abend"}
# The window of what is folded under pressure.
_PRESSURE_WINDOW: Final = 60 * SECOND


class DueReports(NamedTuple):
    """The reports that ``FilterStage.due`` returns."""

    taken: list[Taken]
    folds: list[tuple[Kind, Window]]


class FilterStage:
    """Decides which lines are written, and how; ``account`` counts the others.

    ``withheld_any`` says that a process was ever withheld. ``overdue`` are folded processes that
    outlive the window and must be introduced. ``renamed`` maps actions to the names in lines.
    """

    def __init__(
        self,
        rules: Sequence[FilterRule],
        encoder: ProcessEncoder,
        context: Callable[[bytes], Mapping[str, Any]],
        *,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """Take the filters; ``encoder`` and ``context`` are those of the lines."""
        self.account = FilterAccount()
        self.folds = Folds()
        self.pressure = Pressure()
        self.withheld_any = False
        self._context = context
        self._running: deque[tuple[int, Process]] = deque()
        self._size = _FIRST_SIZE
        self.use(rules, encoder, renamed=renamed)

    def use(
        self,
        rules: Sequence[FilterRule],
        encoder: ProcessEncoder,
        *,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """Use other filters; the decisions about processes stay."""
        self._decider = Decider(rules, encoder, self._context)
        self._renamed = renamed or {}

    def set_host_mounts(self, host_mounts: int | None) -> None:
        """Set the host's mount namespace."""
        self._decider.set_host_mounts(host_mounts)

    # Before a line is made

    def withholds(
        self,
        process: Process,
        state: State,
        cgroup: bytes | None,
        action: str,
        event: AuditEvent | None = None,
        *,
        cgroup_before: bytes | None = None,
    ) -> bool:
        """Return whether to withhold a line of a process's life; if so, count it.

        ``cgroup_before`` is the cgroup before an exec, None if it is unknown.
        """
        executed = action == "exec"
        verdict = process.verdict
        if verdict is None or executed:
            decided = self._decider.judge(
                process, state, cgroup, executed=executed, cgroup_before=cgroup_before
            )
            verdict = process.verdict = decided
        rules = self._of_action(action)
        if rules:
            found = self._decider.early(
                rules, process, state, cgroup, verdict, self._known(action, event)
            )
            if found is not None:
                if found.late or found.verdict.action != "drop":
                    return False  # decided later, on the line
                verdict = found.verdict
        if self.pressure.counts and self._presses(process, state, cgroup, action, verdict):
            verdict = process.verdict = UNDER_PRESSURE
        if not verdict.withholds:
            return False
        if verdict == UNDER_PRESSURE and action == "end" and process.introduced:
            return False  # a process with a written line also gets a written end
        self.account.seen += 1
        self.account.take(verdict, self._size)
        if action in _INTRODUCTIONS:
            process.withheld = self.withheld_any = True
            if verdict.action == "fold":
                self._running.append((state.time + self._length(verdict), process))
        return True

    def drops(
        self, event: AuditEvent, process: Process, state: State, cgroup: bytes | None
    ) -> bool:
        """Return whether to drop an audit event other than those of a life; if so, count it.

        Only filters on audit's keys decide before the line is made, others when it is.
        """
        decider = self._decider
        if not decider.by_key or _is_protected("", event):
            return False
        if process.verdict is None:
            process.verdict = decider.judge(process, state, cgroup, executed=False)
        keys = {"tags": _keys(event)}
        found = decider.dropped_early(process, state, cgroup, process.verdict, keys)
        if found is None:
            return False
        self.account.seen += 1
        self.account.take(found, self._size)
        return True

    def folds_event(
        self,
        event: AuditEvent,
        process: Process,
        state: State,
        cgroup: bytes | None,
        example: Callable[[], bytes],
    ) -> bool:
        """Return whether to fold an event other than those of a life under pressure.

        If so, count it; ``example`` returns the JSON of the process. Filters on events decide on
        the line, so with these none is folded here.
        """
        pressure = self.pressure
        what = _repeatable(event)
        if not pressure.counts or self._decider.of_events or what is None:
            return False
        if not pressure.offer(user_of(state.facts, cgroup)) or _is_kept(process.verdict or KEEP):
            return False
        kind = self._kind(UNDER_PRESSURE, what, process, state, "")
        if not pressure.repeats(kind):
            return False
        time = max(process.latest, state.time)
        window = self.folds.add(pressure.shown(kind), time, _PRESSURE_WINDOW)
        if window is None:
            return False
        _represent(window, process, event.serial, example)
        self.account.seen += 1
        self.account.take(UNDER_PRESSURE, self._size)
        return True

    def _presses(
        self, process: Process, state: State, cgroup: bytes | None, action: str, verdict: Verdict
    ) -> bool:
        """Count a line under pressure; return whether its process is folded from here on."""
        may_fold = self.pressure.offer(user_of(state.facts, cgroup))
        if not may_fold or verdict.withholds or _is_kept(verdict) or action == "already_running":
            return False
        if process.introduced and action != "exec":
            return False
        return self.pressure.repeats(self._kind(UNDER_PRESSURE, _PROCESS, process, state, ""))

    def _of_action(self, action: str) -> Sequence[CompiledRule]:
        """Return the filters on events that can match an action."""
        decider = self._decider
        return decider.of_action(action, self._renamed.get(action)) if decider.of_events else ()

    def _known(self, action: str, event: AuditEvent | None) -> Mapping[str, Sequence[object]]:
        names = (action, self._renamed[action]) if action in self._renamed else (action,)
        return {"event.action": names, "tags": [] if event is None else _keys(event)}

    def _length(self, verdict: Verdict) -> int:
        if verdict == UNDER_PRESSURE:
            return _PRESSURE_WINDOW
        compiled = self._decider.by_name.get(verdict.filter)
        return _WINDOW if compiled is None else int(compiled.rule.window * SECOND)

    def release(self, process: Process) -> None:
        """Write a process from now on, because its withheld introduction is being written."""
        verdict = process.verdict
        if verdict is not None and verdict.withholds:
            self.account.take(verdict, self._size, -1)
            self.account.seen -= 1
            process.verdict = KEEP
        process.withheld = False

    def filter_of(self, process: Process, state: State, cgroup: bytes | None) -> str:
        """Return the name of the filter whose conditions a process fulfils, "" for none."""
        return self._decider.first(process, state, cgroup).filter

    def has_gained(self, process: Process, before: bytes | None, after: bytes | None) -> bool:
        """Return whether a withheld process gained privileges by its last change.

        ``before`` and ``after`` are its cgroups.
        """
        verdict = process.verdict
        if verdict is None or not verdict.withholds or len(process.states) < 2:
            return False
        return gained(process.states[-2], process.states[-1], before, after)

    @staticmethod
    def executed(process: Process) -> None:
        """Note privileges that a process gains by an exec, before its further events."""
        states = process.states
        if len(states) > 1 and (
            gained_by_exec(states[-2], states[-1]) or chose_login(states[-2], states[-1])
        ):
            process.gained = True

    @staticmethod
    def changed(process: Process) -> None:
        """Note that a process gave itself a login user, before its further events."""
        states = process.states
        if len(states) > 1 and chose_login(states[-2], states[-1]):
            process.gained = True

    @staticmethod
    def forked(process: Process, creator: Process) -> None:
        """Hand down to a new process that its creator has gained privileges, also unseen so far."""
        if chose_login(creator.state, process.states[0]):
            creator.gained = True
        process.gained = creator.gained

    def fold_end(self, view: ProcessView, example: Callable[[], bytes]) -> tuple[Kind, bool] | None:
        """Count the end of a process that a filter folds.

        ``example`` returns the JSON of the process. Returns its kind, and whether the kind is new
        and so must be written at once; None for a process that is not folded.
        """
        process, state = view.process, view.state
        verdict = process.verdict
        if verdict is None or verdict.action != "fold":
            return None
        time = process.end or state.time
        code = "" if process.status is None else str(exit_code(process.status))
        kind = self._kind(verdict, _PROCESS, process, state, code)
        if verdict == UNDER_PRESSURE:
            kind = self.pressure.shown(kind)
        window = self.folds.add(kind, time, self._length(verdict))
        if window is not None:
            _represent(window, process, time, example)
        return kind, window is None

    @staticmethod
    def _kind(verdict: Verdict, what: str, process: Process, state: State, code: str) -> Kind:
        creator = process.creator
        parent = None
        if isinstance(creator, Process):
            parent = creator.at(process.start).program.executable
        elif process.lineage is not None:
            parent = process.lineage.ancestors[0].program.executable
        leader = process if state.entry_leader is ITSELF else state.entry_leader
        entry = None
        if isinstance(leader, Process):
            entry = leader.entry_type
        elif leader is not None and leader.entry is not None:
            entry = leader.entry.type
        executable = state.program.executable
        return Kind(verdict.filter, what, executable, parent, state.facts.euid, entry, code)

    # When it is made

    def line(
        self,
        line: bytes,
        action: str,
        view: ProcessView | None,
        event: AuditEvent | None,
    ) -> bytes | None:
        """Return the line as the filters change it, None if one withholds it."""
        self.account.seen += 1
        written = self._filtered(line, action, view, event)
        if written is not None:
            self.account.written += 1
            self._size += (len(written) - self._size) // 64
        return written

    def _filtered(
        self, line: bytes, action: str, view: ProcessView | None, event: AuditEvent | None
    ) -> bytes | None:
        process = None if view is None else view.process
        state = None if view is None else view.state
        cgroup = None if view is None else view.cgroup
        if process is not None and state is not None and process.verdict is None:
            process.verdict = self._decider.judge(process, state, cgroup, executed=False)
        verdict = None if process is None else process.verdict
        if (verdict is None or verdict.action != "mark") and not self._of_action(action):
            return line
        document: dict[str, Any] = orjson.loads(line)
        found = self._decider.late(
            document, process, state, cgroup, life=process is not None and action in LIFE
        )
        if found is None:
            return line
        if found.rule.action == "mark":
            self.account.mark(found.rule.name)
            return _marked(document, found.rule)
        named = action in found.actions or self._renamed.get(action) in found.actions
        if not found.rule.withholds or (_is_protected(action, event) and not named):
            return line
        if found.rule.action == "fold" and not self._folds(found, document, action, view):
            return line
        self.account.take(found.verdict, len(line))
        if process is not None and action in _INTRODUCTIONS:
            process.withheld = self.withheld_any = True
        return None

    def _folds(
        self,
        found: CompiledRule,
        document: dict[str, Any],
        action: str,
        view: ProcessView | None,
    ) -> bool:
        """Count a folded line; return False if its kind is new, so that it is written."""
        outcome = str(document["event"].get("outcome", ""))
        kind = Kind(found.rule.name, action, None, None, None, None, outcome)
        if view is not None:
            kind = self._kind(found.verdict, action, view.process, view.state, outcome)
        time = 0 if view is None else max(view.process.latest, view.state.time)
        window = self.folds.add(kind, time, int(found.rule.window * SECOND))
        if window is None:
            return False
        if window.example is None:
            window.example = orjson.dumps(document.get("process", {}))
            window.name = f"{document['event']['id']}-folded"
        return True

    # Regularly

    @property
    def deadline(self) -> int | None:
        """The time of the next ``due``."""
        times = (
            self.folds.deadline,
            self.account.deadline,
            self._running[0][0] if self._running else None,
        )
        return min((time for time in times if time is not None), default=None)

    def due(self, now: int, *, all_: bool = False) -> DueReports:
        """Return the reports due by ``now``; ``all_``: all of them."""
        return DueReports(self.account.due(now, all_=all_), self.folds.due(now, all_=all_))

    def overdue(self, now: int) -> list[Process]:
        """Return the folded processes that have outlived their window."""
        found = []
        while self._running and self._running[0][0] <= now:
            _, process = self._running.popleft()
            if process.end is None and process.withheld:
                found.append(process)
        return found

    def status(self) -> dict[str, Any]:
        """Return the counts for ``sessiond status``."""
        return self.account.status(
            {each.rule.name: each.rule.action for each in self._decider.rules}
        )

    def save(self) -> SavedFilters:
        """Return the state for a restart; the table has the decisions about processes."""
        return SavedFilters(*self.account.state(), self.folds.state())

    def restore(self, saved: SavedFilters, processes: Sequence[Process]) -> None:
        """Restore the state of ``save``."""
        self.account.restore(saved.since, saved.unreported)
        self.folds.restore(saved.folds)
        self.withheld_any = any(process.withheld for process in processes)
        waiting = [
            (process.state.time + self._length(process.verdict), process)
            for process in processes
            if process.withheld and process.end is None
            if process.verdict is not None and process.verdict.action == "fold"
        ]
        self._running.extend(sorted(waiting, key=lambda each: each[0]))


def _represent(window: Window, process: Process, number: int, example: Callable[[], bytes]) -> None:
    """Let the first event of a window stand for it; ``number`` makes the name unique."""
    if window.example is None:
        window.example = example()
        window.name = f"{process.entity_id}-folded-{number:x}"


def _is_kept(verdict: Verdict) -> bool:
    """Return whether a filter says explicitly that a process is written."""
    return verdict.action == "keep" and bool(verdict.filter)


def _keys(event: AuditEvent) -> Sequence[str]:
    """Return the keys of the audit rules that recorded an event."""
    for record in event.records:
        if record.type == SYSCALL:
            found = _KEY.search(record.text)
            return _key_texts(found[1]) if found is not None else ()
    return ()


@lru_cache(maxsize=256)
def _key_texts(key: bytes) -> tuple[str, ...]:
    return tuple([display(each) for each in (decode(key) or b"").split(b"\x01") if each])


def _repeatable(event: AuditEvent) -> str | None:
    """Return what is repeated if an event is folded under pressure, None if it never is."""
    if event.call is NO_CALL:
        return _AT_WILL.get(event.records[0].type) if event.records else None
    if _is_protected("", event):
        return None
    return f"{event.call.syscall.decode()} {event.call.success.decode()}"


def _is_protected(action: str, event: AuditEvent | None) -> bool:
    """Return whether an event can be dropped only by its action.

    This applies to everything but process lives and system calls: logins, accounts, audit's
    configuration, denials of security modules, and events about sessiond itself.
    """
    if action in LIFE:
        return False
    if event is None or not event.records:
        return True
    types = {record.type for record in event.records}
    return SYSCALL not in types or bool(types & {LOGIN, CONFIG_CHANGE})


def _marked(document: dict[str, Any], rule: FilterRule) -> bytes:
    """Add a filter's labels and tags to a line, and leave out what it omits."""
    if rule.labels:
        document["labels"] = document.get("labels", {}) | rule.labels
    if rule.tags:
        document["tags"] = list(dict.fromkeys((*document.get("tags", ()), *rule.tags)))
    for name in rule.omit:
        _remove(document, name.split("."))
    return orjson.dumps(document) + b"\n"


def _remove(document: Any, path: list[str]) -> None:  # noqa: ANN401 - JSON
    """Remove a member, and the objects that are empty without it."""
    if isinstance(document, list):
        for each in document:
            _remove(each, path)
    if not isinstance(document, dict) or path[0] not in document:
        return
    if len(path) == 1:
        del document[path[0]]
        return
    _remove(document[path[0]], path[1:])
    if document[path[0]] in ({}, []):
        del document[path[0]]
