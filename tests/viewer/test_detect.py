"""Findings: what rules match becomes alerts, about a process or a session."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.recording import Story, login_lines, recorded

from sessiond.viewer import detect, sigma

pytest.importorskip("sigma", reason="needs pysigma, of PyPI")


def test_a_finding_is_an_alert_in_ecs() -> None:
    """With rule, severity, techniques, and the process it is about."""
    rule = detect.Rule(
        "A rule",
        "0b6f2d5e",
        "high",
        "process_creation",
        lambda fields: fields.raw("Image") == ["/usr/bin/curl"],
        techniques=("T1059.004",),
        tactics=("execution",),
    )
    event = Story().event(1, "exec", "curl", user="ann")
    assert detect.Ruleset([rule]).matching(event) == [rule]
    alert = detect.finding(event, rule)
    assert alert["event"]["kind"] == "alert"
    assert alert["event"]["severity"] == 73
    assert alert["event"]["id"].startswith(event["event"]["id"])
    assert alert["rule"]["name"] == "A rule"
    assert alert["threat"]["technique"]["id"] == ["T1059.004"]
    assert alert["threat"]["tactic"]["name"] == ["execution"]
    assert alert["process"] == event["process"]


@pytest.mark.parametrize(
    ("event", "title"),
    [
        (
            Story().event(1, "exec", "x") | {
                "process": {"executable": "/tmp/x (deleted)", "user": {"id": "0"}}
            },
            "Root executed a file that no name leads to",
        ),
        (
            {"event": {"kind": "pipeline_error", "action": "sessiond-degraded"},
             "sessiond": {"health": {"what": "audit rules"}}},
            "Auditing was weakened while sessiond ran",
        ),
        (
            {"event": {"kind": "pipeline_error", "action": "sessiond-lost"}},
            "Events were lost",
        ),
    ],
)  # fmt: skip
def test_our_own_rules(event: dict[str, Any], title: str) -> None:
    """Each finds what it is for; a login without any of it has no finding."""
    rules = sigma.load([sigma.OWN_RULES])
    assert (rules.problems, rules.others) == ([], 0)
    dated = {"@timestamp": "2026-05-01T10:00:00Z"} | event
    assert [each.title for each in rules.matching(dated)] == [title]
    detector = detect.Detector(rules)
    assert [each for line in login_lines() for each in detector.findings(line)] == []


def test_a_loss_is_a_finding_about_each_login_that_ran_then() -> None:
    """With the login as its process and user; a service that ran then is none of a user's."""
    story = Story()
    detector = detect.Detector(sigma.load([sigma.OWN_RULES]))
    cron = {"type": "init"}
    findings = [
        each
        for event in (
            story.event(1, "exec", "bash", start=1) | {"user": {"audit": {"name": "ann"}}},
            story.event(1, "exec", "zsh", start=1),
            story.event(1, "exec", "cron", start=1, meta=cron),
            story.event(2, "end", "zsh", start=1),
            story.own(5, "sessiond-lost", start=4, loss={"hop": "kernel", "count": 9}),
        )
        for each in detector.findings(json.dumps(event).encode())
    ]
    about = [(each["rule"]["name"], each.get("process", {}).get("entity_id")) for each in findings]
    assert about == [
        ("Events were lost", None),
        ("Events were lost while a user was logged in", "web1-bash"),
    ]
    assert findings[1]["user"] == {"name": "ann"}
    assert len({each["event"]["id"] for each in findings}) == 2
    assert recorded(*findings).findings.keys() == {"", "web1-bash"}


def test_a_line_that_is_none_has_no_finding() -> None:
    """Torn and foreign lines are skipped."""
    detector = detect.Detector(sigma.load([sigma.OWN_RULES]))
    for line in (b"{", b"[]", b"7", b"{}", b'{"event": {"action": "sessiond-lost"}}', b"\xff"):
        assert list(detector.findings(line)) == []
