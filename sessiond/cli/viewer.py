"""The commands that show events: ``sessions``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sessiond import errors
from sessiond.cli import declare, terminal
from sessiond.text import printable

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator

    from sessiond.viewer.model import Recording
    from sessiond.viewer.sessions import Filter

NOTHING_FITS = 1


def add(commands: declare.Commands) -> None:
    """Declare the commands."""
    _add_sessions(commands)


def _add_sessions(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "sessions",
        _sessions,
        "list sessions: who came, from where, as whom, what was run",
        "Reads events, of the configured output file and those rotated out of it or of the files "
        "that are named, and prints a line for each session, the newest first: pid of its leader, "
        "users in the order of becoming them, how it came into the host, start, end, processes, "
        "those that failed, the first and the last command.",
        "sessiond sessions --user ann --since 2026-05-01\n"
        "sessiond sessions --root                   those that became root\n"
        "sessiond sessions web1.ndjson web2.ndjson.gz --json | jq .source\n"
        "sessiond sessions --running --type sshd > /dev/null && echo 'somebody is there'\n"
        "sessiond sessions --follow                 each session as it begins and ends",
        (0, 1, 2, 8),
    )
    _add_files(parser)
    _add_filters(parser)
    parser.add_argument("--json", action="store_true", help="print an object for each session")
    parser.add_argument(
        "--follow", action="store_true", help="go on with sessions as they begin and end"
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE|DIRECTORY|-",
        nargs="*",
        help="files of events, packed ones too; - is standard input (default: the configured "
        "output file, with those rotated out of it)",
    )
    declare.add_config(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which sessions")
    group.add_argument("--user", metavar="USER", help="one of its users, by name or id")
    group.add_argument("--host", metavar="NAME", help="on this host")
    group.add_argument("--from", dest="source", metavar="IP", help="came from this address")
    group.add_argument("--type", metavar="TYPE", help="sshd, terminal, init, container ...")
    group.add_argument("--since", type=declare.date, metavar="TIME", help="not over before then")
    group.add_argument("--until", type=declare.date, metavar="TIME", help="began before then")
    group.add_argument("--running", action="store_true", help="not over yet")
    group.add_argument("--failed", action="store_true", help="with a process that failed")
    group.add_argument("--root", action="store_true", help="became root")
    group.add_argument(
        "--command", dest="pattern", type=_pattern, metavar="REGEX", help="ran such a command line"
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


def _names(arguments: argparse.Namespace) -> list[str]:
    """The files that are to be read, oldest first."""
    from sessiond.viewer import files

    if arguments.file:
        return files.expand(arguments.file)
    return files.with_rotated(_output(arguments))


def _output(arguments: argparse.Namespace) -> Path:
    """The output file of the configuration."""
    from sessiond.config import load

    file = load.load(arguments.config).output.file
    if file is None:
        raise errors.ConfigError("the configuration has no output.file; name a file of events")
    return file.path


def _recorded(arguments: argparse.Namespace) -> Recording:
    """Read all files. What is no event is told on standard error. Raises InputError."""
    import gc

    from sessiond.system.packed import UnreadableFileError
    from sessiond.viewer import files
    from sessiond.viewer.model import Recording

    # What is read stays to the end: looking through it again and again for garbage finds none.
    gc.disable()
    recording = Recording()
    try:
        for name in _names(arguments):
            _read(recording, name, files.read(name))
    except UnreadableFileError as error:
        raise errors.InputError(str(error)) from None
    return recording


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
        hint = "; sessiond replay makes events of audit's logs" if b"audit(" in first else ""
        raise errors.InputError(f"{name}: holds no events of sessiond{hint}")
    said = printable(first[:60].decode("utf-8", "replace").rstrip())
    sys.stderr.write(
        f"sessiond: {printable(name)}: {refused} {'line is' if refused == 1 else 'lines are'} no "
        f"event, the first one begins with {said}\n"
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
    if arguments.json:
        for each in found:
            terminal.say(msgspec.json.encode(sessions.described(each, recording.losses)).decode())
    elif found:
        now = datetime.now(UTC).astimezone()
        colours = Colours(on=terminal.coloured())
        terminal.page(sessions.table(found, width=terminal.width(), now=now, colours=colours))
    return 0 if found else NOTHING_FITS


def _follow_sessions(arguments: argparse.Namespace, wanted: Filter) -> int:
    """Print each session that fits when it begins, and again when it ends, until Ctrl-C."""
    from datetime import UTC, datetime

    import msgspec

    from sessiond.viewer import sessions
    from sessiond.viewer.words import Colours

    colours, width = Colours(on=terminal.coloured()), terminal.width()
    if not arguments.json:
        terminal.say(colours.dim(sessions.head(width)))
    told: dict[str, bool] = {}
    for recording in _growing(arguments):
        for each in recording.sessions():
            if told.get(each.id) == each.running or not wanted.fits(each):
                continue
            told[each.id] = each.running
            if arguments.json:
                line = msgspec.json.encode(sessions.described(each, recording.losses)).decode()
            else:
                now = datetime.now(UTC).astimezone()
                line = sessions.row(each, width=width, now=now, colours=colours)
            terminal.say(line)
        sys.stdout.flush()
    return 0


def _growing(arguments: argparse.Namespace) -> Iterator[Recording]:
    """Give what the files tell, again each time that more has come into the last one."""
    from sessiond.system.packed import UnreadableFileError
    from sessiond.viewer import files
    from sessiond.viewer.model import Recording

    try:
        names = _names(arguments)
        last = Path(names[-1]) if arguments.file else _output(arguments)
        recording = Recording()
        for name in names:
            if Path(name) != last:
                _read(recording, name, files.read(name))
        for number, lines in enumerate(files.followed(last)):
            events = recording.events
            for line in lines:
                recording.feed(line)
            if recording.events != events or not number:
                yield recording
    except UnreadableFileError as error:
        raise errors.InputError(str(error)) from None
