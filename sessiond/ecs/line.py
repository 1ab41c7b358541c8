"""Composes lines: audit event, process and constant fields as one ECS document in JSON.

The constant fields of every line (agent, host, versions) are serialised once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from sessiond import __version__
from sessiond.blake2 import blake2b
from sessiond.ecs.audit_cache import EncodedAuditEvent
from sessiond.units import AuditStamp

ECS_VERSION: Final = "9.4.0"

# Action -> (event.category, event.type), for the events of the process table.
PROCESS_EVENTS: Final[Mapping[str, tuple[list[str], list[str]]]] = {
    "fork": (["process"], ["start"]),
    "exec": (["process"], ["start"]),
    "end": (["process"], ["end"]),
    "setsid": (["process"], ["change"]),
    "already_running": (["process"], ["info"]),
}

# The members before the id in "event" are texts, some of them from users (event.original), and
# lists of texts: they are skipped as a whole.
_IDENTITY: Final = re.compile(
    rb'"event":\{(?:"(?:[^"\\]++|\\.)*+"|[^"{}])*?"id":"([^"\\]+)","sequence":([0-9]+)'
)


def identity(line: bytes) -> tuple[bytes, int] | None:
    """Return event.id and event.sequence of a line of sessiond; None if it has none."""
    found = _IDENTITY.search(line)
    return (found[1], int(found[2])) if found is not None else None


# No text contains it, because quotes in a text are escaped; auditd.sequence comes later.
_NUMBER: Final = b'","sequence":'


def renumbered(line: bytes, lines_before: int) -> bytes:
    """Return a line of sessiond with ``lines_before`` added to its event.sequence."""
    start = line.find(_NUMBER)
    if start < 0 or not lines_before:
        return line
    start += len(_NUMBER)
    end = line.find(b",", start)
    return b"%b%d%b" % (line[:start], int(line[start:end]) + lines_before, line[end:])


class DocumentEncoder:
    """Makes and numbers lines.

    ``host`` and ``labels`` are those ECS objects of every line. ``sequence`` is the number of the
    last line (``event.sequence`` increases by one per line). ``identity`` (machine and boot) makes
    event ids unique.
    """

    def __init__(
        self,
        *,
        host: Mapping[str, Any],
        identity: str,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Serialise the constant fields."""
        self.sequence = 0
        self._prefix = blake2b(identity.encode(), digest_size=8).hexdigest()
        constant = {
            "ecs": {"version": ECS_VERSION},
            "service": {"type": "auditd"},
            "agent": {"type": "sessiond", "version": __version__},
            "host": dict(host),
            "labels": dict(labels or {}),
        }
        self._tail = _tail(constant)
        # The fields that identify the host; other lines have the rest.
        short = {name: host[name] for name in ("name", "id", "boot") if name in host}
        self._brief_tail = _tail(constant | {"host": short})

    def audit_id(self, time: AuditStamp, serial: int) -> str:
        """Return the ``event.id`` of an audit event, which is the same if it is written again."""
        return f"{self._prefix}-{time:x}-{serial:x}"

    def self_event_id(self, name: str) -> str:
        """Return the ``event.id`` of an event about sessiond, which ``name`` makes unique."""
        return f"{self._prefix}-self-{name}"

    def line(
        self,
        description: EncodedAuditEvent,
        *,
        date: str,
        event_id: str,
        providers: bytes,
        more: Mapping[str, Any] | None = None,
        process: bytes | None = None,
        brief: bool = False,
    ) -> bytes:
        """Compose a line.

        ``providers`` is the JSON list of its sources; ``more`` are further members of the document;
        ``process`` is the ``process`` object as JSON; ``brief`` includes only part of the host.
        """
        self.sequence += 1
        # The date comes first, for human readers. Ids need no JSON escapes.
        parts = [
            b'{"@timestamp":"%b","event":{%b,"id":"%b","sequence":%d,"module":"auditd","provider":%b}'
            % (
                date.encode(),
                description.event,
                event_id.encode(),
                self.sequence,
                providers,
            )
        ]
        if description.auditd:
            parts += b',"auditd":{', description.auditd, b"}"
        parts.append(description.rest)
        if more:
            parts += b",", orjson.dumps(more)[1:-1]
        if process is not None:
            parts += b',"process":', process
        parts.append(self._brief_tail if brief else self._tail)
        return b"".join(parts)


def _tail(constant: Mapping[str, Any]) -> bytes:
    return b"," + orjson.dumps({k: v for k, v in constant.items() if v})[1:] + b"\n"
