"""Checks documents against ECS 9.4.0: fields, types, lists, and combinations.

The schema is ecs-9.4.0.json, made by generate.js from Elastic's field list. The check is stricter
than an index template: an unknown field is a problem, and so are null, "" and empty lists and
objects.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

SCHEMA = json.loads((Path(__file__).parent / "ecs-9.4.0.json").read_text(encoding="utf-8"))
FIELDS: dict[str, str] = SCHEMA["fields"]
LISTS_OF_OBJECTS = frozenset(SCHEMA["lists"])
OBJECTS = frozenset(name.rpartition(".")[0] for name in FIELDS) | {
    ".".join(name.split(".")[:depth]) for name in FIELDS for depth in range(1, name.count(".") + 1)
}
PATTERNS = {name: re.compile(pattern) for name, pattern in SCHEMA["patterns"].items()}

# sessiond's namespaces, which ECS does not define.
CUSTOM = ("auditd", "sessiond", "systemd", "labels")

# Fields of Auditbeat's auditd module outside auditd.* that ECS lacks; they keep Auditbeat's names.
_IDENTITY = {"id": "keyword", "name": "keyword", "group.id": "keyword", "group.name": "keyword"}
_LABEL = dict.fromkeys(("user", "role", "domain", "level", "category"), "keyword")
# process.Ext.ancestry is the only field of Elastic Defend that Kibana's analyzer needs.
AUDITBEAT = {
    "process.Ext.ancestry": "keyword[]",
    **{f"user.audit.{member}": kind for member, kind in _IDENTITY.items()},
    **{f"user.saved.{member}": kind for member, kind in _IDENTITY.items()},
    **{f"user.filesystem.{member}": kind for member, kind in _IDENTITY.items()},
    **{f"user.selinux.{member}": kind for member, kind in _LABEL.items()},
    **{f"file.selinux.{member}": kind for member, kind in _LABEL.items()},
    "source.path": "keyword",
    "destination.path": "keyword",
}
AUDITBEAT_OBJECTS = frozenset(
    ".".join(name.split(".")[:depth]) for name in AUDITBEAT for depth in (1, 2, 3)
) - frozenset(AUDITBEAT)

# ECS has one provider; an event from two sources names both. Auditbeat has a list of record texts,
# and of warnings.
LISTS_BY_CONTRACT = frozenset(("event.provider", "event.original", "error.message"))

# Empty arguments count.
MAY_BE_EMPTY = re.compile(r"^process\.(?:[a-z_]+\.)?args$")

_DATE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


def validate(document: dict[str, Any]) -> list[str]:
    """Return the problems of a document, one line each: "field: problem"; [] if there are none."""
    return [*_object("", document), *_categorisation(document)]


def validate_line(line: bytes) -> list[str]:
    r"""Return the problems of a line of output: its format (UTF-8, "\n", JSON) and its content."""
    problems = []
    if not line.endswith(b"\n") or b"\n" in line[:-1]:
        problems.append("line: doesn't end with its only newline")
    try:
        document = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
    except ValueError as error:
        return [*problems, f"line: {error}"]
    if not isinstance(document, dict):
        return [*problems, "line: not an object"]
    missing = [name for name in ("@timestamp", "ecs", "event") if name not in document]
    problems += [f"{name}: missing" for name in missing]
    return problems + validate(document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a member stands twice in {names}")
    return found


def _object(prefix: str, document: dict[str, Any]) -> Iterator[str]:
    if prefix and not document:
        yield f"{prefix}: empty object"
    for key, value in document.items():
        name = f"{prefix}.{key}" if prefix else key
        if not prefix and key.partition(".")[0] in CUSTOM:
            yield from _custom(name, value)
        elif name in FIELDS or name in AUDITBEAT:
            yield from _field(name, FIELDS.get(name) or AUDITBEAT[name], value)
        elif name in LISTS_OF_OBJECTS:
            yield from _list_of_objects(name, value)
        elif name not in OBJECTS and name not in AUDITBEAT_OBJECTS:
            yield f"{name}: no such field in ECS {SCHEMA['version']}"
        elif not isinstance(value, dict):
            yield f"{name}: an object is due, not {value!r:.60}"
        else:
            yield from _object(name, value)


def _list_of_objects(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, list) or not value:
        yield f"{name}: a list of objects is due, not {value!r:.60}"
        return
    for element in value:
        if isinstance(element, dict):
            yield from _object(name, element)
        else:
            yield f"{name}: an object is due, not {element!r:.60}"


def _field(name: str, kind: str, value: object) -> Iterator[str]:
    if kind.rstrip("[]") in ("object", "nested", "flattened"):
        if not isinstance(value, dict):
            yield f"{name}: an object is due, not {value!r:.60}"
        elif name in OBJECTS:
            yield from _object(name, value)
        else:
            yield from _custom(name, value)
        return
    listed = kind.endswith("[]") or name in LISTS_BY_CONTRACT
    if isinstance(value, list) != listed:
        yield f"{name}: a {'list' if listed else 'scalar'} is due, not {value!r:.60}"
        return
    values = value if isinstance(value, list) else [value]
    if not values:
        yield f"{name}: empty list"
    for element in values:
        yield from _scalar(name, kind.removesuffix("[]"), element)


def _scalar(name: str, kind: str, value: object) -> Iterator[str]:
    if not _CHECKS[kind](value):
        yield f"{name}: {value!r:.60} is no {kind}"
        return
    if isinstance(value, str):
        yield from _text(name, value)
        pattern = PATTERNS.get(name)
        if pattern and not pattern.search(value):
            yield f"{name}: {value!r:.60} doesn't match {pattern.pattern}"
    allowed = SCHEMA["allowed"].get(name)
    if allowed and value not in allowed:
        yield f"{name}: {value!r:.60} isn't one of {', '.join(allowed)}"


def _text(name: str, value: str) -> Iterator[str]:
    if not value and not MAY_BE_EMPTY.match(name):
        yield f"{name}: empty string"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        yield f"{name}: a lone surrogate, which UTF-8 can't say"


def _is_date(value: object) -> bool:
    if not isinstance(value, str) or not _DATE.match(value):
        return False
    try:
        datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%f%z")
    except ValueError:
        return False
    return True


def _is_ip(value: object) -> bool:
    try:
        return isinstance(value, str) and "%" not in value and bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def _is_integer(value: object, bits: int) -> bool:
    return type(value) is int and -(1 << bits - 1) <= value < 1 << bits - 1


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


_CHECKS: dict[str, Callable[[object], bool]] = {
    "keyword": _is_text,
    "constant_keyword": _is_text,
    "wildcard": _is_text,
    "match_only_text": _is_text,
    "long": lambda value: _is_integer(value, 64),
    "integer": lambda value: _is_integer(value, 32),
    "boolean": lambda value: isinstance(value, bool),
    "date": _is_date,
    "ip": _is_ip,
    "float": _is_number,
    "double": _is_number,
    "scaled_float": _is_number,
    "geo_point": lambda value: isinstance(value, dict) and set(value) == {"lat", "lon"},
}


def _custom(name: str, value: object) -> Iterator[str]:
    """Check the rules that apply to every field."""
    if isinstance(value, dict):
        if not value:
            yield f"{name}: empty object"
        for key, member in value.items():
            if not key or "." in key:
                yield f"{name}: the member {key!r} isn't a nested one"
            yield from _custom(f"{name}.{key}", member)
    elif isinstance(value, list):
        if not value:
            yield f"{name}: empty list"
        for element in value:
            yield from _custom(name, element)
    elif isinstance(value, str):
        yield from _text(name, value)
    elif value is None:
        yield f"{name}: null"
    if name.startswith("auditd.data.") and not (
        isinstance(value, str | list) or name == "auditd.data.socket"
    ):
        yield f"{name}: all of auditd.data is strings, not {value!r:.60}"


def _categorisation(document: dict[str, Any]) -> Iterator[str]:
    event = document.get("event")
    if not isinstance(event, dict):
        return
    categories, types = event.get("category", []), event.get("type", [])
    if not isinstance(categories, list) or not isinstance(types, list):
        return  # already reported
    known = SCHEMA["types_of_category"]
    expected = {kind for category in categories for kind in known.get(category, ())}
    for kind in types:
        if categories and kind not in expected:
            yield f"event.type: {kind!r} doesn't go with the category {', '.join(categories)}"
