"""Shortens lines to the maximum length, with the least loss of information.

Log shippers and indexes cut or reject long lines: Fluent Bit at 32 KiB, Lucene's terms at 32,766
bytes. This module cuts in a defined order: the longest values first, those of relatives before
those of the event, and the process's own argv last. ``sessiond.truncated`` names each cut value.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

# Remaining bytes of JSON of a cut value, except the process's own argv.
BRIEF: Final = 128
# The process's own argv is cut last.
OWN: Final = 2
# Space for sessiond.truncated.
_MARKS: Final = 1024

_RELATIVES: Final = ("parent", "group_leader", "session_leader", "entry_leader", "previous")
_KEPT: Final = ("@timestamp", "event", "ecs", "agent", "host", "service", "sessiond")


class _Value(NamedTuple):
    """A string or a list of strings, and its place; ``rank`` 0 is cut first."""

    rank: int
    size: int  # in bytes of JSON
    path: str
    holder: Any  # dict or list
    key: Any


def fitted(line: bytes, limit: int) -> bytes:
    """Return the line, a JSON object and a newline, with at most ``limit`` bytes.

    Below about 8 KiB the limit can be less than the minimum length of a line.
    """
    document: dict[str, Any] = orjson.loads(line)
    excess = len(line) + _MARKS - limit
    cut: list[str] = []
    values = sorted(_values(document), key=lambda value: (value.rank, -value.size))
    own = sum(value.size for value in values if value.rank == OWN)
    for value in values:
        if excess <= 0:
            break
        if value.size <= BRIEF:
            continue
        room = BRIEF
        if value.rank == OWN:
            # args and command_line have the same content: both are cut equally.
            room = max(room, value.size - excess * value.size // own)
            own -= value.size
        shorter = _shortened(value.holder[value.key], room)
        value.holder[value.key] = shorter
        excess -= value.size - _size(shorter)
        cut.append(value.path)
    for name in ("auditd", "file"):
        # A record can have too many parts, each of them short.
        if excess > 0 and name in document:
            excess -= _size(document.pop(name))
            cut.append(name)
    if cut:
        marks = document.setdefault("sessiond", {}).setdefault("truncated", [])
        marks += [path for path in dict.fromkeys(cut) if path not in marks]
    return orjson.dumps(document) + b"\n"


def _values(document: dict[str, Any]) -> Iterator[_Value]:
    for name, member in document.items():
        if name not in _KEPT:
            yield from _inside(member, name, document, name)
    event = document.get("event", {})
    if "original" in event:
        yield from _inside(event["original"], "event.original", event, "original")


def _inside(member: Any, path: str, holder: Any, key: Any) -> Iterator[_Value]:  # noqa: ANN401
    if isinstance(member, dict):
        for name, inner in member.items():
            yield from _inside(inner, f"{path}.{name}", member, name)
    elif isinstance(member, list) and member and not isinstance(member[0], str):
        for index, inner in enumerate(member):
            yield from _inside(inner, path, member, index)
    elif isinstance(member, str | list):
        yield _Value(_rank(path), _size(member), path, holder, key)


def _rank(path: str) -> int:
    parts = path.split(".")
    if parts[0] == "process" and parts[1] in _RELATIVES:
        return 0
    return OWN if path in ("process.args", "process.command_line") else 1


def _size(value: object) -> int:
    return len(orjson.dumps(value))


def _beginning(text: str, room: int) -> str:
    shown = text[:room]
    while (size := _size(shown)) > room:
        # Some characters take six bytes.
        shown = shown[: min(len(shown) * room // size, len(shown) - 1)]
    return shown


def _shortened(value: str | list[str], room: int) -> str | list[str]:
    """Return the beginning of a text, or the first texts of a list, in ``room`` bytes of JSON."""
    if isinstance(value, str):
        return _beginning(value, room)
    number = bisect_right(range(1, len(value) + 1), room, key=lambda count: _size(value[:count]))
    kept = value[:number]
    left = room - _size(kept) - 1
    if number < len(value) and left > BRIEF // 2:
        kept.append(_beginning(value[number], left))
    return kept
