"""Evaluates filters for processes and lines: the first filter whose conditions hold decides.

A process is evaluated when it executes a program; the decision holds for the lines of its life
until it executes another. Conditions on values that many processes share (program, users, unit,
ancestors) are evaluated once per combination; only the other conditions are evaluated for each
process. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sessiond.config.conditions import All, Condition, Leaf, Subject
from sessiond.config.filters import FilterRule
from sessiond.ecs.process import ProcessEncoder
from sessiond.filters.subject import (
    ProcessSubject,
    Surroundings,
    Trust,
    is_of_process,
    path_values,
)
from sessiond.process import container, systemd_unit
from sessiond.process.table import ITSELF, Ancestor, Lineage, Process, State, Verdict
from sessiond.text import display

KEEP: Final = Verdict("", "keep")

_MAX_REMEMBERED: Final = 4096
# include/uapi/linux/capability.h
_CAP_SETUID: Final = 1 << 7
_CAP_SETGID: Final = 1 << 6
_KNOWN_EARLY: Final = ("event.action", "tags")

# Values that many processes share, by the fields that have them.
_SHARED: Final[Mapping[str, tuple[str, ...]]] = {
    "program": ("process.executable", "process.name"),
    "users": (
        "process.user.", "process.real_user.", "process.saved_user.", "user.",
        "process.group.", "process.real_group.", "process.saved_group.",
    ),
    "cgroup": ("systemd.", "container.", "orchestrator."),
    "entry": ("process.entry_leader.entry_meta.",),
    "descent": ("ancestor.executable", "ancestor.name", "ancestor.user.", "ancestor.real_user."),
}  # fmt: skip


def _shared_by(field: str) -> str | None:
    if not is_of_process(field):
        return None
    return next((part for part, names in _SHARED.items() if field.startswith(names)), None)


class CompiledRule:
    """A filter, split into the parts that are evaluated separately.

    ``common`` are the conditions on shared values, ``own`` the other ones; None if there are none.
    ``of_event`` says that it uses fields that a process as such does not have, ``late`` that it
    uses fields of the finished line. ``actions`` are those that it names. The arguments of each
    matching process contain one of ``needles``; () if there are no such texts.
    """

    __slots__ = (
        "actions", "common", "late", "needles", "of_event", "own", "parts", "rule", "trust",
        "verdict",
    )  # fmt: skip

    def __init__(self, rule: FilterRule) -> None:
        """Split the conditions."""
        self.rule = rule
        self.verdict = Verdict(rule.name, rule.action)
        self.trust = {"keep": Trust.ANY, "mark": Trust.HOST, "fold": Trust.HOST}.get(
            rule.action, Trust.ROOT
        )
        whole = rule.when.parts if isinstance(rule.when, All) else (rule.when,)
        common: list[Condition] = []
        own: list[Condition] = []
        self.parts: set[str] = set()
        for part in whole:
            shared = [_shared_by(leaf.name) for leaf in part.leaves()]
            if all(shared):
                common.append(part)
                self.parts.update(filter(None, shared))
            else:
                own.append(part)
        self.common = All(tuple(common))
        self.own = All(tuple(own)) if own else None
        self.needles = next(filter(None, map(_needles, own)), ())
        fields = [leaf.name for leaf in rule.when.leaves()]
        others = [field for field in fields if not is_of_process(field)]
        self.of_event = bool(others)
        self.late = any(field not in _KNOWN_EARLY for field in others)
        self.actions = frozenset(
            str(test.wanted)
            for part in whole
            if isinstance(part, Leaf) and part.name == "event.action"
            for test in part.tests
            if test.kind == "equal"
        )


def _needles(condition: Condition) -> tuple[str, ...]:
    """Return texts, one of which the arguments contain if a condition holds; () for none."""
    if not isinstance(condition, Leaf) or condition.name != "process.args":
        return ()
    found: list[str] = []
    for test in condition.tests:
        text = str(test.wanted)
        if test.kind == "glob" and len(text) > 2 and text[0] == text[-1] == "*":
            text = text[1:-1]
        elif test.kind != "equal":
            return ()
        if set(text) & set("*?["):
            return ()
        found.append(text)
    return tuple(found)


def _has_any(text: str, needles: tuple[str, ...]) -> bool:
    for needle in needles:  # noqa: SIM110 -- a generator costs as much as the loop
        if needle in text:
            return True
    return False


class _EventSubject(Subject):
    """A line before it is made: the known fields of the event, and the process."""

    def __init__(self, of_process: Subject, known: Mapping[str, Sequence[object]]) -> None:
        self._of_process = of_process
        self._known = known

    def values(self, name: str) -> Sequence[object]:
        """Return the event's values, or the process's."""
        found = self._known.get(name)
        return self._of_process.values(name) if found is None else found

    def ancestors(self) -> Sequence[Subject]:
        """Return the process's ancestors."""
        return self._of_process.ancestors()


class DocumentSubject(Subject):
    """A finished line, with its process if it is in the table."""

    def __init__(self, document: Mapping[str, Any], of_process: Subject | None) -> None:
        """Take the document; fields of the process itself come from ``of_process``."""
        self._document = document
        self._of_process = of_process

    def values(self, name: str) -> Sequence[object]:
        """Return the values of a field."""
        if self._of_process is not None and is_of_process(name):
            return self._of_process.values(name)
        return path_values(self._document, name)

    def ancestors(self) -> Sequence[Subject]:
        """Return the process's ancestors, none if it is unknown."""
        return () if self._of_process is None else self._of_process.ancestors()


class Decider:
    """Evaluates the filters in order.

    ``encoder`` and ``context`` are those of the lines.
    """

    def __init__(
        self,
        rules: Sequence[FilterRule],
        encoder: ProcessEncoder,
        context: Callable[[bytes], Mapping[str, Any]],
    ) -> None:
        """Compile the filters."""
        self.rules = [CompiledRule(rule) for rule in rules]
        self.by_name = {each.rule.name: each for each in self.rules}
        self._order = {each.rule.name: number for number, each in enumerate(self.rules)}
        self.of_events = [each for each in self.rules if each.of_event]
        self._around = Surroundings(encoder, context, None)
        parts: set[str] = set()
        for each in self.rules:
            parts |= each.parts
        self._program = "program" in parts
        self._users = "users" in parts
        self._cgroup = "cgroup" in parts
        self._entry = "entry" in parts
        self._descent = "descent" in parts
        self._remembered: dict[tuple[object, ...], tuple[CompiledRule, ...]] = {}
        self._lines: dict[Lineage, tuple[object, ...]] = {}

    def look_from(self, host_mounts: int | None) -> None:
        """Set the mount namespace of the host, which may become known late."""
        if host_mounts != self._around.host_mounts:
            self._around.host_mounts = host_mounts
            self._remembered.clear()

    def encode_with(self, encoder: ProcessEncoder) -> None:
        """Use another encoder for names."""
        self._around.encoder = encoder
        self._remembered.clear()

    # Processes

    def judge(
        self, process: Process, state: State, cgroup: bytes | None, *, executed: bool
    ) -> Verdict:
        """Decide about a process in a state; ``executed``: the state follows an exec."""
        earlier = process.verdict
        verdict = self._verdict(process, state, cgroup)
        if not verdict.withholds:
            return verdict
        if process.gained:
            return KEEP
        if not executed:
            # A process with a written line also gets a written end.
            return KEEP if process.introduced else verdict
        index = process.states.index(state)
        if index > 0:
            before = process.states[index - 1]
            of_others = verdict.action == "drop" and _gained_file(before, state)
            dropped = earlier is not None and earlier.withholds
            if of_others or (dropped and _gained_login(before, state)):
                process.gained = True
                return KEEP
        return verdict

    def _verdict(self, process: Process, state: State, cgroup: bytes | None) -> Verdict:
        subject: ProcessSubject | None = None
        arguments: str | None = None
        for each in self._candidates(process, state, cgroup):
            if each.of_event:
                continue
            if each.own is None:
                return each.verdict
            if each.needles:
                if arguments is None:
                    arguments = display(state.program.args or b"")
                if not _has_any(arguments, each.needles):
                    continue
            if subject is None:
                subject = ProcessSubject(process, state, cgroup, self._around, each.trust)
            subject.trust = each.trust
            if each.own.holds(subject):
                return each.verdict
        return KEEP

    def _candidates(
        self, process: Process, state: State, cgroup: bytes | None
    ) -> tuple[CompiledRule, ...]:
        """Return the filters that can match, according to their conditions on shared values."""
        key = self._key(process, state, cgroup)
        found = self._remembered.get(key)
        if found is None:
            found = tuple(
                [
                    each
                    for each in self.rules
                    if each.common.holds(
                        ProcessSubject(process, state, cgroup, self._around, each.trust)
                    )
                ]
            )
            if not self._users or self._named(state):
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[key] = found
        return found

    def _key(self, process: Process, state: State, cgroup: bytes | None) -> tuple[object, ...]:
        key: list[object] = []
        facts = state.facts
        if self._program:
            program = state.program
            mounts = program.mount_namespace or facts.mount_namespace
            key += program.executable, program.comm, program.owner, mounts
        if self._users:
            key += facts.uid, facts.euid, facts.suid, facts.loginuid
            key += facts.gid, facts.egid, facts.sgid
        if self._cgroup:
            key.append(cgroup)
        if self._entry:
            leader = process if state.entry_leader is ITSELF else state.entry_leader
            if isinstance(leader, Process):
                key += leader.entry_type, leader.entry_source, leader.entry_note
            else:
                key.append(leader.entry if leader is not None else None)
        if self._descent:
            key.append(self._line_of(process.lineage))
        return tuple(key)

    def _line_of(self, lineage: Lineage | None) -> tuple[object, ...]:
        """Return the values that conditions on ancestors depend on."""
        if lineage is None:
            return ()
        found = self._lines.get(lineage)
        if found is None:
            found = tuple([_of_ancestor(each) for each in lineage.ancestors])
            if len(self._lines) >= _MAX_REMEMBERED:
                self._lines.clear()
            self._lines[lineage] = found
        return found

    def _named(self, state: State) -> bool:
        """Return whether its users' names are known: without them the result is not cached."""
        facts, user = state.facts, self._around.encoder.user
        return all("name" in user(uid) for uid in {facts.uid, facts.euid, facts.suid})

    # Events

    def early(
        self,
        process: Process,
        state: State,
        cgroup: bytes | None,
        verdict: Verdict,
        known: Mapping[str, Sequence[object]],
    ) -> CompiledRule | None:
        """Return the event filter that takes precedence over the process's own for a line.

        ``known`` are the fields of the event that are known before the line is made. A filter that
        needs the finished line is returned if its other conditions hold: ``late`` then decides.
        """
        end = self._order.get(verdict.filter, len(self.rules))
        for each in self.of_events:
            if self._order[each.rule.name] > end:
                return None
            subject = ProcessSubject(process, state, cgroup, self._around, each.trust)
            if each.late or each.rule.when.holds(_EventSubject(subject, known)):
                return each
        return None

    def late(
        self,
        document: Mapping[str, Any],
        process: Process | None,
        state: State | None,
        cgroup: bytes | None,
        *,
        life: bool,
    ) -> CompiledRule | None:
        """Return the filter that decides about a line, including the process's own filter.

        ``life`` says that the line is part of the process's life: other lines are not withheld
        because of the process alone.
        """
        verdict = None if process is None else process.verdict
        for each in self.rules:
            if not each.of_event:
                of_process = verdict is not None and verdict.filter == each.rule.name
                if of_process and (life or not each.rule.withholds):
                    return each
                continue
            subject = None
            if process is not None and state is not None:
                subject = ProcessSubject(process, state, cgroup, self._around, each.trust)
            if each.rule.when.holds(DocumentSubject(document, subject)):
                return each
        return None


def _of_ancestor(each: Ancestor) -> tuple[object, ...]:
    program = each.program
    file = program.comm, program.executable, program.owner, each.mounts
    return *file, each.uid, each.euid, each.loginuid


def _gained_file(before: State, after: State) -> bool:
    """Return whether a process executes a file of another user, after one of root."""
    return after.program.owner not in (None, 0) and before.program.owner in (None, 0)


def gained_by_exec(before: State, after: State) -> bool:
    """Return whether a change of state gave a process other ids or capabilities.

    A set-user-id or set-group-id file does; a process that may take any id gains nothing.
    """
    old, new = before.facts, after.facts
    same = old.euid == new.euid and old.suid == new.suid and old.egid == new.egid
    if same and old.cap_permitted == new.cap_permitted:
        return False
    held = {old.uid, old.euid, old.suid}
    may_change = 0 in held or (old.cap_permitted or 0) & (_CAP_SETUID | _CAP_SETGID)
    if not may_change:
        if not {new.uid, new.euid, new.suid} <= held:
            return True
        if not {new.gid, new.egid, new.sgid} <= {old.gid, old.egid, old.sgid}:
            return True
    if old.user_namespace != new.user_namespace or 0 in held:
        return False
    return bool((new.cap_permitted or 0) & ~(old.cap_permitted or 0))


def _gained_login(before: State, after: State) -> bool:
    return before.facts.loginuid != after.facts.loginuid


def gained(
    before: State, after: State, cgroup_before: bytes | None, cgroup_after: bytes | None
) -> bool:
    """Return whether a dropped process has gained privileges from one state to the next."""
    if gained_by_exec(before, after) or _gained_login(before, after):
        return True
    return cgroup_before != cgroup_after and _place(cgroup_before) != _place(cgroup_after)


def _place(cgroup: bytes | None) -> tuple[object, object]:
    """Return the unit and the container of a cgroup."""
    if cgroup is None:
        return None, None
    return systemd_unit.identify(cgroup), container.identify(cgroup)
