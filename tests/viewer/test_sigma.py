"""Sigma rules are asked of events, with the semantics that Sigma has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.recording import Story

from sessiond.errors import ConfigError
from sessiond.viewer import detect, sigma

pytest.importorskip("sigma", reason="needs pysigma, of PyPI")

RULE = """
title: {title}
id: 0b6f2d5e-6a0a-4d3c-9f57-5c2b0f0a7f00
status: test
level: {level}
tags: [attack.execution, attack.t1059.004]
logsource: {{{source}}}
detection:
{detection}
"""
PROCESS = "product: linux, category: process_creation"


def ruleset(
    tmp_path: Path, detection: str, source: str = PROCESS, level: str = "high"
) -> detect.Ruleset:
    """The rules of one file."""
    indented = "\n".join(f"    {line}" for line in detection.splitlines())
    rule = RULE.format(title="A rule", level=level, source=source, detection=indented)
    (tmp_path / "rule.yml").write_text(rule)
    return sigma.load([tmp_path])


def document(**more: Any) -> dict[str, Any]:
    """An exec of ann's: ``/usr/bin/curl -o /tmp/x http://192.0.2.9``, of a shell."""
    found = Story().event(
        1, "exec", "curl", user="ann", args=["curl", "-o", "/tmp/X.sh", "http://192.0.2.9"]
    )
    found["process"]["parent"] = {"executable": "/usr/bin/Bash", "args": ["Bash", "-c", "x"]}
    found["destination"] = {"ip": "192.0.2.9", "port": 443}
    found["network"] = {"direction": "egress"}
    return found | more


@pytest.mark.parametrize(
    ("selection", "fits"),
    [
        ("Image: /usr/bin/CURL", True),
        ("Image: curl", False),
        ("Image|endswith: [/wget, /curl]", True),
        ("CommandLine|contains: '/TMP/x'", True),
        ("CommandLine|contains|cased: '/TMP/x'", False),
        ("CommandLine|contains|cased: '/tmp/X'", True),
        ("CommandLine|startswith: ['wget', 'curl -o']", True),
        ("CommandLine: 'curl*192.0.?.9'", True),
        ("CommandLine: 'curl*192.0.?'", False),
        ("CommandLine|contains|all: [tmp, '192']", True),
        ("CommandLine|contains|all: [tmp, 'ftp']", False),
        ("CommandLine|re: 'http://(\\d+\\.){3}9$'", True),
        ("CommandLine|re: 'HTTP'", False),
        ("CommandLine|re|i: 'HTTP'", True),
        ("CommandLine|windash|contains: ' /o '", True),
        ("ParentImage|endswith: /bash", True),
        ("ParentCommandLine|contains: '-c'", True),
        ("User: ann", True),
        ("LogonId: null", True),
        ("LogonId|exists: true", False),
        ("Image|exists: true", True),
        ("process.user.id: 1001", True),
        ("process.pid|gte: 1", True),
        ("process.pid|lt: 1", False),
        ("DestinationIp|cidr: [10.0.0.0/8, 192.0.2.0/24]", True),
        ("DestinationIp|cidr: 198.51.100.0/24", False),
        ("DestinationPort: 443", True),
        ("Initiated: 'true'", True),
        ("Initiated: 'false'", False),
        ("process.name|fieldref: process.name", True),
    ],
)
def test_a_selection_asks_as_sigma_says(tmp_path: Path, selection: str, fits: bool) -> None:
    """Each Sigma modifier works on a field of sessiond."""
    rules = ruleset(tmp_path, f"selection:\n    {selection}\ncondition: selection")
    assert rules.problems == []
    assert bool(rules.matching(document())) is fits


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("shell and not filter", True),
        ("shell and filter", False),
        ("1 of filter*", False),
        ("1 of sh* or filter", True),
        ("all of them", False),
    ],
)
def test_conditions(tmp_path: Path, condition: str, fits: bool) -> None:
    """Conditions may use and, or, not, and counts of selections."""
    parts = "shell:\n    ParentImage|endswith: /bash\nfilter:\n    User: root\n"
    rules = ruleset(tmp_path, f"{parts}condition: {condition}")
    assert bool(rules.matching(document())) is fits


@pytest.mark.parametrize(
    ("keywords", "fits"),
    [
        ("keywords: [nothing, 'CURL -O']", True),
        ("keywords: ['-o /tmp/?.sh http*9']", True),
        ("keywords: [nothing]", False),
        ("keywords:\n    '|all': [curl, 192.0.2.9, web1]", True),
        ("keywords:\n    '|all': [curl, nothing]", False),
    ],
)
def test_keywords_are_searched_in_all_texts(tmp_path: Path, keywords: str, fits: bool) -> None:
    """Sigma searches them in the line of a log."""
    rules = ruleset(tmp_path, f"{keywords}\ncondition: keywords")
    assert rules.problems == []
    assert bool(rules.matching(document())) is fits


@pytest.mark.parametrize(
    ("source", "selection", "event", "fits"),
    [
        ("product: linux, category: file_event", "TargetFilename: /etc/x", {}, False),
        (
            "product: linux, category: file_event",
            "TargetFilename|startswith: /etc/",
            {"event": {"kind": "event", "action": "opened-file"}, "file": {"path": "/etc/x"}},
            True,
        ),
        ("product: linux, service: auditd", "type: EXECVE\n    a1: -o", {"auditd": {}}, True),
        (
            "product: linux, service: auditd",
            "type: SYSCALL\n    SYSCALL: ptrace\n    a0: '10'",
            {
                "event": {"kind": "event", "action": "ptrace"},
                "auditd": {"message_type": "syscall", "data": {"syscall": "ptrace", "a0": "10"}},
            },
            True,
        ),
        (
            "product: linux, service: auditd",
            "type: PATH\n    name|startswith: /var",
            {"auditd": {"paths": [{"name": "x"}, {"name": "/var/y"}]}},
            True,
        ),
        (PROCESS, "Image|contains: curl", {"event": {"kind": "event", "action": "end"}}, False),
        (PROCESS, "Image|contains: curl", {"event": {"kind": "alert", "action": "exec"}}, False),
    ],
)
def test_a_rule_is_asked_of_its_events_alone(
    tmp_path: Path, source: str, selection: str, event: dict[str, Any], fits: bool
) -> None:
    """Its log source says which events those are."""
    rules = ruleset(tmp_path, f"selection:\n    {selection}\ncondition: selection", source)
    assert bool(rules.matching(document(**event))) is fits


def test_no_document_stops_the_asking(tmp_path: Path) -> None:
    """Members of any wrong type match no rule and raise nothing."""
    rules = ruleset(tmp_path, "s: {Image|contains: a, CommandLine|contains: b}\ncondition: not s")
    event = {"kind": "event", "action": "exec", "category": 7}
    wrongs: tuple[Any, ...] = (
        None,
        7,
        "x",
        [],
        [1, "b", None],
        {"args": 7, "executable": ["a"]},
        {"args": {}},
    )
    for wrong in wrongs:
        strange = {"@timestamp": "2026-05-01T10:00:00Z", "event": event, "process": wrong}
        (rule,) = rules.matching(strange)
        assert detect.finding(strange, rule)["message"].startswith("A rule")
    assert rules.matching({"event": event}) == []
    assert rules.matching({"event": 7}) == []


def test_what_can_not_be_asked_is_told(tmp_path: Path) -> None:
    """Rules of other systems are counted, wrong ones named; the others are asked."""
    windows = ruleset(tmp_path, "s: {Image: x}\ncondition: s", "product: windows")
    assert (windows.others, windows.rules) == (1, [])
    (tmp_path / "broken.yml").write_text("title: [")
    (problem,) = sigma.load([tmp_path]).problems
    assert "broken.yml" in problem
    with pytest.raises(ConfigError, match="no such file"):
        sigma.load([tmp_path / "none"])


def test_rules_of_a_lower_level_are_left_out(tmp_path: Path) -> None:
    """The caller gives the lowest level."""
    ruleset(tmp_path, "s: {Image: x}\ncondition: s", level="medium")
    assert len(sigma.load([tmp_path], "medium").rules) == 1
    assert sigma.load([tmp_path], "high").rules == []


def test_without_pysigma_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pySigma is an optional dependency."""
    monkeypatch.setitem(sys.modules, "sigma.collection", None)
    with pytest.raises(ConfigError, match=r"pip install 'sessiond\[sigma\]'"):
        sigma.load([tmp_path])
