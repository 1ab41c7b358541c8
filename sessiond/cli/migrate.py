"""``sessiond migrate``: converts a configuration of Auditbeat and reports the differences."""

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
        "convert a configuration of Auditbeat",
        "Reads Auditbeat's configuration: the auditd module, the add_session_metadata processor, "
        "the rules, the output. Writes a configuration for sessiond to standard output, and lists "
        "settings without a counterpart and changes of meaning on standard error, with line "
        "numbers. Changes nothing else.",
        "sessiond migrate > sessiond.yml            converts /etc/auditbeat/auditbeat.yml\n"
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
