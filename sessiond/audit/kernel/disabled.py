"""The disabled audit subsystem (``auditd.enabled: false``).

It opens no audit socket, queries nothing and changes nothing.
"""

from __future__ import annotations

import os
from typing import Final, Literal

from sessiond.audit.kernel.client import AuditClient, Counters, KernelAuditStatus
from sessiond.audit.kernel.controller import AuditController
from sessiond.audit.rules.ruleset import LoadedRule, RuleSet
from sessiond.config.schema import AuditdSettings

_NOT_QUERIED: Final = KernelAuditStatus(
    enabled=0,
    failure=0,
    pid=0,
    rate_limit=0,
    backlog_limit=0,
    lost=0,
    backlog=0,
    features=0,
)


class DisabledAuditClient(AuditClient):
    """A client without a connection, which never receives a record."""

    receive_buffer = 0
    pinged_by = ""
    kept = 0
    buffered = 0
    dropped = 0

    def __init__(self) -> None:
        """Create a descriptor that is never readable."""
        self.multicast = False
        self.counters = Counters()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return a descriptor that is never readable."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def receive(self) -> list[tuple[int, bytes]]:
        """Return nothing."""
        return []

    def gather(self) -> None:
        """Keep nothing."""

    def status(self) -> KernelAuditStatus:
        """Return zeros: the kernel is not queried."""
        return _NOT_QUERIED

    def list_rules(self) -> list[bytes]:
        """Return nothing: the kernel is not queried."""
        return []


class DisabledAudit(AuditController):
    """Audit that is neither read nor changed."""

    def __init__(self) -> None:
        """Do nothing."""
        self.client = DisabledAuditClient()
        self.refused = []
        self.notes = []
        self.ours = []
        self.owner = 0
        self.adopted = False
        self.expected = {}
        self.on_progress = self._gather

    @property
    def role(self) -> Literal["off"]:
        """How records are read: not at all."""
        return "off"

    @property
    def loaded(self) -> list[LoadedRule]:
        """Return no rules."""
        return []

    def reconfigure(self, settings: AuditdSettings, wanted: RuleSet) -> None:
        """Change nothing."""

    def release(self, *, keep_rules: bool) -> list[str]:  # noqa: ARG002 -- there are none
        """Do nothing."""
        return []
