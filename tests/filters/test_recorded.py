"""Filters applied to existing events: as if they had been active."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from support.story import Bench

from sessiond.config.filters import Filters
from sessiond.filters.recorded import Recorded, asks_for_paths


def line(pid: int, action: str, parent: int = 1, **more: Any) -> dict[str, Any]:
    """Return a line of a process, whose program is named after its pid by default."""
    process = {
        "entity_id": f"p{pid}",
        "pid": pid,
        "executable": f"/bin/x{pid}",
        "user": {"id": "0"},
        "real_user": {"id": "0"},
        "parent": {"entity_id": f"p{parent}", "pid": parent},
        **more,
    }
    return {"event": {"action": action, "outcome": "success"}, "process": process}


def tried(text: str, *lines: dict[str, Any]) -> Recorded:
    """Apply filters to these lines, of 100 bytes each, one second apart."""
    recorded = Recorded(Filters.parse(yaml.safe_load(text)))
    for number, each in enumerate(lines):
        recorded.take(each, 100, number * 10**9)
    recorded.finish()
    taken = sum(t.lines for t in recorded.tallies.values() if t.rule.withholds)
    assert recorded.lines == recorded.written + taken
    return recorded


DROP = "[{name: d, when: {ancestor.executable: /bin/x5}, then: drop}]"


def test_a_dropped_process_loses_its_life() -> None:
    """The ancestor is known from earlier lines, or from the line itself."""
    recorded = tried(
        DROP,
        line(5, "exec"),
        line(6, "exec", 5),
        line(7, "exec", 6),
        line(7, "end", 6),
        line(6, "end", 5),
        line(5, "end"),
        line(9, "exec", 8)
        | {"sessiond": {"ancestors": [{"pid": 8}, {"pid": 5, "executable": "/bin/x5"}]}},
    )
    assert (recorded.lines, recorded.written) == (7, 2)
    assert recorded.tallies["d"].bytes == 500
    assert recorded.tallies["d"].examples == ["/bin/x6", "/bin/x7", "/bin/x9"]


def test_a_needed_parent_is_written() -> None:
    """Its ancestors are written too, and its end."""
    text = "[{name: d, when: {process.executable: [/bin/x5, /bin/x6]}, then: drop}]"
    recorded = tried(
        text, line(5, "exec"), line(6, "exec", 5), line(7, "exec", 6), line(6, "end", 5)
    )
    assert recorded.written == 4


def test_set_user_id_is_written() -> None:
    """So are all its descendants."""
    root = {"user": {"id": "0"}, "real_user": {"id": "1000"}}
    recorded = tried(DROP, line(5, "exec"), line(6, "exec", 5, **root), line(7, "exec", 6))
    assert recorded.written == 3


def test_folds_are_counted_by_kind_and_window() -> None:
    """Each kind is written once at first, then once per window."""
    text = "[{name: f, when: {process.name: probe}, then: {fold: 1m}}]"
    lines = [
        line(n, a, 5, name="probe", executable="/p") for n in range(20) for a in ("exec", "end")
    ]
    recorded = tried(text, *lines)
    assert (recorded.written, recorded.folded_lines) == (0, 2)


def test_other_events_are_taken_by_filters_that_ask_for_them() -> None:
    """A system call matches any condition on it, a login only its own action."""
    call = line(5, "opened-file") | {"auditd": {"data": {"syscall": "openat"}}}
    login = line(5, "logged-in")
    for when, written in (
        ("process.executable: /bin/x5", 2),
        ("event.action: '*e*'", 1),
        ("event.action: [opened-file, logged-in]", 0),
    ):
        recorded = tried(f"[{{name: d, when: {{{when}}}, then: drop}}]", call, login)
        assert recorded.written == written, when


@pytest.mark.parametrize(
    ("when", "asks"),
    [("process.name: x", True), ("ancestor.executable: /x", True), ("process.user.name: x", False)],
)
def test_filters_on_programs_depend_on_their_owners(when: str, asks: bool) -> None:
    """Lines do not contain the owner."""
    (rule,) = Filters.parse(yaml.safe_load(f"[{{when: {{{when}}}, then: drop}}]"))
    assert asks_for_paths(rule) is asks


def test_what_a_pipeline_writes_is_understood() -> None:
    """The lines of a real pipeline are understood."""
    bench = Bench()
    child = bench.child()
    event, records = child.execute("ls", bench.now + 1)
    bench.tell(event, audit=records)
    recorded = tried("[{name: d, when: {process.name: ls}, then: drop}]", *bench.settle())
    assert recorded.tallies["d"].lines == 1
