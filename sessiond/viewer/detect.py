"""Matches compiled Sigma rules against events; each match becomes an alert in ECS. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from sessiond.viewer.running import RunningSessions, place

Document = Mapping[str, Any]

# The category of rules for a loss during a session: see Detector.
LOSS_IN_SESSION: Final = "loss_in_session"

LEVELS: Final = ("informational", "low", "medium", "high", "critical")
# As in Elastic's rules.
_SEVERITIES: Final = {"informational": 10, "low": 21, "medium": 47, "high": 73, "critical": 99}
_COPIED: Final = ("host", "process", "user", "container", "file", "destination", "tags", "agent")

_PROCESS_FIELDS: Final = {
    "Image": "process.executable",
    "CommandLine": "process.command_line",
    "ParentImage": "process.parent.executable",
    "ParentCommandLine": "process.parent.command_line",
    "CurrentDirectory": "process.working_directory",
    "User": "process.user.name",
    "LogonId": "user.audit.id",
    "ProcessId": "process.pid",
    "ParentProcessId": "process.parent.pid",
}
_OTHER_FIELDS: Final = {
    "TargetFilename": "file.path",
    "DestinationIp": "destination.ip",
    "DestinationPort": "destination.port",
    "DestinationHostname": "destination.domain",
    "SourceIp": "source.ip",
    "SourcePort": "source.port",
}
_AUDIT_FIELDS: Final = {
    "exe": "process.executable",
    "comm": "process.name",
    "key": "tags",
    "euid": "process.user.id",
    "uid": "process.real_user.id",
    "auid": "user.audit.id",
    "nametype": "auditd.paths.nametype",
    "SYSCALL": "auditd.data.syscall",
    "syscall": "auditd.data.syscall",
}
_INITIATED: Final = {"egress": "true", "ingress": "false"}


class Fields:
    """The values of one event by Sigma's field names; each is looked up once."""

    __slots__ = ("_document", "_lower", "_raw", "_whole", "_whole_lower")

    def __init__(self, document: Document) -> None:
        """Take the event."""
        self._document = document
        self._raw: dict[str, list[str]] = {}
        self._lower: dict[str, list[str]] = {}
        self._whole = ""
        self._whole_lower = ""

    def raw(self, name: str) -> list[str]:
        """Return the values of a field, none if it is absent."""
        found = self._raw.get(name)
        if found is None:
            found = self._raw[name] = [_shown(value) for value in self._values(name)]
        return found

    def lower(self, name: str) -> list[str]:
        """Return the values of a field in lower case."""
        found = self._lower.get(name)
        if found is None:
            found = self._lower[name] = [value.lower() for value in self.raw(name)]
        return found

    def whole(self) -> str:
        """Return all texts of the event, one after the other: in it keywords are searched."""
        if not self._whole:
            self._whole = " ".join(_texts(self._document))
        return self._whole

    def whole_lower(self) -> str:
        """Return them in lower case."""
        if not self._whole_lower:
            self._whole_lower = self.whole().lower()
        return self._whole_lower

    def _values(self, name: str) -> list[Any]:
        if name == "Initiated":
            direction = self._at("network.direction")
            return [_INITIATED[each] for each in direction if each in _INITIATED]
        if name == "type":
            return self._record_types()
        if re.fullmatch(r"a\d+", name):
            return self._argument(name)
        if name == "name":
            return self._at("auditd.paths.name") or self._at("file.path")
        path = _PROCESS_FIELDS.get(name) or _OTHER_FIELDS.get(name) or _AUDIT_FIELDS.get(name)
        found = self._at(path or name)
        if not found and name in ("CommandLine", "ParentCommandLine"):
            args = self._at("process.args" if name == "CommandLine" else "process.parent.args")
            return [" ".join(map(str, args))] if args else []
        return found

    def _argument(self, name: str) -> list[Any]:
        """Return an argument: of the executed program, else of the system call."""
        if self._at("event.action") in (["exec"], ["executed"]):
            return self._at("process.args")[int(name[1:]) : int(name[1:]) + 1]
        return self._at(f"auditd.data.{name}")

    def _record_types(self) -> list[str]:
        """Return the record types of the audit event, as far as the line shows them."""
        kind = self._at("auditd.message_type")
        types = [str(each).upper() for each in kind]
        if self._at("event.action") in (["exec"], ["executed"]):
            types += ["SYSCALL", "EXECVE"]
        if self._at("auditd.paths"):
            types.append("PATH")
        return types

    def _at(self, path: str) -> list[Any]:
        """Return the values at a dotted path, also through lists."""
        found: list[Any] = [self._document]
        for part in path.split("."):
            found = [each[part] for each in found if isinstance(each, dict) and part in each]
            if any(isinstance(each, list) for each in found):
                found = [
                    one for each in found for one in (each if isinstance(each, list) else [each])
                ]
        return found


Predicate = Callable[[Fields], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """A Sigma rule: its metadata, the events that it applies to, and its predicate."""

    title: str
    id: str
    level: str
    # process_creation, network_connection, file_event, auditd, loss_in_session, or any
    about: str
    asks: Predicate
    description: str = ""
    author: str = ""
    techniques: tuple[str, ...] = ()
    tactics: tuple[str, ...] = ()


@dataclass(slots=True)
class Ruleset:
    """The usable rules, and the problems of the others."""

    rules: list[Rule] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    # Number of rules for other logs and systems.
    others: int = 0

    def matching(self, document: Document) -> list[Rule]:
        """Return the rules that match an event."""
        return self.of(_kinds(document), document)

    def of(self, kinds: set[str], document: Document) -> list[Rule]:
        """Return the rules for one of these kinds that match a document."""
        if not kinds:
            return []
        fields = Fields(document)
        return [rule for rule in self.rules if rule.about in kinds and rule.asks(fields)]


class Detector:
    """Matches rules against lines in the order of their events.

    It knows which sessions ran meanwhile. A rule of the category ``loss_in_session`` is matched
    once for each session that ran while events were lost: against the event of the loss with the
    session's entry leader as its process, and the session's user as its user.
    """

    def __init__(self, ruleset: Ruleset) -> None:
        """Take the rules."""
        self._ruleset = ruleset
        wanted = any(rule.about == LOSS_IN_SESSION for rule in ruleset.rules)
        self._sessions = RunningSessions() if wanted else None

    def findings(self, line: bytes) -> Iterator[dict[str, Any]]:
        """Yield the alerts for a line; none for an invalid line."""
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        if not isinstance(document, dict):
            return
        kinds = _kinds(document)
        for rule in self._ruleset.of(kinds, document):
            yield finding(document, rule)
        if self._sessions is None or not kinds:
            return
        if document["event"].get("action") == "sessiond-lost":
            for each in _in_sessions(document, self._sessions):
                for rule in self._ruleset.of({LOSS_IN_SESSION}, each):
                    yield finding(each, rule)
        else:
            self._sessions.take(document)


def _in_sessions(document: Document, sessions: RunningSessions) -> Iterator[Document]:
    """Yield the event of a loss once for each session that ran then."""
    event, time = document["event"], document["@timestamp"]
    start, end = str(event.get("start", time)), str(event.get("end", time))
    for session in sessions.during(*place(document), start, end):
        leader = session.leader
        yield {
            **document,
            "event": {**event, "id": f"{event.get('id', '')}-{leader['entity_id']}"},
            "process": {**leader, "entry_leader": leader},
            "user": session.user,
        }


def finding(document: Document, rule: Rule) -> dict[str, Any]:
    """Make the ECS alert for an event and its rule, with the event's process and host."""
    event = document["event"]
    threat = {}
    if rule.techniques or rule.tactics:
        threat = {
            "framework": "MITRE ATT&CK",
            "technique": {"id": list(rule.techniques)},
            "tactic": {"name": list(rule.tactics)},
        }
    command = " ".join(Fields(document).raw("process.args"))
    made = {
        "@timestamp": document["@timestamp"],
        "message": f"{rule.title}: {command}" if command else rule.title,
        "event": {
            "kind": "alert",
            "action": event.get("action", ""),
            "category": event.get("category", []),
            "type": ["indicator"],
            "severity": _SEVERITIES[rule.level],
            "id": f"{event.get('id', '')}-{rule.id or rule.title}",
            "provider": ["sigma"],
        },
        "rule": {
            "name": rule.title,
            "id": rule.id,
            "description": rule.description,
            "author": rule.author,
        },
        "log": {"level": rule.level},
        "threat": threat,
    }
    made["rule"] = {name: value for name, value in made["rule"].items() if value}
    if not threat:
        del made["threat"]
    return made | {name: document[name] for name in _COPIED if name in document}


def _kinds(document: Document) -> set[str]:
    """Return the names of Sigma's log sources that an event belongs to."""
    event = document.get("event")
    if not isinstance(event, dict) or event.get("kind") == "alert":
        return set()
    if not isinstance(document.get("@timestamp"), str):
        return set()
    kinds = {"any"}
    if event.get("action") in ("exec", "executed"):
        kinds.add("process_creation")
    if "destination" in document or "network" in document:
        kinds.add("network_connection")
    if "file" in document and event.get("action") not in ("exec", "executed", "exec-failed"):
        kinds.add("file_event")
    if "auditd" in document:
        kinds.add("auditd")
    return kinds


def _texts(document: object) -> Iterator[str]:
    """Yield all texts within a document, in its order."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)
