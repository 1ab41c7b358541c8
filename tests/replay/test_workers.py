"""A replay by several processes writes what one process writes."""

from __future__ import annotations

import errno
import os
import signal
from itertools import chain

import orjson
import pytest
from support.auditlog import DATA, record_type
from support.descriptors import none_left_open
from support.replayed import pipeline, replayed

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.pipeline.pipeline import Pipeline
from sessiond.replay import workers
from sessiond.replay.blocks import Filter, Identity, Pipelines
from sessiond.replay.replay import Outcome, Replay

LOG = (DATA / "debian-12-linux-6.18-stig.log").read_bytes().splitlines()


def of_nodes(*names: str) -> list[bytes]:
    """Return a log in which several hosts did the same at the same time."""
    return [b"node=%b %b" % (name.encode(), line) for line in LOG for name in names]


def shared(
    log: list[bytes], jobs: int, wanted: Filter | None = None
) -> tuple[list[bytes], Outcome]:
    """Replay a log with several processes."""
    written: list[bytes] = []
    with workers.started(jobs, Pipelines(pipeline, wanted)) as work:
        replay = Replay(work, written.extend, record_type)
        for _ in replay.read(log):
            pass
        return written, replay.finish()


@pytest.mark.parametrize("jobs", [2, 3])
def test_the_number_of_processes_changes_nothing(jobs: int) -> None:
    """Lines, their order and numbers, and the counters are the same."""
    log = of_nodes("web7", "db3", "mail")
    expected, replay = replayed(log)
    written, outcome = shared(log, jobs)
    assert written == expected
    assert outcome == replay.outcome
    numbers = [orjson.loads(line)["event"]["sequence"] for line in written]
    assert numbers == list(range(1, outcome.events + 1))


def test_boots_are_shared_too() -> None:
    """The processes of a boot do not need those of an earlier one."""
    log = (DATA / "replay" / "reboots.log").read_bytes().splitlines()
    assert shared(log, 2)[0] == replayed(log)[0]


def test_a_selection_leaves_the_numbers_as_they_are() -> None:
    """A line has the same number, whichever others are written."""
    log = of_nodes("web7", "db3")
    documents = map(orjson.loads, replayed(log)[0])
    session = next(each["auditd"]["session"] for each in documents if "session" in each["auditd"])
    wanted = Filter(session=session)
    expected = replayed(log, wanted=wanted)[0]
    assert 0 < len(expected) < len(replayed(log)[0])
    assert shared(log, 2, wanted)[0] == expected


def test_the_memory_is_bounded() -> None:
    """However fast the log is read, few blocks are on their way."""
    with workers.started(2, Pipelines(pipeline)) as work:
        replay = Replay(work, len, record_type)
        most = 0
        for _ in replay.read(chain.from_iterable([of_nodes("web7", "db3")] * 5)):
            most = max(most, work.unwritten)
        assert 0 < most <= 8


def _broken(host: Identity, names: EnrichedNames) -> Pipeline:
    raise ValueError(f"no pipeline for {host.node}")


def _ends(host: Identity, names: EnrichedNames) -> Pipeline:
    os.kill(os.getpid(), signal.SIGKILL)
    return pipeline(host, names)


def test_an_error_in_a_process_is_raised_here() -> None:
    """Its traceback is kept, for --debug."""
    with workers.started(2, Pipelines(_broken)) as work:
        replay = Replay(work, len, record_type)
        with pytest.raises(ValueError, match="no pipeline for web7") as raised:
            _read(replay, of_nodes("web7"))
    assert "in _broken" in raised.value.__notes__[0]


def test_a_process_that_ends_is_named_with_what_to_do() -> None:
    """The kernel kills the largest process when memory is short."""
    with workers.started(2, Pipelines(_ends)) as work:
        replay = Replay(work, len, record_type)
        with pytest.raises(workers.WorkerError, match=r"ended by SIGKILL.*--jobs 1"):
            _read(replay, of_nodes("web7", "db3"))


def _read(replay: Replay, log: list[bytes]) -> None:
    for _ in replay.read(log):
        pass
    replay.finish()


def test_too_few_processes_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit (RLIMIT_NPROC, pids.max) refuses the second one; the first one ends."""
    before, fork = _children(), os.fork

    def second_fails() -> int:
        if _children() != before:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    monkeypatch.setattr(os, "fork", second_fails)
    with (
        pytest.raises(workers.WorkerError, match="temporarily unavailable; use --jobs 1"),
        workers.started(2, Pipelines(pipeline)),
    ):
        pass
    assert _children() == before


def test_small_logs_need_no_processes(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting one takes longer than reading the log; the size of a stream is not known."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert workers.default_jobs([str(DATA / "debian-12-linux-6.18-stig.log")]) == 1
    assert workers.default_jobs(["-"]) == workers.MAX_JOBS == 8


def test_no_process_and_no_descriptor_is_left() -> None:
    """This includes those of processes that still have work."""
    before = _children()
    with none_left_open(), workers.started(3, Pipelines(pipeline)) as work:
        steps = Replay(work, len, record_type).read(of_nodes("web7", "db3"))
        next(steps)
        assert len(_children() - before) == 3
    assert _children() == before


def _children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(map(int, file.read().split()))
