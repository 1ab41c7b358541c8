"""Converts conditions of Beats' processors to conditions of filters.

The conditions are those of
https://www.elastic.co/guide/en/beats/auditbeat/current/defining-processors.html; all that a
section names must hold. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from sessiond.migrate.tree import Setting

# Prefixes and characters of values that are special in filters.
_SPECIAL: Final = re.compile(r"[*?\[]|^(re:|not:|[<>])|^exists$")
_COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# Names of networks in libbeat that consist of a few networks.
_NETWORKS: Final = {
    "loopback": ["127.0.0.0/8", "::1/128"],
    "private": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
    "link_local_unicast": ["169.254.0.0/16", "fe80::/10"],
    "multicast": ["224.0.0.0/4", "ff00::/8"],
}


class UnknownConditionError(Exception):
    """A condition that filters do not support; the message names it."""


def condition(section: Setting) -> dict[str, Any]:
    """Return the ``when`` of a filter that is equivalent to a processor's condition.

    Raises UnknownConditionError.
    """
    parts = [part for name, value in section.members.items() for part in _parts(name, value)]
    if not parts:
        raise UnknownConditionError("there is no condition")
    return both(*parts)


def both(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return a condition that holds if all parts do."""
    if len(parts) == 1:
        return parts[0]
    together: dict[str, Any] = {}
    for part in parts:
        if together.keys() & part.keys() or any(name.startswith("ancestor.") for name in part):
            # A mapping can't repeat a name: the other conditions are added as double negations.
            return {"not": {"any": [negated(each) for each in parts]}}
        together |= part
    return together


def negated(part: dict[str, Any]) -> dict[str, Any]:
    """Return a condition that holds if the part does not."""
    return part["not"] if list(part) == ["not"] else {"not": part}


def _parts(name: str, value: Setting) -> Iterator[dict[str, Any]]:
    match name:
        case "and":
            yield from (condition(each) for each in value.items)
        case "or":
            yield {"any": [condition(each) for each in value.items]}
        case "not":
            yield negated(condition(value))
        case "has_fields":
            fields = value.plain() or []
            yield from ({str(field): "exists"} for field in fields)
        case "equals":
            yield from ({field: _equal(leaf.plain())} for field, leaf in _fields(value))
        case "contains":
            yield from ({field: _contained(leaf.plain())} for field, leaf in _fields(value))
        case "regexp":
            yield from ({field: f"re:{leaf.plain()}"} for field, leaf in _fields(value))
        case "network":
            yield from ({field: _networks(leaf.plain())} for field, leaf in _fields(value))
        case "range":
            yield from (_compared(path, leaf.plain()) for path, leaf in _fields(value))
        case _:
            raise UnknownConditionError(f"filters have no condition {name}")


def _fields(section: Setting, path: str = "") -> Iterator[tuple[str, Setting]]:
    """Yield the dotted fields of a condition with their values."""
    for name, member in section.members.items():
        full = f"{path}.{name}" if path else name
        if member.members:
            yield from _fields(member, full)
        else:
            yield full, member


def _equal(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    if isinstance(value, str) and _SPECIAL.search(value):
        return f"re:^{re.escape(value)}$"
    return value


def _contained(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    if isinstance(value, list):
        return [_contained(each) for each in value]
    text = str(value)
    return f"re:{re.escape(text)}" if _SPECIAL.search(text) else f"*{text}*"


def _networks(value: Any) -> list[str]:  # noqa: ANN401 - whatever YAML holds
    found: list[str] = []
    for each in value if isinstance(value, list) else [value]:
        text = str(each)
        if "/" not in text and text not in _NETWORKS:
            raise UnknownConditionError(f"filters know no network {text}: name it by its address")
        found += _NETWORKS.get(text, [text])
    return found


def _compared(path: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever YAML holds
    field, _, word = path.rpartition(".")
    if word not in _COMPARISONS:
        raise UnknownConditionError(f"range has no {word}: it has gt, gte, lt and lte")
    return {field: f"{_COMPARISONS[word]}{value}"}
