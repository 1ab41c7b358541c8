"""Draws a session as a text tree: typed commands, users, results, losses; pure.

Each process is below the one that forked it. Identical siblings share a line, and so do the failed
execs of a process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from sessiond.text import printable
from sessiond.viewer.model import FailedExec, Finding, Loss, Process, Recording, Session, during
from sessiond.viewer.sessions import origin
from sessiond.viewer.words import Colours, cut, day_and_time, local, pad, short, span

# Deeper levels are drawn at this indent, with their number: chains can be very long.
MAX_DEPTH: Final = 32
# Maximum length of a command without a terminal.
MAX_COMMAND: Final = 4096
# Maximum number of paths shown for the failed execs of a process.
_MAX_NAMED: Final = 3
# Maximum number of earlier commands shown of a process: the first one and the last ones.
_MAX_EARLIER: Final = 4

Only = Literal["", "typed", "failed", "root"]


@dataclass(slots=True)
class Row:
    """A line of a tree: a process, its failed execs, a loss, or a finding about the host.

    ``alike`` is the number of identical siblings, including itself; ``hidden`` the number of hidden
    processes below it. ``directory`` and ``user`` are set where they change, ``gained`` where the
    process has privileges that the one above it does not have: "root", or names of capabilities.
    """

    kind: Literal["process", "failed", "loss", "finding"]
    depth: int
    stem: str = ""
    process: Process | None = None
    alike: int = 1
    hidden: int = 0
    user: str = ""
    gained: str = ""
    directory: str = ""
    container: str = ""
    failed: Sequence[FailedExec] = ()
    findings: Sequence[Finding] = ()
    loss: Loss | None = None


@dataclass
class _Waiting:
    """The rows still to be drawn below a process."""

    row: Row
    below: str
    above: Process | None
    before: Process | None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Options of a tree: depth, folding, selection of processes."""

    level: int | None = None
    fold: bool = True
    only: Only = ""


@dataclass
class Tree:
    """The rows of a session, or of a process and its descendants."""

    recording: Recording
    shape: Shape = field(default_factory=Shape)

    def __post_init__(self) -> None:
        """Prepare data that each tree needs."""
        self._children = self.recording.children()

    def rows(self, of: Session | Process) -> Iterator[Row]:
        """Yield the rows of a session, or of a process, from the top."""
        if isinstance(of, Session):
            roots = of.roots
            inside = {each.id for each in of.processes} - {each.id for each in roots}
            marks = _placed(of, self.recording)
        else:
            roots = [of]
            inside = self._descendants(of)
            marks = {}
        wanted = self._wanted(roots, inside)
        self._sign(roots, inside, wanted, marks)
        for mark in marks.pop("", ()):
            yield _mark_row(mark, 0)
        waiting = [
            _Waiting(Row("process", 0, process=root, alike=times), "", None, None)
            for root, times in reversed(self._groups(roots))
        ]
        # No recursion, for the same reason as MAX_DEPTH.
        while waiting:
            each = waiting.pop()
            row = each.row
            if row.process is None:
                yield row
                continue
            _note_changes(row, each.above, each.before)
            row.findings = self.recording.findings.get(row.process.id, ())
            below = self._below(row.process, inside, wanted)
            if self.shape.level is not None and row.depth >= self.shape.level:
                row.hidden = self._count(row.process, inside)
                below = []
            yield row
            rows = self._inner(row, below, marks.get(row.process.id, ()))
            waiting += reversed(list(_drawn(rows, each)))

    def _below(self, process: Process, inside: set[str], wanted: set[str] | None) -> list[Process]:
        found = [each for each in self._children.get(process.id, []) if each.id in inside]
        return found if wanted is None else [each for each in found if each.id in wanted]

    def _inner(
        self,
        row: Row,
        below: list[Process],
        marks: Sequence[Loss | Finding],
    ) -> list[Row]:
        """Return the rows directly below one: failed execs, children, and marks by time."""
        assert row.process is not None  # noqa: S101 -- narrows the type
        depth = row.depth + 1
        rows = []
        if row.process.failed and not searched_path(row.process) and self.shape.only != "typed":
            rows.append(Row("failed", depth, process=None, failed=row.process.failed))
            rows[0].hidden = row.process.failed_count - len(row.process.failed)
        left = deque(sorted(marks, key=lambda mark: mark.start))
        for child, times in self._groups(below):
            while left and left[0].start <= child.start:
                rows.append(_mark_row(left.popleft(), depth))
            rows.append(Row("process", depth, process=child, alike=times))
        return rows + [_mark_row(mark, depth) for mark in left]

    def _sign(
        self,
        roots: list[Process],
        inside: set[str],
        wanted: set[str] | None,
        marks: Mapping[str, Sequence[Loss | Finding]],
    ) -> None:
        """Return the same number for processes that are identical including their descendants."""
        order = []
        waiting = list(roots)
        while waiting:
            order.append(waiting.pop())
            waiting += self._below(order[-1], inside, wanted)
        numbers: dict[object, int] = {}
        self._signatures: dict[str, int] = {}
        for each in reversed(order):
            alone = (
                each.running
                or each.id in self.recording.findings
                or each.id in marks
                or (each.failed and not searched_path(each))
            )
            below = (self._signatures[one.id] for one in self._below(each, inside, wanted))
            key: object = each.id if alone else (alike(each), tuple(below))
            self._signatures[each.id] = numbers.setdefault(key, len(numbers))

    def _groups(self, siblings: list[Process]) -> list[tuple[Process, int]]:
        """Group identical siblings; return the first of each group and the count."""
        if not self.shape.fold:
            return [(each, 1) for each in siblings]
        groups: dict[int, list[Process]] = {}
        for each in siblings:
            groups.setdefault(self._signatures[each.id], []).append(each)
        return [(group[0], len(group)) for group in groups.values()]

    def _descendants(self, process: Process) -> set[str]:
        """Return the ids of all descendants; never the process itself, even in a cycle."""
        found: set[str] = set()
        waiting = [process]
        while waiting:
            below = self._children.get(waiting.pop().id, [])
            fresh = [each for each in below if each.id not in found and each.id != process.id]
            found |= {each.id for each in fresh}
            waiting += fresh
        return found

    def _count(self, process: Process, inside: set[str]) -> int:
        """Return the number of descendants."""
        count, waiting = 0, [process]
        while waiting:
            below = self._below(waiting.pop(), inside, None)
            count += len(below)
            waiting += below
        return count

    def _wanted(self, roots: list[Process], inside: set[str]) -> set[str] | None:
        """Return the selected processes with their ancestors; None for all."""
        if not self.shape.only:
            return None
        wanted: set[str] = {root.id for root in roots}
        waiting = list(roots)
        while waiting:
            process = waiting.pop()
            waiting += self._below(process, inside, None)
            if _is_asked(process, self.shape.only):
                while process.id not in wanted:
                    wanted.add(process.id)
                    above = self.recording.processes.get(process.parent)
                    if above is None:
                        break
                    process = above
        return wanted


def searched_path(process: Process) -> bool:
    """Return whether its failed execs are a successful search along PATH."""
    return bool(process.images) and all(
        each.error == "ENOENT" and each.time <= process.images[-1].time for each in process.failed
    )


def _is_asked(process: Process, only: Only) -> bool:
    if only == "typed":
        return process.typed
    if only == "failed":
        return process.has_failed
    return process.user_id == "0"


def alike(process: Process) -> tuple[object, ...]:
    """Return what identical siblings have in common, but for their descendants."""
    return (
        tuple(process.args) or process.executable,
        process.user,
        process.exit_code,
        process.signal,
        process.directory,
        process.typed,
        process.incomplete,
    )


def _drawn(rows: list[Row], above: _Waiting) -> Iterator[_Waiting]:
    """Draw the branches to the rows below a row."""
    before: Process | None = None
    for number, row in enumerate(rows):
        last = number == len(rows) - 1
        if row.depth <= MAX_DEPTH:
            branch, stem = ("└─ ", "   ") if last else ("├─ ", "│  ")
            row.stem, below = above.below + branch, above.below + stem
        else:
            row.stem, below = f"{above.below}{row.depth} levels deep: ", above.below
        yield _Waiting(row, below, above.row.process, before)
        before = row.process or before


def _note_changes(row: Row, above: Process | None, before: Process | None) -> None:
    """Set user, directory and container if they differ from the row above."""
    process = row.process
    assert process is not None  # noqa: S101 -- narrows the type
    users = [image.user for image in process.images] + [process.user]
    first = above.user if above is not None else ""
    changes = [user for user in dict.fromkeys(users) if user and user != first]
    row.user = "→".join(changes)
    row.gained = _gained(process, above, changes)
    beside = before or above
    if process.directory and (beside is None or beside.directory != process.directory):
        row.directory = process.directory
    if process.container and (above is None or above.container != process.container):
        row.container = process.container


def _gained(process: Process, above: Process | None, users: list[str]) -> str:
    """Return the privileges that a process has and the one above it has not.

    ``users`` are those of the process that the one above is not. Capabilities are known of a
    process with events of its own.
    """
    if above is None or above.user_id in ("", "0"):
        return ""
    if process.user_id == "0" or "root" in users:
        return "root"
    if not above.seen:
        return ""
    known = set(above.capabilities.split())
    return " ".join(name for name in process.capabilities.split() if name not in known)


def _mark_row(mark: Loss | Finding, depth: int) -> Row:
    if isinstance(mark, Loss):
        return Row("loss", depth, loss=mark)
    return Row("finding", depth, findings=[mark])


def _placed(session: Session, recording: Recording) -> dict[str, list[Loss | Finding]]:
    """Assign each loss, and each finding about the host, to the last process before it.

    That is the process that started last and was running then: lost events most likely concern its
    descendants. Empty text means no process.
    """
    placed: dict[str, list[Loss | Finding]] = {}
    by_start = sorted(session.processes, key=lambda each: each.start)
    marks: tuple[Loss | Finding, ...] = (
        *during(session, recording.losses),
        *during(session, recording.findings.get("", ())),
    )
    for mark in marks:
        number = bisect_right(by_start, mark.start, key=lambda each: each.start)
        earlier = (by_start[each] for each in range(number - 1, -1, -1))
        there = (each for each in earlier if not each.end or each.end >= mark.start)
        last = next(there, None)
        placed.setdefault(last.id if last else "", []).append(mark)
    return placed


# --- text ----------------------------------------------------------------------------------------


def heading(session: Session, recording: Recording, now: datetime) -> str:
    """Return the heading: user, origin, time and results in one line."""
    parts = [f"{session.user or 'somebody'} by {origin(session)} on {session.host}"]
    start = local(session.start, now)
    if start is not None:
        parts[0] += f", {start:%Y-%m-%d %H:%M:%S}"
    if session.running:
        parts.append("still there")
    elif (lasted := span(session.start, session.end)) is not None:
        parts.append(short(lasted))
    parts.append(f"{session.count} {'process' if session.count == 1 else 'processes'}")
    if session.failures:
        parts.append(f"{session.failures} failed")
    if session.became_root:
        parts.append("became root")
    if lost := len(list(during(session, recording.losses))):
        parts.append(f"{lost} {'loss' if lost == 1 else 'losses'}")
    if found := sum(len(recording.findings.get(each.id, ())) for each in session.processes):
        parts.append(f"{found} {'finding' if found == 1 else 'findings'}")
    if session.origin is not None:
        client = session.origin
        parts.append(f"came from {client.host}, pid {client.pid}: {client.command}")
    return printable(", ".join(parts))


def text(
    rows: Iterable[Row], *, width: int | None, now: datetime, day: str, colours: Colours
) -> Iterator[str]:
    """Yield rows as lines: time, duration, tree. ``day`` is a date of the tree's day.

    ``width`` is that of the terminal, None without one: lines are then not cut.
    """
    today = local(day, now)
    for row in rows:
        if row.process is not None:
            yield _process_line(row, row.process, width, now, today, colours)
        elif row.loss is not None:
            when = pad(_time(row.loss.start, now, today), 12)
            what = printable(f"‼ lost here ({row.loss.hop}): {row.loss.text}")
            yield _fitted(when, "", row.stem, what, "", width, colours, colours.lost)
        elif row.kind == "finding":
            (found,) = row.findings
            when = pad(_time(found.time, now, today), 12)
            what = printable(f"! {found.rule}")
            yield _fitted(when, "", row.stem, what, "", width, colours, colours.lost)
        else:
            when = pad(_time(row.failed[0].time, now, today), 12)
            yield _fitted(when, "", row.stem, _failed(row), "", width, colours, colours.dim)


def _failed(row: Row) -> str:
    """Return the failed execs of a process as one line."""
    count = len(row.failed) + row.hidden
    paths = list(dict.fromkeys(each.executable for each in row.failed))
    named = ", ".join(paths[:_MAX_NAMED]) + (", …" if len(paths) > _MAX_NAMED else "")
    errors = "/".join(Counter(each.error or "failed" for each in row.failed))
    times = f" ✕ {count}" if count > 1 else ""
    return printable(f"not executed{times} ({errors}): {named}")


def _process_line(
    row: Row,
    process: Process,
    width: int | None,
    now: datetime,
    today: datetime | None,
    colours: Colours,
) -> str:
    if process.running:
        lasted = "…"
    else:
        took = span(process.start, process.end)
        lasted = short(took) if took is not None else ""
    command = printable(_command(process))
    style = colours.bold if process.typed else str
    before = f"{row.alike} ✕ " if row.alike > 1 else ""
    marker = "$ " if process.typed else ""
    notes = _notes(row, process, colours)
    when = pad(_time(process.start, now, today), 12)
    return _fitted(when, lasted, row.stem, before + marker + command, notes, width, colours, style)


def _command(process: Process) -> str:
    """Return the command, after earlier commands of the same process."""
    shown = process.command[:MAX_COMMAND]
    if len(process.command) > MAX_COMMAND:
        shown += f"… ({len(process.command)} characters)"
    if not process.seen:
        return f"{shown} (known by others alone)"
    if not process.images and not process.older:
        return f"({shown})"  # a fork that executed nothing
    earlier = [" ".join(image.args)[:200] or image.executable for image in process.images[:-1]]
    if len(earlier) > _MAX_EARLIER:
        earlier[1 : 1 - _MAX_EARLIER] = [f"… ({process.image_count} programs)"]
    return " ⇒ ".join((*earlier, shown))


def _notes(row: Row, process: Process, colours: Colours) -> str:
    notes = []
    if process.signal:
        dumped = ", core dumped" if process.core_dumped else ""
        notes.append(colours.bad(f"→ {printable(process.signal)}{dumped}"))
    elif process.exit_code:
        notes.append(colours.bad(f"→ exit {process.exit_code}"))
    elif process.gone:
        notes.append("→ its end was not seen")
    rules = dict.fromkeys(each.rule for each in row.findings)
    notes += [colours.lost(f"! {printable(rule)}") for rule in rules]
    if row.user:
        rises = "↑ " if row.gained == "root" else ""
        notes.append(colours.root(f"{rises}as {printable(row.user)}"))
    if row.gained and row.gained != "root":
        notes.append(colours.root(f"↑ {printable(row.gained)}"))
    if row.directory:
        notes.append(colours.dim(f"in {printable(row.directory)}"))
    if row.container:
        notes.append(colours.dim(f"in container {printable(row.container.split()[-1][:12])}"))
    if process.incomplete:
        notes.append(colours.lost(f"[incomplete: {printable('; '.join(process.incomplete))}]"))
    if process.failed and searched_path(process):
        notes.append(colours.dim(f"[found after {process.failed_count}]"))
    if "process.args" in process.truncated:
        notes.append(colours.dim("[cut at a limit]"))
    if row.hidden:
        notes.append(colours.dim(f"[{row.hidden} below]"))
    return "  ".join(notes)


def _fitted(
    when: str,
    lasted: str,
    stem: str,
    command: str,
    notes: str,
    width: int | None,
    colours: Colours,
    style: object,
) -> str:
    """Compose a line; on a terminal the command is cut to leave space for the notes."""
    room = None if width is None else width - 12 - 9 - len(stem) - _visible(notes) - 3
    shown = command if room is None else cut(command, max(room, 12))
    styled = style(shown) if callable(style) else shown
    line = f"{colours.dim(when)} {pad(lasted, 7, right=True)}  {colours.dim(stem)}{styled}"
    return f"{line}  {notes}".rstrip() if notes else line.rstrip()


def _visible(text: str) -> int:
    """Return the width of a text, without colours."""
    width, rest = 0, text
    while rest:
        plain, found, rest = rest.partition("\x1b[")
        width += len(plain)
        if found:
            rest = rest.partition("m")[2]
    return width


def _time(date: str, now: datetime, today: datetime | None) -> str:
    then = local(date, now)
    if then is None:
        return ""
    if today is None or then.date() == today.date():
        return f"{then:%H:%M:%S}.{then.microsecond // 1000:03}"
    return day_and_time(date, now)
