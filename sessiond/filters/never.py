"""Audit rules with which the kernel itself leaves out what a filter drops.

Such a ``never`` rule saves audit's records of these processes. It takes nothing that filters must
not hide: the tracer still reports every exec, so that a process that gains privileges is written.
Pure.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from sessiond.audit.rules import binary, parser
from sessiond.audit.rules.ruleset import LoadedRule, Rule
from sessiond.config.conditions import All, Condition, Leaf, Not, Test, Value
from sessiond.config.filters import FilterRule
from sessiond.filters.exposure import exposures
from sessiond.system.ordinary_users import OrdinaryUser

# The records of an exec and an end under the built-in rules: SYSCALL, EXECVE, CWD, two PATH,
# PROCTITLE and EOE; SYSCALL, PROCTITLE and EOE.
RECORDS_SAVED: Final = 10
_SYSCALLS: Final = "execve,execveat,exit_group,setsid"
# The fields of audit rules for ids of a process; each is ``.id`` or ``.name`` here.
_IDS: Final = {
    "process.user": "euid",
    "process.real_user": "uid",
    "user": "uid",
    "process.saved_user": "suid",
    "user.audit": "auid",
    "process.group": "egid",
    "process.real_group": "gid",
    "process.saved_group": "sgid",
}
_COMPARISONS: Final = ("<", "<=", ">", ">=")
_WORD: Final = re.compile(r"[A-Za-z0-9_./:@+-]+")
_MAX_RULES: Final = 16


class NeverRules(NamedTuple):
    """The rules that leave out what a filter drops, as in audit.rules; they precede all others."""

    filter: str
    rules: tuple[str, ...]


def offers(
    filters: Sequence[FilterRule], users: Sequence[OrdinaryUser], arches: Sequence[str]
) -> list[NeverRules]:
    """Return the rules of each filter that audit can apply.

    The filter drops, no ordinary user (``users`` are the host's) can hide behind it, an effective
    user is among its conditions, and audit can test all of them. No earlier filter may want the
    same events. ``arches`` are those of audit rules: b64, b32.
    """
    found = []
    for number, rule in enumerate(filters):
        if rule.action != "drop" or not all(each.safe for each in exposures([rule], users)):
            continue
        wanted = [each for each in filters[:number] if each.action != "drop"]
        if all(_are_apart(rule.when, each.when) for each in wanted):
            rules = tuple(_rules(rule.when, arches))
            if 0 < len(rules) <= _MAX_RULES:
                found.append(NeverRules(rule.name, rules))
    return found


def loaded_for(
    offered: Iterable[NeverRules], loaded: Iterable[Rule | LoadedRule]
) -> dict[str, frozenset[bytes]]:
    """Return the filters whose rules are all ``loaded``, with these in canonical form."""
    there = {binary.canonical(each.data) for each in loaded}
    found: dict[str, frozenset[bytes]] = {}
    for each in offered:
        compiled = parser.parse("\n".join(each.rules), each.filter, keep_going=True)
        rules = frozenset(rule.canonical for rule in compiled)
        if rules and not compiled.errors and rules <= there:
            found[each.filter] = rules
    return found


def without(
    loaded: Iterable[Rule | LoadedRule], found: Mapping[str, frozenset[bytes]]
) -> list[Rule | LoadedRule]:
    """Return the loaded rules that are none of those that ``loaded_for`` found."""
    ours = frozenset().union(*found.values())
    return [each for each in loaded if binary.canonical(each.data) not in ours]


def _are_apart(first: Condition, second: Condition) -> bool:
    """Return whether both surely hold for no common process."""
    return any(
        one.excludes(other)
        for one in _parts(first)
        for other in _parts(second)
        if isinstance(one, Leaf) and isinstance(other, Leaf)
    )


def _parts(condition: Condition) -> tuple[Condition, ...]:
    return condition.parts if isinstance(condition, All) else (condition,)


def _rules(condition: Condition, arches: Sequence[str]) -> Iterator[str]:
    """Yield the rules that match processes which fulfil a condition; none if audit can't."""
    alternatives: list[list[str]] = []
    for part in _parts(condition):
        texts = _texts(part)
        if not texts:
            return
        alternatives.append(texts)
    if math.prod(map(len, alternatives)) > _MAX_RULES:
        return
    for fields in itertools.product(*alternatives):
        effective = [each for each in fields if each.startswith("euid=")]
        if len(effective) != 1:
            return
        more = list(fields)
        if not any(each.startswith("uid=") for each in fields):
            # Not for a set-user-id program, whose real user is another one.
            more.append(effective[0].removeprefix("e"))
        tested = " ".join(f"-F {each}" for each in more)
        for arch in arches:
            yield f"-a never,exit -F arch={arch} -S {_SYSCALLS} {tested}"


def _texts(part: Condition) -> list[str]:
    """Return the fields of audit rules of which one must hold; none if audit can't test this."""
    if isinstance(part, Not) and isinstance(part.part, Leaf) and len(part.part.tests) == 1:
        name = _field_of(part.part.name)
        test = part.part.tests[0]
        if name is not None and test.kind == "equal" and _is_word(test.wanted):
            return [f"{name}!={test.wanted}"]
        return []
    if not isinstance(part, Leaf):
        return []
    texts = [_text(part.name, test) for test in part.tests]
    return [text for text in texts if text is not None] if None not in texts else []


def _text(field: str, test: Test) -> str | None:
    name = "exe" if field == "process.executable" else _field_of(field)
    if name is None:
        return None
    if test.kind == "equal":
        return f"{name}={test.wanted}" if _is_word(test.wanted) else None
    if test.kind == "exists" and name == "auid":
        return "auid!=unset" if test.wanted else "auid=unset"
    # An unset auid is the highest number for audit, and absent here.
    up = test.kind in (">", ">=") and name == "auid"
    if name != "exe" and test.kind in _COMPARISONS and not up:
        return f"{name}{test.kind}{int(test.wanted)}" if _is_whole(test.wanted) else None
    return None


def _is_word(value: Value) -> bool:
    """Return whether a value needs no escapes in a rule."""
    return _WORD.fullmatch(str(value)) is not None


def _is_whole(value: Value) -> bool:
    return isinstance(value, float) and value.is_integer() and value >= 0


def _field_of(field: str) -> str | None:
    kind, _, member = field.rpartition(".")
    return _IDS.get(kind) if member in ("id", "name") else None
