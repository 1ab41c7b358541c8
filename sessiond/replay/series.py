"""Finds out which logs are of different hosts, so that they can be read side by side.

The records of most logs name their host (``node=``, or the host of syslog or the journal). Where
they don't, time tells: the logs of one host follow each other, those of several hosts overlap.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import combinations, islice
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.audit.auditd_log import LogRecord, TypeNumber, parse_line
from sessiond.errors import RecordError
from sessiond.replay import files
from sessiond.replay.replay import JSON_LINE, json_records
from sessiond.system.packed import is_stream
from sessiond.text import display

# The beginning of a log in which its hosts are looked for, and the end with its last time; bytes.
_HEAD: Final = 1 << 18
_TAIL: Final = 1 << 16
# Series that are read at the same time; each has an open file.
_SIDE_BY_SIDE: Final = 8
# The logs of one host may overlap so far, in s of their stamps.
_REORDERED: Final = 2.0
# Behind the name of a log: audit.log.1, audit.log-20260501.gz.
_ROTATED: Final = re.compile(r"(?:[.-]\d+)?(?:\.(?:gz|xz|bz2|zst))?$")


class Log(NamedTuple):
    """A file, and the host of those of its records that name none; "" if that is not known."""

    name: str
    node: str


class _Head(NamedTuple):
    """The beginning of a log: its bytes, the first stamp (s since the epoch) and the hosts."""

    data: bytes
    first: float
    nodes: frozenset[str]


class _Unit:
    """Logs that can only be of one host, if they don't name any: ``place`` is their path."""

    def __init__(self, place: Path, logs: Iterable[str], heads: dict[str, _Head]) -> None:
        self.place = place
        self.logs = list(logs)
        self.label = ""
        inside = [heads[log] for log in self.logs]
        self.first = min(head.first for head in inside)
        self.begin = min(inside, key=lambda head: head.first).data[:_TAIL]
        self.nodes = frozenset[str]().union(*(head.nodes for head in inside))
        self._newest = max(self.logs, key=lambda log: heads[log].first)

    @cached_property
    def last(self) -> float:
        """The time of the last record, in s since the epoch."""
        return max((self.first, *files.stamps(files.tail(self._newest, _TAIL))[-1:]))

    def overlaps(self, other: _Unit) -> bool:
        """Return whether both have records of the same time, other than as copies."""
        if self.begin == other.begin:
            return False
        shorter = min(self.last - self.first, other.last - other.first)
        slack = min(_REORDERED, shorter / 2)
        return self.first < other.last - slack and other.first < self.last - slack

    def may_continue(self, other: _Unit) -> bool:
        """Return whether a host of this may also be in the other."""
        if self.label and other.label:
            return False
        return bool(self.nodes & other.nodes) or not self.overlaps(other)


def series(names: list[str], type_number: TypeNumber) -> list[list[Log]]:
    """Return lists of logs that can be read side by side; those of a list follow each other.

    Logs that don't name their host are of one host if their times don't overlap. If they do, each
    directory has the logs of a host, or each log with its rotated files if those of a directory
    overlap; the host is named after the part of the path in which they differ.
    """
    heads = {} if any(map(is_stream, names)) else _heads(names, type_number)
    if len(heads) < 2:
        return [[Log(name, "") for name in names]]
    units = list(_units(heads))
    _label(units)
    joined: list[list[_Unit]] = []
    for unit in units:
        same = [each for each in joined if any(map(unit.may_continue, each))]
        joined = [each for each in joined if each not in same]
        joined.append([*(other for each in same for other in each), unit])
    labels = [{log: unit.label for unit in each for log in unit.logs} for each in joined]
    # An empty log, or one that can't be read, is read first.
    rest = [Log(name, "") for name in names if name not in heads]
    found = [[Log(name, each[name]) for name in names if name in each] for each in labels]
    found.sort(key=lambda logs: names.index(logs[0].name))
    return [[*rest, *found[0]], *found[1:]]


def side_by_side(readers: Iterable[Iterator[None]]) -> None:
    """Take a step of each reader in turn until all end; a few at a time, in the given order."""
    waiting = iter(readers)
    reading = deque(islice(waiting, _SIDE_BY_SIDE))
    while reading:
        reader = reading.popleft()
        for _ in reader:
            reading.append(reader)
            break
        else:
            reading.extend(islice(waiting, 1))


def _heads(names: list[str], type_number: TypeNumber) -> dict[str, _Head]:
    """Return the beginnings of logs with records; none if the hosts of one can't be known."""
    found = {}
    for name in names:
        data = files.head(name, _HEAD)
        if not data.strip():
            continue
        nodes = frozenset(record.node for record in _records(data, type_number))
        stamps = files.stamps(data)
        if not nodes or not stamps:
            return {}
        found[name] = _Head(data, stamps[0], nodes)
    return found


def _records(data: bytes, type_number: TypeNumber) -> Iterator[LogRecord]:
    for line in data.splitlines():
        try:
            if line.startswith(JSON_LINE):
                yield from json_records(line, type_number)
            else:
                yield parse_line(line, type_number)
        except RecordError:
            continue


def _units(heads: dict[str, _Head]) -> Iterator[_Unit]:
    """Yield the directories of logs, or their logs, each with its rotated files."""
    directories: dict[Path, list[str]] = {}
    for name in heads:
        directories.setdefault(Path(name).absolute().parent, []).append(name)
    for directory, inside in directories.items():
        rotated: dict[Path, list[str]] = {}
        for name in inside:
            log = directory / _ROTATED.sub("", Path(name).name)
            rotated.setdefault(log.with_suffix("") if log.suffix == ".log" else log, []).append(
                name
            )
        parts = [_Unit(log, each, heads) for log, each in rotated.items()]
        if _overlap(parts):
            yield from parts
        else:
            yield _Unit(directory, inside, heads)


def _overlap(units: list[_Unit]) -> bool:
    """Return whether there are records of the same time that don't name their hosts."""
    unnamed = [unit for unit in units if "" in unit.nodes]
    return any(one.overlaps(other) for one, other in combinations(unnamed, 2))


def _label(units: list[_Unit]) -> None:
    """Name the hosts of the units after their paths, if they are several."""
    unnamed = [unit for unit in units if "" in unit.nodes]
    if not _overlap(unnamed):
        return
    paths = [list(unit.place.parts) for unit in unnamed]
    for end in (0, -1):
        while min(map(len, paths)) > 1 and len({path[end] for path in paths}) == 1:
            for path in paths:
                del path[end]
    for unit, path in zip(unnamed, paths, strict=True):
        unit.label = display(os.fsencode("/".join(path)))
        unit.nodes = unit.nodes - {""} | {unit.label}
