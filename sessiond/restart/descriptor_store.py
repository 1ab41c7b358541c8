"""The service manager's descriptor store: what one run of the daemon hands to the next.

The audit socket, in which records gather while no daemon reads, and the tracer's programs, which
run on and fill their ring. Both outlive SIGKILL; only a stop for good gives them up.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, Protocol

import structlog

from sessiond.system import systemd

_AUDIT: Final = "audit"
_LISTENER: Final = "audit-listener"
# The tracer's descriptors have an order, and the store has none: it is in their names.
_TRACER: Final = "tracer-"

log = structlog.get_logger()


class AuditSocket(Protocol):
    """What is needed of the audit client."""

    multicast: bool

    def fileno(self) -> int:
        """Return the data socket's descriptor."""
        ...


class ProcessSource(Protocol):
    """What is needed of the process source."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def descriptors(self) -> list[int]:
        """What another process needs to go on with it; empty when that can't be."""
        ...

    @property
    def set_aside(self) -> str:
        """Why the descriptors that were handed on to it could not be used; "" if none were."""
        ...


class DescriptorStore:
    """What an earlier run has left, and what is left to the next one."""

    def __init__(self) -> None:
        """Take what the manager has kept; without a manager that is nothing."""
        stored = systemd.stored()
        self.audit = _first(stored, _AUDIT)
        self.listener = _first(stored, _LISTENER)
        self._tracer_names = sorted(name for name in stored if name.startswith(_TRACER))
        self.tracer = [stored[name].pop(0) for name in self._tracer_names]
        # Unknown descriptors: of another version, perhaps.
        for name, descriptors in stored.items():
            for descriptor in descriptors:
                os.close(descriptor)
                log.warning("set_aside", what=f"stored descriptor {name}", reason="it is unknown")

    def keep_audit(self, socket: AuditSocket) -> None:
        """Have the manager keep the audit socket that is in use now, and no other one."""
        name, other = (_LISTENER, _AUDIT) if socket.multicast else (_AUDIT, _LISTENER)
        descriptor = socket.fileno()
        kept = {_AUDIT: self.audit, _LISTENER: self.listener}
        if kept[name] == descriptor:
            log.info("adopted", what="the audit socket")
        else:
            systemd.remove_stored(name)
            systemd.store(name, descriptor)
        systemd.remove_stored(other)
        for left in kept.values():
            if left is not None and left != descriptor:
                with contextlib.suppress(OSError):
                    os.close(left)
        self.audit = self.listener = None

    def drop_audit(self) -> None:
        """Have the manager keep no audit socket, and close those of an earlier run."""
        for name, left in ((_AUDIT, self.audit), (_LISTENER, self.listener)):
            systemd.remove_stored(name)
            if left is not None:
                with contextlib.suppress(OSError):
                    os.close(left)
        self.audit = self.listener = None

    def keep_source(self, source: ProcessSource) -> None:
        """Have the manager keep the process source that is in use now, and no other one."""
        descriptors = source.descriptors
        if self.tracer and descriptors == self.tracer:
            log.info("adopted", what="the tracer")
            return
        if source.set_aside:
            log.warning("set_aside", what="the tracer of an earlier run", reason=source.set_aside)
        for name in self._tracer_names:
            systemd.remove_stored(name)
        self._tracer_names = [f"{_TRACER}{number:02}" for number in range(len(descriptors))]
        for name, descriptor in zip(self._tracer_names, descriptors, strict=True):
            systemd.store(name, descriptor)
        self.tracer = descriptors

    def give_up(self) -> None:
        """Have the manager close all that it keeps; it has done so on return."""
        for name in (_AUDIT, _LISTENER, *self._tracer_names):
            systemd.remove_stored(name)
        systemd.barrier()


def _first(stored: dict[str, list[int]], name: str) -> int | None:
    descriptors = stored.get(name)
    return descriptors.pop(0) if descriptors else None
