"""Detects changes of the host's wall clock, reports them, and saves them for this boot."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from sessiond.ecs.wall_clock import MIN_STEP, Step, WallClock
from sessiond.pipeline.pipeline import Pipeline
from sessiond.system.clock import measure_offset, now, wall_offset
from sessiond.system.clock_file import ClockFile
from sessiond.units import SECOND

log: Final = structlog.get_logger()


class HostClock:
    """The wall clock of this host, and the file that keeps its offsets between starts."""

    def __init__(self, path: Path, boot: str, last_active: int | None) -> None:
        """Read the offsets that earlier starts of this boot saved, and measure the current one.

        ``last_active`` is when the last run was last active (ns since boot): a new step happened
        after that.
        """
        self._file = ClockFile(path, boot)
        self._unreported: tuple[Step, int] | None = None
        began, offset, ended = now(), measure_offset(), now()
        saved = self._file.read()
        self.clock = WallClock(Step(*setting) for setting in saved or [(0, 0, offset)])
        before = self.clock.offset
        active = began if last_active is None else last_active
        self.clock.follow(active, active, before)
        step = self.clock.follow(began, ended, offset)
        if step is not None:
            self._unreported = step, before
        if step is not None or not saved:
            self._file.write(self.clock.steps)

    def begin(self, pipeline: Pipeline) -> None:
        """Report a step that happened before this start."""
        if self._unreported is not None:
            pipeline.report_step(*self._unreported)
            self._log(*self._unreported)
            self._unreported = None

    def follow(self, pipeline: Pipeline) -> None:
        """Measure; report and save a step."""
        began, offset = now(), wall_offset()
        before = self.clock.offset
        if abs(offset - before) >= MIN_STEP:
            offset = measure_offset()  # the first one may be off if this process was preempted
        step = pipeline.follow_clock(began, now(), offset)
        if step is not None:
            self._log(step, before)
            self._file.write(self.clock.steps)

    def _log(self, step: Step, before: int) -> None:
        seconds = round((step.offset - before) / SECOND, 6)
        log.warning("clock_changed", step=seconds, dates="follow the new setting from here on")
