"""The audit part of lines as pieces of JSON, cached for recurring events.

A host runs the same programs as the same users again and again, so that the audit records of execs
and ends differ only in a few numbers. The encoded pieces are cached as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from sessiond.audit.reassembler import AuditEvent
from sessiond.audit.record import EXECVE, PROCTITLE, SYSCALL, arguments
from sessiond.ecs.audit_event import AuditEventEncoder
from sessiond.ecs.audit_fields import MAX_SEQUENCE, title_of
from sessiond.ecs.redaction import Redactor

AUDITBEAT_ACTIONS: Final = {"exec": "executed", "exec-failed": "executed", "setsid": ""}

# Maximum number of cached descriptions, and their lifetime (ms): names may change.
_MAX_REMEMBERED: Final = 1024
_VALID: Final = 5_000
_NUMBERS: Final = ("a0", "a1", "a2", "a3")


class EncodedAuditEvent:
    """A document in pieces, each the JSON of an object's members without the braces.

    ``event`` and ``auditd`` are those objects; ``rest`` are the other members, each with a comma
    before it. ``title`` is process.title, ``directory`` the sender's directory in a message.
    """

    __slots__ = ("action", "auditd", "directory", "event", "rest", "title", "warnings")

    def __init__(
        self,
        action: str,
        event: bytes,
        auditd: bytes,
        rest: bytes,
        title: str | None,
        warnings: list[str],
        directory: str | None = None,
    ) -> None:
        """Take the pieces."""
        self.action = action
        self.event = event
        self.auditd = auditd
        self.rest = rest
        self.title = title
        self.warnings = warnings
        self.directory = directory


class _Remembered:
    """A cached description without the numbers that differ between events."""

    __slots__ = ("action", "auditd", "data", "event", "rest", "time")

    def __init__(
        self, time: int, action: str, event: bytes, auditd: bytes, data: bytes, rest: bytes
    ) -> None:
        self.time = time
        self.action = action
        self.event = event
        self.auditd = auditd
        self.data = data
        self.rest = rest


class AuditEventCache:
    """Encodes events, and caches those of execs and ends."""

    def __init__(
        self,
        encoder: AuditEventEncoder,
        *,
        auditbeat_actions: bool = False,
        redact: Redactor | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        """Take the encoder of events; ``auditbeat_actions``: Auditbeat's names of actions.

        ``redact`` replaces secrets in the records' texts, None for no redaction. ``tags`` are added
        to every event.
        """
        self._tags = tuple(dict.fromkeys(tags))
        self._encoder = encoder
        self._redact = redact
        self._auditbeat_actions = auditbeat_actions
        self._remembered: dict[tuple[bytes, ...], _Remembered] = {}

    def forget_names(self) -> None:
        """Forget the names of users and groups, because an id has a new name."""
        self._remembered.clear()
        self._encoder.forget_names()

    def describe(self, event: AuditEvent, *, enriched: bool) -> EncodedAuditEvent:
        """Encode any event; ``enriched``: only the title of the process is needed."""
        document, warnings = self._describe(event, enriched=enriched)
        return self.encode(document, warnings, enriched=enriched)

    def _describe(self, event: AuditEvent, *, enriched: bool) -> tuple[dict[str, Any], list[str]]:
        document, warnings = self._encoder.describe(event, enriched=enriched)
        if self._redact is not None:
            self._redact.document(document)
            process = document.get("process", {})
            if "title" in process:
                process["title"] = _title(event, self._redact)
            if "args" in process:
                cut = not arguments(event.records).whole
                process["args"] = self._redact.arguments(process["args"], cut=cut)
        return document, warnings

    def encode(
        self, document: dict[str, Any], warnings: list[str], *, enriched: bool
    ) -> EncodedAuditEvent:
        """Encode a document, which is consumed."""
        action, described = self._event(document)
        auditd = orjson.dumps(document.pop("auditd", {}))[1:-1]
        process = document.get("process", {}) if enriched else {}
        rest = self._rest(document, enriched=enriched)
        return EncodedAuditEvent(
            action,
            described,
            auditd,
            rest,
            process.get("title"),
            warnings,
            process.get("working_directory"),
        )

    def recall(self, event: AuditEvent) -> EncodedAuditEvent:
        """Encode an execve or exit_group whose process object comes from the table."""
        call = event.call
        numbers = (call.a0, call.a1, call.a2, call.a3)
        if not all(number.isalnum() for number in numbers) or event.serial > MAX_SEQUENCE:
            # No kernel writes that, but a replayed log may contain anything.
            return self.describe(event, enriched=True)
        key = _key(event)
        remembered = self._remembered.get(key)
        if remembered is None or not 0 <= event.time - remembered.time < _VALID:
            document, warnings = self._describe(event, enriched=True)
            auditd = document["auditd"]
            # The records' texts differ for each event.
            if warnings or "messages" in auditd or "a0" not in auditd.get("data", {}):
                return self.encode(document, warnings, enriched=True)
            remembered = self._remember(key, event.time, document)
        auditd_members = b'%b,"sequence":%d,"data":{%b,"a0":"%b","a1":"%b","a2":"%b","a3":"%b"}' % (
            remembered.auditd,
            event.serial,
            remembered.data,
            call.a0,
            call.a1,
            call.a2,
            call.a3,
        )
        return EncodedAuditEvent(
            remembered.action,
            remembered.event,
            auditd_members,
            remembered.rest,
            _title(event, self._redact),
            [],
        )

    def _remember(self, key: tuple[bytes, ...], time: int, document: dict[str, Any]) -> _Remembered:
        action, described = self._event(document)
        auditd = document.pop("auditd")
        del auditd["sequence"]
        data = {name: value for name, value in auditd.pop("data").items() if name not in _NUMBERS}
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        remembered = self._remembered[key] = _Remembered(
            time,
            action,
            described,
            orjson.dumps(auditd)[1:-1],
            orjson.dumps(data)[1:-1],
            self._rest(document, enriched=True),
        )
        return remembered

    def _event(self, document: dict[str, Any]) -> tuple[str, bytes]:
        described = {"kind": "event", **document.pop("event")}
        action: str = described["action"]
        if self._auditbeat_actions:
            described["action"] = AUDITBEAT_ACTIONS.get(action, action)
            if not described["action"]:
                del described["action"]
        return action, orjson.dumps(described)[1:-1]

    def _rest(self, document: dict[str, Any], *, enriched: bool) -> bytes:
        if enriched:
            document.pop("process", None)
        if self._tags:
            document["tags"] = list(dict.fromkeys((*document.get("tags", ()), *self._tags)))
        return b"," + orjson.dumps(document)[1:-1] if document else b""


def _key(event: AuditEvent) -> tuple[bytes, ...]:
    """Return the cache key: the records, without argv and the numbers."""
    key: list[bytes] = []
    for record in event.records:
        text = record.text
        if record.type == SYSCALL:
            key += text[: text.find(b" a0=")], text[text.find(b" auid=") :]
        elif record.type == EXECVE:
            key.append(text[: text.find(b" ")])
        elif record.type != PROCTITLE:
            key.append(text)
    return tuple(key)


def _title(event: AuditEvent, redact: Redactor | None) -> str | None:
    for record in event.records:
        if record.type == PROCTITLE:
            return title_of(record.text, redact)
    return None
