"""Exposure of filters: whether an ordinary user controls the values of their conditions."""

from __future__ import annotations

import pytest

from sessiond.config.load import loads
from sessiond.filters.exposure import Exposure, exposures
from sessiond.system.ordinary_users import OrdinaryUser

ALICE = OrdinaryUser(1000, "alice", ((1000, "alice"), (998, "docker")))


def judged(when: str, then: str = "drop") -> list[Exposure]:
    """Return the result for a filter with these conditions."""
    filters = loads(f"filters: [{{name: f, when: {when}, then: {then}}}]", "f.yml").filters
    return exposures(filters, [ALICE])


@pytest.mark.parametrize(
    "when",
    [
        "{process.user.name: zabbix, ancestor.executable: /usr/sbin/zabbix_agentd}",
        "{process.user.id: 0}",
        "{user.id: '<1000', process.name: x}",
        "{user.audit.id: 0}",
        "{systemd.unit: backup*.service}",
        "{systemd.slice: machine.slice}",
        "{entry_leader.entry_meta.type: container, process.args: '*healthz*'}",
        "{ancestor.user.name: zabbix}",
        "{parent.user.name: zabbix}",
        "{any: [{process.user.name: zabbix}, {systemd.unit: x.service}]}",
        "{not: {process.user.id: '>=1000'}}",
        "{process.group.name: zabbix}",
    ],
)
def test_what_a_user_cannot_choose_makes_a_filter_safe(when: str) -> None:
    """Another user's id, a system unit, an entry established by root."""
    (found,) = judged(when)
    assert found.safe, found


@pytest.mark.parametrize(
    "when",
    [
        "{process.executable: /usr/sbin/zabbix_agentd}",
        "{ancestor.executable: /usr/sbin/zabbix_agentd}",
        "{process.args: '*healthz*'}",
        "{process.working_directory: /srv}",
        "{process.user.name: alice}",
        "{process.user.name: a*}",
        "{user.id: '>=0'}",
        "{process.group.name: docker}",
        "{user.audit.id: {exists: false}}",
        "{ancestor.user.id: 0}",
        "{parent.user.name: root}",
        "{systemd.user_unit: backup.service}",
        "{systemd.unit: 'session-*.scope'}",
        "{systemd.unit: '*.service'}",
        "{systemd.unit: cron.service}",
        "{process.user.id: 100500}",
        "{process.user.id: '>=100000'}",
        "{process.group.id: [5, 100007]}",
        "{user.id: 300000000}",
        "{systemd.slice: user.slice}",
        "{container.id: 'ab*'}",
        "{entry_leader.entry_meta.type: sshd}",
        "{any: [{process.user.name: zabbix}, {process.name: x}]}",
        "{not: {process.user.name: zabbix}}",
        "{process.interactive: false}",
        "{event.action: opened-file, file.path: /x}",
    ],
)
def test_what_a_user_chooses_does_not(when: str) -> None:
    """The result has a remedy."""
    (found,) = judged(when)
    assert not found.safe, found
    assert "systemd.unit" in found.advice


def test_only_what_takes_away_is_judged() -> None:
    """Labels hide nothing."""
    assert judged("{process.name: x}", "keep") == []
    assert judged("{process.name: x}", "{labels: {a: b}}") == []
    assert len(judged("{process.name: x}", "fold")) == 1


def test_dropping_logins_is_told() -> None:
    """This applies even if no ordinary user could cause it."""
    found = judged("{event.action: [logged-in, sessiond-lost, exec], process.user.id: 0}")
    assert [(each.safe, each.text) for each in found[1:]] == [
        (False, "it leaves out logged-in events, which tell who came in, or what was lost"),
        (False, "it leaves out sessiond-lost events, which tell who came in, or what was lost"),
    ]
