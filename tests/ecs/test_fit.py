"""A line that is too long: its cuts, their order, and their marks."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sessiond.ecs.fit import fitted

LIMIT = 8192


def line(**process: Any) -> bytes:
    document = {
        "@timestamp": "2026-05-01T10:00:10.000000Z",
        "event": {"action": "exec", "id": "1"},
        "process": {"pid": 7, "args_count": 2, **process},
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def cut(**process: Any) -> Any:
    made = fitted(line(**process), LIMIT)
    assert len(made) <= LIMIT
    return json.loads(made)


def test_relatives_are_cut_first() -> None:
    """The process keeps its argv if that is enough."""
    args = ["x" * 1000, "y" * 2000]
    made = cut(args=args, parent={"args": ["z" * 9000], "pid": 1}, entry_leader={"args": ["short"]})
    assert made["process"]["args"] == args
    assert made["process"]["parent"]["pid"] == 1
    assert len(made["process"]["parent"]["args"][0]) < 128
    assert made["process"]["entry_leader"]["args"] == ["short"]
    assert made["sessiond"]["truncated"] == ["process.parent.args"]


def test_the_longest_is_cut_first() -> None:
    """The other values stay as they are."""
    made = cut(parent={"args": ["a" * 6000]}, group_leader={"args": ["b" * 5000]})
    assert made["sessiond"]["truncated"] == ["process.parent.args"]
    assert made["process"]["group_leader"]["args"] == ["b" * 5000]


def test_the_text_of_the_records_is_cut_wherever_it_stands() -> None:
    """The text has two names, if it is configured."""
    document = json.loads(line())
    document["auditd"] = {"messages": ["m" * 9000, "short"]}
    document["event"]["original"] = ["m" * 9000, "short"]
    made = fitted(json.dumps(document).encode() + b"\n", LIMIT)
    assert len(made) <= LIMIT
    cut = json.loads(made)
    assert "event.original" in cut["sessiond"]["truncated"]
    assert cut["event"]["action"] == "exec"


def test_the_argv_of_the_process_keeps_what_there_is_room_for() -> None:
    """Whole arguments are kept, then a part of one; the count stays true."""
    args = [f"{number:03}" * 10 for number in range(1000)]
    process = cut(args=args, command_line=" ".join(args), args_count=1000)["process"]
    assert process["args_count"] == 1000
    kept = process["args"]
    assert kept[:-1] == args[: len(kept) - 1]
    assert args[len(kept) - 1].startswith(kept[-1])
    assert process["command_line"].startswith(" ".join(kept[:-1])[:100])
    assert len(json.dumps(process)) > LIMIT / 2


def test_a_record_with_many_short_parts_goes_whole() -> None:
    """No single value is long, and the line does not fit."""
    document = {"event": {"action": "x"}, "auditd": {"paths": [{"n": "short"}] * 5000}}
    made = json.loads(fitted(json.dumps(document).encode() + b"\n", LIMIT))
    assert made == {"event": {"action": "x"}, "sessiond": {"truncated": ["auditd"]}}


def test_a_cut_value_is_named_once() -> None:
    """The argv may have been cut before."""
    document = json.loads(line(args=["x" * 9000]))
    document["sessiond"] = {"truncated": ["process.args"], "canary": True}
    made = json.loads(fitted(json.dumps(document).encode() + b"\n", LIMIT))
    assert made["sessiond"] == {"truncated": ["process.args"], "canary": True}


TEXTS = st.text(max_size=3000) | st.text("\\\x01\x1b", max_size=3000)
MEMBERS = st.dictionaries(
    st.sampled_from(["args", "executable", "command_line", "title", "working_directory"]),
    TEXTS | st.lists(TEXTS, max_size=5),
)


@given(MEMBERS, MEMBERS, MEMBERS)
def test_any_line_fits(own: Any, parent: Any, leader: Any) -> None:
    """The line stays a document, in which each cut value is a prefix."""
    whole = line(**own, parent=parent, entry_leader=leader)
    made = fitted(whole, LIMIT)
    assert len(made) <= LIMIT
    document = json.loads(made)
    marked = document.get("sessiond", {}).get("truncated", [])
    for where, told in (("", own), ("parent.", parent), ("entry_leader.", leader)):
        holder = document["process"][where[:-1]] if where else document["process"]
        for name, value in told.items():
            assert holder[name] == value or f"process.{where}{name}" in marked
