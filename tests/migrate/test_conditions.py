"""Conditions of Beats as conditions of filters with the same meaning."""

from __future__ import annotations

from typing import Any

import pytest

from sessiond.config.filters import Filters
from sessiond.migrate import tree
from sessiond.migrate.conditions import UnknownConditionError, both, condition, negated


def translated(text: str) -> dict[str, Any]:
    return condition(tree.read(text, "x", {}))


@pytest.mark.parametrize(
    ("beats", "ours"),
    [
        ("equals: {process.name: cron}", {"process.name": "cron"}),
        ("equals.process.pid: 7", {"process.pid": 7}),
        ("equals: {process.args: '*'}", {"process.args": r"re:^\*$"}),
        ("equals: {process.args: 're:x'}", {"process.args": "re:^re:x$"}),
        ("contains: {process.args: health}", {"process.args": "*health*"}),
        ("contains: {process.args: 'a?b'}", {"process.args": r"re:a\?b"}),
        ("contains: {tags: [a, b]}", {"tags": ["*a*", "*b*"]}),
        ("regexp: {process.name: '^c'}", {"process.name": "re:^c"}),
        ("range: {process.exit_code: {gte: 1}}", {"process.exit_code": ">=1"}),
        ("range: {process.exit_code.lt: 3}", {"process.exit_code": "<3"}),
        ("network: {source.ip: loopback}", {"source.ip": ["127.0.0.0/8", "::1/128"]}),
        ("network: {source.ip: [192.0.2.0/24]}", {"source.ip": ["192.0.2.0/24"]}),
        ("has_fields: [user.id, tags]", {"user.id": "exists", "tags": "exists"}),
        ("not.equals.user.id: 0", {"not": {"user.id": 0}}),
        ("not.not.equals.user.id: 0", {"user.id": 0}),
        (
            "or: [{equals.user.id: 0}, {equals.user.id: 1}]",
            {"any": [{"user.id": 0}, {"user.id": 1}]},
        ),
        (
            "and: [{equals.user.id: 0}, {contains.process.args: x}]",
            {"user.id": 0, "process.args": "*x*"},
        ),
        (
            "range: {process.exit_code: {gt: 1, lt: 9}}",
            {"not": {"any": [{"not": {"process.exit_code": ">1"}},
                             {"not": {"process.exit_code": "<9"}}]}},
        ),
    ],
)  # fmt: skip
def test_a_condition_means_the_same(beats: str, ours: dict[str, Any]) -> None:
    """The resulting filter is valid."""
    assert translated(beats) == ours
    assert Filters.parse([{"when": ours, "then": "drop"}])


@pytest.mark.parametrize(
    ("beats", "reason"),
    [
        ("{}", "there is no condition"),
        ("bogus: {a: b}", "filters have no condition bogus"),
        ("network: {source.ip: unspecified}", "filters know no network unspecified"),
        ("range: {process.pid: 3}", "range has no pid"),
    ],
)
def test_what_filters_do_not_have_is_said(beats: str, reason: str) -> None:
    """Dropping a condition would select other events."""
    with pytest.raises(UnknownConditionError, match=reason):
        translated(beats)


def test_conditions_are_put_together() -> None:
    """They are in one mapping, unless both are about one field."""
    a, b = {"user.id": 0}, {"user.name": "x"}
    assert both(a) == a
    assert both(a, b) == {"user.id": 0, "user.name": "x"}
    assert both(a, a) == {"not": {"any": [negated(a), negated(a)]}}
