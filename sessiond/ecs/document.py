"""The lines: an audit event, a process and ourselves as one ECS document, one line of JSON each.

What is the same on every line (agent, host, versions) is serialised once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import orjson

from sessiond import __version__

ECS_VERSION: Final = "9.4.0"

# What happened -> (event.category, event.type), for the events of the process table.
PROCESS_EVENTS: Final[Mapping[str, tuple[list[str], list[str]]]] = {
    "fork": (["process"], ["start"]),
    "exec": (["process"], ["start"]),
    "end": (["process"], ["end"]),
    "setsid": (["process"], ["change"]),
}
AUDITBEAT_ACTIONS: Final = {"exec": "executed", "exec-failed": "executed", "setsid": ""}


class DocumentEncoder:
    """Makes lines, and numbers them.

    ``host`` is the ECS ``host`` object for every line. ``sequence`` is the number of the last line
    written (``event.sequence`` rises by one a line). ``identity`` (machine and boot) makes event
    ids unique; ``auditbeat_actions`` turns the action names into Auditbeat's.
    """

    def __init__(
        self,
        *,
        host: Mapping[str, Any],
        identity: str,
        sequence: int = 0,
        auditbeat_actions: bool = False,
    ) -> None:
        """Serialise what is constant."""
        self.sequence = sequence
        self._auditbeat_actions = auditbeat_actions
        self._prefix = blake2b(identity.encode(), digest_size=8).hexdigest()
        constant = {
            "ecs": {"version": ECS_VERSION},
            "service": {"type": "auditd"},
            "agent": {"type": "sessiond", "version": __version__},
            "host": dict(host),
        }
        self._tail = b"," + orjson.dumps({k: v for k, v in constant.items() if v})[1:] + b"\n"

    def audit_id(self, time: int, serial: int) -> str:
        """The ``event.id`` of an audit event: the same whenever it is written again."""
        return f"{self._prefix}-{time:x}-{serial:x}"

    def own_id(self, time: int, number: int) -> str:
        """The ``event.id`` of an event about ourselves; ``time`` in ns since boot."""
        return f"{self._prefix}-self-{time:x}-{number:x}"

    def line(
        self,
        document: dict[str, Any],
        *,
        date: str,
        event_id: str,
        providers: Sequence[str],
        process: bytes | None = None,
    ) -> bytes:
        """Complete a document and encode it as one line.

        ``document["event"]`` has action, category, type and outcome already; ``process`` is the
        ``process`` object as JSON and takes the place of the document's own.
        """
        self.sequence += 1
        event = document["event"]
        event["id"] = event_id
        event["sequence"] = self.sequence
        event["module"] = "auditd"
        event["provider"] = providers
        event.setdefault("kind", "event")
        if self._auditbeat_actions:
            event["action"] = AUDITBEAT_ACTIONS.get(event["action"], event["action"])
            if not event["action"]:
                del event["action"]
        if process is not None:
            document["process"] = orjson.Fragment(process)
        # The date first: it is what a person looks for.
        return b'{"@timestamp":"%b",%b%b' % (
            date.encode(),
            orjson.dumps(document)[1:-1],
            self._tail,
        )
