"""``sessiond ps``: shows the processes that the running daemon knows, as a table, tree or JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from sessiond.cli.status import ask
from sessiond.errors import StatusError
from sessiond.pipeline.listing import FactList, ListRequest, Row
from sessiond.text import printable
from sessiond.viewer.words import cut, day_and_time, width_of

_HEAD = ("PID", "USER", "LOGIN", "ENTRY", "SINCE", "COMMAND")
# Maximum widths of the columns before the command, on a terminal.
_MAX_WIDTHS = (10, 12, 12, 32, 12)


class _Last(msgspec.Struct, frozen=True):
    """The last line of an answer: the number of lines before it, or the daemon's error."""

    end: int | None = None
    error: str | None = None


def listed(path: Path, request: ListRequest, timeout: float = 30.0) -> Iterator[bytes]:
    """Ask the daemon behind ``path`` for processes; yield each line of its answer but the last.

    ``timeout`` is in seconds, for each step. Raises StatusError, with a remedy, when no daemon
    answers, when it refuses, and when its answer is incomplete.
    """
    lines = ask(path, msgspec.json.encode(request) + b"\n", timeout)
    for number, line in enumerate(lines):
        if not line.startswith((b'{"end":', b'{"error":')):
            yield line
            continue
        last = msgspec.json.decode(line, type=_Last)
        if last.error == "refused":
            raise StatusError(
                f"{path}: permission denied; run as root, or as a user who can read the output file"
            )
        if last.error is not None:
            raise StatusError(f"{path}: {printable(last.error)}")
        if last.end == number:
            return
        break
    raise StatusError(f"{path}: the answer is incomplete; see the daemon's log")


def rows(lines: Iterable[bytes]) -> list[Row]:
    """Decode rows and sort them by pid."""
    decoder = msgspec.json.Decoder(Row)
    return sorted(map(decoder.decode, lines), key=lambda row: (row.pid, row.start))


# --- the table -----------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line of the table: its cells, and the indent of the command in a tree."""

    cells: tuple[str, ...]
    indent: str
    command: str
    folded: int = 1


def table(
    found: Sequence[Row], *, width: int | None, now: datetime, tree: bool = False
) -> Iterator[str]:
    """Yield the lines of a table; ``width`` is that of the terminal, None without one.

    On a terminal each line fits the width, and identical siblings without children share a line.
    Times are in the time zone of ``now``.
    """
    lines = list(_tree(found, now, fold=width is not None) if tree else _flat(found, now, width))
    widths = (
        [
            max(len(_HEAD[column]), *(width_of(line.cells[column]) for line in lines), 0)
            for column in range(len(_MAX_WIDTHS))
        ]
        if lines
        else [len(name) for name in _HEAD[:-1]]
    )
    if width is not None:
        widths = [min(one, most) for one, most in zip(widths, _MAX_WIDTHS, strict=True)]
    yield _put(_HEAD[:-1], _HEAD[-1], widths, width)
    for line in lines:
        times = f"{line.folded} x " if line.folded > 1 else ""
        yield _put(line.cells, line.indent + times + line.command, widths, width)


def _flat(found: Sequence[Row], now: datetime, width: int | None) -> Iterator[_Line]:
    if width is None:
        yield from (_line(row, now) for row in found)
        return
    parents = {row.parent for row in found}
    previous: tuple[object, ...] | None = None
    line: _Line | None = None
    for row in found:
        key = (*_alike(row), row.parent)
        if line is not None and key == previous and row.pid not in parents:
            line = line._replace(folded=line.folded + 1)
            continue
        if line is not None:
            yield line
        line, previous = _line(row, now), key if row.pid not in parents else None
    if line is not None:
        yield line


def _tree(found: Sequence[Row], now: datetime, *, fold: bool) -> Iterator[_Line]:
    """Arrange each row below the process that forked it, else below its current parent."""
    known = {row.pid: row for row in found}
    children: dict[int, list[Row]] = defaultdict(list)
    roots: list[Row] = []
    for row in found:
        above = next(
            (
                pid
                for pid in (row.parent, row.ppid)
                if pid in known and pid != row.pid and known[pid].start <= row.start
            ),
            None,
        )
        (roots if above is None else children[above]).append(row)
    # No recursion: a chain of processes can be as long as the number of pids.
    waiting = [(row, "", "", 1) for row in reversed(roots)]
    while waiting:
        row, indent, below, times = waiting.pop()
        yield _line(row, now)._replace(indent=indent, folded=times)
        own = children[row.pid]
        groups = _folded(own, children) if fold else [(child, 1) for child in own]
        last = len(groups) - 1
        for number in range(last, -1, -1):
            branch, stem = ("└─ ", "   ") if number == last else ("├─ ", "│  ")
            child, times = groups[number]
            waiting.append((child, below + branch, below + stem, times))


def _folded(siblings: Iterable[Row], children: dict[int, list[Row]]) -> list[tuple[Row, int]]:
    """Group identical siblings without children; return the oldest of each group and the count."""
    groups: dict[object, list[Row]] = {}
    for row in siblings:
        key: object = row.pid if children.get(row.pid) else _alike(row)
        groups.setdefault(key, []).append(row)
    return [(alike[0], len(alike)) for alike in groups.values()]


def _alike(row: Row) -> tuple[object, ...]:
    return row.user, row.login, row.entry, row.command, row.session, row.end is None


def _line(row: Row, now: datetime) -> _Line:
    command = (
        row.command if row.end is None else f"{row.command} (ended {day_and_time(row.end, now)})"
    )
    cells = (
        str(row.pid),
        row.user,
        row.login or "-",
        row.entry or "-",
        day_and_time(row.start, now),
    )
    return _Line(tuple(map(printable, cells)), "", printable(command))


def _put(cells: Sequence[str], command: str, widths: Sequence[int], width: int | None) -> str:
    parts = []
    for column, (cell, room) in enumerate(zip(cells, widths, strict=True)):
        shown = cut(cell, room) if width is not None else cell
        blanks = " " * (room - width_of(shown))
        parts.append(blanks + shown if column == 0 else shown + blanks)
    line = "  ".join((*parts, command))
    return line if width is None else cut(line, max(width, 20)).rstrip()


# --- one process ---------------------------------------------------------------------------------


def family(lines: Iterable[bytes], width: int | None) -> Iterator[str]:
    """Yield a process and its ancestors, each fact with its source; ``width`` as in ``table``."""
    for number, line in enumerate(lines):
        process = msgspec.json.decode(line, type=FactList)
        ended = " (ended)" if process.ended else ""
        yield f"{'process' if number == 0 else 'forked by'} {process.pid}{ended}"
        names = max((len(fact.name) for fact in process.facts), default=0)
        sources = max((len(fact.source) for fact in process.facts), default=0)
        room = 48 if width is None else max(20, width - names - sources - 6)
        for fact in process.facts:
            value = printable(fact.value)
            shown = value if width is None else cut(value, room)
            blanks = " " * (room - width_of(shown))
            yield f"  {fact.name:<{names}}  {shown}{blanks}  {printable(fact.source)}"
