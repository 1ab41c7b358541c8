"""Parses and checks the filters of the configuration.

An invalid filter raises FilterError, with its place in the list; a suspicious one is a warning.
Pure.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sessiond.config.conditions import (
    All,
    AnyOf,
    Condition,
    Kind,
    Leaf,
    Not,
    OfAncestor,
    Path,
    Test,
    Value,
    implies,
)
from sessiond.config.fields import ANCESTOR_FIELDS, FIELDS, full_name, kind_of
from sessiond.config.quantities import Duration, Labels, show

Action = Literal["keep", "drop", "fold", "mark"]

_WINDOW: Final = Duration(600)
_MIN_WINDOW: Final = 1
_MAX_WINDOW: Final = 86_400
_GLOB: Final = re.compile(r"[*?\[]")
_COMPARISON: Final[dict[str, Kind]] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NUMBER: Final = re.compile(r"(<=?|>=?) *(-?[0-9]+(?:\.[0-9]+)?)")
_UNIT_TYPES: Final = (".service", ".scope", ".socket", ".mount", ".swap")
# Fields with a fixed set of values; a test compares the entry types with sessiond.process.entry.
WORDS: Final = {
    "process.entry_leader.entry_meta.type": (
        "terminal", "console", "init", "ssm", "sshd", "container", "teleport", "kubelet", "unknown",
    ),
    "event.outcome": ("success", "failure", "unknown"),
    "event.kind": ("event", "pipeline_error", "metric"),
    "event.category": (
        "authentication", "configuration", "database", "driver", "file", "host", "iam",
        "intrusion_detection", "library", "malware", "network", "package", "process", "registry",
        "session", "threat", "vulnerability", "web", "api", "email",
    ),
    "event.type": (
        "access", "admin", "allowed", "change", "connection", "creation", "deletion", "denied",
        "device", "end", "error", "group", "indicator", "info", "installation", "protocol",
        "start", "user",
    ),
}  # fmt: skip
# Required fields of a line: `omit` refuses them.
_NEEDED: Final = ("@timestamp", "event", "ecs", "process.entity_id", "process.pid", "process.start")


class FilterError(ValueError):
    """An invalid filter; ``path`` leads from the list of filters to the mistake."""

    def __init__(self, path: Path, wrong: str, allowed: str = "") -> None:
        super().__init__(wrong)
        self.path, self.wrong, self.allowed = path, wrong, allowed


@dataclass(frozen=True)
class FilterRule:
    """One filter. ``action`` is "mark" if it only adds or omits fields.

    ``window`` (seconds) is that of "fold". ``omit`` lists the fields to leave out.
    """

    name: str
    when: Condition
    action: Action
    window: Duration = _WINDOW
    labels: Labels = field(default_factory=Labels)
    tags: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()

    @property
    def withholds(self) -> bool:
        """Whether the filter keeps lines from being written."""
        return self.action in ("drop", "fold")

    def __str__(self) -> str:
        return f"{self.name} ({self.action})"


class Filters(tuple[FilterRule, ...]):
    """The filters in order; ``warnings`` are suspicious filters with their places."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Filters:
        """Parse the value from YAML; raises FilterError if it is invalid."""
        if value is None:
            return cls()
        if not isinstance(value, list):
            raise FilterError((), f"{show(value)} is not a list", "a list of filters")
        rules = [_rule(each, (number,), number) for number, each in enumerate(value)]
        seen: dict[str, int] = {}
        for number, rule in enumerate(rules):
            if rule.name in seen:
                wrong = f"{show(rule.name)} is already the name of filter {seen[rule.name] + 1}"
                raise FilterError((number, "name"), wrong, "a unique name")
            seen[rule.name] = number
        return cls(rules)

    def warnings(self) -> list[tuple[Path, str]]:
        """Filters that never match because an earlier one matches first, with their places."""
        found: list[tuple[Path, str]] = []
        for number, rule in enumerate(self):
            for earlier in self[:number]:
                if implies(rule.when, earlier.when):
                    text = f"{rule.name}: never matches: {earlier.name} matches first"
                    found.append(((number,), text))
                    break
        return found

    def names_of_users(self) -> list[tuple[Path, str]]:
        """Conditions on user and group names, which fail while auditd.resolve_ids is false."""
        return [
            (leaf.path, f"{leaf.name}: names are not resolved (auditd.resolve_ids); use the id")
            for rule in self
            for leaf in rule.when.leaves()
            if re.search(r"(user|group|groups|audit)\.name$", leaf.name)
        ]


def _rule(value: object, path: Path, number: int) -> FilterRule:
    members = _section(value, path, ("name", "when", "then"))
    name = members.get("name", f"filter {number + 1}")
    if not isinstance(name, str) or not name.strip():
        raise FilterError((*path, "name"), f"{show(name)} is not a name", "some text")
    for needed in ("when", "then"):
        if needed not in members:
            raise FilterError(path, f"{needed} is missing", "when: conditions, then: what to do")
    when = _conditions(members["when"], (*path, "when"))
    return _then(name, when, members["then"], (*path, "then"))


def _section(value: object, path: Path, known: Iterable[str]) -> dict[str, Any]:
    names = list(known)
    if not isinstance(value, dict):
        raise FilterError(path, f"{show(value)} is not a section", ", ".join(names))
    for name in value:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            wrong = f"{show(name)} is unknown"
            wrong += f"; did you mean {close[0]}?" if close else ""
            raise FilterError((*path, name), wrong, "" if close else ", ".join(names))
    return value


# Actions


def _then(name: str, when: Condition, value: object, path: Path) -> FilterRule:
    allowed = "keep, drop, fold, or a section with labels, tags, fields"
    if value in ("keep", "drop", "fold"):
        action: Action = value
        return FilterRule(name, when, action)
    if not isinstance(value, dict):
        raise FilterError(path, f"{show(value)} is not an action", allowed)
    given = _section(value, path, ("fold", "labels", "tags", "fields"))
    if "fold" in given:
        if len(given) > 1:
            raise FilterError(path, "a folded event can't have labels", "fold alone")
        return FilterRule(name, when, "fold", _window(given["fold"], (*path, "fold")))
    if not given:
        raise FilterError(path, "the filter does nothing", allowed)
    try:
        labels = Labels.parse(given.get("labels", {}))
    except ValueError:
        wrong = f"{show(given['labels'])} is not valid"
        text = "names without dots, each with a text, such as {env: prod}"
        raise FilterError((*path, "labels"), wrong, text) from None
    tags = _texts(given.get("tags", []), (*path, "tags"))
    fields = _section(given.get("fields", {}), (*path, "fields"), ("omit",))
    omit = _texts(fields.get("omit", []), (*path, "fields", "omit"))
    for number, each in enumerate(omit):
        _check_omitted(each, (*path, "fields", "omit", number))
    return FilterRule(name, when, "mark", labels=labels, tags=tags, omit=omit)


def _window(value: object, path: Path) -> Duration:
    if isinstance(value, dict):
        value = _section(value, path, ("window",)).get("window", _WINDOW)
        path = (*path, "window")
    try:
        window = Duration.parse(value)
    except ValueError:
        window = Duration(0)
    if not _MIN_WINDOW <= window <= _MAX_WINDOW:
        raise FilterError(path, f"{show(value)} is not a window", "a duration from 1s to 1d")
    return window


def _texts(value: object, path: Path) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    for number, each in enumerate(values):
        if not isinstance(each, str) or not each:
            raise FilterError((*path, number), f"{show(each)} is not valid", "a list of texts")
    return tuple(values)


def _check_omitted(name: str, path: Path) -> None:
    if name in _NEEDED or name.startswith(("event.", "ecs.")):
        raise FilterError(path, f"{name} is required in every line", "any other field")
    if kind_of(name) is None and not any(each.startswith(f"{name}.") for each in FIELDS):
        raise _no_field(name, path)


# Conditions


def _conditions(value: object, path: Path) -> Condition:
    """Parse a mapping of fields to wanted values, all of which must hold."""
    if not isinstance(value, dict):
        raise FilterError(path, f"{show(value)} is not a condition", "fields and their values")
    if not value:
        raise FilterError(path, "the condition is empty", "at least one field and its value")
    parts: list[Condition] = []
    of_ancestor: list[Condition] = []
    for name, wanted in value.items():
        where = (*path, name)
        if name == "any":
            parts.append(AnyOf(tuple(_alternatives(wanted, where))))
        elif name == "not":
            parts.append(Not(_conditions(wanted, where)))
        elif not isinstance(name, str):
            raise FilterError(where, f"{show(name)} is not a field", "a field of docs/output.md")
        else:
            unwanted = _unwanted(wanted)
            leaf: Condition = _leaf(
                full_name(name), wanted if unwanted is None else unwanted, where
            )
            if name.startswith("ancestor."):
                if unwanted is None:
                    of_ancestor.append(leaf)
                    continue
                leaf = OfAncestor(leaf)
            parts.append(leaf if unwanted is None else Not(leaf))
    if of_ancestor:
        parts.append(OfAncestor(_one_of(of_ancestor)))
    return _one_of(parts)


def _unwanted(value: object) -> object:
    """Return the value after ``not:``, in text or section form; None without ``not:``."""
    if isinstance(value, dict) and list(value) == ["not"]:
        return value["not"]
    if isinstance(value, str) and value.startswith("not:"):
        return value.removeprefix("not:").strip()
    return None


def _one_of(parts: list[Condition]) -> Condition:
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _alternatives(value: object, path: Path) -> Iterable[Condition]:
    if isinstance(value, dict):
        value = [{name: wanted} for name, wanted in value.items()]
        return [_conditions(each, path) for each in value]
    if not isinstance(value, list) or not value:
        raise FilterError(path, f"{show(value)} offers no alternatives", "a list of conditions")
    return [_conditions(each, (*path, number)) for number, each in enumerate(value)]


def _no_field(name: str, path: Path) -> FilterError:
    known = [*FIELDS, *(f"ancestor.{each}" for each in ANCESTOR_FIELDS)]
    close = difflib.get_close_matches(full_name(name), known, n=1)
    wrong = f"{name}: unknown field"
    return FilterError(path, wrong + (f"; did you mean {close[0]}?" if close else ""))


def _leaf(name: str, wanted: object, path: Path) -> Leaf:
    kind = kind_of(name)
    if kind is None:
        raise _no_field(name, path)
    values = wanted if isinstance(wanted, list) else [wanted]
    if not values:
        raise FilterError(path, f"{name}: the list is empty", "at least one value")
    tests = []
    for number, each in enumerate(values):
        where = (*path, number) if isinstance(wanted, list) else path
        tests.append(_test(name, kind.removesuffix("[]"), each, where))
    return Leaf(name, tuple(tests), path)


def _test(name: str, kind: str, wanted: object, path: Path) -> Test:
    """Parse one value: text, a glob, re:, a network, a comparison, a boolean, exists."""
    if isinstance(wanted, dict) and len(wanted) == 1:
        ((word, inner),) = wanted.items()
        if word == "exists" and isinstance(inner, bool):
            return Test("exists", inner)
        if word == "re" and isinstance(inner, str):
            return _regex(name, inner, path)
    if wanted == "exists":
        return Test("exists", True)
    if isinstance(wanted, str) and wanted.startswith("re:"):
        return _regex(name, wanted.removeprefix("re:"), path)
    if isinstance(wanted, str) and wanted.startswith("not:"):
        wrong = f"{name}: {show(wanted)} can't be one of several values"
        raise FilterError(path, wrong, "{not: [x, y]} around the list")
    if not isinstance(wanted, str | int | float):
        text = "text, a number, a list, re:, <, >, exists or not:"
        raise FilterError(path, f"{name}: {show(wanted)} is not a value", text)
    return _value(name, kind, wanted, path)


def _regex(name: str, text: str, path: Path) -> Test:
    try:
        return Test("regex", text)
    except (re.error, OverflowError, RecursionError) as error:
        wrong = f"{name}: {show(text)} is not a valid regular expression: {error}"
        raise FilterError(path, wrong, "Python's syntax") from None


def _value(name: str, kind: str, wanted: Value, path: Path) -> Test:
    def refuse(why: str, allowed: str = "") -> FilterError:
        return FilterError(path, f"{name}: {show(wanted)} can't match: {why}", allowed)

    if wanted == "":
        raise refuse("fields are never empty", "exists: false for an absent field")
    if kind == "boolean":
        if not isinstance(wanted, bool):
            raise refuse("the field is true or false", "true or false")
        return Test("equal", wanted)
    if isinstance(wanted, bool):
        raise refuse(f"the field is a {kind}", "a text in quotes")
    text = wanted if isinstance(wanted, str) else show(wanted)
    numeric = kind in ("long", "double") or _is_id(name)
    compared = _NUMBER.fullmatch(text)
    if kind == "date" and text[0] in "<>":
        raise refuse("dates are not compared", "a text, a glob, re: or exists")
    if compared is not None and kind != "ip" and _impossible(name, text) is None:
        return Test(_COMPARISON[compared[1]], float(compared[2]))
    if numeric and not _GLOB.search(text) and not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text):
        raise refuse("the field is a number", "a number, <N, <=N, >N, >=N")
    test = Test("glob" if _GLOB.search(text) else "equal", text)
    if kind == "ip" or name.endswith(".address"):
        network = _network(text)
        if network is None and kind == "ip" and test.kind != "glob":
            raise refuse("the field is an address", "an address, or a network such as 10.0.0.0/8")
        return network or test
    if (why := _impossible(name, text)) is not None:
        raise refuse(why)
    return test


def _network(text: str) -> Test | None:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    return Test("network", text)


def _is_id(name: str) -> bool:
    return name.endswith((".id", "_uid")) and (
        "user" in name or "group" in name or name.endswith("_uid")
    )


def _impossible(name: str, text: str) -> str | None:
    """Return why no value of the field can match, None if one can."""
    member = name.rpartition(".")[2]
    first = text[0]
    words = WORDS.get(name)
    if words is not None:
        test = Test("glob" if _GLOB.search(text) else "equal", text)
        return (
            None
            if any(test.holds([word]) for word in words)
            else "it is one of " + ", ".join(words)
        )
    if member in ("executable", "working_directory") and first not in "/*?[(":
        return "the field is an absolute path"
    if re.fullmatch(r"(process\.([a-z_]+\.)?|ancestor\.)name", name) and "/" in text:
        return "a name has no slash; executable has the path"
    ending = re.split(r"[*?\]]", text)[-1]
    if name in ("systemd.unit", "systemd.user_unit") and not _may_end(ending, text, _UNIT_TYPES):
        return "a unit's name ends in " + " or ".join(_UNIT_TYPES)
    if name == "systemd.slice" and not _may_end(ending, text, (".slice",)):
        return "a slice's name ends in .slice"
    return None


def _may_end(ending: str, text: str, endings: tuple[str, ...]) -> bool:
    """Return whether a text whose last part without wildcards is ``ending`` can end like that."""
    if ending == text:
        return text.endswith(endings)
    return any(each.endswith(ending) or ending.endswith(each) for each in endings)
