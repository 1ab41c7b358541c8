"""Matches Sigma rules: each rule becomes a predicate over the fields of one event; pure.

pySigma parses the rules; this module evaluates them on sessiond's fields. It supports rules for
processes, network connections and files on Linux, and for auditd's records. Comparisons follow
Sigma: they ignore case unless a rule says otherwise, ``*`` and ``?`` are wildcards, and one
matching value of a field is enough.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from sessiond.errors import ConfigError
from sessiond.viewer.running import RunningSessions, place

Document = Mapping[str, Any]

# sessiond's own rules, which are part of the package.
OWN_RULES: Final = Path(__file__).with_name("rules")
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
# Fields with few distinct values: results for them are cached.
_REPEATED: Final = frozenset({"Image", "ParentImage", "User", "CurrentDirectory"})
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


def load(paths: Sequence[Path], level: str = "informational") -> Ruleset:
    """Load the rules in files and directories, of this level or higher.

    Raises ConfigError if pySigma or a path is missing.
    """
    try:
        from sigma.collection import SigmaCollection
    except ImportError:
        raise ConfigError(
            "rules are read by pySigma, which is not installed; run pip install 'sessiond[sigma]'"
        ) from None
    ruleset = Ruleset()
    for path in _files(paths):
        # A problem of one file does not affect the rules of others.
        try:
            collection = SigmaCollection.from_yaml(path.read_text("utf-8"), collect_errors=True)
            for error in collection.errors:
                ruleset.problems.append(f"{path}: {error}")
            for rule in collection.rules:
                _add(ruleset, rule, level)
        except Exception as error:  # noqa: BLE001 -- pySigma and its YAML have many of their own
            reason = " ".join(str(error).split()) or type(error).__name__
            ruleset.problems.append(f"{path}: {reason}")
    return ruleset


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            path.stat()
            inside = [*path.rglob("*.yml"), *path.rglob("*.yaml")] if path.is_dir() else [path]
        except OSError as error:
            raise ConfigError(f"--rules {path}: {(error.strerror or '').lower()}") from None
        yield from sorted(inside)


def _add(ruleset: Ruleset, rule: Any, level: str) -> None:  # noqa: ANN401 -- a type of pySigma's
    """Compile a rule. Raises pySigma's exceptions for an invalid one."""
    from sigma.rule import SigmaRule

    if not isinstance(rule, SigmaRule):
        raise ValueError(f"{rule.title}: correlations are not supported")  # noqa: TRY004
    about = _about(rule.logsource)
    if about is None:
        ruleset.others += 1
        return
    name = rule.level.name.lower() if rule.level else "medium"
    if LEVELS.index(name) < LEVELS.index(level):
        return
    asks = [_predicate(each.parsed) for each in rule.detection.parsed_condition]
    attack = [each.name for each in rule.tags if each.namespace == "attack"]
    ruleset.rules.append(
        Rule(
            rule.title,
            str(rule.id or ""),
            name,
            about,
            _any(asks),
            rule.description or "",
            rule.author or "",
            tuple(each.upper() for each in attack if re.fullmatch(r"t\d{4}(\.\d{3})?", each)),
            tuple(each for each in attack if re.fullmatch(r"[a-z][a-z_-]+", each)),
        )
    )


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


def _about(source: Any) -> str | None:  # noqa: ANN401 -- a type of pySigma's
    if source.product not in (None, "linux"):
        return None
    if source.category in ("process_creation", "network_connection", "file_event"):
        return str(source.category)
    if source.category == LOSS_IN_SESSION and source.service == "sessiond":
        return LOSS_IN_SESSION
    if source.category is None and source.service in ("auditd", "sessiond"):
        return "auditd" if source.service == "auditd" else "any"
    return None


# --- predicates ----------------------------------------------------------------------------------


def _any(predicates: Sequence[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]

    def ask(fields: Fields) -> bool:
        for each in predicates:  # noqa: SIM110 -- this runs millions of times
            if each(fields):
                return True
        return False

    return ask


def _all(predicates: Sequence[Predicate]) -> Predicate:
    def ask(fields: Fields) -> bool:
        for each in predicates:  # noqa: SIM110 -- this runs millions of times
            if not each(fields):
                return False
        return True

    return ask


def _repeats(node: Any) -> bool:  # noqa: ANN401 -- a type of pySigma's
    """Return whether a condition only uses fields with few distinct values."""
    args = getattr(node, "args", None)
    if args is None:
        return getattr(node, "field", None) in _REPEATED
    return all(_repeats(each) for each in args)


def _alternatives(nodes: Iterable[Any]) -> Iterator[Predicate]:
    """Make the predicates of an OR; texts for the same field share a test."""
    from sigma.conditions import ConditionFieldEqualsValueExpression
    from sigma.types import SigmaCasedString, SigmaString

    texts: dict[str, list[Sequence[Any]]] = {}
    for node in nodes:
        if (
            isinstance(node, ConditionFieldEqualsValueExpression)
            and isinstance(node.value, SigmaString)
            and not isinstance(node.value, SigmaCasedString)
        ):
            texts.setdefault(node.field, []).append(node.value.s)
        else:
            yield _predicate(node)
    for name, values in texts.items():
        yield _one_of(name, values)


def _one_of(name: str, values: Iterable[Sequence[Any]]) -> Predicate:
    """Test whether a field has one of several texts, with the cheapest test for each kind."""
    whole: set[str] = set()
    begins: list[str] = []
    ends: list[str] = []
    inner: list[str] = []
    others: list[Callable[[str], bool]] = []
    for value in values:
        kind, text = _shape(value)
        lower = text.lower()
        if kind == "whole":
            whole.add(lower)
        elif kind == "other":
            others.append(_text(value, cased=False))
        else:
            {"begin": begins, "end": ends, "inner": inner}[kind].append(lower)
    heads, tails = tuple(begins), tuple(ends)

    def fits(text: str) -> bool:
        if text in whole or text.endswith(tails) or text.startswith(heads):
            return True
        for each in inner:
            if each in text:
                return True
        for test in others:  # noqa: SIM110 -- this runs millions of times
            if test(text):
                return True
        return False

    if name in _REPEATED:
        fits = lru_cache(maxsize=4096)(fits)

    def ask(fields: Fields) -> bool:
        for text in fields.lower(name):  # noqa: SIM110 -- this runs millions of times
            if fits(text):
                return True
        return False

    return ask


def _shape(parts: Sequence[Any]) -> tuple[str, str]:
    """Return the kind of a text with wildcards, and its literal text if there is only one."""
    from sigma.types import SpecialChars

    many = SpecialChars.WILDCARD_MULTI
    match list(parts):
        case []:
            return "whole", ""
        case [str() as text]:
            return "whole", text
        case [str() as text, last] if last is many:
            return "begin", text
        case [first, str() as text] if first is many:
            return "end", text
        case [first, str() as text, last] if first is many and last is many:
            return "inner", text
    return "other", ""


def _predicate(node: Any) -> Predicate:  # noqa: ANN401 -- a type of pySigma's
    from sigma.conditions import (
        ConditionAND,
        ConditionFieldEqualsValueExpression,
        ConditionNOT,
        ConditionOR,
    )

    if isinstance(node, ConditionFieldEqualsValueExpression):
        return _field(node.field, node.value)
    if isinstance(node, ConditionNOT):
        inner = _predicate(node.args[0])
        return lambda fields: not inner(fields)
    if isinstance(node, ConditionAND):
        # Cached conditions come first, because they exclude most events.
        ordered = sorted(node.args, key=lambda each: not _repeats(each))
        return _all([_predicate(each) for each in ordered])
    if isinstance(node, ConditionOR):
        return _any(list(_alternatives(node.args)))
    return _keyword(node.value)


def _keyword(value: Any) -> Predicate:  # noqa: ANN401 -- a type of pySigma's
    """Return the predicate for a value without a field: it is anywhere in the event."""
    from sigma import types

    if isinstance(value, types.SigmaExpansion):
        return _any([_keyword(each) for each in value.values])
    if isinstance(value, types.SigmaString):
        cased = isinstance(value, types.SigmaCasedString)
        kind, text = _shape(value.s)
        if kind != "other" and not cased:  # wildcards around it change nothing
            lower = text.lower()
            return lambda fields: lower in fields.whole_lower()
        pattern = re.compile(_pattern(value.s), re.DOTALL if cased else re.DOTALL | re.IGNORECASE)
        return lambda fields: pattern.search(fields.whole()) is not None
    test = _test(value)
    return lambda fields: test(fields.whole())


def _field(name: str, value: Any) -> Predicate:  # noqa: ANN401 -- a type of pySigma's
    """Return the predicate for one field."""
    from sigma import types

    if isinstance(value, types.SigmaExpansion):
        return _any([_field(name, each) for each in value.values])
    if isinstance(value, types.SigmaNull):
        return lambda fields: not fields.raw(name)
    if isinstance(value, types.SigmaExists):
        wanted = bool(value)
        return lambda fields: bool(fields.raw(name)) is wanted
    if isinstance(value, types.SigmaFieldReference):
        other = value.field
        return lambda fields: bool({*fields.lower(name)} & {*fields.lower(other)})
    if isinstance(value, types.SigmaCasedString):
        cased = _text(value.s, cased=True)
        return lambda fields: any(cased(each) for each in fields.raw(name))
    if isinstance(value, types.SigmaString):
        return _one_of(name, [value.s])
    test = _test(value)
    return lambda fields: any(test(each) for each in fields.raw(name))


def _test(value: Any) -> Callable[[str], bool]:  # noqa: ANN401 -- a type of pySigma's
    """Return the test for one value that is not a text."""
    from sigma import types

    if isinstance(value, types.SigmaNumber | types.SigmaBool):
        number = str(value).lower()
        return lambda text: text.lower() == number
    if isinstance(value, types.SigmaRegularExpression):
        flags = re.NOFLAG
        for flag in value.flags:
            flags |= getattr(re, flag.name)
        pattern = re.compile(str(value.regexp), flags)
        return lambda text: pattern.search(text) is not None
    if isinstance(value, types.SigmaCIDRExpression):
        network = ipaddress.ip_network(str(value.cidr), strict=False)
        return lambda text: _is_in(text, network)
    if isinstance(value, types.SigmaCompareExpression):
        return _comparison(value.op.name, float(value.number.number))
    raise ValueError(f"{type(value).__name__} is not supported")


def _comparison(name: str, number: float) -> Callable[[str], bool]:
    def compare(text: str) -> bool:
        try:
            own = float(text)
        except ValueError:
            return False
        return {
            "LT": own < number, "LTE": own <= number, "GT": own > number, "GTE": own >= number
        }.get(name, False)  # fmt: skip

    return compare


def _is_in(text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(text) in network
    except ValueError:
        return False


def _text(parts: Iterable[Any], *, cased: bool) -> Callable[[str], bool]:
    """Make the test for a text with wildcards."""
    compiled = re.compile(_pattern(parts), re.DOTALL if cased else re.DOTALL | re.IGNORECASE)
    return lambda text: compiled.fullmatch(text) is not None


def _pattern(parts: Iterable[Any]) -> str:
    """Write a text with wildcards as a regular expression."""
    from sigma.types import SpecialChars

    pieces = [each if isinstance(each, SpecialChars) else str(each) for each in parts]
    return "".join(
        re.escape(each)
        if isinstance(each, str)
        else ".*"
        if each is SpecialChars.WILDCARD_MULTI
        else "."
        for each in pieces
    )


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
