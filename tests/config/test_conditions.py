"""Conditions: which values they match, and which condition implies another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.config.conditions import All, AnyOf, Leaf, Not, OfAncestor, Subject, Test, implies


class Paper(Subject):
    """A subject with given values."""

    def __init__(self, *ancestors: Paper, **values: object) -> None:
        """Take the values by field, each a list or a single value."""
        self._values = values
        self._ancestors = ancestors

    def values(self, name: str) -> Sequence[object]:
        """Return the values of the field."""
        value = self._values.get(name.removeprefix("ancestor."), [])
        return value if isinstance(value, list) else [value]

    def ancestors(self) -> Sequence[Subject]:
        """Return the given ancestors."""
        return self._ancestors


@pytest.mark.parametrize(
    ("test", "holds", "fails"),
    [
        (Test("equal", "a"), ["a"], ["b", 1, True]),
        (Test("equal", "7"), [7, "7"], [70]),
        (Test("equal", True), [True], [False, "true"]),
        (Test("glob", "*/healthz*"), ["GET /healthz", "/healthz?x"], ["health"]),
        (Test("glob", "/usr/*/x?"), ["/usr/lib/a/xy"], ["/usr/lib/x"]),
        (Test("regex", "^a.c"), ["abcd"], ["xabc"]),
        (Test("network", "10.0.0.0/8"), ["10.1.2.3"], ["11.0.0.1", "x", "::1"]),
        (Test("<", 1000), ["999", 5], ["1000", "x", None]),
        (Test(">=", 3), [3, "4"], [2]),
    ],
)
def test_one_value_must_be_what_is_wanted(
    test: Test, holds: list[object], fails: list[object]
) -> None:
    """A number and its text are equal."""
    for value in holds:
        assert test.holds([value])
        assert test.holds(["something else", value])
    for value in fails:
        assert not test.holds([value])
    assert not test.holds([])


def test_exists_asks_for_any_value() -> None:
    """Or it holds for none of them."""
    assert Test("exists", True).holds(["x"])
    assert not Test("exists", True).holds([])
    assert Test("exists", False).holds([])


def leaf(name: str, *wanted: str) -> Leaf:
    """Return a leaf for a field with these texts or globs."""
    kinds = ["glob" if set(each) & set("*?[") else "equal" for each in wanted]
    tests = [Test(kind, each) for kind, each in zip(kinds, wanted, strict=True)]  # type: ignore[arg-type]
    return Leaf(name, tuple(tests))


def test_conditions_are_combined() -> None:
    """All, AnyOf and Not combine conditions."""
    subject = Paper(a="x", b=["y", "z"])
    assert All((leaf("a", "x"), leaf("b", "z"))).holds(subject)
    assert not All((leaf("a", "x"), leaf("b", "q"))).holds(subject)
    assert AnyOf((leaf("a", "q"), leaf("b", "y"))).holds(subject)
    assert Not(leaf("b", "q")).holds(subject)
    assert not Not(leaf("b", "z")).holds(subject)


def test_what_is_asked_of_an_ancestor_holds_for_one() -> None:
    """One ancestor must fulfil the whole condition."""
    subject = Paper(Paper(name="sh", user="a"), Paper(name="cron", user="b"))
    both = All((leaf("ancestor.name", "cron"), leaf("ancestor.user", "a")))
    assert not OfAncestor(both).holds(subject)
    assert OfAncestor(All((leaf("ancestor.name", "cron"), leaf("ancestor.user", "b")))).holds(
        subject
    )


@pytest.mark.parametrize(
    ("first", "second", "follows"),
    [
        (leaf("a", "x"), leaf("a", "x"), True),
        (leaf("a", "x"), leaf("a", "*"), True),
        (leaf("a", "x"), leaf("b", "*"), False),
        (leaf("a", "xy*"), leaf("a", "x*"), True),
        (leaf("a", "x*"), leaf("a", "xy*"), False),
        (leaf("a", "x", "y"), leaf("a", "[xy]"), True),
        (leaf("a", "x", "z"), leaf("a", "[xy]"), False),
        (All((leaf("a", "x"), leaf("b", "y"))), leaf("b", "y"), True),
        (leaf("b", "y"), All((leaf("a", "x"), leaf("b", "y"))), False),
        (leaf("a", "x"), AnyOf((leaf("b", "q"), leaf("a", "*"))), True),
        (AnyOf((leaf("a", "x"), leaf("a", "y"))), leaf("a", "*"), True),
        (Not(leaf("a", "*")), Not(leaf("a", "x")), True),
        (leaf("process.name", "y", "z"), Not(leaf("process.name", "x*")), True),
        (leaf("process.name", "xy"), Not(leaf("process.name", "x*")), False),
        (leaf("process.name", "y*"), Not(leaf("process.name", "x*")), False),
        (leaf("process.args", "y"), Not(leaf("process.args", "x")), False),
        (leaf("event.action", "y"), Not(leaf("event.action", "x")), False),
        (Leaf("n", (Test("<", 500.0),)), Leaf("n", (Test("<", 1000.0),)), True),
        (Leaf("n", (Test("<=", 5.0),)), Leaf("n", (Test("<", 5.0),)), False),
        (Leaf("n", (Test(">", 5.0),)), Leaf("n", (Test(">=", 5.0),)), True),
        (Leaf("n", (Test(">", 5.0),)), Leaf("n", (Test("<", 9.0),)), False),
        (Leaf("n", (Test("network", "10.1.0.0/16"),)), Leaf("n", (Test("network", "10.0.0.0/8"),)),
         True),
        (Leaf("n", (Test("network", "::1/128"),)), Leaf("n", (Test("network", "10.0.0.0/8"),)),
         False),
        (OfAncestor(leaf("n", "x")), OfAncestor(leaf("n", "*")), True),
        (OfAncestor(leaf("n", "x")), leaf("n", "x"), False),
    ],
)  # fmt: skip
def test_implications(first: Leaf, second: Leaf, follows: bool) -> None:
    """implies() is True only if the implication is certain."""
    assert implies(first, second) is follows


_PATTERNS = st.text("ab*?", min_size=1, max_size=5)


@given(_PATTERNS, _PATTERNS, st.text("ab", min_size=1, max_size=6))
def test_an_implied_condition_holds(first: str, second: str, value: str) -> None:
    """If one glob covers another, it matches whatever the other matches."""
    one, other = leaf("a", first), leaf("a", second)
    if implies(one, other) and one.holds(Paper(a=value)):
        assert other.holds(Paper(a=value))
