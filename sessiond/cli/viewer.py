"""The commands that show events: ``sessions``, ``tree``, ``explain``, ``view``, ``detect``."""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessiond import errors
from sessiond.cli import declare, terminal
from sessiond.text import printable

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from sessiond.viewer.detect import Ruleset
    from sessiond.viewer.model import Process, Recording, Session
    from sessiond.viewer.sessions import Filter

NO_MATCH = 1


def add(commands: declare.Commands) -> None:
    """Declare the commands."""
    _add_sessions(commands)
    _add_tree(commands)
    _add_explain(commands)
    _add_view(commands)
    _add_detect(commands)


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
    _add_files(parser)
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
    _add_files(parser)
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


def _add_detect(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "detect",
        _detect,
        "match Sigma rules against events",
        "Reads events and Sigma rules (for processes, connections and files on Linux, and for "
        "auditd), and prints the matches: as a table, or as ECS alerts that sessiond view and tree "
        "show with the processes. Needs pySigma: pip install 'sessiond[sigma]'. Rules that can't "
        "be applied to these events are counted on standard error.",
        "sessiond detect                            sessiond's own rules\n"
        "sessiond detect --rules sigma/rules/linux\n"
        "sessiond detect web1.ndjson --rules rules --level high --json > alerts.ndjson\n"
        "sessiond view web1.ndjson alerts.ndjson    findings in the page\n"
        "sessiond detect --rules rules --follow     match new events as they arrive",
        (0, 1, 2, 8),
    )
    _add_files(parser)
    parser.add_argument(
        "--rules",
        type=Path,
        metavar="FILE|DIRECTORY",
        action="append",
        help="Sigma rules; may be repeated (default: sessiond's own rules)",
    )
    parser.add_argument(
        "--level",
        choices=("informational", "low", "medium", "high", "critical"),
        default="informational",
        help="use rules of this level or higher",
    )
    parser.add_argument("--json", action="store_true", help="print an ECS alert for each match")
    parser.add_argument(
        "--follow", action="store_true", help="also match new events as they arrive"
    )


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


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE|DIRECTORY|-",
        nargs="*",
        help="event files, also compressed ones; - is standard input (default: the configured "
        "output file and its rotated predecessors)",
    )
    declare.listed(parser, "file")
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


# --- reading -------------------------------------------------------------------------------------


def event_files(arguments: argparse.Namespace) -> list[str]:
    """Return the files to read, oldest first."""
    from sessiond.viewer import files

    if arguments.file:
        return files.expand(arguments.file)
    return files.with_rotated(output_file(arguments))


def _shown_files(arguments: argparse.Namespace) -> list[str]:
    """Return the files to show, oldest first.

    Where nothing is configured and no daemon has written, it is the newest recording in the working
    directory, which then becomes ``arguments.file``.
    """
    from sessiond.system.packed import UnreadableFileError
    from sessiond.viewer import files

    try:
        return event_files(arguments)
    except UnreadableFileError as error:
        recording = None
        if not arguments.file and not arguments.config:
            recording = files.newest_recording(Path())
        if recording is None:
            raise
        reason = str(error).partition("; ")[0]
        said = printable(f"{reason}; this shows {recording}, the newest recording here")
        sys.stderr.write(f"sessiond: {said}\n")
        arguments.file = [str(recording)]
        return [str(recording)]


def output_file(arguments: argparse.Namespace) -> Path:
    """Return the configured output file."""
    from sessiond.config import load
    from sessiond.system import log

    log.configure_command(debug=arguments.debug)
    file = load.load(arguments.config).output.file
    if file is None:
        raise errors.ConfigError("the configuration has no output.file; give an event file")
    return file.path


def _recorded(arguments: argparse.Namespace, rules: list[Path] | None = None) -> Recording:
    """Read all files and match rules against them. Lines without events are reported on stderr.

    Raises InputError, and ConfigError for rules that can't be read.
    """
    import gc

    from sessiond.system.packed import UnreadableFileError
    from sessiond.viewer import files
    from sessiond.viewer.model import Recording

    # The events stay alive to the end: repeated garbage collections would find nothing.
    gc.disable()
    recording = Recording()
    matched = _matching(rules, recording)
    try:
        for name in _shown_files(arguments):
            _read(recording, name, matched(files.read(name)))
    except UnreadableFileError as error:
        raise errors.InputError(str(error)) from None
    return recording


def _matching(
    rules: list[Path] | None, recording: Recording
) -> Callable[[Iterable[bytes]], Iterator[bytes]]:
    """Return a function that passes lines on and adds the rules' findings to the recording."""
    if not rules:
        return iter
    import orjson

    from sessiond.viewer.detect import Detector

    detector = Detector(_ruleset(rules))

    def match(lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            yield line
            for alert in detector.findings(line):
                recording.feed(orjson.dumps(alert))

    return match


def _read(recording: Recording, name: str, lines: Iterator[bytes]) -> None:
    refused, events = recording.refused, recording.events
    first = b""
    for line in lines:
        if recording.feed(line) is None and not first and recording.refused > refused:
            first = line
    refused = recording.refused - refused
    if not refused:
        return
    if recording.events == events:
        hint = "; sessiond replay converts audit logs" if b"audit(" in first else ""
        raise errors.InputError(f"{name}: contains no events of sessiond{hint}")
    said = printable(first[:60].decode("utf-8", "replace").rstrip())
    sys.stderr.write(
        f"sessiond: {printable(name)}: {refused} {'line is' if refused == 1 else 'lines are'} not "
        f"valid, the first one starts with {said}\n"
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
    recording = _recorded(arguments)
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
    return NO_MATCH


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
    for recording in _growing(arguments):
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


def _growing(
    arguments: argparse.Namespace,
    rules: list[Path] | None = None,
    lock: AbstractContextManager[object] | None = None,
) -> Iterator[Recording]:
    """Yield the recording, again each time that the last file has grown.

    ``lock`` is held while the recording changes, after it was first yielded.
    """
    import gc
    import time
    from contextlib import nullcontext

    from sessiond.system.packed import UnreadableFileError
    from sessiond.viewer import files
    from sessiond.viewer.model import Recording

    recording = Recording()
    matched = _matching(rules, recording)
    gc.disable()
    try:
        names = _shown_files(arguments)
        last = Path(names[-1]) if arguments.file else output_file(arguments)
        for name in names:
            if Path(name) != last or not files.grows(name):
                _read(recording, name, matched(files.read(name)))
        if not files.grows(str(last)):
            yield recording
            while True:
                time.sleep(files.INTERVAL)
        for number, lines in enumerate(files.followed(last)):
            events = recording.events
            with lock or nullcontext():
                for line in matched(lines):
                    recording.feed(line)
            if not number:
                gc.freeze()  # what was read stays alive
                gc.enable()
            if recording.events != events or not number:
                yield recording
    except UnreadableFileError as error:
        raise errors.InputError(str(error)) from None


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
    recording = _recorded(arguments)
    lines = list(_tree_lines(recording, arguments, ids))
    if not lines and not ids:
        return _nothing(recording)
    terminal.page(lines)
    return 0 if lines else NO_MATCH


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
    for recording in _growing(arguments):
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
    recording = _recorded(arguments)
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
    return 0 if lines else NO_MATCH


# --- view ----------------------------------------------------------------------------------------


def _view(arguments: argparse.Namespace) -> int:
    from sessiond.viewer import page

    wanted = _filter(arguments)
    if arguments.serve:
        return _serve(arguments, wanted)
    recording = _recorded(arguments, arguments.rules)
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
        for recording in _growing(arguments, arguments.rules, lock):
            if current is None:
                current = recording
                server.start()
                terminal.say(f"open {server.address}")
                sys.stdout.flush()
    finally:
        if current is not None:
            server.stop()
    return 0


# --- detect --------------------------------------------------------------------------------------


def _detect(arguments: argparse.Namespace) -> int:
    import gc

    import orjson

    from sessiond.viewer.detect import Detector
    from sessiond.viewer.sigma import OWN_RULES
    from sessiond.viewer.words import Colours

    ruleset = _ruleset(arguments.rules or [OWN_RULES], arguments.level)
    detector = Detector(ruleset)
    found = 0
    gc.freeze()  # the rules stay alive; events have no reference cycles
    gc.disable()
    for line in _lines(arguments):
        for alert in detector.findings(line):
            found += 1
            if arguments.json:
                terminal.say_json(orjson.dumps(alert))
                continue
            if found == 1:
                terminal.say(Colours(on=terminal.coloured()).dim(_finding_line(_FINDING_HEAD)))
            terminal.say(_said(alert))
        if arguments.follow:
            sys.stdout.flush()
    if not found:
        sys.stderr.write(f"sessiond: none of {len(ruleset.rules)} rules matches\n")
    return 0 if found else NO_MATCH


def _ruleset(paths: list[Path], level: str = "informational") -> Ruleset:
    """Read rules; unusable ones are reported on standard error."""
    from sessiond.viewer import sigma

    ruleset = sigma.load(paths, level)
    for problem in ruleset.problems:
        sys.stderr.write(f"sessiond: {printable(problem)}\n")
    if ruleset.others:
        sys.stderr.write(f"sessiond: {ruleset.others} rules are for other logs or systems\n")
    if not ruleset.rules:
        raise errors.ConfigError("--rules: no rule applies to these events")
    return ruleset


def _lines(arguments: argparse.Namespace) -> Iterator[bytes]:
    """Yield all lines of the files; with --follow also new lines of the last one."""
    from sessiond.system.packed import UnreadableFileError
    from sessiond.viewer import files

    try:
        names = event_files(arguments)
        last = names[-1] if arguments.file else str(output_file(arguments))
        follows = arguments.follow and files.grows(last)
        for name in names:
            if name != last or not follows:
                yield from files.read(name)
        if follows:
            for lines in files.followed(Path(last)):
                yield from lines
    except UnreadableFileError as error:
        raise errors.InputError(str(error)) from None


_FINDING_HEAD = ("TIME", "LEVEL", "RULE", "HOST", "USER", "PID", "COMMAND")


def _finding_line(cells: tuple[str, ...], mark: Callable[[str], str] = str) -> str:
    """Format the cells of a finding as a line that fits the terminal; ``mark`` styles the level."""
    from sessiond.viewer.words import cut, pad

    time, level, *rest = (printable(cell[:4096]) for cell in cells)
    *columns, command = (
        pad(cut(cell, room), room, right=room == 7)
        for cell, room in zip(rest, (44, 12, 10, 7, 4096), strict=True)
    )
    text = "  ".join((*columns, command)).rstrip()
    width = terminal.width()
    if width is not None:
        text = cut(text, max(20, width - 29))
    return f"{pad(time, 12)}  {mark(pad(level, 13))}  {text}"


def _said(alert: dict[str, Any]) -> str:
    """Format a finding as a line: time, level, rule, host, user, pid, command."""
    from datetime import UTC, datetime

    from sessiond.viewer.detect import Fields
    from sessiond.viewer.words import Colours, day_and_time

    fields = Fields(alert)
    level = alert["log"]["level"]
    colours = Colours(on=terminal.coloured())
    host, user, pid = (
        " ".join(fields.raw(name)) for name in ("host.name", "process.user.name", "process.pid")
    )
    cells = (
        day_and_time(alert["@timestamp"], datetime.now(UTC).astimezone()),
        level,
        alert["rule"]["name"],
        host,
        user,
        pid,
        " ".join(fields.raw("process.args")) or alert["message"],
    )
    return _finding_line(cells, colours.bad if level in ("high", "critical") else colours.root)
