"""Lines: the fields that sessiond adds to events."""

from __future__ import annotations

from typing import Any

import pytest
from ecs_schema.validate import validate
from support.scripted import documents
from support.story import Bench, T

from sessiond.pipeline.event_writer import Probe
from sessiond.pipeline.losses import Loss
from sessiond.units import SECOND


@pytest.fixture
def bench() -> Bench:
    """An exact source reports every fork, exec and exit."""
    return Bench(include_namespaces=True)


def taken(bench: Bench) -> list[dict[str, Any]]:
    made = documents(bench.pipeline.lines.take())
    assert [problem for each in made for problem in validate(each)] == []
    return made


def test_a_loss_has_window_hop_count_and_reason(bench: Bench) -> None:
    """The message is for people, the fields are for programs."""
    lines = bench.pipeline.lines
    lines.loss(Loss("kernel", 812, "the backlog was full", T, T + 3 * SECOND, {}), T + 4 * SECOND)
    (told,) = taken(bench)
    assert told["event"]["action"] == "sessiond-lost"
    assert told["event"]["provider"] == ["sessiond"]
    assert (told["event"]["start"], told["event"]["end"]) == (
        "2026-05-01T10:00:10.000000Z",
        "2026-05-01T10:00:13.000000Z",
    )
    assert told["sessiond"]["loss"] == {
        "hop": "kernel", "count": 812, "unit": "records", "reason": "the backlog was full",
    }  # fmt: skip
    assert told["message"] == (
        "blind from 2026-05-01T10:00:10.000000Z to 2026-05-01T10:00:13.000000Z: "
        "kernel, 812 records: the backlog was full"
    )


def test_events_about_ourselves_have_ids_of_their_own(bench: Bench) -> None:
    """Two at the same time have different ids; neither is an audit event."""
    lines = bench.pipeline.lines
    for _ in range(2):
        lines.write_self_event("sessiond-degraded", T, {"health": {"what": "x"}}, "x is ill")
    first, second = taken(bench)
    assert first["event"]["id"] != second["event"]["id"]
    assert (first["event"]["kind"], first["event"]["outcome"]) == ("pipeline_error", "failure")
    assert bench.pipeline.account()["received"] == 0


def test_what_a_process_does_as_a_canary_is_marked(bench: Bench) -> None:
    """Consumers can ignore it, or use it as a heartbeat."""
    child = bench.child()
    bench.pipeline.lines.canary = Probe(child.pid)
    event, records = child.execute("true", T + 1000)
    bench.tell(event, audit=records)
    assert bench.settle()[0]["sessiond"]["canary"] is True
    assert bench.pipeline.lines.canary.audited


def test_namespaces_are_told_where_wanted(bench: Bench) -> None:
    """Lines have their inode numbers."""
    event, records = bench.child().execute("ls", T + 1000)
    bench.tell(event, audit=records)
    assert bench.settle()[0]["sessiond"]["namespaces"] == {
        "pid": 1, "mount": 2, "user": 3, "network": 4,
    }  # fmt: skip


def test_lines_are_handed_out_once(bench: Bench) -> None:
    """Lines are counted by action."""
    lines = bench.pipeline.lines
    lines.write_self_event("sessiond-recovered", T, {"health": {"what": "x"}}, "x is well")
    assert lines.waiting == 1
    assert len(taken(bench)) == 1
    assert (lines.waiting, taken(bench)) == (0, [])
    assert lines.counts == {"sessiond-recovered": 1}
