"""The service manager's descriptor store, which keeps descriptors between two runs.

It keeps the audit socket, which queues records while no daemon reads, and the tracer's programs,
which continue to fill their ring. Both survive SIGKILL; only a stop of the service closes them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, Protocol

import structlog

from sessiond.system import systemd

_AUDIT: Final = "audit"
_LISTENER: Final = "audit-listener"
# The store does not preserve order, so the names carry the order of the tracer's descriptors.
_TRACER: Final = "tracer-"

log = structlog.get_logger()


class AuditSocket(Protocol):
    """The part of the audit client that the store needs."""

    multicast: bool

    def fileno(self) -> int:
        """Return the data socket's descriptor."""
        ...


class ProcessSource(Protocol):
    """The part of the process source that the store needs."""

    @property
    def name(self) -> str:
        """The source's name."""
        ...

    @property
    def descriptors(self) -> list[int]:
        """The descriptors with which another process can continue; empty if it can't."""
        ...

    @property
    def set_aside(self) -> str:
        """Why the source could not use the stored descriptors; "" if there were none."""
        ...


class DescriptorStore:
    """The descriptors of an earlier run, and those for the next one."""

    def __init__(self) -> None:
        """Take the descriptors from the service manager, if there is one."""
        stored = systemd.stored()
        self.audit = _first(stored, _AUDIT)
        self.listener = _first(stored, _LISTENER)
        self._tracer_names = sorted(name for name in stored if name.startswith(_TRACER))
        self.tracer = [stored[name].pop(0) for name in self._tracer_names]
        # Unknown descriptors, perhaps of another version.
        for name, descriptors in stored.items():
            for descriptor in descriptors:
                os.close(descriptor)
                log.warning("set_aside", what=f"stored descriptor {name}", reason="it is unknown")

    def keep_audit(self, socket: AuditSocket) -> None:
        """Store the current audit socket, and remove any other."""
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
        """Remove all audit sockets from the store, and close those of an earlier run."""
        for name, left in ((_AUDIT, self.audit), (_LISTENER, self.listener)):
            systemd.remove_stored(name)
            if left is not None:
                with contextlib.suppress(OSError):
                    os.close(left)
        self.audit = self.listener = None

    def keep_source(self, source: ProcessSource) -> None:
        """Store the current process source, and remove any other."""
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
        """Empty the store; on return the manager has closed everything."""
        for name in (_AUDIT, _LISTENER, *self._tracer_names):
            systemd.remove_stored(name)
        systemd.barrier()


def _first(stored: dict[str, list[int]], name: str) -> int | None:
    descriptors = stored.get(name)
    return descriptors.pop(0) if descriptors else None
