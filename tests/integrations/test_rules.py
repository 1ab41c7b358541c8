"""Elastic's prebuilt rules: the table matches the data, and each rule behaves as it says."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import plays
from support.daemon import Daemon
from support.elastic import DIRECTORY, page, rules
from support.manager import PROJECT

from sessiond.audit.rules import parser
from sessiond.config.fields import kind_of

MakeDaemon = Callable[..., Daemon]
CHECKOUT = os.environ.get("SESSIOND_DETECTION_RULES")


def test_the_page_is_made_of_the_data() -> None:
    """SESSIOND_WRITE=1 pytest tests/integrations/test_rules.py writes the page."""
    if os.environ.get("SESSIOND_WRITE") == "1":
        (DIRECTORY / "rules.md").write_text(page(), "utf-8")
    assert (DIRECTORY / "rules.md").read_text("utf-8") == page()


def test_each_rule_fires_or_has_a_reason() -> None:
    """A rule has one of the two; rules that fire read only fields that a line can have."""
    every = rules()
    assert len({rule["id"] for rule in every}) == len(every) == 361
    for rule in every:
        unknown = [field for field in rule["fields"] if kind_of(field) is None]
        if "fires" in rule:
            assert rule["do"], rule["name"]
            assert rule["fires"] in ("ecs", "auditbeat"), rule["name"]
            assert unknown == [], rule["name"]
            assert "why" not in rule, rule["name"]
        else:
            assert rule["why"], rule["name"]
            assert all(field in rule["why"] for field in unknown), rule["name"]


def test_the_audit_rules_are_rules() -> None:
    """Each rule compiles if its directory exists; there are no duplicates."""
    path = PROJECT / "etc" / "rules.d" / "elastic.rules"
    text = path.read_text("utf-8")
    compiled = parser.parse(text, path.name, path_mode=lambda _: 0o040755)
    assert (compiled.errors, compiled.warnings) == ((), ())
    written = [line for line in text.splitlines() if line.startswith(("-a", "-w"))]
    assert len(compiled) == len(written) > 30


@pytest.mark.kernel
@pytest.mark.timeout(300)
@pytest.mark.skipif(not CHECKOUT, reason="SESSIOND_DETECTION_RULES names Elastic's rules")
@pytest.mark.parametrize("actions", ["ecs", "auditbeat"])
def test_rules_fire_on_real_actions(actions: str, make_daemon: MakeDaemon, tmp_path: Path) -> None:
    """Each rule is evaluated on the events of its own action; the others never fire."""
    pytest.importorskip("eql", reason="needs eql, of PyPI")
    from support import eql_rules

    queries = eql_rules.rules(Path(CHECKOUT or ""))
    known = [rule for rule in rules() if rule["id"] in queries]
    expected = {rule["id"] for rule in known if rule.get("fires") in ("ecs", actions)}
    doing = [rule for rule in known if rule.get("fires") == actions]
    daemon = make_daemon(
        settings={"event": {"event_actions": actions}, "auditd": {"audit_rules": plays.RULES}}
    )
    daemon.start()
    leaders = plays.play(tmp_path / "stage", doing)
    contained = [rule for rule in doing if rule.get("container")]
    containers = plays.play_in_containers(tmp_path / "runc", contained)
    documents = sorted(daemon.settle(), key=lambda document: str(document["@timestamp"]))
    by_leader: dict[object, list[dict[str, Any]]] = defaultdict(list)
    for document in documents:
        leader = document.get("process", {}).get("session_leader", {}).get("pid")
        by_leader[document.get("container", {}).get("id") or leader].append(document)
    silent = [
        rule["name"]
        for rule in doing
        if not queries[rule["id"]](by_leader[containers.get(rule["id"]) or leaders[rule["id"]]])
    ]
    assert silent == []
    assert len(expected) >= len(doing) > 0
    fields = {rule["id"]: rule["fields"] for rule in known}
    surprising = [
        rule["name"]
        for rule in known
        if "fires" not in rule
        and all(kind_of(field) for field in fields[rule["id"]])
        and queries[rule["id"]](documents)
    ]
    assert surprising == []
