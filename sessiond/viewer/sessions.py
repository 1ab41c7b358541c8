"""Lists sessions: selection, a table for people, objects for programs; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from sessiond.text import printable
from sessiond.viewer.model import Loss, Session, during
from sessiond.viewer.words import Colours, cut, day_and_time, pad, short, span, width_of

_HEAD: Final = ("PID", "USER", "FROM", "HOST", "START", "END", "PROCS", "FAIL", "COMMANDS")
_RIGHT: Final = frozenset({"PID", "PROCS", "FAIL"})
# Maximum widths of columns on a terminal.
_MAX_WIDTHS: Final = (7, 16, 28, 16, 12, 20, 7, 5)
# Maximum length of a command; --json has all of it.
_MAX_COMMAND: Final = 200
# On a narrow terminal the other columns are narrower, so that commands have space; the host has a
# column if there are several.
_NARROW: Final = 120
_NARROW_WIDTHS: Final = (7, 10, 18, 0, 12, 7, 7, 4)
_NARROW_WITH_HOST: Final = (7, 10, 9, 7, 12, 7, 7, 4)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Selects sessions; empty or None members select all.

    ``since`` and ``until`` are dates in the format of events. ``user`` is any user of its
    processes, ``source`` an address, ``kind`` an entry type.
    """

    user: str = ""
    host: str = ""
    source: str = ""
    kind: str = ""
    since: str = ""
    until: str = ""
    running: bool = False
    failed: bool = False
    root: bool = False
    command: re.Pattern[str] | None = None

    def fits(self, session: Session) -> bool:
        """Return whether a session is selected."""
        end = session.end
        return (
            self._fits_origin(session)
            and (not self.since or not end or end >= self.since)
            and (not self.until or session.start < self.until)
            and (not self.running or session.running)
            and (not self.failed or session.failures > 0)
            and (not self.root or session.became_root)
            and (self.command is None or _executed(session, self.command))
        )

    def _fits_origin(self, session: Session) -> bool:
        return (
            (not self.user or self.user in _users(session))
            and (not self.host or self.host == session.host)
            and (not self.source or self.source == session.source)
            and (not self.kind or self.kind == (session.kind or "unknown"))
        )


def _users(session: Session) -> set[str]:
    found = set(session.users)
    for process in session.processes:
        found |= {process.user_id, process.real_user, process.login_user}
    return found


def _executed(session: Session, pattern: re.Pattern[str]) -> bool:
    return any(
        pattern.search(process.command)
        or any(pattern.search(" ".join(image.args)) for image in process.images)
        for process in session.processes
    )


class SessionObject(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A session for ``--json``; unknown members are omitted."""

    session: str
    pid: int = 0
    host: str = ""
    boot: str = ""
    type: str = ""
    source: str = ""
    origin: str = ""  # entity id of the ssh process through which it came
    user: str = ""
    users: list[str] = []
    became_root: bool = False
    container: str = ""
    unit: str = ""
    start: str = ""
    end: str = ""
    running: bool = False
    processes: int = 0
    failed: int = 0
    execs_failed: int = 0
    lost: int = 0
    first_command: str = ""
    last_command: str = ""


def described(session: Session, losses: Iterable[Loss]) -> SessionObject:
    """Make the object of a session."""
    leader = session.leader
    commands = session.commands
    return SessionObject(
        session=session.id,
        pid=leader.pid if leader else 0,
        host=session.host,
        boot=session.processes[0].boot,
        type=session.kind,
        source=session.source,
        origin=session.origin.id if session.origin else "",
        user=session.user,
        users=session.users,
        became_root=session.became_root,
        container=leader.container if leader else "",
        unit=leader.unit if leader else "",
        start=session.start,
        end=session.end,
        running=session.running,
        processes=session.count,
        failed=session.failures,
        execs_failed=sum(each.failed_count for each in session.processes),
        lost=sum(loss.count for loss in during(session, losses)),
        first_command=commands[0].first_command,
        last_command=commands[-1].first_command,
    )


def origin(session: Session) -> str:
    """Return the origin of a session: the type, with an address, container, unit or terminal."""
    kind = session.kind or "unknown"
    leader = session.leader
    if session.source:
        return f"{kind} {session.source}"
    if leader is None:
        return kind
    if kind == "container" and leader.container:
        return f"{kind} {leader.container.split()[-1][:12]}"
    if kind == "init":
        return leader.unit or f"service {leader.name}"
    if kind in ("terminal", "console") and leader.tty:
        return f"{kind} {leader.tty}"
    return f"{kind} {leader.name}".strip()


def table(
    sessions: Iterable[Session], *, width: int | None, now: datetime, colours: Colours
) -> Iterator[str]:
    """Yield sessions as a table; ``width`` is that of the terminal, None without one.

    On a terminal a line fits the width. Times are in the time zone of ``now``.
    """
    narrow = width is not None and width < _NARROW
    rows = [_row(session, now, narrow=narrow) for session in sessions]
    widths = [max(map(width_of, cells)) for cells in zip(_HEAD, *rows, strict=True)][:-1]
    if width is not None:
        most = _widths(width, hosts=len({row[3] for row in rows}))
        widths = [min(pair) for pair in zip(widths, most, strict=True)]
    yield colours.dim(_line(_HEAD, widths, width))
    for row in rows:
        yield _line(row, widths, width, colours)


def row(session: Session, *, width: int | None, now: datetime, colours: Colours) -> str:
    """Format one session as a line that fits the terminal."""
    narrow = width is not None and width < _NARROW
    return _line(_row(session, now, narrow=narrow), _widths(width), width, colours)


def head(width: int | None) -> str:
    """Return the column names of ``row``."""
    return _line(_HEAD, _widths(width), width)


def _widths(width: int | None, hosts: int = 2) -> Sequence[int]:
    """Return the maximum widths of columns; 0 omits a column."""
    if width is None or width >= _NARROW:
        return _MAX_WIDTHS
    return _NARROW_WIDTHS if hosts < 2 else _NARROW_WITH_HOST


def _row(session: Session, now: datetime, *, narrow: bool = False) -> tuple[str, ...]:
    users = session.users
    commands = session.commands
    first, last = (cut(each.first_command, _MAX_COMMAND) for each in (commands[0], commands[-1]))
    shown = first if len(commands) == 1 or first == last else f"{first} … {last}"
    running = "running" if narrow else "still there"
    end = running if session.running else day_and_time(session.end, now)
    if not session.running and (lasted := span(session.start, session.end)) is not None:
        end = short(lasted) if narrow else f"{end} ({short(lasted)})"
    cells = (
        str(session.leader.pid or "") if session.leader else "",
        "→".join(users[:3]) + ("…" if len(users) > 3 else ""),
        origin(session),
        session.host,
        day_and_time(session.start, now),
        end,
        str(session.count),
        str(session.failures or ""),
        shown,
    )
    return tuple(printable(cell[:4096]) for cell in cells)


def _line(
    cells: tuple[str, ...], widths: Sequence[int], width: int | None, colours: Colours | None = None
) -> str:
    parts = []
    left = width
    for name, cell, room in zip(_HEAD, cells, widths, strict=False):
        if not room:
            continue
        shown = pad(cut(cell, room) if width is not None else cell, room, right=name in _RIGHT)
        left = None if left is None else left - room - 2
        if colours is not None:
            shown = _coloured(name, cell, shown, colours)
        parts.append(shown)
    last = cells[-1] if left is None else cut(cells[-1], max(left, 1))
    return "  ".join((*parts, last)).rstrip()


def _coloured(name: str, cell: str, shown: str, colours: Colours) -> str:
    if name == "USER" and "root" in cell.split("→")[1:]:
        return colours.root(shown)
    if name == "FAIL" and cell:
        return colours.bad(shown)
    if name == "END" and cell in ("still there", "running"):
        return colours.good(shown)
    return shown
