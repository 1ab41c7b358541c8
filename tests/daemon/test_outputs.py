"""Each line goes to every output, and every output's account is balanced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessiond.audit.auditd_log import EnrichedNames
from sessiond.config.schema import Config
from sessiond.daemon.factory import offline_pipeline
from sessiond.daemon.health import Health
from sessiond.daemon.outputs import OutputSet
from sessiond.errors import OutputError
from sessiond.output.delivery import Delivery
from sessiond.output.file import FileOutput
from sessiond.output.sink import HealthChange, LineLoss
from sessiond.output.stream import StreamOutput
from sessiond.output.thread import OutputThread
from sessiond.pipeline.pipeline import Pipeline
from sessiond.units import SECOND, BootTime, WallTime


def line(number: int) -> bytes:
    """Return a line with the members that a restart reads."""
    return b'{"event":{"action":"exec","id":"id-%d","sequence":%d}}\n' % (number, number)


def file_output(path: Path) -> OutputThread:
    """An output to a file, not open yet."""
    return OutputThread(Delivery(FileOutput(str(path)), spool=None, queue_size=1 << 20))


@pytest.fixture
def pipeline() -> Pipeline:
    """A pipeline without input."""
    return offline_pipeline(Config(), EnrichedNames())


def test_every_output_gets_every_line(tmp_path: Path) -> None:
    """The account of each output shows the number of its lines and where they are."""
    outputs = OutputSet()
    outputs.open([file_output(tmp_path / "a")])
    outputs.write([line(1)])
    outputs.open([file_output(tmp_path / "b")])
    outputs.write([line(2), line(3)])
    outputs.flush()
    assert outputs.all_written()
    accounts = outputs.accounts()
    outputs.close()
    assert (tmp_path / "a").read_bytes() == line(1) + line(2) + line(3)
    assert (tmp_path / "b").read_bytes() == line(2) + line(3)
    assert outputs.written == 3
    assert all(account["delivered"] == account["received"] for account in accounts.values())


def test_lines_of_an_earlier_run_go_to_the_other_outputs(tmp_path: Path) -> None:
    """The file has these lines; other outputs may lack them."""
    outputs = OutputSet()
    outputs.open([file_output(tmp_path / "a"), file_output(tmp_path / "b")])
    outputs.write_again([line(1)], but=f"file:{tmp_path / 'a'}")
    outputs.write([line(2)])
    outputs.flush()
    accounts = outputs.accounts()
    outputs.close()
    assert (tmp_path / "a").read_bytes() == line(2)
    assert (tmp_path / "b").read_bytes() == line(1) + line(2)
    assert all(account["balanced"] for account in accounts.values())


def test_the_output_with_the_most_room_says_how_full_they_are(tmp_path: Path) -> None:
    """A line is lost everywhere only if no output takes it."""
    outputs = OutputSet()
    assert outputs.fill == 0.0
    lacking = StreamOutput(path=str(tmp_path / "nobody-listens"))
    outputs.open([OutputThread(Delivery(lacking, spool=None, queue_size=1000))])
    outputs.write([line(1)] * 15)
    outputs.flush()
    assert 0.5 < outputs.fill < 1.0
    outputs.open([file_output(tmp_path / "a")])
    assert outputs.fill == 0.0
    outputs.close()


def test_an_output_that_can_not_open_leaves_the_old_ones(tmp_path: Path) -> None:
    """A reload to an invalid path is refused, and lines continue to go to the old output."""
    outputs = OutputSet()
    outputs.open([file_output(tmp_path / "old")])
    bad = tmp_path / "directory"
    bad.mkdir()
    with pytest.raises(OutputError):
        outputs.replace([file_output(bad)], lambda: [file_output(tmp_path / "old")])
    outputs.write([line(1)])
    outputs.flush()
    outputs.close()
    assert (tmp_path / "old").read_bytes() == line(1)


class _Troubled:
    """An output whose reader has exited, and which has lost a line."""

    def __init__(self) -> None:
        self.gone = True
        self.deleted = 0
        self._losses = [LineLoss("socket", "queue full", 1, WallTime(10.0), WallTime(11.0))]
        self._events = [
            HealthChange("socket", False, "the connection was refused", WallTime(10.0), None, 0, 1)
        ]

    def take_losses(self) -> list[object]:
        taken, self._losses = self._losses, []
        return list(taken)

    def take_events(self) -> list[object]:
        taken, self._events = self._events, []
        return list(taken)

    def status(self) -> dict[str, object]:
        return {"output": "socket", "sink": {"deleted": self.deleted}}


def test_losses_and_troubles_are_told_in_the_stream(pipeline: Pipeline) -> None:
    """Each problem is written once, with the output's name."""
    outputs, health = OutputSet(), Health(pipeline)
    outputs._outputs.append(_Troubled())  # type: ignore[arg-type]
    for time in (BootTime(SECOND), BootTime(2 * SECOND)):
        outputs.watch(pipeline, health, time)
    events = [json.loads(each) for each in pipeline.poll(5 * SECOND)]
    assert [each["event"]["action"] for each in events].count("sessiond-degraded") == 1
    losses = [each["sessiond"]["loss"] for each in events if "loss" in each["sessiond"]]
    assert [loss["count"] for loss in losses] == [1]
    assert health.problems == {"output socket": "the connection was refused"}
    assert outputs.all_gone()


def test_a_file_that_others_delete_is_told_once(pipeline: Pipeline) -> None:
    """The problem ends a check later; a repetition is reported again."""
    outputs, health, output = OutputSet(), Health(pipeline), _Troubled()
    outputs._outputs.append(output)  # type: ignore[arg-type]
    for second, deleted in enumerate((0, 1, 1, 2), 1):
        output.deleted = deleted
        outputs.watch(pipeline, health, BootTime(second * SECOND))
        assert ("file of socket" in health.problems) is (second in (2, 4))
