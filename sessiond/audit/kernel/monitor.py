"""Compares the kernel's audit state with the state that sessiond set, and repairs differences.

Only actual differences are repaired, so that CONFIG_CHANGE records do not flood, and sessiond does
not fight a program that insists on its change.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final, NamedTuple

from sessiond.audit.kernel.client import LOCKED, KernelAuditStatus
from sessiond.audit.kernel.controller import AuditController
from sessiond.audit.kernel.errors import AuditRequestError
from sessiond.audit.record import CONFIG_CHANGE
from sessiond.audit.rules import binary
from sessiond.audit.rules.plan import withholding
from sessiond.config.schema import AuditdSettings
from sessiond.system.proc import process_name

# The same setting is restored at most REPAIRS times in WINDOW seconds.
REPAIRS: Final = 5
WINDOW: Final = 60.0
# Seconds between listings of the rules without a record of a change: a thousand rules cost 7 ms.
LISTING: Final = 30.0

_MEANING: Final = {
    "enabled": "auditing is switched {}",
    "failure": "the failure mode is {} (ours: {})",
    "rate_limit": "the rate limit is {} records/s (ours: {})",
    "backlog_limit": "the backlog limit is {} records (ours: {})",
    "backlog_wait_time": "the host's processes may be made to wait for {} ticks (ours: {})",
}


class AuditDrift(NamedTuple):
    """A difference from the expected state: ``what`` names it briefly, ``reason`` describes it.

    ``repairable`` says whether ``repair`` can restore it.
    """

    what: str
    reason: str
    repairable: bool


class AuditMonitor:
    """Finds changes by other programs, and reverts them on request."""

    def __init__(self, controller: AuditController, settings: AuditdSettings) -> None:
        """Take the controller and the settings with which it was claimed."""
        self._controller = controller
        self._settings = settings
        self._repairs: defaultdict[str, deque[float]] = defaultdict(deque)
        self._listing: list[bytes] | None = None
        self._missing: list[bytes] = []
        # The rules that are accepted; beside another daemon all of them are.
        self._found = [] if controller.client.multicast else controller.client.list_rules()
        self._withholding: list[str] = []
        self._hidden = False  # a rule suppresses the records of changes
        self._blind = False  # whether it did so at the last check
        self._changes = 0
        self._list_at = 0.0
        self._had_owner = controller.client.multicast and controller.client.status().pid != 0

    def find(self, status: KernelAuditStatus, now: float, *, lost: bool) -> list[AuditDrift]:
        """Return the differences, given the kernel's ``status``, at ``now`` (monotonic seconds).

        ``lost`` says that records were lost since the last check: they may include a change of the
        rules. Raises AuditRequestError if the kernel does not answer.
        """
        if self._controller.client.multicast:
            return self._beside(status)
        findings = []
        if status.pid != self._controller.owner:
            findings.append(self._owner(status))
        locked = status.enabled == LOCKED
        for name, ours in self._controller.expected.items():
            current = getattr(status, name)
            if current == ours or (name == "enabled" and current and ours):
                continue
            words = _MEANING[name].format("on" if current else "off", ours)
            if name != "enabled":
                words = _MEANING[name].format(current, ours)
            findings.append(AuditDrift(f"audit {name}", words, not locked))
        if locked and self._controller.expected.get("enabled") != LOCKED:
            reason = "somebody locked the audit configuration until reboot (-e 2)"
            findings.append(AuditDrift("audit lock", reason, repairable=False))
        # A change of rules while auditing is off leaves no record (kernel/auditfilter.c,
        # audit_log_rule_change), and records sent to another daemon don't arrive here.
        blind = not status.enabled or status.pid != self._controller.owner
        missing = self._missing_rules(now, unsure=blind or self._blind or lost)
        self._blind = blind
        if missing:
            reason = f"{missing} of our {len(self._controller.ours)} rules are gone from the kernel"
            findings.append(AuditDrift("audit rules", reason, not locked))
        if self._withholding:
            rules = ", ".join(self._withholding)
            reason = f"a rule of others withholds records from us ({rules}); a reload accepts it"
            findings.append(AuditDrift("audit exclusion", reason, repairable=False))
        return findings

    def repair(self, finding: AuditDrift, now: float) -> str | None:
        """Revert a difference found by ``find``; return the action as text, None for none.

        ``now`` is in monotonic seconds. Raises AuditUnavailableError if it is refused.
        """
        times = self._repairs[finding.what]
        while times and times[0] < now - WINDOW:
            times.popleft()
        if not finding.repairable or len(times) >= REPAIRS:
            return None
        times.append(now)
        controller = self._controller
        if finding.what == "audit owner":
            return self._repair_owner()
        if finding.what == "audit rules":
            self._list_at = now
            added = controller.add_missing()
            return f"{added} rules were loaded again"
        name = finding.what.removeprefix("audit ")
        controller.client.set(name, controller.expected[name])
        return f"{name} was set to {controller.expected[name]} again"

    def _missing_rules(self, now: float, *, unsure: bool) -> int:
        client = self._controller.client
        changes = client.counters.config_changes
        if unsure or self._hidden or changes != self._changes or now >= self._list_at:
            self._changes = changes
            self._list_at = now + LISTING
            listing = client.list_rules()
            if listing != self._listing:
                self._withholding = withholding(listing, self._controller.ours, self._found)
                self._missing = self._controller.missing(listing)
                self._hidden = any(binary.hides(rule, CONFIG_CHANGE) for rule in listing)
                self._listing = listing
        return len(self._missing)

    def _owner(self, status: KernelAuditStatus) -> AuditDrift:
        if status.pid == 0:
            return AuditDrift("audit owner", "the kernel no longer sends us its records", True)
        who = f"{process_name(status.pid) or 'a process that has ended'} (pid {status.pid})"
        reason = f"{who} has taken our place as the audit daemon"
        return AuditDrift("audit owner", reason, self._settings.socket_type == "auto")

    def _beside(self, status: KernelAuditStatus) -> list[AuditDrift]:
        """Check the audit daemon beside which this process listens."""
        findings = []
        if status.enabled == 0:
            reason = "auditing is switched off; it is another daemon's to switch on"
            findings.append(AuditDrift("audit enabled", reason, repairable=False))
        if status.pid == 0 and self._settings.socket_type == "auto":
            findings.append(AuditDrift("audit owner", "the audit daemon has gone", repairable=True))
        elif status.pid == 0 and self._had_owner:
            reason = "the audit daemon beside which we listen has gone"
            findings.append(AuditDrift("audit owner", reason, repairable=False))
        return findings

    def _repair_owner(self) -> str:
        controller = self._controller
        self._listing, self._list_at = None, 0.0
        if controller.client.multicast:
            controller.become_daemon(self._settings)
            return "we are the audit daemon now"
        try:
            controller.client.register()
            controller.owner = controller.client.status().pid
        except AuditRequestError:
            if self._settings.socket_type != "auto":
                raise
            controller.become_listener(self._settings)
            return "listening by multicast now"
        return "we are registered again"
