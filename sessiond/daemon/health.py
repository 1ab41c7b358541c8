"""Health problems of the daemon and the host, each reported when it starts and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from sessiond.pipeline.pipeline import Pipeline
from sessiond.units import BootTime

log = structlog.get_logger()


class Health:
    """The current problems; logs and writes an event when a problem starts or ends.

    ``problems`` maps the affected part to the reason; ``reported`` counts the events written.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        """Start healthy; ``pipeline`` writes the events."""
        self.problems: dict[str, str] = {}
        self.reported = 0
        self._pipeline = pipeline

    def degraded(
        self,
        what: str,
        reason: str,
        time: BootTime,
        *,
        details: Mapping[str, Any] | None = None,
        window: tuple[int, int] | None = None,
    ) -> None:
        """Report a problem of ``what`` since ``time`` (ns since boot), unless it is known.

        ``window`` bounds the time of a problem whose exact time is unknown.
        """
        if what in self.problems:
            return
        self.problems[what] = reason
        more = dict(details or {})
        log.warning("degraded", what=what, reason=reason, **more)
        self._write_event("sessiond-degraded", what, reason, time, more, window)

    def recovered(self, what: str, time: BootTime, reason: str = "") -> None:
        """Report the end of the problem of ``what``, if any; ``reason`` says why it is over."""
        before = self.problems.pop(what, None)
        if before is None:
            return
        reason = reason or "it is over"
        log.info("recovered", what=what, reason=reason, before=before)
        self._write_event("sessiond-recovered", what, reason, time, {}, None)

    def status(self) -> dict[str, Any]:
        """Return the state and the problems, as ``sessiond status`` shows them."""
        return {
            "state": "degraded" if self.problems else "healthy",
            "problems": [f"{what}: {reason}" for what, reason in self.problems.items()],
            "told": self.reported,
        }

    def _write_event(
        self,
        action: str,
        what: str,
        reason: str,
        time: BootTime,
        details: dict[str, Any],
        window: tuple[int, int] | None,
    ) -> None:
        self.reported += 1
        health = {"health": {"what": what, "reason": reason, **details}}
        self._pipeline.lines.write_self_event(
            action, time, health, f"{what}: {reason}", window=window
        )
