"""Logs made of real events: one of each kind, intact and damaged in every possible way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_LINE: Final = re.compile(rb"(?:node=(\S+) )?(type=.*(audit\([\d.]+:\d+\)).*)")
_STAMP: Final = re.compile(rb"audit\([\d.]+:\d+\)")
_TYPE: Final = re.compile(rb"type=(\S+)")
_SYSCALL: Final = re.compile(rb"syscall=(\d+)")

FORMS: Final = ("raw", "enriched", "node")


class Damaged(NamedTuple):
    """The lines of one event, and their state: intact, missing, doubled, reordered, cut."""

    serial: int
    damage: str
    lines: list[bytes]


def kinds_of_events(logs: Iterable[Path]) -> list[list[bytes]]:
    """Return the lines of one event of each kind: with the same record types and system call.

    Lines that are not auditd's are left out, and so are the names of nodes.
    """
    found: dict[tuple[bytes, ...], list[bytes]] = {}
    for log in logs:
        events: dict[tuple[bytes, bytes], list[bytes]] = {}
        for line in log.read_bytes().splitlines():
            match = _LINE.fullmatch(line)
            if match is not None:
                events.setdefault((match[1], match[3]), []).append(match[2])
        for lines in events.values():
            joined = b"".join(lines)
            found.setdefault((*_TYPE.findall(joined), *_SYSCALL.findall(joined)[:1]), lines)
    return list(found.values())


def damaged(events: Iterable[list[bytes]]) -> Iterator[Damaged]:
    """Yield each event intact and in all damaged forms, each with its own stamp."""
    serial = 1000
    for event in events:
        for damage, lines in _damages(event):
            serial += 1
            stamp = b"audit(%d.%03d:%d)" % (1_700_000_000 + serial // 10, serial % 1000, serial)
            made = [_STAMP.sub(stamp, line, count=1) for line in lines]
            yield Damaged(serial, damage, made)


def _damages(event: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    yield "whole", event
    for index, line in enumerate(event):
        before, after = event[:index], event[index + 1 :]
        if len(event) > 1:
            yield "missing", [*before, *after]
            yield "reordered", [line, *after, *before]
        yield "doubled", [*before, line, line, *after]
        head, _, text = line.partition(b"\x1d")[0].partition(b"): ")
        for tenths in (2, 4, 6, 8, 9):
            yield "cut", [*before, head + b"): " + text[: len(text) * tenths // 10], *after]
    if len(event) > 1:
        yield "reordered", event[::-1]


def in_form(line: bytes, form: str) -> bytes:
    """Return a line in one of auditd's formats: raw, ENRICHED, or with its node."""
    if form == "enriched":
        return line if b"\x1d" in line else line + b'\x1dUID="root"'
    raw = line.partition(b"\x1d")[0]
    return b"node=web1 " + raw if form == "node" else raw
