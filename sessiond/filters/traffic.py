"""Counts lines by their cause, and finds the filters that would save the most. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sessiond.config.filters import Filters
from sessiond.filters.exposure import exposures
from sessiond.filters.recorded import Family, example_of
from sessiond.filters.subject import path_values
from sessiond.process.entry import SESSION_TYPES
from sessiond.system.ordinary_users import OrdinaryUser

# The fields by which lines can be counted, and their places in a line.
FIELDS: Final[Mapping[str, str]] = {
    "executable": "process.executable",
    "parent": "process.parent.executable",
    "unit": "systemd.unit",
    "user": "process.user.name",
    "entry": "process.entry_leader.entry_meta.type",
    "action": "event.action",
    "filter": "sessiond.filter.name",
}
# Minimum share of all lines per suggestion, and maximum number of suggestions.
MIN_SHARE: Final = 0.01
MAX_SUGGESTIONS: Final = 10
_LIFE: Final = ("fork", "exec", "executed", "setsid", "end", "already_running")
# The condition of a filter that keeps the sessions of people whole, before all suggestions.
PEOPLE: Final[Mapping[str, Any]] = {
    "any": [{"process.interactive": True}, {"entry_leader.entry_meta.type": sorted(SESSION_TYPES)}]
}
MAX_EXAMPLES: Final = 3
# Common ancestors say nothing.
_COMMON: Final = ("systemd", "init", "sshd", "sshd-session", "login", "sudo", "su", "runuser")
# For interpreters the script identifies the program.
_INTERPRETERS: Final = re.compile(r"(ba|da|z|k|c|tc|fi|a)?sh|busybox|env|(python|perl|ruby)[0-9.]*")

Condition = tuple[tuple[str, str], ...]


class Traffic:
    """Counts lines and their bytes by cause.

    ``first`` and ``last`` are the dates of the lines.
    """

    def __init__(self, by: Sequence[str]) -> None:
        """Count by these of FIELDS."""
        self._fields = [FIELDS[name] for name in by]
        self.lines: Counter[tuple[str, ...]] = Counter()
        self.bytes: Counter[tuple[str, ...]] = Counter()
        self.first = self.last = ""

    def copy(self) -> Traffic:
        """Return the counts so far."""
        made = Traffic([])
        made._fields = self._fields
        made.lines, made.bytes = self.lines.copy(), self.bytes.copy()
        made.first, made.last = self.first, self.last
        return made

    def take(self, document: Mapping[str, Any], size: int) -> None:
        """Count a line."""
        key = tuple([_one(document, field) for field in self._fields])
        self.lines[key] += 1
        self.bytes[key] += size
        date = str(document.get("@timestamp", ""))
        self.first = min(self.first or date, date)
        self.last = max(self.last, date)


def _one(document: Mapping[str, Any], field: str) -> str:
    values = path_values(document, field)
    if not values and field.endswith("executable"):
        values = path_values(document, field.replace("executable", "name"))
    if not values and field.endswith("user.name"):
        values = path_values(document, field.replace(".name", ".id"))
    return str(values[0]) if values else "-"


class Suggestion(NamedTuple):
    """The conditions of a filter, with the number of lines that it adds to those before it.

    ``examples`` are command lines that it would leave out.
    """

    conditions: dict[str, str]
    lines: int
    examples: list[str]


class Suggestions:
    """Finds filters that would save many lines, after one that keeps people's sessions (PEOPLE)."""

    def __init__(self) -> None:
        """Start without lines."""
        self._family = Family()
        self._lines: list[frozenset[Condition]] = []
        self._examples: dict[Condition, list[str]] = {}
        # Ancestors that people's processes share with others are too general for a filter.
        self._of_people: set[tuple[str, str]] = set()
        self.total = 0

    def take(self, document: Mapping[str, Any]) -> None:
        """Take a line."""
        self.total += 1
        action = _one(document, "event.action")
        image = action in ("exec", "executed", "fork", "already_running")
        self._family.learn(document, image=image)
        if action not in _LIFE or "process" not in document:
            return
        entry = _one(document, "process.entry_leader.entry_meta.type")
        if document["process"].get("interactive") or entry in SESSION_TYPES:
            self._of_people |= set(self._of_ancestors(document))
            return
        conditions = self._conditions(document)
        self._lines.append(conditions)
        example = example_of(document)
        for each in conditions:
            examples = self._examples.setdefault(each, [])
            if len(examples) < MAX_EXAMPLES and example not in examples:
                examples.append(example)

    def _conditions(self, document: Mapping[str, Any]) -> frozenset[Condition]:
        """Return possible conditions for a line, each one or two pairs of field and value."""
        found: set[Condition] = set()
        unit = _one(document, "systemd.unit")
        if unit != "-":
            found.add((("systemd.unit", unit),))
        user = ("process.user.name", _one(document, "process.user.name"))
        if user[1] == "-" or user[1].isdigit():
            user = ("process.user.id", _one(document, "process.user.id"))
        executable = _one(document, "process.executable")
        foreign = "mount_namespace" in document.get("sessiond", {})
        if executable.startswith("/") and not foreign:
            found.add((("process.executable", executable), user))
        found.update((above, user) for above in self._of_ancestors(document))
        if _one(document, "process.entry_leader.entry_meta.type") == "container":
            command = _one(document, "process.command_line")
            if command != "-" and not set(command) & set("*?["):
                entry = ("entry_leader.entry_meta.type", "container")
                found.add((("process.command_line", command), entry))
        return frozenset(found)

    def _of_ancestors(self, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield possible conditions on the ancestors of a line's process."""
        for above in self._family.above(document):
            name = str(above.get("process", {}).get("executable", ""))
            short = name.rpartition("/")[2]
            if _INTERPRETERS.fullmatch(short):
                args = above.get("process", {}).get("args", [])
                script = next((each for each in args[1:] if each.startswith("/")), None)
                if script is not None and not set(script) & set("*?[ "):
                    yield "ancestor.args", script
            elif name.startswith("/") and not name.startswith("/memfd:") and short not in _COMMON:
                yield "ancestor.executable", name

    def best(self, users: Sequence[OrdinaryUser]) -> list[Suggestion]:
        """Return the suggestions that save most, the largest first.

        Only those whose conditions no ordinary user fulfils; ``users`` are the host's.
        """
        chosen: list[Suggestion] = []
        remaining: Iterable[frozenset[Condition]] = self._lines
        refused: set[Condition] = set()
        while len(chosen) < MAX_SUGGESTIONS:
            remaining = list(remaining)
            counts = Counter(each for line in remaining for each in line if each not in refused)
            if not counts:
                break
            # Among equal counts, the shortest condition is the most general.
            best, lines = max(counts.items(), key=lambda item: (item[1], -len(item[0]), item[0]))
            if lines < max(2, self.total * MIN_SHARE):
                break
            if self._of_people.intersection(best) or not _is_safe(best, users):
                refused.add(best)
                continue
            chosen.append(Suggestion(dict(best), lines, self._examples[best]))
            remaining = [line for line in remaining if best not in line]
        return chosen


def _is_safe(condition: Condition, users: Sequence[OrdinaryUser]) -> bool:
    try:
        rules = Filters.parse([{"when": dict(condition), "then": "fold"}])
    except ValueError:
        return False
    return all(each.safe for each in exposures(rules, users))
