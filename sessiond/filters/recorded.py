"""Applies filters to existing events, to show what each would have removed.

Lines lack some data of the process table: the owner of a program's file, and unwritten forks. The
result is therefore an approximation, for testing filters before use. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sessiond.config.conditions import Subject
from sessiond.config.filters import FilterRule
from sessiond.filters.decide import CompiledRule
from sessiond.filters.fold import Folds
from sessiond.filters.saved import Kind
from sessiond.filters.stage import LIFE
from sessiond.filters.subject import Trust, is_of_process, path_values

# Auditbeat's actions of a process's life.
_NAMES: Final = {"executed": "exec", "process_started": "exec", "process_stopped": "end"}
_MAX_ANCESTORS: Final = 20
_PATHS: Final = (".executable", ".name")
MAX_EXAMPLES: Final = 3


class Known:
    """The data of a process from the lines so far."""

    __slots__ = ("gained", "is_written", "kept_back", "line", "parent", "rule")

    def __init__(self) -> None:
        """Start empty."""
        self.line: Mapping[str, Any] = {}
        self.parent: str | None = None
        self.rule: CompiledRule | None = None
        self.is_written = False
        self.gained = False
        self.kept_back: tuple[Tally, int] | None = None


class Tally:
    """The result of one filter: lines and bytes, and some command lines as examples."""

    def __init__(self, rule: FilterRule) -> None:
        """Start with zero."""
        self.rule = rule
        self.lines = 0
        self.bytes = 0
        self.examples: list[str] = []

    def count(self, document: Mapping[str, Any], size: int) -> None:
        """Count a line."""
        self.lines += 1
        self.bytes += size
        shown = example_of(document)
        if len(self.examples) < MAX_EXAMPLES and shown not in self.examples:
            self.examples.append(shown)


def example_of(document: Mapping[str, Any]) -> str:
    """Return the beginning of a line's command line, or another name of what it is about."""
    process = document.get("process", {})
    args = " ".join(map(str, process.get("args", ())))
    text = process.get("command_line") or args or process.get("executable") or process.get("name")
    return str(text or document.get("event", {}).get("action", ""))[:100]


class _Line(Subject):
    """A line as the subject of conditions; ``family`` has its ancestors."""

    def __init__(self, document: Mapping[str, Any], family: Family) -> None:
        self._document = document
        self._family = family
        self.trust = Trust.ANY

    def values(self, name: str) -> Sequence[object]:
        """Return the line's values that count for a filter that removes lines."""
        if self.trust is not Trust.ANY:
            remarks = self._document.get("sessiond", {})
            own_path = name in ("process.executable", "process.name")
            if own_path and "mount_namespace" in remarks:
                return ()
            if name.startswith("process.entry_leader.entry_meta."):
                notes = remarks.get("incomplete", ())
                if any(str(note).startswith("process.entry_leader.entry_meta") for note in notes):
                    return ()
        return path_values(self._document, name)

    def ancestors(self) -> Sequence[Subject]:
        """Return the ancestors."""
        return [_Ancestor(each) for each in self._family.above(self._document)]


class _Ancestor(Subject):
    """The ``process`` object of an ancestor, with its users."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def values(self, name: str) -> Sequence[object]:
        """Return the values of ``ancestor.NAME``."""
        name = name.removeprefix("ancestor.")
        if name.startswith("user.audit."):
            return path_values(self._document, name)
        return path_values(self._document.get("process", {}), name)

    def ancestors(self) -> Sequence[Subject]:
        """None."""
        return ()


class Family:
    """The processes of the lines so far, by entity id."""

    def __init__(self) -> None:
        """Start empty."""
        self.known: dict[str, Known] = {}

    def learn(self, document: Mapping[str, Any], *, image: bool) -> Known | None:
        """Take a line; ``image``: it shows a new program of its process."""
        process = document.get("process")
        if not isinstance(process, dict):
            return None
        entity_id = process.get("entity_id")
        if not isinstance(entity_id, str):
            return None
        known = self.known.setdefault(entity_id, Known())
        if image or not known.line:
            known.line = document
        parent = process.get("parent", {}).get("entity_id")
        if isinstance(parent, str):
            known.parent = parent
            above = self.known.setdefault(parent, Known())
            if not above.line:
                above.line = {"process": process["parent"]}
            known.gained = known.gained or above.gained
        return known

    def above(self, document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of a line's ancestors, nearest first, as far as they are known.

        For the others yield the data in the line itself.
        """
        process = document.get("process", {})
        own = self.known.get(process.get("entity_id", ""))
        number = 0
        each = None if own is None else own.parent
        while each is not None and number < _MAX_ANCESTORS:
            known = self.known.get(each)
            if known is None or not known.line:
                break
            yield known.line
            number += 1
            each = known.parent
        for ancestor in document.get("sessiond", {}).get("ancestors", ())[number:]:
            executable = str(ancestor.get("executable", ""))
            name = executable.rpartition("/")[2]
            yield {"process": {**ancestor, "name": name} if name else ancestor}


class Recorded:
    """Takes events in order and determines what the filters would have done.

    ``lines`` counts all, ``written`` those that would have been written, ``folded_lines`` the lines
    about folded ones; each filter has a tally.
    """

    def __init__(self, rules: Sequence[FilterRule]) -> None:
        """Take the filters."""
        self._rules = [CompiledRule(rule) for rule in rules]
        self.tallies = {rule.name: Tally(rule) for rule in rules}
        self.family = Family()
        self.lines = self.written = 0
        self.folded_lines = 0
        self._folds = Folds()

    def take(self, document: Mapping[str, Any], size: int, time: int) -> FilterRule | None:
        """Count an event of ``size`` bytes, at ``time`` in ns; return the matching filter."""
        self.lines += 1
        event = document.get("event", {})
        action = str(event.get("action", ""))
        action = _NAMES.get(action, action)
        life = action in LIFE
        known = self.family.learn(document, image=action in ("exec", "fork", "already_running"))
        rule = self._decided(document, action, known, life=life)
        if rule is None or not rule.rule.withholds:
            if rule is not None and rule.rule.action == "mark":
                self.tallies[rule.rule.name].count(document, size)
            self._write(document, known, life=life)
            return None if rule is None else rule.rule
        tally = self.tallies[rule.rule.name]
        tally.count(document, size)
        if known is not None and life and known.kept_back is None and action != "end":
            known.kept_back = (tally, size)
        if rule.rule.action == "fold" and (not life or action == "end"):
            self._fold(rule, document, time)
        return rule.rule

    def _decided(
        self, document: Mapping[str, Any], action: str, known: Known | None, *, life: bool
    ) -> CompiledRule | None:
        subject = _Line(document, self.family)
        if known is not None and life and (known.rule is None or action == "exec"):
            known.gained = known.gained or _gained(document)
            known.rule = self._of_process(subject)
            if known.rule is not None and known.rule.rule.withholds:
                before = known.is_written and action != "exec"
                known.rule = None if known.gained or before else known.rule
        of_process = None if known is None else known.rule
        for each in self._rules:
            if not each.of_event:
                if each is of_process and (life or not each.rule.withholds):
                    return each
                continue
            subject.trust = each.trust
            if each.rule.when.holds(subject) and (life or self._may_drop(each, document, action)):
                return each
        return None

    def _of_process(self, subject: _Line) -> CompiledRule | None:
        for each in self._rules:
            subject.trust = each.trust
            if not each.of_event and each.rule.when.holds(subject):
                return each
        return None

    @staticmethod
    def _may_drop(rule: CompiledRule, document: Mapping[str, Any], action: str) -> bool:
        """Return whether a filter may drop an event; other than system calls only by action."""
        by_syscall = "syscall" in document.get("auditd", {}).get("data", {})
        return not rule.rule.withholds or by_syscall or action in rule.actions

    def _write(self, document: Mapping[str, Any], known: Known | None, *, life: bool) -> None:
        self.written += 1
        if known is not None and life:
            known.is_written = True
        self._bring_back(document, known)

    def _bring_back(self, document: Mapping[str, Any], known: Known | None) -> None:
        """Count dropped processes that a written line needs as written."""
        process = document.get("process", {})
        names = ("parent", "group_leader", "session_leader", "entry_leader")
        needed = [known] if known is not None else []
        for name in names:
            relative = self.family.known.get(process.get(name, {}).get("entity_id", ""))
            needed += [relative] if relative is not None else []
        for each in needed:
            if each.kept_back is None:
                continue
            tally, size = each.kept_back
            each.kept_back, each.rule = None, None
            each.is_written = True
            tally.lines -= 1
            tally.bytes -= size
            self.written += 1
            self._bring_back(each.line, None)

    def _fold(self, rule: CompiledRule, document: Mapping[str, Any], time: int) -> None:
        def one(name: str) -> str:
            return str(next(iter(path_values(document, name)), ""))

        kind = Kind(
            rule.rule.name,
            one("event.action"),
            one("process.executable").encode(),
            one("process.parent.executable").encode(),
            None,
            one("process.entry_leader.entry_meta.type"),
            f"{one('process.exit_code')} {one('process.user.id')}",
        )
        self.folded_lines += len(self._folds.due(time))
        if self._folds.add(kind, time, int(rule.rule.window * 1e9)) is None:
            self.folded_lines += 1

    def finish(self) -> None:
        """Close the open windows."""
        self.folded_lines += len(self._folds.due(0, all_=True))


def _gained(document: Mapping[str, Any]) -> bool:
    """Return whether a set-user-id program is executed, as far as a line shows it."""
    process = document.get("process", {})
    real, now = process.get("real_user", {}).get("id"), process.get("user", {}).get("id")
    return real is not None and now is not None and real != now and real != "0"


def asks_for_paths(rule: FilterRule) -> bool:
    """Return whether a filter names programs, so that the owners of their files matter."""
    return any(
        leaf.name.endswith(_PATHS) and (is_of_process(leaf.name) or leaf.name.startswith("ancest"))
        for leaf in rule.when.leaves()
        if ".user" not in leaf.name and ".group" not in leaf.name
    )
