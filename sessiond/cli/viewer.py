"""The commands that show events: ``sessions``, ``tree``, ``explain``, ``view``."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sessiond import errors
from sessiond.cli import declare, terminal
from sessiond.cli.recordings import add_files, follow_recording, read_recording
from sessiond.text import printable

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from typing import BinaryIO

    from sessiond.viewer.model import Process, Recording, Session
    from sessiond.viewer.sessions import Filter


def add(commands: declare.Commands) -> None:
    """Declare the commands."""
    _add_sessions(commands)
    _add_tree(commands)
    _add_explain(commands)
    _add_view(commands)


def _add_sessions(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "sessions",
        _sessions,
        "list sessions: user, origin, time, commands",
        "Reads events from the configured output file and its rotated predecessors, or from the "
        "given files, and prints a line for each session, newest first: pid of its leader, its "
        "successive users, origin, start, end, number of processes and of failed ones, the first "
        "and the last command.",
        "sessiond sessions --user ann --since 2026-05-01\n"
        "sessiond sessions --root                   sessions that became root\n"
        "sessiond sessions web1.ndjson web2.ndjson.gz --json | jq .source\n"
        "sessiond sessions --running --type sshd > /dev/null && echo 'someone is logged in'\n"
        "sessiond sessions --follow                 print sessions as they start and end",
        (0, 1, 2, 8),
    )
    add_files(parser)
    _add_filters(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object for each session")
    parser.add_argument(
        "--follow", action="store_true", help="also print sessions as they start and end"
    )


def _add_tree(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "tree",
        _tree,
        "draw sessions as process trees",
        "Reads events and draws all sessions, the given session, or the given process with its "
        "descendants: start, duration, $ before a typed command, exit codes and signals, changes "
        "of user and directory. Identical siblings share a line; losses are shown where events "
        "are missing.",
        "sessiond tree 4711                         the session of this leader, or this process\n"
        "sessiond tree --user ann --typed           the commands that ann typed\n"
        "sessiond tree events.ndjson --failed       sessions with failures, from a file\n"
        "sessiond tree 4711 --follow                redraw as the session continues",
        (0, 1, 2, 8),
    )
    _add_wanted(parser)
    _add_filters(parser)
    form = parser.add_argument_group("appearance")
    only = form.add_mutually_exclusive_group()
    only.add_argument("--typed", action="store_true", help="show only typed commands")
    only.add_argument("--only-failed", action="store_true", help="show only failures")
    only.add_argument("--only-root", action="store_true", help="show only processes of root")
    form.add_argument("--level", type=int, metavar="N", help="show N levels below the top")
    form.add_argument(
        "--all", action="store_true", help="show a line for each process, fold nothing"
    )
    form.add_argument("--json", action="store_true", help="print a JSON object for each process")
    form.add_argument("--follow", action="store_true", help="redraw after each change")


def _add_explain(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "explain",
        _explain,
        "explain a process, with the source of each fact",
        "Reads events and describes a process in words: its programs, users and end, the chain of "
        "processes from its entry into the host, and missing information.",
        "sessiond explain 4711\nsessiond explain 9Q13d81 -f events.ndjson",
        (0, 1, 2, 8),
    )
    _add_wanted(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object for each process")


def _add_view(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "view",
        _view,
        "create or serve an HTML page of sessions",
        "Reads events and writes a self-contained HTML file: sessions, their trees, the details of "
        "each process, a time line, search. The page needs no server and loads nothing over the "
        "network. --serve serves the same page live on 127.0.0.1, at an address with a secret "
        "token.",
        "sessiond view                              writes sessions.html\n"
        "sessiond view web1.ndjson web2.ndjson -o today.html\n"
        "sessiond view --serve                      prints the address to open\n"
        "sessiond view --user ann --since 2026-05-01 -o ann.html",
        (0, 1, 2, 6, 8),
    )
    add_files(parser)
    _add_filters(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH|-",
        help="the file for the page (default: sessions.html; - is standard output)",
    )
    parser.add_argument(
        "--rules",
        type=Path,
        metavar="FILE|DIRECTORY",
        action="append",
        help="show findings of these Sigma rules, as sessiond detect does",
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument("--serve", action="store_true", help="serve the page, live, until Ctrl-C")
    serving.add_argument(
        "--listen",
        default="127.0.0.1:0",
        metavar="ADDRESS:PORT",
        help="another port, or another address (requires --certificate)",
    )
    serving.add_argument("--certificate", type=Path, metavar="FILE", help="PEM, for TLS")
    serving.add_argument("--key", type=Path, metavar="FILE", help="its key, if in another file")


def _add_wanted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "wanted",
        metavar="PID|ID|FILE",
        nargs="*",
        help="a pid, or the entity id (or its beginning) of a process or of a session's entry "
        "leader; names of files are read; put -- before an id that starts with -",
    )
    declare.listed(parser, "wanted")
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        action="append",
        default=[],
        help="event files (default: the configured output file and its rotated predecessors)",
    )
    declare.add_config(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection of sessions")
    group.add_argument("--user", metavar="USER", help="with this user (name or id)")
    group.add_argument("--host", metavar="NAME", help="on this host")
    group.add_argument("--from", dest="source", metavar="IP", help="from this address")
    group.add_argument("--type", metavar="TYPE", help="sshd, terminal, init, container ...")
    group.add_argument(
        "--since",
        type=declare.recent,
        metavar="TIME",
        help="still running at this time or later: 2026-05-01T10:00, 10:00, today, yesterday, or "
        "2h (ago)",
    )
    group.add_argument(
        "--until", type=declare.recent, metavar="TIME", help="started before this time"
    )
    group.add_argument("--running", action="store_true", help="still running")
    group.add_argument("--failed", action="store_true", help="with a failed process")
    group.add_argument("--root", action="store_true", help="that became root")
    group.add_argument(
        "--command",
        dest="pattern",
        type=_pattern,
        metavar="REGEX",
        help="with a matching command line",
    )


def _pattern(text: str) -> re.Pattern[str]:
    import re

    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{printable(text)!r}: {error}") from None


def _filter(arguments: argparse.Namespace) -> Filter:
    from sessiond.viewer.sessions import Filter

    return Filter(
        user=arguments.user or "",
        host=arguments.host or "",
        source=arguments.source or "",
        kind=arguments.type or "",
        since=arguments.since or "",
        until=arguments.until or "",
        running=arguments.running,
        failed=arguments.failed,
        root=arguments.root,
        command=arguments.pattern,
    )


# --- sessions ------------------------------------------------------------------------------------


def _sessions(arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    import msgspec

    from sessiond.viewer import sessions
    from sessiond.viewer.words import Colours

    wanted = _filter(arguments)
    if arguments.follow:
        return _follow_sessions(arguments, wanted)
    recording = read_recording(arguments)
    found = [each for each in reversed(recording.sessions()) if wanted.fits(each)]
    if not found:
        return _nothing(recording)
    if arguments.json:
        for each in found:
            terminal.say_json(msgspec.json.encode(sessions.described(each, recording.losses)))
    else:
        now = datetime.now(UTC).astimezone()
        colours = Colours(on=terminal.coloured())
        terminal.page(sessions.table(found, width=terminal.width(), now=now, colours=colours))
    return 0


def _nothing(recording: Recording) -> int:
    """Say on standard error that no session is shown, and return the exit code for it."""
    reason = "no session matches" if recording.events else "these files have no events yet"
    sys.stderr.write(f"sessiond: {reason}\n")
    return declare.DIFFERENT


def _follow_sessions(arguments: argparse.Namespace, wanted: Filter) -> int:
    """Print each matching session when it starts, and again when it ends, until Ctrl-C."""
    from datetime import UTC, datetime

    import msgspec

    from sessiond.viewer import sessions
    from sessiond.viewer.words import Colours

    colours, width = Colours(on=terminal.coloured()), terminal.width()
    if not arguments.json:
        terminal.say(colours.dim(sessions.head(width)))
    written: dict[str, bool] = {}
    for recording in follow_recording(arguments):
        for each in recording.sessions():
            if written.get(each.id) == each.running or not wanted.fits(each):
                continue
            written[each.id] = each.running
            if arguments.json:
                terminal.say_json(msgspec.json.encode(sessions.described(each, recording.losses)))
            else:
                now = datetime.now(UTC).astimezone()
                terminal.say(sessions.row(each, width=width, now=now, colours=colours))
        sys.stdout.flush()
    return 0


# --- tree and explain ----------------------------------------------------------------------------


def _sort_wanted(arguments: argparse.Namespace) -> list[str]:
    """Separate files from ids among the arguments; return the ids."""
    import os

    ids = [each for each in arguments.wanted if each != "-" and not os.path.lexists(each)]
    paths = [each for each in ids if "/" in each or ".ndjson" in each]
    if paths:
        raise errors.InputError(f"{paths[0]}: no such file")
    arguments.file += [each for each in arguments.wanted if each not in ids]
    return ids


def _meant(recording: Recording, ids: list[str], *, quiet: bool = False) -> list[Session | Process]:
    """Return the processes and sessions of ids. Raises InputError if an id is ambiguous."""
    from sessiond.viewer.model import Session, find

    sessions = recording.sessions()
    found: list[Session | Process] = []
    for each in ids:
        these = find(recording, each, sessions)
        if not these and not quiet:
            sys.stderr.write(f"sessiond: no process or session {printable(each)} in these files\n")
        if len(these) > 1:
            named = []
            for one in these[:8]:
                process = one.leader if isinstance(one, Session) else one
                command = process.command[:40] if process is not None else ""
                named.append(f"{one.id} on {one.host} ({command})")
            raise errors.InputError(f"{each} is ambiguous: {', '.join(named)}")
        found += these
    return found


def _tree(arguments: argparse.Namespace) -> int:
    ids = _sort_wanted(arguments)
    if arguments.follow:
        return _follow_tree(arguments, ids)
    recording = read_recording(arguments)
    lines = list(_tree_lines(recording, arguments, ids))
    if not lines and not ids:
        return _nothing(recording)
    terminal.page(lines)
    return 0 if lines else declare.DIFFERENT


def _tree_lines(
    recording: Recording, arguments: argparse.Namespace, ids: list[str]
) -> Iterator[str]:
    from datetime import UTC, datetime

    import msgspec

    from sessiond.viewer import tree
    from sessiond.viewer.model import Session
    from sessiond.viewer.words import Colours

    only: tree.Only = (
        "typed"
        if arguments.typed
        else "failed"
        if arguments.only_failed
        else "root"
        if arguments.only_root
        else ""
    )
    shape = tree.Shape(level=arguments.level, fold=not arguments.all, only=only)
    wanted = _filter(arguments)
    chosen: list[Session | Process] = (
        _meant(recording, ids, quiet=arguments.follow)
        if ids
        else [each for each in recording.sessions() if wanted.fits(each)]
    )
    now = datetime.now(UTC).astimezone()
    colours = Colours(on=terminal.coloured())
    drawn = tree.Tree(recording, shape)
    for number, each in enumerate(chosen):
        rows = drawn.rows(each)
        if arguments.json:
            for row in rows:
                if row.process is not None:
                    members = {"depth": row.depth, **_members(row.process)}
                    yield terminal.json_line(msgspec.json.encode(members))
            continue
        if isinstance(each, Session):
            yield from ("",) if number else ()
            yield colours.bold(tree.heading(each, recording, now))
        yield from tree.text(rows, width=terminal.width(), now=now, day=each.start, colours=colours)


def _members(process: Process) -> dict[str, object]:
    """Return the known members of a process."""
    import msgspec

    return {name: value for name, value in msgspec.structs.asdict(process).items() if value}


def _follow_tree(arguments: argparse.Namespace, ids: list[str]) -> int:
    """Draw the end of the tree that fits on the terminal, after each change."""
    import shutil

    if not sys.stdout.isatty():
        raise errors.ConfigError("tree --follow needs a terminal; sessions --follow does not")
    before: list[str] = []
    for recording in follow_recording(arguments):
        lines = list(_tree_lines(recording, arguments, ids))
        shown = lines[-(shutil.get_terminal_size().lines - 1) :]
        if shown != before:
            terminal.say("\x1b[H\x1b[J" + "\n".join(shown))
            sys.stdout.flush()
            before = shown
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    import msgspec

    from sessiond.viewer.explain import explain
    from sessiond.viewer.model import Session

    ids = _sort_wanted(arguments)
    if not ids:
        raise errors.ConfigError(
            "no process given: give its pid, or its entity id or the beginning of it"
        )
    recording = read_recording(arguments)
    sessions = {each.id: each for each in recording.sessions()}
    lines: list[str] = []
    for each in _meant(recording, ids):
        process = each.leader if isinstance(each, Session) else each
        if process is None:
            continue
        if arguments.json:
            lines.append(terminal.json_line(msgspec.json.encode(_members(process))))
            continue
        now = datetime.now(UTC).astimezone()
        lines += ("",) if lines else ()
        lines += explain(process, recording, sessions.get(process.entry), now)
    terminal.page(lines)
    return 0 if lines else declare.DIFFERENT


# --- view ----------------------------------------------------------------------------------------


def _view(arguments: argparse.Namespace) -> int:
    from sessiond.viewer import page

    wanted = _filter(arguments)
    if arguments.serve:
        return _serve(arguments, wanted)
    recording = read_recording(arguments, arguments.rules)
    sessions = [each for each in recording.sessions() if wanted.fits(each)]
    if not sessions:
        return _nothing(recording)
    html = page.html(page.data(recording, sessions))
    if arguments.output == "-":
        sys.stdout.buffer.write(html)
        return 0
    path = Path(arguments.output or "sessions.html")
    with private_file(path) as file:
        file.write(html)
    count = f"{len(sessions)} {'session' if len(sessions) == 1 else 'sessions'}"
    terminal.say(f"{printable(str(path))}: {count}; open it in a browser")
    return 0


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that only its owner can read: under sudo the user that called it.

    Raises OutputError.
    """
    import os

    from sessiond.system.files import publishing

    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    by_sudo = os.geteuid() == 0 and user.isdecimal() and group.isdecimal()
    try:
        with publishing(path, 0o600, (int(user), int(group)) if by_sudo else None) as file:
            yield file
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise errors.OutputError(f"{path}: can't be written: {reason}") from None


def _serve(arguments: argparse.Namespace, wanted: Filter) -> int:
    import threading

    from sessiond.viewer import page
    from sessiond.viewer.server import PageServer

    host, _, port = arguments.listen.rpartition(":")
    if not port.isascii() or not port.isdigit():
        raise errors.ConfigError(
            f"--listen {arguments.listen}: not ADDRESS:PORT such as 127.0.0.1:8080"
        )
    lock = threading.Lock()
    current: Recording | None = None
    made = (0, b"")

    def data() -> tuple[int, bytes]:
        """Make the data of the page, if the recording has grown since it was made last."""
        nonlocal made
        assert current is not None  # noqa: S101 -- the server starts with a recording
        with lock:
            if not made[1] or made[0] != current.events:
                sessions = [each for each in current.sessions() if wanted.fits(each)]
                made = current.events, page.data(current, sessions)
            return made

    server = PageServer(
        data,
        host=host.strip("[]") or "127.0.0.1",
        port=int(port),
        certificate=arguments.certificate,
        key=arguments.key,
    )
    try:
        for recording in follow_recording(arguments, arguments.rules, lock):
            if current is None:
                current = recording
                server.start()
                terminal.say(f"open {server.address}")
                sys.stdout.flush()
    finally:
        if current is not None:
            server.stop()
    return 0
