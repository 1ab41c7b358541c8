"""A start continues where the last run ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.scripted import Host
from support.scripted import pipeline as scripted_pipeline

from sessiond.pipeline.pipeline import Pipeline
from sessiond.process.events import Lost, Observed, ProcessEvent
from sessiond.restart.resume import Restart
from sessiond.restart.write_ahead import PERIOD
from sessiond.restart.written_lines import WrittenLines
from sessiond.units import SECOND


class _Source:
    """A source that reports living processes."""

    passes_input = True

    def __init__(self, *living: ProcessEvent) -> None:
        self._living = list(living)

    def drain(self) -> list[ProcessEvent]:
        return self._living


def resume(restart: Restart, pipeline: Pipeline, *living: ProcessEvent, **options: Any) -> None:
    source: Any = _Source(*living)
    restart.resume(pipeline, source, 20 * SECOND, **options)


@pytest.fixture
def shell() -> Observed:
    """The only process of the host."""
    actor = Host().shell
    return Observed(10 * SECOND, actor.facts, actor.program, b"/srv", None)


def lines(pipeline: Pipeline) -> list[Any]:
    return [json.loads(each) for each in pipeline.flush(100 * SECOND)]


def test_the_next_run_processes_read_records(tmp_path: Path) -> None:
    """The run that read them ended before it wrote their line."""
    first = Restart(tmp_path, "boot")
    host = Host()
    records = host.shell.fail_to_execute(11 * SECOND)
    first.keep_records(records)
    first.close()
    pipeline = scripted_pipeline()
    second = Restart(tmp_path, "boot")
    resume(second, pipeline)
    second.close()
    (event,) = lines(pipeline)
    assert event["event"]["outcome"] == "failure"
    assert pipeline.records == len(records)


def test_a_saved_state_needs_no_record_again(tmp_path: Path, shell: Observed) -> None:
    """After ``save`` the log is empty, and the next run has the same processes."""
    first, pipeline = Restart(tmp_path, "boot"), scripted_pipeline()
    resume(first, pipeline, shell)
    first.keep_records(Host().shell.fail_to_execute(11 * SECOND))
    first.save(pipeline, all_written=True)
    first.close()
    again = scripted_pipeline()
    second = Restart(tmp_path, "boot")
    resume(second, again, shell)
    second.close()
    assert (len(again.table), again.records) == (1, 0)


def test_a_state_of_another_boot_is_set_aside(tmp_path: Path) -> None:
    """Its pids mean other processes."""
    first = Restart(tmp_path, "boot")
    first.keep_records(Host().shell.fail_to_execute(11 * SECOND))
    first.close()
    pipeline = scripted_pipeline()
    second = Restart(tmp_path, "another boot")
    resume(second, pipeline)
    second.close()
    assert lines(pipeline) == []


def test_a_state_is_due_after_its_period_when_all_is_written(tmp_path: Path) -> None:
    """Unwritten lines must be made again from the log."""
    now = 100.0
    restart = Restart(tmp_path, "boot", lambda: now)
    resume(restart, scripted_pipeline())
    restart.keep_records(Host().shell.fail_to_execute(11 * SECOND))
    restart.save(scripted_pipeline(), all_written=True)
    restart.keep_records(Host().shell.fail_to_execute(12 * SECOND))
    assert not restart.is_due(all_written=True)
    now += PERIOD
    assert restart.is_due(all_written=True)
    assert not restart.is_due(all_written=False)
    restart.close()


def test_a_permanent_stop_leaves_nothing(tmp_path: Path) -> None:
    """The next start begins with the kernel's data."""
    first = Restart(tmp_path, "boot")
    first.keep_records(Host().shell.fail_to_execute(11 * SECOND))
    first.clear()
    first.close()
    pipeline = scripted_pipeline()
    second = Restart(tmp_path, "boot")
    resume(second, pipeline)
    second.close()
    assert lines(pipeline) == []


def test_a_gap_is_reported_until_its_line_is_written(tmp_path: Path, shell: Observed) -> None:
    """No state was kept for this run; the next one repeats the report, with the same id."""
    first, pipeline = Restart(tmp_path, "boot", boot_clock=lambda: 12 * SECOND), scripted_pipeline()
    resume(first, pipeline, shell)
    first.save(pipeline, all_written=True)
    first.close()
    ids = []
    for _ in range(2):
        again = scripted_pipeline()
        run = Restart(tmp_path, "boot")
        resume(run, again, listening=21 * SECOND)
        run.close()
        gap, *others = (each for each in lines(again) if each["event"]["action"] == "sessiond-lost")
        assert gap["sessiond"]["loss"]["hop"] == "gap"
        ids.append([each["event"]["id"] for each in (gap, *others)])
    # The second run's own gap is empty, because no time passed in the test; it is another one.
    assert ids[0] == ids[1][:1]


def test_a_process_that_ended_without_a_daemon_has_one_end(tmp_path: Path, shell: Observed) -> None:
    """Its id stays the same, and unknown data is named."""
    first, pipeline = Restart(tmp_path, "boot", boot_clock=lambda: 12 * SECOND), scripted_pipeline()
    resume(first, pipeline, shell)
    known = pipeline.table.get(shell.facts.pid)
    first.save(pipeline, all_written=True)
    first.close()
    again = scripted_pipeline()
    run = Restart(tmp_path, "boot")
    resume(run, again, listening=21 * SECOND)
    run.close()
    (end,) = (each for each in lines(again) if each["event"]["action"] == "end")
    assert known is not None
    assert end["process"]["entity_id"] == known.entity_id
    assert "the end was not seen" in end["sessiond"]["incomplete"][-1]


def test_losses_without_a_daemon_are_reported_first(tmp_path: Path, shell: Observed) -> None:
    """The window begins at the last reading of the counter; they are reported once."""
    first = Restart(tmp_path, "boot")
    first.save_reading(lost=5, time=12 * SECOND)
    first.close()
    pipeline = scripted_pipeline(inventory=True)
    second = Restart(tmp_path, "boot")
    resume(second, pipeline, shell, kernel_lost=47)
    told = lines(pipeline)
    assert told[0]["sessiond"]["loss"]["count"] == 42
    assert told[0]["event"]["start"].endswith("10:00:12.000000Z")
    pipeline.losses.confirm()
    second.keep_losses(pipeline)
    second.close()
    third, again = Restart(tmp_path, "boot"), scripted_pipeline()
    resume(third, again, shell, kernel_lost=47)
    third.close()
    assert lines(again) == []


@pytest.mark.parametrize("saved", [True, False])
def test_a_full_ring_is_dated_from_the_last_reading(
    tmp_path: Path, shell: Observed, *, saved: bool
) -> None:
    """Also if the last run never found the audit socket empty, or ended before it saved a state."""
    first, pipeline = Restart(tmp_path, "boot"), scripted_pipeline()
    resume(first, pipeline, shell)
    pipeline.feed_audit([], now=12 * SECOND, drained=False)
    first.save_reading(lost=0, time=12 * SECOND)
    if saved:
        first.save(pipeline, all_written=True)
    first.close()
    again = scripted_pipeline()
    second = Restart(tmp_path, "boot")
    resume(second, again, shell, Lost(20 * SECOND, "exec", 9))
    second.close()
    (lost,) = lines(again)
    assert lost["event"]["start"].endswith("10:00:12.000000Z")
    assert lost["event"]["end"].endswith("10:00:20.000000Z")


def test_equal_losses_of_two_runs_are_two_events(tmp_path: Path, shell: Observed) -> None:
    """Neither run has read the kernel's counter, so both windows begin at the same time."""
    ids = []
    for time in (20 * SECOND, 21 * SECOND):
        restart, pipeline = Restart(tmp_path, "boot"), scripted_pipeline()
        restart.save_reading = lambda *_: None  # type: ignore[method-assign]
        resume(restart, pipeline, shell, Lost(time, "exec", 1))
        ids += [each["event"]["id"] for each in lines(pipeline)]
        restart.close()
    assert len(set(ids)) == len(ids) == 2


def test_a_kill_while_resuming_reports_a_gap_once(tmp_path: Path, shell: Observed) -> None:
    """The killed run has kept the gap, and the next one finds a longer one."""
    first = Restart(tmp_path, "boot")
    first.keep_records(Host().shell.fail_to_execute(11 * SECOND))
    first.save_reading(lost=0, time=12 * SECOND)
    first.close()
    killed, pipeline = Restart(tmp_path, "boot"), scripted_pipeline()
    killed.save_reading = lambda *_: None  # type: ignore[method-assign]
    resume(killed, pipeline, shell, listening=19 * SECOND, kernel_lost=5)
    killed.close()
    again = scripted_pipeline()
    restart = Restart(tmp_path, "boot")
    resume(restart, again, shell, listening=20 * SECOND, kernel_lost=7)
    restart.close()
    losses = [each["sessiond"]["loss"] for each in lines(again) if "loss" in each["sessiond"]]
    assert [(each["hop"], each.get("count")) for each in losses] == [("gap", None), ("kernel", 7)]


def test_lines_are_numbered_on_from_those_of_the_file(tmp_path: Path) -> None:
    """Also after a permanent stop: readers detect missing lines by gaps."""
    (tmp_path / "events").write_bytes(b'{"event":{"id":"a","sequence":41}}\n')
    pipeline = scripted_pipeline()
    restart = Restart(tmp_path, "boot")
    resume(restart, pipeline, output=lambda after: WrittenLines(tmp_path / "events", after=after))
    restart.close()
    assert pipeline.lines.sequence == 41


def test_a_loss_is_reported_until_its_line_is_written(tmp_path: Path) -> None:
    """A run that ends before that leaves it to the next one, with the same id."""
    ids = []
    for number in range(3):
        pipeline = scripted_pipeline()
        restart = Restart(tmp_path, "boot")
        resume(restart, pipeline)
        if number == 0:
            pipeline.lost(12 * SECOND, "tracer", 7, "the buffer was full", since=11 * SECOND)
            restart.keep_losses(pipeline)
        ids.append([each["event"]["id"] for each in lines(pipeline)])
        if number == 1:
            pipeline.losses.confirm()
        restart.keep_losses(pipeline)
        restart.close()
    assert ids == [ids[0], ids[0], []]
    assert len(ids[0]) == 1
