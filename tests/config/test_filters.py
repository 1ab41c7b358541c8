"""Filters in the configuration: valid forms, and messages with the place of mistakes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.config.conditions import All, AnyOf, Leaf, Not, OfAncestor, Test
from sessiond.config.filters import FilterError, FilterRule, Filters
from sessiond.config.load import filter_warnings, loads
from sessiond.config.quantities import Duration
from sessiond.errors import ConfigError

WHOLE = """\
filters:
  - name: zabbix checks
    when: {ancestor.executable: /usr/sbin/zabbix_agentd, process.user.name: zabbix}
    then: drop
  - name: health checks
    when: {process.args: ["*/healthz*"], entry_leader.entry_meta.type: container}
    then: fold
  - when: {systemd.unit: "backup*.service"}
    then: {labels: {job: backup}, tags: [batch], fields: {omit: [process.parent]}}
  - when: {process.name: x}
    then: {fold: {window: 5m}}
"""


def only(when: str) -> FilterRule:
    """Return the only filter, with these conditions."""
    (rule,) = loads(f"filters: [{{when: {when}, then: drop}}]", "f.yml").filters
    return rule


def refused(text: str) -> str:
    """Return the error message for a text."""
    with pytest.raises(ConfigError) as caught:
        loads(text, "f.yml")
    return str(caught.value)


def test_filters_have_names_conditions_and_actions() -> None:
    """Filters keep their order; one without a name is named by its number."""
    filters = loads(WHOLE, "f.yml").filters
    assert [(each.name, each.action) for each in filters] == [
        ("zabbix checks", "drop"),
        ("health checks", "fold"),
        ("filter 3", "mark"),
        ("filter 4", "fold"),
    ]
    assert (filters[1].window, filters[3].window) == (Duration(600), Duration(300))
    assert filters[2].labels == {"job": "backup"}
    assert (filters[2].tags, filters[2].omit) == (("batch",), ("process.parent",))


@pytest.mark.parametrize(
    ("when", "condition"),
    [
        ("{process.name: x}", Leaf("process.name", (Test("equal", "x"),))),
        ("{parent.name: x}", Leaf("process.parent.name", (Test("equal", "x"),))),
        (
            "{process.args: [a, 'b*', 7]}",
            Leaf("process.args", (Test("equal", "a"), Test("glob", "b*"), Test("equal", "7"))),
        ),
        ("{process.name: 're:^x'}", Leaf("process.name", (Test("regex", "^x"),))),
        ("{process.name: {re: ^x}}", Leaf("process.name", (Test("regex", "^x"),))),
        ("{source.ip: 10.0.0.0/8}", Leaf("source.ip", (Test("network", "10.0.0.0/8"),))),
        ("{process.pid: '<100'}", Leaf("process.pid", (Test("<", 100.0),))),
        ("{user.id: '>=1000'}", Leaf("user.id", (Test(">=", 1000.0),))),
        ("{process.vpid: exists}", Leaf("process.vpid", (Test("exists", True),))),
        ("{process.vpid: {exists: false}}", Leaf("process.vpid", (Test("exists", False),))),
        ("{process.name: 'not:x'}", Not(Leaf("process.name", (Test("equal", "x"),)))),
        (
            "{process.name: {not: [x, 'y*']}}",
            Not(Leaf("process.name", (Test("equal", "x"), Test("glob", "y*")))),
        ),
        ("{not: {process.name: x}}", Not(Leaf("process.name", (Test("equal", "x"),)))),
        (
            "{any: {process.name: x, process.pid: 1}}",
            AnyOf(
                (
                    Leaf("process.name", (Test("equal", "x"),)),
                    Leaf("process.pid", (Test("equal", "1"),)),
                )
            ),
        ),
        (
            "{ancestor.name: x, ancestor.pid: 1, process.name: y}",
            All(
                (
                    Leaf("process.name", (Test("equal", "y"),)),
                    OfAncestor(
                        All(
                            (
                                Leaf("ancestor.name", (Test("equal", "x"),)),
                                Leaf("ancestor.pid", (Test("equal", "1"),)),
                            )
                        )
                    ),
                )
            ),
        ),
        (
            "{ancestor.name: {not: x}}",
            Not(OfAncestor(Leaf("ancestor.name", (Test("equal", "x"),)))),
        ),
        ("{process.user.id: {not: 0}}", Not(Leaf("process.user.id", (Test("equal", "0"),)))),
        (
            "{process.interactive: {not: false}}",
            Not(Leaf("process.interactive", (Test("equal", False),))),
        ),
        ("{file.uid: '<1000'}", Leaf("file.uid", (Test("<", 1000.0),))),
        ("{auditd.data.exit: '< 0'}", Leaf("auditd.data.exit", (Test("<", 0.0),))),
        ("{process.interactive: true}", Leaf("process.interactive", (Test("equal", True),))),
    ],
)
def test_values_are_what_they_look_like(when: str, condition: object) -> None:
    """Conditions are texts, globs, lists, networks, comparisons, and their negations."""
    assert only(when).when == condition


MISTAKES = {
    "filters: {}": "1:1: filters: a section is not a list; allowed: a list of filters",
    "filters: [x]": "1:11: filters: 'x' is not a section; allowed: name, when, then",
    "filters: [{then: drop}]": (
        "1:11: filters: when is missing; allowed: when: conditions, then: what to do"
    ),
    "filters:\n  - whne: {}\n": "2:5: filters: 'whne' is unknown; did you mean when?",
    "filters:\n  - when: {}\n    then: drop": (
        "2:5: filters: the condition is empty; allowed: at least one field and its value"
    ),
    "filters:\n  - when:\n      process.executabel: x\n    then: drop": (
        "3:7: filters: process.executabel: unknown field; did you mean process.executable?"
    ),
    "filters:\n  - when: {process.name: x}\n    then: dorp": (
        "3:5: filters: 'dorp' is not an action;"
        " allowed: keep, drop, fold, or a section with labels, tags, fields"
    ),
    "filters:\n  - when:\n      process.executable: [/bin/x, 'zab*']\n    then: drop": (
        "3:36: filters: process.executable: 'zab*' can't match: the field is an absolute path"
    ),
    "filters: [{when: {process.name: /bin/sh}, then: drop}]": (
        "1:19: filters: process.name: '/bin/sh' can't match: a name has no slash;"
        " executable has the path"
    ),
    "filters: [{when: {user.id: root}, then: drop}]": (
        "1:19: filters: user.id: 'root' can't match: the field is a number;"
        " allowed: a number, <N, <=N, >N, >=N"
    ),
    "filters: [{when: {source.ip: x}, then: drop}]": (
        "1:19: filters: source.ip: 'x' can't match: the field is an address;"
        " allowed: an address, or a network such as 10.0.0.0/8"
    ),
    "filters: [{when: {source.ip: '<5'}, then: drop}]": (
        "1:19: filters: source.ip: '<5' can't match: the field is an address;"
        " allowed: an address, or a network such as 10.0.0.0/8"
    ),
    "filters: [{when: {source.ip: 10.0.0.0/33}, then: drop}]": (
        "1:19: filters: source.ip: '10.0.0.0/33' can't match: the field is an address;"
        " allowed: an address, or a network such as 10.0.0.0/8"
    ),
    "filters: [{when: {process.start: '>2026-01-01'}, then: drop}]": (
        "1:19: filters: process.start: '>2026-01-01' can't match: dates are not compared;"
        " allowed: a text, a glob, re: or exists"
    ),
    "filters: [{when: {process.name: [y, 'not:x']}, then: drop}]": (
        "1:37: filters: process.name: 'not:x' can't be one of several values;"
        " allowed: {not: [x, y]} around the list"
    ),
    "filters: [{when: {event.type: strat}, then: drop}]": (
        "1:19: filters: event.type: 'strat' can't match: it is one of access, admin, allowed,"
        " change, connection, creation, deletion, denied, device, end, error, group, indicator,"
        " info, installation, protocol, start, user"
    ),
    "filters: [{when: {process.name: ''}, then: drop}]": (
        "1:19: filters: process.name: '' can't match: fields are never empty;"
        " allowed: exists: false for an absent field"
    ),
    "filters: [{when: {process.name: 're:('}, then: drop}]": (
        "1:19: filters: process.name: '(' is not a valid regular expression:"
        " missing ), unterminated subpattern at position 0; allowed: Python's syntax"
    ),
    "filters: [{when: {process.name: x}, then: {fold: 0s}}]": (
        "1:44: filters: '0s' is not a window; allowed: a duration from 1s to 1d"
    ),
    "filters: [{when: {process.name: x}, then: {fields: {omit: [event.id]}}}]": (
        "1:60: filters: event.id is required in every line; allowed: any other field"
    ),
    "filters: [{name: a, when: {process.name: x}, then: drop},"
    " {name: a, when: {process.name: y}, then: drop}]": (
        "1:60: filters: 'a' is already the name of filter 1; allowed: a unique name"
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_has_line_and_column(text: str) -> None:
    """The message names the place and what is allowed."""
    assert refused(text) == f"f.yml:{MISTAKES[text]}"


def test_a_filter_that_an_earlier_one_leaves_nothing_is_a_warning() -> None:
    """A filter that never matches causes a warning with its place."""
    text = (
        "filters:\n"
        "  - {name: a, when: {process.name: 'x*'}, then: keep}\n"
        "  - {name: b, when: {process.name: xy, process.pid: 1}, then: drop}\n"
        "  - {name: c, when: {process.name: 'y'}, then: drop}\n"
    )
    assert filter_warnings(text, "f.yml") == [
        "f.yml:3:5: filters: b: never matches: a matches first"
    ]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "when", "then", "any", "not", "process.name", "x"]), inner
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_anything_is_a_filter_or_a_mistake(value: object) -> None:
    """Actions outside the list are refused."""
    with contextlib.suppress(FilterError):
        assert all(rule.name for rule in Filters.parse(value))


def test_a_name_that_is_not_looked_up_is_a_warning() -> None:
    """With resolve_ids off, a condition on a name causes a warning."""
    text = (
        "auditd: {resolve_ids: false}\n"
        "filters:\n"
        "  - when: {process.user.name: x, process.name: y}\n"
        "    then: drop\n"
    )
    (warning,) = filter_warnings(text, "f.yml")
    assert warning.startswith("f.yml:3:12: filters: process.user.name: names are not resolved")
