"""Lists of the process table: selection, form, and the source of each fact."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from support.scripted import documents
from support.story import Bench, T

from sessiond.pipeline.listing import Fact, FactList, ListRequest, ProcessList, Row
from sessiond.process.events import Observed, Program
from sessiond.units import SECOND

LATER = T + 60 * SECOND


@pytest.fixture
def bench() -> Bench:
    """The shell (60) of a snapshot, its child 61 in another session, and 62, which ended."""
    bench = Bench()
    child = bench.child(61)
    changed, records = child.set_session(T + 2)
    bench.tell(changed, audit=records)
    executed, records = child.execute("make", T + 3, "all")
    bench.tell(executed, audit=records)
    parent, forked = child.fork(62, T + 4)
    bench.tell(forked)
    _, forked = parent.fork(63, T + 5)
    bench.tell(forked, parent.exit(0, T + 6)[0])
    bench.settle()
    return bench


def answer(bench: Bench, request: ListRequest) -> list[bytes]:
    """Return the lines before the last one, which has their number."""
    pipeline = bench.pipeline
    listing = ProcessList(pipeline.table, pipeline.lines.process_encoder, "ebpf", lambda _: {})
    lines = [line for line in listing.lines(request, LATER) if line]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert orjson.loads(lines[-1]) == {"end": len(lines) - 1}
    return lines[:-1]


def rows(bench: Bench, **request: Any) -> dict[int, Row]:
    """Return rows by pid."""
    found = [msgspec.json.decode(each, type=Row) for each in answer(bench, ListRequest(**request))]
    assert len({row.pid for row in found}) == len(found)
    return {row.pid: row for row in found}


def test_rows_are_the_living(bench: Bench) -> None:
    """They have the command, the session and the creator; 62 has ended."""
    found = rows(bench)
    assert set(found) == {1, 60, 61, 63}
    make = found[61]
    assert (make.parent, make.session, make.command, make.end) == (60, 61, "make all", None)
    assert (found[63].parent, found[60].session, found[60].command) == (62, 60, "bash")


def test_ended_processes_are_those_kept_for_others(bench: Bench) -> None:
    """62 is kept because it forked 63."""
    found = rows(bench, ended=True)
    assert set(found) == {62}
    assert found[62].end is not None


@pytest.mark.parametrize(
    ("request_", "pids"),
    [
        ({"session": "60"}, {60}),
        ({"session": "61"}, {61, 63}),
        ({"session": "p61-10000000001"}, {61, 63}),
        ({"session": "62"}, set()),
        ({"user": "0"}, {1, 60, 61, 63}),
        ({"user": "root"}, {1, 60, 61, 63}),
        ({"user": "eve"}, set()),
        ({"entry": "init"}, {60, 61, 63}),
        ({"entry": "init bash"}, {60, 61, 63}),
        ({"entry": "bash"}, {60, 61, 63}),
        ({"entry": "sshd"}, set()),
        ({"user": "root", "session": "60"}, {60}),
    ],
)
def test_a_request_chooses(bench: Bench, request_: dict[str, str], pids: set[int]) -> None:
    """All given conditions must hold."""
    assert set(rows(bench, **request_)) == pids


def test_objects_are_those_of_events(bench: Bench) -> None:
    """They equal the last event of the process, except for members that only events have."""
    lines = answer(bench, ListRequest(form="objects", session="61"))
    objects = {each["pid"]: each for each in documents(lines)}
    (event,) = [each for each in bench.written if each["event"]["action"] == "exec"]
    told = {name: value for name, value in event["process"].items() if name != "title"}
    assert objects[61] == told
    assert objects[63]["parent"]["end"]


def test_a_list_leaves_nothing_in_memory(bench: Bench) -> None:
    """The JSON of a list of many processes is not cached."""
    for process in bench.pipeline.table:
        process.state.stale()
    assert answer(bench, ListRequest(form="objects"))
    assert [process for process in bench.pipeline.table if process.state.cached] == []


def test_a_pid_is_told_with_its_ancestors_and_sources(bench: Bench) -> None:
    """The process is first, ended ancestors are included, and each fact has its source."""
    lines = answer(bench, ListRequest(form="facts", pid=63))
    family = [msgspec.json.decode(line, type=FactList) for line in lines]
    assert [(each.pid, each.ended) for each in family] == [
        (63, False),
        (62, True),
        (61, False),
        (60, False),
        (1, False),
    ]
    make = {fact.name: fact for fact in family[2].facts}
    assert make["command"] == Fact("command", "make all", "ebpf, exec 2026-05-01T10:00:10.000000Z")
    assert make["forked by"].source == "ebpf"
    shell = {fact.name: fact for fact in family[3].facts}
    assert shell["command"].source == "/proc, when it was first seen"
    assert "may have adopted it" in shell["forked by"].source
    assert {fact.name for fact in family[1].facts} >= {"end"}
    assert answer(bench, ListRequest(form="facts", pid=4711)) == []


def test_an_ended_process_is_found_by_its_pid(bench: Bench) -> None:
    """This applies even if only its child refers to it."""
    lines = answer(bench, ListRequest(pid=62))
    assert msgspec.json.decode(lines[0], type=Row).pid == 62


def test_a_container_is_found_by_its_id_short_or_whole() -> None:
    """The column has the short id; both forms are accepted."""
    identity = "6f2d1a9c" * 8
    bench = Bench()
    shell = bench.host.shell
    runtime = shell.facts._replace(
        pid=70, start=6 * SECOND + 1, ppid=60, parent_start=shell.start, sid=70, pgid=70
    )
    inside = runtime._replace(
        pid=71, start=6 * SECOND + 2, ppid=70, parent_start=6 * SECOND + 1, sid=71, pgid=71,
        pid_namespace=99, mount_namespace=98,
    )  # fmt: skip
    cgroup = b"/system.slice/docker-" + identity.encode() + b".scope"
    shim = Program(b"containerd-shim", b"/usr/bin/containerd-shim", b"shim\0", None)
    program = Program(b"sh", b"/bin/sh", b"sh\0", None)
    bench.tell(
        Observed(9 * SECOND, runtime, shim, b"/", None),
        Observed(9 * SECOND, inside, program, b"/", cgroup),
    )
    table, encoder = bench.pipeline.table, bench.pipeline.lines.process_encoder
    listing = ProcessList(table, encoder, "ebpf", lambda _: {"container": {"id": identity}})
    for wanted, found in (
        ("container", True),
        (identity[:12], True),
        (identity, True),
        ("container " + identity[:12], True),
        (identity[::-1], False),
    ):
        lines = listing.lines(ListRequest(entry=wanted), LATER)
        pids = {orjson.loads(line).get("pid") for line in lines if line}
        assert (71 in pids) is found, wanted
