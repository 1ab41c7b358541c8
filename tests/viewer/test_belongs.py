"""Of all that a daemon writes, the lines of one command are kept."""

from __future__ import annotations

import json
from typing import Any

from support.recording import Story, at

from sessiond.viewer.belongs import Belongs


def kept(belongs: Belongs, *documents: dict[str, Any]) -> list[dict[str, Any]]:
    taken = (belongs.take(json.dumps(document).encode()) for document in documents)
    return [json.loads(line) for line in taken if line is not None]


def test_a_command_and_all_below_it() -> None:
    """Descendants of ended processes and losses are kept; lines are renumbered."""
    story = Story()
    root = story.event(2, "exec", "make", parent="bash", start=2)
    belongs = Belongs(root["process"]["pid"], at(1))
    found = kept(
        belongs,
        story.event(1, "exec", "other", start=1),
        root,
        story.event(3, "exec", "gcc", parent="make"),
        story.event(4, "end", "gcc", parent="make"),
        story.event(5, "exec", "cc1", parent="gcc"),
        story.event(5, "exec", "elsewhere", parent="other"),
        story.own(6, "sessiond-lost", loss={"hop": "kernel", "count": 1}),
        story.event(7, "end", "make", parent="bash"),
    )
    names = [each["process"]["name"] for each in found if "process" in each]
    assert names == ["make", "gcc", "gcc", "cc1", "make"]
    assert [each["event"]["sequence"] for each in found] == [1, 2, 3, 4, 5, 6]
    assert belongs.ended


def test_an_earlier_holder_of_the_pid_is_not_it() -> None:
    """A pid is used again."""
    story = Story()
    old = story.event(1, "end", "make", start=1)
    belongs = Belongs(old["process"]["pid"], at(2))
    assert kept(belongs, old) == []
    assert not belongs.ended
