"""The wall clock of the host at a start of the daemon, and while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.scripted import documents, pipeline

from sessiond.daemon import host_clock
from sessiond.daemon.host_clock import HostClock
from sessiond.ecs.wall_clock import WallClock
from sessiond.pipeline.pipeline import Pipeline
from sessiond.system.clock import now
from sessiond.system.clock_file import ClockFile
from sessiond.units import SECOND

BOOT_ID = "2027b659-f0c3-42f0-9138-b2eae5a16b06"


class Hands:
    """The hands of the clock, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Show a fixed offset."""
        self.offset = 1_777_629_600 * SECOND
        monkeypatch.setattr(host_clock, "wall_offset", lambda: self.offset)
        monkeypatch.setattr(host_clock, "measure_offset", lambda: self.offset)


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    """A wall clock that the test can set."""
    return Hands(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file in the runtime directory."""
    return tmp_path / "boot_time"


def bound(clock: WallClock) -> Pipeline:
    """A pipeline that dates by this clock."""
    made = pipeline()
    made.clock = made.lines.process_encoder.clock = clock
    return made


def told(into: Pipeline) -> list[tuple[str, float]]:
    return [
        (each["event"]["action"], each["sessiond"]["clock"]["step"])
        for each in documents(into.poll(now()))
    ]


def test_a_step_is_told_logged_and_remembered(hands: Hands, path: Path) -> None:
    """A step is reported once, and the next start knows it."""
    clock = HostClock(path, BOOT_ID, None)
    into = bound(clock.clock)
    clock.follow(into)
    assert told(into) == []
    hands.offset += 90 * SECOND
    with capture_logs() as logs:
        clock.follow(into)
        clock.follow(into)
    assert told(into) == [("sessiond-clock-changed", 90.0)]
    assert [(each["event"], each["step"]) for each in logs] == [("clock_changed", 90.0)]
    again = HostClock(path, BOOT_ID, None)
    assert again.clock.steps == clock.clock.steps
    again.begin(into)
    assert told(into) == []


@pytest.mark.parametrize("looked", [None, 5 * SECOND])
def test_a_step_while_no_daemon_ran_is_told_at_the_start(
    hands: Hands, path: Path, looked: int | None
) -> None:
    """The step happened after the last run was last active."""
    HostClock(path, BOOT_ID, None)
    hands.offset -= 2 * SECOND
    clock = HostClock(path, BOOT_ID, looked)
    into = bound(clock.clock)
    clock.begin(into)
    assert told(into) == [("sessiond-clock-changed", -2.0)]
    if looked is not None:
        assert clock.clock.steps[-1].since == looked


def test_a_wrong_time_of_boot_is_put_right(hands: Hands, path: Path) -> None:
    """Whatever the file contained: from now on dates are correct."""
    ClockFile(path, BOOT_ID).write([(0, 0, hands.offset - 7 * 86400 * SECOND)])
    clock = HostClock(path, BOOT_ID, None)
    assert clock.clock.offset == hands.offset
    assert len(ClockFile(path, BOOT_ID).read()) == 2


def test_a_written_start_stays(hands: Hands, path: Path) -> None:
    """A process older than the step keeps its date."""
    clock = HostClock(path, BOOT_ID, None)
    start = now()
    before = clock.clock.date(start)
    into = bound(clock.clock)
    clock.follow(into)
    hands.offset += 3600 * SECOND
    clock.follow(into)
    assert clock.clock.date(start) == before
    assert HostClock(path, BOOT_ID, None).clock.date(start) == before
