"""The check of every second: the kernel's counters, settings and rules, and the self-test.

The monitor reports problems in the log, in the stream and in ``status``, and restores changed
settings if the configuration allows it (``auditd.reconcile``).
"""

from __future__ import annotations

import os
import time as clock_time
from typing import Any, Final

from sessiond.audit.kernel.client import KernelAuditStatus
from sessiond.audit.kernel.controller import AuditController
from sessiond.audit.kernel.monitor import AuditDrift, AuditMonitor
from sessiond.audit.rules.plan import always_audits, silencers
from sessiond.audit.rules.ruleset import LoadedRule, Rule
from sessiond.config.schema import Config
from sessiond.daemon.health import Health, log
from sessiond.daemon.own_process import OwnProcess
from sessiond.daemon.self_test import SelfTest
from sessiond.errors import AuditUnavailableError
from sessiond.filters import never
from sessiond.pipeline.config_changes import ConfigChange
from sessiond.pipeline.pipeline import Pipeline
from sessiond.system import log as logs
from sessiond.units import SECOND, BootTime, Monotonic

# Seconds for which a loss or congestion counts as a problem after its last occurrence.
DEGRADED_FOR: Final = 5.0
# Seconds for which a CONFIG_CHANGE record explains a finding.
CHANGE_WINDOW: Final = 5.0


# This many checks within this many seconds that find execs without audit events are a problem.
BLIND_CHECKS: Final = 3
BLIND_FOR: Final = 8.0


class Monitor:
    """Monitors the kernel's side for one pipeline; the daemon calls ``check`` once a second."""

    def __init__(
        self,
        config: Config,
        audit: AuditController,
        pipeline: Pipeline,
        health: Health,
        time: BootTime,
    ) -> None:
        """Take the state at ``time`` (ns since boot) as the baseline."""
        self.canary = SelfTest(
            pipeline, interval=config.canary.interval, timeout=config.canary.timeout
        )
        self._config = config
        self._audit = audit
        self._pipeline = pipeline
        self._health = health
        self._throttle = logs.Throttle(log)
        self._own = OwnProcess(Monotonic(clock_time.monotonic()), clock_time.process_time())
        self._audit_monitor = AuditMonitor(audit, config.auditd)
        self._checked = time
        self._kernel_lost = audit.client.status().lost
        self._dropped = audit.client.dropped
        self._congested = 0
        self._malformed = 0
        self._pings = 0
        self._unaudited = 0
        self._blind: list[float] = []  # times of checks that found execs without audit events
        self._degraded_until: dict[str, float] = {}
        self._seen: dict[str, AuditDrift] = {}
        self._changes: list[tuple[float, ConfigChange]] = []
        self._repaired: dict[str, str] = {}

    def reconfigure(self, config: Config) -> None:
        """Use another configuration, whose rules are loaded."""
        self._config = config
        self._audit_monitor = AuditMonitor(self._audit, config.auditd)
        self.canary.interval = config.canary.interval
        self.canary.timeout = config.canary.timeout
        self.canary.forget()

    @property
    def kernel_reading(self) -> tuple[int, BootTime]:
        """The kernel's number of lost records, and when it was last read."""
        return self._kernel_lost, self._checked

    def check(self, time: BootTime, clock: Monotonic) -> None:
        """Check everything; ``time`` is in ns since boot, ``clock`` in monotonic seconds."""
        try:
            status = self._audit.client.status()
            lost = self._report_losses(status, time, clock)
            self._check_settings(status, time, clock, lost=lost)
            self._report_blindness(status, time, clock)
        except AuditUnavailableError as error:
            self._health.degraded("audit", str(error), time)
        else:
            self._health.recovered("audit", time)
        for trouble in self._own.check(clock, clock_time.process_time()):
            since = BootTime(time - int(trouble.since * SECOND))
            self._health.degraded(trouble.what, trouble.reason, time, window=(since, time))
            self._degraded_until[trouble.what] = clock + DEGRADED_FOR
        self._checked = time
        for what in [what for what, until in self._degraded_until.items() if until <= clock]:
            del self._degraded_until[what]
            self._health.recovered(what, time)
        self._canary(time, clock)
        self._throttle.flush()

    def _report_blindness(
        self, status: KernelAuditStatus, time: BootTime, clock: Monotonic
    ) -> None:
        """Report repeated execs without audit events that a rule should cause, and why."""
        counters = self._pipeline.counters
        missed = counters.unaudited_execs.total() - counters.unaudited_execs["dropped"]
        unaudited = missed - counters.late_execs
        grown, self._unaudited = unaudited - self._unaudited, unaudited
        if grown <= 0 or not always_audits(self._ours(), "execve"):
            return
        self._blind = [moment for moment in self._blind if moment > clock - BLIND_FOR] + [clock]
        if len(self._blind) < BLIND_CHECKS:
            return
        causes = self._silencers(status)
        reason = f"execs come without audit events; the tracer tells them. {'; '.join(causes)}"
        self._degrade("audit events", reason, time, clock)

    def _ours(self) -> list[Rule | LoadedRule]:
        """Return sessiond's rules without those that drop what filters drop."""
        ours = [LoadedRule(data) for data in self._audit.ours]
        return never.without(ours, self._pipeline.options.dropped_by_kernel)

    def _silencers(self, status: KernelAuditStatus) -> list[str]:
        """Return the causes that keep audit from recording execs that sessiond's rules cover."""
        ours = self._audit.ours
        causes = [] if status.enabled else ["audit is switched off (enabled 0)"]
        causes += silencers(map(LoadedRule, self._audit.client.list_rules()), "execve", ours)
        if not causes and not always_audits(map(LoadedRule, ours), "execve", "b32"):
            causes.append("no rule covers 32-bit system calls (arch=b32), or records were lost")
        return causes or ["no rule is in the way: records were lost before they came here"]

    def reset(self) -> None:
        """Restart the counters after the audit socket was replaced."""
        self._dropped = self._audit.client.dropped

    # Counters

    def _report_losses(self, status: KernelAuditStatus, time: BootTime, clock: Monotonic) -> bool:
        """Report the losses since the last check; return whether there were any."""
        # The counter may have been reset (auditctl --reset-lost).
        lost = status.lost - self._kernel_lost if status.lost >= self._kernel_lost else status.lost
        self._kernel_lost = status.lost
        client = self._audit.client
        if lost:
            reason = f"the backlog of {status.backlog_limit} records was full"
            if status.rate_limit:
                reason += f", or the limit of {status.rate_limit} records/s was exceeded"
            if client.multicast:
                reason += ", or the audit daemon too slow, and then they are not lost to us"
            self._report_loss("kernel", lost, reason, time)
            self._degrade("audit backlog", f"the kernel lost {lost} records: {reason}", time, clock)
        dropped = client.dropped
        missed, self._dropped = dropped - self._dropped, dropped
        if missed > 0 and client.multicast:
            reason = "the receive buffer was full"
            self._report_loss("socket", missed, reason, time)
            self._degrade("audit socket", f"{missed} records were lost: {reason}", time, clock)
        congested = client.counters.congested
        if congested != self._congested and not client.multicast:
            reason = "the receive buffer was full; the kernel kept the records in its backlog"
            self._degrade("audit socket", reason, time, clock)
        self._congested = congested
        malformed = self._pipeline.malformed
        if malformed != self._malformed:
            self._report_loss("record", malformed - self._malformed, "they could not be read", time)
            self._malformed = malformed
        pings = client.counters.pings
        if pings != self._pings:
            self._pings = pings
            reason = f"{client.pinged_by} tried to take our place; the kernel refused"
            self._degrade("audit rival", reason, time, clock)
        return bool(lost)

    def _report_loss(self, hop: str, number: int, reason: str, time: BootTime) -> None:
        self._pipeline.lost(time, hop, number, reason, since=self._checked)
        self._throttle.warning("lost", key=hop, hop=hop, number=number, reason=reason)

    def _degrade(self, what: str, reason: str, time: BootTime, clock: Monotonic) -> None:
        """Report a problem of ``what``, which ends if it does not recur for a while."""
        self._health.degraded(what, reason, time, window=(self._checked, time))
        self._degraded_until[what] = clock + DEGRADED_FOR

    # Settings and rules

    def _check_settings(
        self, status: KernelAuditStatus, time: BootTime, clock: Monotonic, *, lost: bool
    ) -> None:
        """Find changes by other programs, report who made them, and undo them."""
        while self._pipeline.notices:
            change = self._pipeline.notices.popleft()
            if change.pid not in (os.getpid(), self._audit.owner):
                self._changes.append((clock, change))
        self._changes = [
            (moment, change) for moment, change in self._changes if moment > clock - CHANGE_WINDOW
        ]
        drifts = self._audit_monitor.find(status, clock, lost=lost)
        found = {drift.what: drift for drift in drifts}
        for what in [what for what in self._seen if what not in found]:
            del self._seen[what]
            self._health.recovered(what, time, self._repaired.pop(what, ""))
        for what, finding in found.items():
            if what not in self._seen:
                self._seen[what] = finding
                if self._explanation(what) is None and not self._audit.client.multicast:
                    continue  # the record that names the culprit may still arrive
            self._report(finding, time)
            self._repair(finding, clock)

    def _report(self, finding: AuditDrift, time: BootTime) -> None:
        if finding.what in self._health.problems:
            return
        reason, details = finding.reason, {}
        change = self._explanation(finding.what)
        if change is not None:
            details = {"by": _author(change)}
            reason += f" (by {_in_words(change)})"
        window = (self._checked, time)
        self._health.degraded(finding.what, reason, time, details=details, window=window)

    def _explanation(self, what: str) -> ConfigChange | None:
        """Return the last change that can explain a finding: op=set audit_enabled=0, ..."""
        about_rules = what in ("audit rules", "audit exclusion")
        word = "rule" if about_rules else what.replace(" ", "_")
        word = {"audit_owner": "audit_pid", "audit_lock": "audit_enabled"}.get(word, word)
        changes = [change for _, change in self._changes if word in change.text]
        return changes[-1] if changes else None

    def _repair(self, finding: AuditDrift, clock: Monotonic) -> None:
        if not self._config.auditd.reconcile:
            return
        try:
            done = self._audit_monitor.repair(finding, clock)
        except AuditUnavailableError as error:
            self._throttle.warning(
                "not_repaired", key=finding.what, what=finding.what, reason=str(error)
            )
            return
        if done is not None:
            self._repaired[finding.what] = done
            log.info("repaired", what=finding.what, done=done)

    # The canary

    def _canary(self, time: BootTime, clock: Monotonic) -> None:
        audit_well = not any(what.startswith("audit") for what in self._health.problems)
        self.canary.check(clock, audit_well=audit_well)
        if self.canary.failure is None:
            self._health.recovered("canary", time)
        else:
            self._health.degraded("canary", self.canary.failure, time)


def _author(change: ConfigChange) -> dict[str, Any]:
    author = {
        "auid": None if change.auid is None else str(change.auid),
        "user": change.user,
        "pid": change.pid,
        "process": change.comm,
        "change": change.text or None,
    }
    return {name: value for name, value in author.items() if value is not None}


def _in_words(change: ConfigChange) -> str:
    user = "a process without a login uid"
    if change.auid is not None:
        user = f"{change.user or 'the user'} (auid {change.auid})"
    program = f", {change.comm} (pid {change.pid})" if change.comm else ""
    return f"{user}{program}: {change.text}"
