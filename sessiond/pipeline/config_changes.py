"""Changes of the audit configuration, from CONFIG_CHANGE records."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import CONFIG_CHANGE, decode, fields, number
from sessiond.text import display
from sessiond.units import UNSET_ID

# Fields for the author of the change and its result.
_AUTHOR = ("auid", "ses", "subj", "res", "uid", "pid", "tty")


class ConfigChange(NamedTuple):
    """A change of the audit configuration."""

    text: str  # op=, and the changed object
    auid: int | None
    user: str | None
    pid: int | None  # of the author, if the event has a SYSCALL record
    comm: str | None


def is_config_change(event: AuditEvent) -> bool:
    """Return whether an event is about the audit configuration (CONFIG_CHANGE, linux/audit.h)."""
    return bool(event.records) and event.records[0].type == CONFIG_CHANGE


def config_change(event: AuditEvent, user_name: Callable[[int], str | None]) -> ConfigChange:
    """Return the change of a CONFIG_CHANGE event, and the user who made it."""
    values = fields(event.records[0].text)
    call = event.syscall
    auid = number(values["auid"]) if "auid" in values else None
    if auid == UNSET_ID:
        auid = None
    pid = number(call["pid"]) if "pid" in call else None
    comm = decode(call.get("comm", b""))
    text = " ".join(
        f"{name}={display(value)}" for name, value in values.items() if name not in _AUTHOR
    )
    user = None if auid is None else user_name(auid)
    return ConfigChange(text, auid, user, pid, None if comm is None else display(comm))
