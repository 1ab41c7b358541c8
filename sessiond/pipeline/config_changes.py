"""Changes of the audit configuration, as their CONFIG_CHANGE records tell them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import CONFIG_CHANGE, decode, fields, number
from sessiond.text import display
from sessiond.units import UNSET_ID

# Fields that say who made the change, or that it worked.
_AUTHOR = ("auid", "ses", "subj", "res", "uid", "pid", "tty")


class ConfigChange(NamedTuple):
    """Somebody changed the audit configuration."""

    text: str  # op=, and what it was done to
    auid: int | None
    user: str | None
    pid: int | None  # of the process that did it, where there is a SYSCALL record
    comm: str | None


def is_config_change(event: AuditEvent) -> bool:
    """Tell whether an event is about the audit configuration (CONFIG_CHANGE, linux/audit.h)."""
    return bool(event.records) and event.records[0].type == CONFIG_CHANGE


def config_change(event: AuditEvent, user_name: Callable[[int], str | None]) -> ConfigChange:
    """Return what a CONFIG_CHANGE event tells, and which user made the change."""
    told = fields(event.records[0].text)
    call = event.syscall
    auid = number(told["auid"]) if "auid" in told else None
    if auid == UNSET_ID:
        auid = None
    pid = number(call["pid"]) if "pid" in call else None
    comm = decode(call.get("comm", b""))
    text = " ".join(
        f"{name}={display(value)}" for name, value in told.items() if name not in _AUTHOR
    )
    user = None if auid is None else user_name(auid)
    return ConfigChange(text, auid, user, pid, None if comm is None else display(comm))
