"""``sessiond migrate``: reads Auditbeat's configuration, prints one of ours and what differs."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from pathlib import Path

from sessiond import errors
from sessiond.cli import declare, terminal
from sessiond.text import printable


def add(commands: declare.Commands) -> None:
    """Declare the command."""
    parser = declare.command(
        commands,
        "migrate",
        _migrate,
        "make a configuration of Auditbeat's",
        "Reads Auditbeat's configuration: its auditd module, the add_session_metadata processor, "
        "the rules, the output. Writes one for sessiond to standard output, and to standard error, "
        "with line numbers, what has no counterpart and what has changed. Touches nothing else.",
        "sessiond migrate > sessiond.yml            of /etc/auditbeat/auditbeat.yml\n"
        "sessiond migrate my.yml > new.yml && sessiond check -c new.yml",
        (0, 2),
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        default="/etc/auditbeat/auditbeat.yml",
        help="Auditbeat's configuration (default: /etc/auditbeat/auditbeat.yml)",
    )


def _migrate(arguments: argparse.Namespace) -> int:
    from sessiond.audit.rules import libaudit
    from sessiond.migrate import auditbeat

    path = Path(arguments.file).absolute()
    host = auditbeat.Host(os.environ, _rule_files, libaudit.path_mode)
    done = auditbeat.migrate(_text_of(path), str(path), host)
    for note in done.notes:
        line = printable(f"{path}:{note.line}: {note.setting}: {note.text}")
        sys.stderr.write(f"sessiond: {line}\n")
    terminal.say(done.text)
    return 0


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, ValueError) else (error.strerror or "").lower()
        raise errors.ConfigError(f"{path}: can't be read: {reason}") from None


def _rule_files(pattern: str) -> list[tuple[str, str]]:
    return [(name, _text_of(Path(name))) for name in sorted(glob.glob(pattern))]  # noqa: PTH207
