"""Rules with which audit leaves out what a filter drops: when they are offered, and which."""

from __future__ import annotations

import pytest
import yaml

from sessiond.audit.rules import parser
from sessiond.audit.rules.plan import always_audits
from sessiond.config.filters import Filters
from sessiond.filters.never import loaded_for, offers, without
from sessiond.system.ordinary_users import OrdinaryUser

ALICE = OrdinaryUser(1000, "alice")
HEAD = "-a never,exit -F arch=b64 -S execve,execveat,exit_group,setsid "
RECORD_ALL = "-a always,exit -F arch=b64 -S execve,execveat -k exec"


def offered(*filters: str) -> dict[str, list[str]]:
    """The fields of the rules that are offered, by filter; filters are named by their number."""
    made = Filters.parse([yaml.safe_load(each) for each in filters])
    return {
        name: [rule.removeprefix(HEAD) for rule in rules]
        for name, rules in offers(made, [ALICE], ["b64"])
    }


@pytest.mark.parametrize(
    ("when", "fields"),
    [
        ("{process.user.id: 110}", ["-F euid=110 -F uid=110"]),
        (
            "{process.user.name: daemon, process.executable: [/usr/bin/df, /usr/bin/id]}",
            [
                "-F euid=daemon -F exe=/usr/bin/df -F uid=daemon",
                "-F euid=daemon -F exe=/usr/bin/id -F uid=daemon",
            ],
        ),
        (
            "{process.user.id: 0, user.audit.id: {exists: false}}",
            ["-F euid=0 -F auid=unset -F uid=0"],
        ),
        (
            "{process.user.id: 0, user.id: 0, process.group.id: '<100'}",
            ["-F euid=0 -F uid=0 -F egid<100"],
        ),
        ("{process.user.id: 0, user.audit.id: {not: 5}}", ["-F euid=0 -F auid!=5 -F uid=0"]),
    ],
)
def test_what_audit_can_test_is_offered(when: str, fields: list[str]) -> None:
    """Set-user-id programs stay: their real user is another one. The kernel's format has each."""
    assert offered(f"{{when: {when}, then: drop}}") == {"filter 1": fields}
    for each in fields:
        assert len(parser.parse(HEAD + each, "offer")) == 1


@pytest.mark.parametrize(
    "filter_",
    [
        "{when: {process.user.id: 110}, then: fold}",  # a fold counts ends
        "{when: {process.user.name: alice}, then: drop}",  # alice would be hidden
        "{when: {process.executable: /usr/bin/df}, then: drop}",  # so would everybody
        "{when: {user.audit.id: 110}, then: drop}",  # set-user-id programs would be hidden
        "{when: {process.real_user.id: 110}, then: drop}",
        "{when: {systemd.unit: x.service}, then: drop}",
        "{when: {process.user.id: 110, process.args: x}, then: drop}",
        "{when: {process.user.id: 110, ancestor.name: x}, then: drop}",
        "{when: {process.user.name: zab*}, then: drop}",
        "{when: {process.user.name: a b}, then: drop}",
        "{when: {process.user.id: 110, user.audit.id: '>5'}, then: drop}",  # unset is the highest
        "{when: {process.user.id: '<100'}, then: drop}",
        "{when: {process.user.id: 110, event.action: exec}, then: drop}",
        "{when: {not: {process.user.id: '>=1'}}, then: drop}",
    ],
)
def test_other_filters_get_no_rule(filter_: str) -> None:
    """Either audit can't test their conditions, or the rule would hide more than they do."""
    assert offered(filter_) == {}


def test_an_earlier_filter_may_want_the_same_events() -> None:
    """Unless its conditions exclude the later one's."""
    drop = "{when: {process.user.id: 110}, then: drop}"
    assert offered("{when: {process.name: df}, then: keep}", drop) == {}
    assert list(offered("{when: {process.user.id: 5}, then: keep}", drop)) == ["filter 2"]
    assert list(offered("{when: {process.name: df}, then: drop}", drop)) == ["filter 2"]


def test_rules_that_are_loaded_are_no_reason_for_alarm() -> None:
    """Without them the others record every exec."""
    made = Filters.parse([{"when": {"process.user.id": 110}, "then": "drop"}])
    found = offers(made, [ALICE], ["b64"])
    loaded = list(parser.parse("\n".join((*found[0].rules, RECORD_ALL)), "x"))
    assert not always_audits(loaded, "execve")
    in_use = loaded_for(found, loaded)
    assert in_use == {"filter 1": frozenset([loaded[0].canonical])}
    assert always_audits(without(loaded, in_use), "execve")
    assert loaded_for(found, loaded[1:]) == {}
