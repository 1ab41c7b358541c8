"""Evaluates filters for processes and lines: the first filter whose conditions hold decides.

A process is evaluated when it executes a program; the decision holds for the lines of its life
until it executes another. Conditions on values that many processes share (program, users, unit,
ancestors) are evaluated once per combination; only the other conditions are evaluated for each
process. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from sessiond.config.conditions import (
    All,
    AnyOf,
    Condition,
    Leaf,
    Not,
    OfAncestor,
    Subject,
)
from sessiond.config.filters import FilterRule
from sessiond.ecs.process import ProcessEncoder
from sessiond.filters.subject import (
    AncestorSubject,
    ProcessSubject,
    Surroundings,
    Trust,
    is_of_process,
    path_values,
)
from sessiond.process import container, systemd_unit
from sessiond.process.events import Facts
from sessiond.process.table import ITSELF, Lineage, Process, State, Verdict
from sessiond.text import display
from sessiond.units import UNSET_ID

KEEP: Final = Verdict("", "keep")

_MAX_REMEMBERED: Final = 4096
# The user and group ids within Facts: uid, euid, suid, fsuid, gid, egid, sgid, fsgid.
_FIRST_ID: Final = Facts._fields.index("uid")
_BEHIND_IDS: Final = Facts._fields.index("fsgid") + 1
# include/uapi/linux/capability.h
_CAP_SETUID: Final = 1 << 7
_CAP_SETGID: Final = 1 << 6
_PLACES: Final = ("systemd.", "container.", "orchestrator.", "process.entry_leader.entry_meta.")
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
    "descent": ("ancestor.",),
}  # fmt: skip


def _is_early(field: str) -> bool:
    """Return whether a field is known from the process and audit's keys."""
    return field == "tags" or is_of_process(field)


def _shared_by(field: str) -> str | None:
    if not is_of_process(field):
        return None
    return next((part for part, names in _SHARED.items() if field.startswith(names)), None)


class CompiledRule:
    """A filter, split into the parts that are evaluated separately.

    ``common`` are the conditions on shared values, ``own`` the other ones; None if there are none.
    ``of_event`` says that it uses fields that a process as such does not have, ``late`` that it
    uses fields of the finished line, ``by_key`` that it uses only audit's keys besides those of the
    process; ``known_by_key`` are the conditions on these. ``actions`` are those that it names. The
    arguments of each matching process contain one of ``needles``; () if there are no such texts.
    ``descents`` are the conditions on ancestors within ``common``. ``of_place`` says that it asks
    for a unit, a container or an entry, ``is_shared`` that it uses only shared values, the action
    and the keys.
    """

    __slots__ = (
        "actions", "by_key", "common", "descents", "is_shared", "known_by_key", "late", "needles",
        "of_event", "of_place", "own", "parts", "rule", "trust", "verdict",
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
        self.descents = tuple([each for part in common for each in _descents(part)])
        self.own = All(tuple(own)) if own else None
        self.needles = next(filter(None, map(_needles, own)), ())
        fields = [leaf.name for leaf in rule.when.leaves()]
        others = [field for field in fields if not is_of_process(field)]
        self.of_event = bool(others)
        self.late = any(field not in _KNOWN_EARLY for field in others)
        self.of_place = any(field.startswith(_PLACES) for field in fields)
        self.by_key = bool(others) and all(map(_is_early, others))
        self.is_shared = all(
            all(leaf.name in _KNOWN_EARLY or _shared_by(leaf.name) for leaf in part.leaves())
            and len({leaf.name in _KNOWN_EARLY for leaf in part.leaves()}) == 1
            for part in whole
        )
        self.known_by_key = [
            part for part in whole if all(_is_early(leaf.name) for leaf in part.leaves())
        ]
        self.actions = frozenset(
            str(test.wanted)
            for part in whole
            if isinstance(part, Leaf) and part.name == "event.action"
            for test in part.tests
            if test.kind == "equal"
        )

    def fits_action(self, names: Sequence[str]) -> bool:
        """Return whether it can match an event whose action has these names."""
        whole = self.rule.when
        return all(
            part.holds(_Action(names))
            for part in (whole.parts if isinstance(whole, All) else (whole,))
            if isinstance(part, Leaf) and part.name == "event.action"
        )


class _Action(Subject):
    """An event of which only the action is known."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def values(self, name: str) -> Sequence[object]:  # noqa: ARG002 -- it is asked for one
        """Return the action's names."""
        return self._names

    def ancestors(self) -> Sequence[Subject]:
        """None."""
        return ()


def _descents(condition: Condition) -> Iterator[OfAncestor]:
    """Yield the conditions on ancestors within a condition."""
    if isinstance(condition, OfAncestor):
        yield condition
    elif isinstance(condition, Not):
        yield from _descents(condition.part)
    elif isinstance(condition, All | AnyOf):
        for part in condition.parts:
            yield from _descents(part)


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
        self.by_key = any(each.by_key and each.verdict.action == "drop" for each in self.rules)
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
        self._descents = [(each, one.trust) for one in self.rules for each in one.descents]
        self._ancestors_named = any(
            leaf.name.endswith(".name") and "user" in leaf.name
            for each, _ in self._descents
            for leaf in each.leaves()
        )
        self._lines: dict[Lineage, tuple[object, ...]] = {}
        # Decisions about events, if they depend only on shared values, the action and the keys.
        self._early_is_shared = all(each.is_shared for each in self.of_events)
        self._early_found: dict[tuple[object, ...], CompiledRule | None] = {}
        self._by_action: dict[str, tuple[CompiledRule, ...]] = {}

    def set_host_mounts(self, host_mounts: int | None) -> None:
        """Set the mount namespace of the host, which may become known late."""
        if host_mounts != self._around.host_mounts:
            self._around.host_mounts = host_mounts
            self._remembered.clear()
            self._lines.clear()
            self._early_found.clear()

    def encode_with(self, encoder: ProcessEncoder) -> None:
        """Use another encoder for names."""
        self._around.encoder = encoder
        self._remembered.clear()
        self._lines.clear()
        self._early_found.clear()

    # Processes

    def judge(
        self,
        process: Process,
        state: State,
        cgroup: bytes | None,
        *,
        executed: bool,
        cgroup_before: bytes | None = None,
    ) -> Verdict:
        """Decide about a process in a state; ``executed``: the state follows an exec.

        ``cgroup_before`` is the cgroup of the state before an exec, None if it is unknown.
        """
        earlier = process.verdict
        verdict = self.first(process, state, cgroup)
        if not verdict.withholds:
            return verdict
        if process.gained or (isinstance(process.creator, Process) and process.creator.gained):
            process.gained = True
            return KEEP
        if not executed:
            # A process with a written line also gets a written end.
            return KEEP if process.introduced else verdict
        index = process.states.index(state)
        if index > 0:
            before = process.states[index - 1]
            of_others = verdict.action == "drop" and _gained_file(before, state)
            dropped = earlier is not None and earlier.withholds
            moved = (
                None not in (cgroup_before, cgroup)
                and not self.by_name[verdict.filter].of_place
                and _has_moved(cgroup_before, cgroup)
            )
            if of_others or (dropped and (moved or _gained_login(before, state))):
                process.gained = True
                return KEEP
            if index == 1 and _creator_gained_login(process, before):
                process.gained = True
                return KEEP
        return verdict

    def first(self, process: Process, state: State, cgroup: bytes | None) -> Verdict:
        """Return the decision of the first filter on processes whose conditions hold."""
        subject: ProcessSubject | None = None
        arguments: str | None = None
        for each in self._candidates(process, state, cgroup):
            if each.own is None:
                return each.verdict
            needles = each.needles
            if needles:
                if arguments is None:
                    arguments = display(state.program.args or b"")
                if needles[0] not in arguments and not _has_any(arguments, needles[1:]):
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
                    if not each.of_event
                    and each.common.holds(
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
        """Return the shared values that conditions depend on."""
        facts = state.facts
        program: tuple[object, ...] | None = None
        entry: object = None
        if self._program:
            own = state.program
            mounts = own.mount_namespace or facts.mount_namespace
            program = own.executable, own.comm, own.owner, mounts
        if self._entry:
            leader = process if state.entry_leader is ITSELF else state.entry_leader
            if isinstance(leader, Process):
                entry = leader.entry_type, leader.entry_source, leader.entry_note
            elif leader is not None:
                entry = leader.entry
        return (
            program,
            facts[_FIRST_ID:_BEHIND_IDS] if self._users else None,
            facts.loginuid if self._users else None,
            cgroup if self._cgroup else None,
            entry,
            self._line_of(process.lineage) if self._descent else None,
        )

    def _line_of(self, lineage: Lineage | None) -> tuple[object, ...]:
        """Return which conditions on ancestors hold for a line of descent."""
        if lineage is None:
            return ()
        found = self._lines.get(lineage)
        if found is None:
            found = tuple(
                [
                    any(
                        each.part.holds(AncestorSubject(one, self._around, trust))
                        for one in lineage.ancestors
                    )
                    for each, trust in self._descents
                ]
            )
            if not self._ancestors_named or self._has_names(lineage):
                if len(self._lines) >= _MAX_REMEMBERED:
                    self._lines.clear()
                self._lines[lineage] = found
        return found

    def _has_names(self, lineage: Lineage) -> bool:
        """Return whether the names of the ancestors' users are known."""
        user = self._around.encoder.user
        ids = {uid for each in lineage.ancestors for uid in (each.uid, each.euid, each.loginuid)}
        return all("name" in user(uid) for uid in ids if uid is not None and uid != UNSET_ID)

    def _named(self, state: State) -> bool:
        """Return whether its users' names are known: without them the result is not cached."""
        facts, user = state.facts, self._around.encoder.user
        return all("name" in user(uid) for uid in {facts.uid, facts.euid, facts.suid})

    # Events

    def of_action(self, action: str, renamed: str | None) -> tuple[CompiledRule, ...]:
        """Return the filters on events that can match an action, which lines may call otherwise."""
        found = self._by_action.get(action)
        if found is None:
            names = (action,) if renamed is None else (action, renamed)
            found = tuple([each for each in self.of_events if each.fits_action(names)])
            self._by_action[action] = found
        return found

    def early(
        self,
        rules: Sequence[CompiledRule],
        process: Process,
        state: State,
        cgroup: bytes | None,
        verdict: Verdict,
        known: Mapping[str, Sequence[object]],
    ) -> CompiledRule | None:
        """Return the event filter of ``rules`` that takes precedence over the process's own.

        ``known`` are the fields of the event that are known before the line is made. A filter that
        needs the finished line is returned if its other conditions hold: ``late`` then decides.
        """
        if not self._early_is_shared:
            return self._early(rules, process, state, cgroup, verdict, known)
        event = tuple(known["event.action"]), tuple(known["tags"]), verdict.filter
        key = self._key(process, state, cgroup), event
        if key in self._early_found:
            return self._early_found[key]
        found = self._early(rules, process, state, cgroup, verdict, known)
        if not self._users or self._named(state):
            if len(self._early_found) >= _MAX_REMEMBERED:
                self._early_found.clear()
            self._early_found[key] = found
        return found

    def _early(
        self,
        rules: Sequence[CompiledRule],
        process: Process,
        state: State,
        cgroup: bytes | None,
        verdict: Verdict,
        known: Mapping[str, Sequence[object]],
    ) -> CompiledRule | None:
        end = self._order.get(verdict.filter, len(self.rules))
        for each in rules:
            if self._order[each.rule.name] > end:
                return None
            subject = ProcessSubject(process, state, cgroup, self._around, each.trust)
            if each.late or each.rule.when.holds(_EventSubject(subject, known)):
                return each
        return None

    def dropped_early(
        self,
        process: Process,
        state: State,
        cgroup: bytes | None,
        verdict: Verdict,
        keys: Mapping[str, Sequence[object]],
    ) -> Verdict | None:
        """Return the decision of a filter that drops an audit event by its ``keys``.

        None if another filter may take precedence, which needs the finished line, or if none drops.
        """
        for each in self.rules:
            if not each.of_event:
                if each.rule.name == verdict.filter and not verdict.withholds:
                    return None
                continue
            subject = ProcessSubject(process, state, cgroup, self._around, each.trust)
            known = _EventSubject(subject, keys)
            if each.by_key:
                if each.rule.when.holds(known):
                    return each.verdict if each.verdict.action == "drop" else None
            elif all(part.holds(known) for part in each.known_by_key):
                return None
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


def chose_login(before: State, after: State) -> bool:
    """Return whether a process that is not root's took a login user.

    Without one, anybody may set any (kernel/audit.c: audit_set_loginuid_perm); the login user that
    root's programs set says who came in.
    """
    old, new = before.facts, after.facts
    known = None not in (old.loginuid, new.loginuid)
    return known and old.euid != 0 and _gained_login(before, after)


def _gained_login(before: State, after: State) -> bool:
    return before.facts.loginuid != after.facts.loginuid


def _creator_gained_login(process: Process, forked: State) -> bool:
    """Return whether a dropped process had another login user before it forked this one."""
    creator = process.creator
    if not isinstance(creator, Process) or creator.verdict is None:
        return False
    if not creator.verdict.withholds or not _gained_login(creator.at(process.start), forked):
        return False
    creator.gained = True
    return True


def gained(
    before: State, after: State, cgroup_before: bytes | None, cgroup_after: bytes | None
) -> bool:
    """Return whether a dropped process has gained privileges from one state to the next."""
    if gained_by_exec(before, after) or _gained_login(before, after):
        return True
    return _has_moved(cgroup_before, cgroup_after)


def _has_moved(before: bytes | None, after: bytes | None) -> bool:
    """Return whether two cgroups are of different units or containers."""
    return before != after and _place(before) != _place(after)


def _place(cgroup: bytes | None) -> tuple[object, object]:
    """Return the unit and the container of a cgroup."""
    if cgroup is None:
        return None, None
    return systemd_unit.identify(cgroup), container.identify(cgroup)
