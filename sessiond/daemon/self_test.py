"""The self-test: a process started regularly, whose events prove that the whole path works."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Final

import structlog

from sessiond.pipeline.event_writer import Probe
from sessiond.pipeline.pipeline import Pipeline

_PATH: Final = "/usr/bin:/bin"
_ARGUMENT: Final = "sessiond-canary"

log = structlog.get_logger()


class SelfTest:
    """Starts a canary every ``interval`` seconds and expects its events within ``timeout``.

    ``failure`` describes the problem, None if there is none. The canary's exec and end are in the
    output, marked by ``sessiond.canary``, as a heartbeat for consumers.

    Audit rules may exclude sessiond's own processes. The first canary after a change of rules
    therefore determines whether audit reports canaries; later ones are judged accordingly.
    """

    def __init__(self, pipeline: Pipeline, *, interval: float, timeout: float) -> None:
        """Take seconds; an ``interval`` of 0 disables the self-test."""
        self.interval = interval
        self.timeout = timeout
        self.failure: str | None = None
        self.blind = False
        self.seen = 0
        self._pipeline = pipeline
        self._program = shutil.which("true", path=_PATH)
        self._audited: bool | None = None  # whether audit reports canaries
        self._started = 0.0
        self._due: float | None = None
        self._ended: list[int] = []  # released canaries that must still be reaped

    def forget(self) -> None:
        """Determine again whether audit reports canaries, after a change of rules."""
        self._audited = None

    def check(self, now: float, *, audit_well: bool) -> None:
        """Start a canary when it is due, or judge the current one.

        ``now`` is in monotonic seconds. ``audit_well`` says that audit has no known problem;
        otherwise only the process source must report the canary.
        """
        self._reap()
        if not self.interval or self._program is None:
            self.close()
            return
        canary = self._pipeline.lines.canary
        if canary is not None:
            self._judge(canary, now, audit_well=audit_well)
        elif self._due is None:
            self._due = now + self.interval
        elif now >= self._due:
            self._due = now + self.interval
            self._start(self._program, now)

    def close(self) -> None:
        """Release the current canary."""
        canary, self._pipeline.lines.canary = self._pipeline.lines.canary, None
        if canary is not None:
            # Until here it was a zombie, so that its pid could not be reused.
            self._ended.append(canary.pid)
            self._reap()

    def _reap(self) -> None:
        for pid in list(self._ended):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
            self._ended.remove(pid)

    def _start(self, program: str, now: float) -> None:
        try:
            pid = os.posix_spawn(program, [program, _ARGUMENT], {})
        except OSError as error:
            # Too many processes, or no memory: a problem of the host, not of the path under test.
            log.warning("canary_not_started", program=program, reason=error.strerror)
            return
        self._started = now
        self._pipeline.lines.canary = Probe(pid)

    def _judge(self, canary: Probe, now: float, *, audit_well: bool) -> None:
        options = self._pipeline.options
        must_trace = options.exact
        may_audit = "execve" in options.audited and self._audited is not False
        must_audit = may_audit and bool(self._audited) and audit_well
        if not canary.traced:
            process = self._pipeline.table.get(canary.pid)
            canary.traced = process is not None and any(s.executed for s in process.states)
        late = now - self._started >= self.timeout
        waits_for_audit = (must_audit or may_audit) and not canary.audited and audit_well
        if (waits_for_audit or (must_trace and not canary.traced)) and not late:
            return
        self.blind = must_trace and not canary.traced
        missing = ["audit"] if must_audit and not canary.audited else []
        missing += [options.source] if self.blind else []
        if missing:
            sides = " and ".join(missing)
            self.failure = f"a process of ours was not seen by {sides} for {self.timeout:g} s"
        else:
            self.failure = None
            self.seen += 1
        if may_audit and self._audited is None and audit_well:
            self._audited = canary.audited
            if not canary.audited:
                log.warning("canary_not_audited", reason="the rules leave out what sessiond starts")
        self.close()
