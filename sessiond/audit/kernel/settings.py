"""The kernel's audit settings that sessiond changes and restores."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from sessiond.audit.kernel.client import LOCKED, SETTINGS, AuditClient, KernelAuditStatus
from sessiond.audit.rules.ruleset import RuleSet
from sessiond.config.schema import AuditdSettings


class AuditState(msgspec.Struct):
    """The kernel's original audit settings, and the values that sessiond set.

    It can be saved to a file, so that a start after a crash restores the original settings.
    """

    found: KernelAuditStatus
    ours: dict[str, int] = {}

    @classmethod
    def capture(cls, client: AuditClient) -> Self:
        """Save the current status. Raises AuditRequestError."""
        return cls(client.status())

    def apply(self, client: AuditClient, **settings: int) -> None:
        """Set those settings that differ and save them; names as in AuditClient.set."""
        now = client.status()
        for name, value in settings.items():
            if getattr(now, name) != value:
                client.set(name, value)
            if getattr(self.found, name) != value:
                self.ours[name] = value

    def restore(self, client: AuditClient) -> list[str]:
        """Restore the original settings, then let the kernel send the rest and unregister.

        A setting that another program has changed since stays as it is; the returned lines say so.
        Auditing is switched off first: without a registered daemon the kernel would write every
        record to its log. Call ``receive`` until it is empty afterwards.
        """
        now = client.status()
        left: list[str] = []
        for name in SETTINGS:
            if name not in self.ours or getattr(now, name) == getattr(self.found, name):
                continue
            ours, is_now = self.ours[name], getattr(now, name)
            if now.enabled == LOCKED:
                left.append(f"{name} stays {is_now}: the configuration is locked until reboot")
            elif is_now != ours:
                left.append(f"{name} stays {is_now}: it was changed after it was set to {ours}")
            else:
                client.set(name, getattr(self.found, name))
        self.ours.clear()
        if not client.multicast:
            client.settle()
            client.unregister()
        return left


_FAILURE_MODES: Final = {"silent": 0, "log": 1, "panic": 2}


class SavedAuditState(msgspec.Struct):
    """The changes of a run: enough to undo them after a crash. Valid within one boot."""

    boot_id: str
    found: KernelAuditStatus
    ours: dict[str, int]
    rules: list[bytes]
    # Those of the rules that exclude sessiond itself.
    exclusion_rules: list[bytes] = msgspec.field(name="about_us", default_factory=list)


def limits(settings: AuditdSettings, wanted: RuleSet) -> dict[str, int]:
    """Return the kernel's settings by name: the configuration's, overridden by rule files."""
    wait = settings.backlog_wait_time
    if settings.backpressure_strategy in ("kernel", "both", "auto"):
        wait = 0  # the host's processes never wait for sessiond
    values = {
        "failure": _FAILURE_MODES[settings.failure_mode],
        "backlog_limit": settings.backlog_limit,
        "rate_limit": settings.rate_limit,
        "backlog_wait_time": wait,
    }
    for control in wanted.controls:
        if control.name in values and isinstance(control.value, int):
            values[control.name] = control.value
    return values
