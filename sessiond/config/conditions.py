"""Conditions of filters: which values a field must have, as written in YAML and as a test.

A condition is a tree of ``All``, ``AnyOf`` and ``Not``. A ``Leaf`` names a field and its tests, one
of which must hold. ``OfAncestor`` applies its leaves to a single ancestor. Pure.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sessiond.config.fields import kind_of

Path = tuple[str | int, ...]
Value = str | int | float | bool
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# Fields with several values, beside those whose type says so.
_SEVERAL: Final = (
    "event.action", "process.supplemental_groups.", "process.previous.", "auditd.paths.",
    "sessiond.ancestors.",
)  # fmt: skip
_WILD: Final = re.compile(r"[*?\[]")
Kind = Literal["equal", "glob", "regex", "network", "exists", "<", "<=", ">", ">="]
# Characters of a value that are matched: a user can make it as long as a program's arguments.
MAX_TESTED: Final = 65_536


@dataclass(frozen=True)
class Test:
    """One test of a value.

    ``wanted`` is the text, number or boolean as configured, without operator or prefix.
    """

    __test__ = False  # not a pytest class, despite its name

    kind: Kind
    wanted: Value

    def __post_init__(self) -> None:
        """Prepare the matcher. Raises ValueError or re.error for an invalid pattern."""
        object.__setattr__(self, "_matches", self._made())

    def _made(self) -> Callable[[object], bool]:
        wanted = self.wanted
        if self.kind == "equal":
            return lambda value: _as_written(value) == wanted
        if self.kind == "exists":
            return lambda _value: True
        if self.kind == "network":
            network = ipaddress.ip_network(str(wanted), strict=False)
            return lambda value: _within(value, network)
        if self.kind in ("glob", "regex"):
            text = str(wanted)
            inner = text[1:-1]
            if self.kind == "glob" and text[0] == text[-1] == "*" and not _WILD.search(inner):
                return lambda value: inner in str(_as_written(value))
            pattern = re.compile(fnmatch.translate(text) if self.kind == "glob" else text)
            find = pattern.match if self.kind == "glob" else pattern.search
            return lambda value: find(str(_as_written(value))[:MAX_TESTED]) is not None
        compare = _COMPARISONS[self.kind]
        return lambda value: _compared(value, wanted, compare)

    def holds(self, values: Sequence[object]) -> bool:
        """Return whether one of a field's values matches."""
        if self.kind == "exists":
            return bool(values) is bool(self.wanted)
        matches: Callable[[object], bool] = self._matches  # type: ignore[attr-defined]
        for value in values:  # noqa: SIM110 -- a generator costs as much as the loop
            if matches(value):
                return True
        return False

    def covers(self, other: Test) -> bool:
        """Return whether this surely holds wherever ``other`` does; False when in doubt."""
        if self == other:
            return True
        if self.kind == "exists":
            return bool(self.wanted) and other.kind != "exists"
        if other.kind == "equal":
            return self.holds([other.wanted])
        if self.kind in _COMPARISONS and other.kind in _COMPARISONS:
            return self._is_wider(other)
        if self.kind == "network" and other.kind == "network":
            wide, narrow = (
                ipaddress.ip_network(str(each.wanted), strict=False) for each in (self, other)
            )
            return wide.version == narrow.version and narrow.subnet_of(wide)  # type: ignore[arg-type]
        if self.kind == "glob" and other.kind == "glob" and "[" not in str(other.wanted):
            # If this pattern has no wildcard but stars, a star matches the other's wildcards.
            return not re.search(r"[?\[]", str(self.wanted)) and self.holds([other.wanted])
        return False

    def _is_wider(self, other: Test) -> bool:
        """Return whether every number that ``other`` admits is one of this comparison's."""
        mine, its = (float(test.wanted) for test in (self, other))
        if self.kind[0] != other.kind[0]:
            return False
        if mine == its:
            return len(self.kind) == 2 or len(other.kind) == 1
        return its < mine if self.kind[0] == "<" else its > mine

    def excludes(self, other: Test) -> bool:
        """Return whether no value matches both; False when in doubt."""
        if self.kind == "exists":
            return not self.wanted and other.kind != "exists"
        if self.kind == "equal":
            return other.kind != "exists" and not other.holds([self.wanted])
        return other.kind == "equal" and not self.holds([other.wanted])

    def __str__(self) -> str:
        text = {"regex": "re:", "exists": "exists "}.get(self.kind, "")
        text += self.kind if self.kind in _COMPARISONS else ""
        return text + str(self.wanted)


def _as_written(value: object) -> object:
    return value if isinstance(value, bool | str) else str(value)


def _within(value: object, network: Network) -> bool:
    try:
        return ipaddress.ip_address(str(value)) in network
    except ValueError:
        return False


def _compared(value: object, wanted: Value, compare: Callable[[Any, Any], bool]) -> bool:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return compare(number, wanted)


Values = Callable[[str], Sequence[object]]


class Subject:
    """The event or process that a condition tests: the values of its fields, and its ancestors."""

    def values(self, name: str) -> Sequence[object]:
        """Return the values of a field, none if it is absent; ``name`` is that of the output."""
        raise NotImplementedError

    def ancestors(self) -> Sequence[Subject]:
        """Return the ancestors, nearest first; their fields have the names of ``process``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Leaf:
    """A field's name and its tests, one of which must hold; ``path`` locates it in the file."""

    name: str
    tests: tuple[Test, ...]
    path: Path = field(compare=False, default=())

    def holds(self, subject: Subject) -> bool:
        """Return whether one of the tests holds."""
        values = subject.values(self.name)
        return any(test.holds(values) for test in self.tests)

    def excludes(self, other: Leaf) -> bool:
        """Return whether both can't hold for a process or event; False when in doubt."""
        several = self.name.startswith(_SEVERAL) or (kind_of(self.name) or "[]").endswith("[]")
        if self.name != other.name or several:
            return False
        return all(mine.excludes(its) for mine in self.tests for its in other.tests)

    def leaves(self) -> Iterator[Leaf]:
        """Itself."""
        yield self


@dataclass(frozen=True)
class All:
    """Every part must hold."""

    parts: tuple[Condition, ...]

    def holds(self, subject: Subject) -> bool:
        """Return whether all parts hold."""
        return all(part.holds(subject) for part in self.parts)

    def leaves(self) -> Iterator[Leaf]:
        """Yield every leaf below."""
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True)
class AnyOf:
    """One part must hold."""

    parts: tuple[Condition, ...]

    def holds(self, subject: Subject) -> bool:
        """Return whether any part holds."""
        return any(part.holds(subject) for part in self.parts)

    def leaves(self) -> Iterator[Leaf]:
        """Yield every leaf below."""
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True)
class Not:
    """The part must not hold."""

    part: Condition

    def holds(self, subject: Subject) -> bool:
        """Return whether the part does not hold."""
        return not self.part.holds(subject)

    def leaves(self) -> Iterator[Leaf]:
        """Yield every leaf below."""
        yield from self.part.leaves()


@dataclass(frozen=True)
class OfAncestor:
    """The whole part must hold for one and the same ancestor.

    Its leaves have the fields ``ancestor.NAME``.
    """

    part: Condition

    def holds(self, subject: Subject) -> bool:
        """Return whether it holds for one of the ancestors."""
        return any(self.part.holds(ancestor) for ancestor in subject.ancestors())

    def leaves(self) -> Iterator[Leaf]:
        """Yield every leaf below."""
        yield from self.part.leaves()


Condition = Leaf | All | AnyOf | Not | OfAncestor


def implies(first: Condition, second: Condition) -> bool:
    """Return whether ``second`` surely holds wherever ``first`` does; False when in doubt."""
    if first == second:
        return True
    if isinstance(first, Not) and isinstance(second, Not):
        return implies(second.part, first.part)
    if isinstance(second, All):
        return all(implies(first, part) for part in second.parts)
    if isinstance(first, AnyOf):
        return all(implies(part, second) for part in first.parts)
    if isinstance(second, AnyOf):
        return any(implies(first, part) for part in second.parts)
    if isinstance(first, All):
        return any(implies(part, second) for part in first.parts)
    if isinstance(first, OfAncestor) and isinstance(second, OfAncestor):
        return implies(first.part, second.part)
    if isinstance(first, Leaf) and isinstance(second, Not) and isinstance(second.part, Leaf):
        return first.excludes(second.part)
    if isinstance(first, Leaf) and isinstance(second, Leaf) and first.name == second.name:
        return all(any(wide.covers(test) for wide in second.tests) for test in first.tests)
    return False
