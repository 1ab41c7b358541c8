"""The schema check: it must refuse what an index, or a reader of ECS, would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_schema.validate import validate, validate_line

GOOD: dict[str, Any] = {
    "@timestamp": "2026-05-01T10:11:12.123456Z",
    "event": {"kind": "event", "category": ["process"], "type": ["start"], "provider": ["auditd"]},
    "process": {"pid": 7, "args": ["a", ""], "previous": [{"args": ["sh"]}], "interactive": True},
    "user": {"id": "0", "audit": {"id": "1000"}, "effective": {"group": {"id": "0"}}},
    "source": {"ip": "2001:db8::7", "port": 22},
    "host": {"mac": ["02-00-00-00-00-01"]},
    "auditd": {"sequence": 3, "data": {"exit": "0"}},
    "sessiond": {"incomplete": ["parent: gone"]},
}


def test_a_good_document_has_no_problems() -> None:
    """Fields of ECS and of Auditbeat, and sessiond's namespaces."""
    assert validate(GOOD) == []


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"proces": {"pid": 1}}, "proces: no such field"),
        ({"process": {"pit": 1}}, "process.pit: no such field"),
        ({"process": {"pid": "1"}}, "process.pid: '1' is no long"),
        ({"process": {"pid": True}}, "process.pid: True is no long"),
        ({"process": {"pid": 2**63}}, "is no long"),
        ({"process": {"interactive": 1}}, "process.interactive: 1 is no boolean"),
        ({"process": {"args": "sh"}}, "process.args: a list is due"),
        ({"process": {"name": ["sh"]}}, "process.name: a scalar is due"),
        ({"process": {"args": []}}, "process.args: empty list"),
        ({"process": {"name": ""}}, "process.name: empty string"),
        ({"process": {"name": None}}, "process.name: None is no keyword"),
        ({"process": {"parent": {}}}, "process.parent: empty object"),
        ({"process": {"parent": 7}}, "process.parent: an object is due"),
        ({"process": {"previous": {"args": ["sh"]}}}, "process.previous: a list of objects"),
        ({"process": {"start": "2026-05-01T10:11:12.123Z"}}, "is no date"),
        ({"process": {"start": "2026-05-01T10:11:12.123456+00:00"}}, "is no date"),
        ({"process": {"start": "2026-13-01T10:11:12.123456Z"}}, "is no date"),
        ({"process": {"thread": {"capabilities": {"effective": ["chown"]}}}}, "doesn't match"),
        ({"process": {"name": "\ud800"}}, "a lone surrogate"),
        ({"source": {"ip": "localhost"}}, "source.ip: 'localhost' is no ip"),
        ({"source": {"ip": "fe80::1%eth0"}}, "is no ip"),
        ({"event": {"kind": "events"}}, "isn't one of"),
        ({"event": {"category": ["process"], "type": ["creation"]}}, "doesn't go with"),
        ({"event": {"category": ["processes"]}}, "isn't one of"),
        ({"user": {"audit": {"uid": "1"}}}, "user.audit.uid: no such field"),
        ({"auditd": {"data": {"exit": 0}}}, "all of auditd.data is strings"),
        ({"auditd": {"data": {"x": ""}}}, "auditd.data.x: empty string"),
        ({"auditd": {"data": {}}}, "auditd.data: empty object"),
        ({"sessiond": {"note": None}}, "sessiond.note: null"),
        ({"sessiond": {"a.b": 1}}, "isn't a nested one"),
    ],
)
def test_a_bad_document_is_refused(document: dict[str, Any], problem: str) -> None:
    """Each document has one problem, which is reported."""
    problems = validate(document)
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{}", "newline"),
        (b'{"a"\n:1}\n', "newline"),
        (b'{"process":{"name":"\xff"}}\n', "can't decode"),
        (b'{"tags":["a"],"tags":["b"]}\n', "stands twice"),
        (b"[1]\n", "not an object"),
        (b"{}\n", "@timestamp: missing"),
    ],
)
def test_a_bad_line_is_refused(line: bytes, problem: str) -> None:
    """A line of output has a format, too."""
    assert problem in "; ".join(validate_line(line))
