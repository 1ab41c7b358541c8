"""Helpers that declare commands: parsers with examples and exit codes, and shared arguments."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sessiond import errors
from sessiond.text import printable

DIFFERENT = 1  # something is not as it should be, or nothing matches
INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells count
HOST_PROBLEM = "10+"

EXIT_CODES: dict[int | str, str] = {
    0: "all is well",
    DIFFERENT: "rules: configured rules are not loaded; status: not healthy; replay: lines that "
    "are no records; sessions, tree, explain, detect: no match; other failures",
    errors.ConfigError.exit_code: "the configuration or the command line is invalid",
    errors.RuleError.exit_code: "an audit rule is invalid",
    errors.AuditUnavailableError.exit_code: "the kernel's audit system can't be used",
    errors.SourceUnavailableError.exit_code: "no usable source of process events",
    errors.OutputError.exit_code: "an output can't be opened",
    errors.StatusError.exit_code: "no daemon answers, or it refuses",
    errors.InputError.exit_code: "an event file can't be read, or contains no events",
    HOST_PROBLEM: "check: a problem of this host; check --help lists the codes",
    INTERNAL_ERROR: "a bug in sessiond",
    INTERRUPTED: "interrupted (Ctrl-C)",
    errors.READER_GONE: "the reader of standard output has closed it",
}


class Parser(argparse.ArgumentParser):
    """A parser that makes part of its help only when it is printed."""

    more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Add the part that is made on demand."""
        return super().format_help() + (self.more_help() if self.more_help else "")


if TYPE_CHECKING:
    from datetime import datetime

    Commands = argparse._SubParsersAction[Parser]


def command(
    commands: Commands,
    name: str,
    function: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    examples: str,
    codes: Sequence[int | str],
) -> Parser:
    """Declare a command with its exit codes; return its parser."""
    parser = commands.add_parser(
        name,
        help=summary,
        description="\n".join(textwrap.wrap(description, 80)),
        epilog=epilog(examples, {code: EXIT_CODES[code] for code in codes}),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=function)
    parser.add_argument(
        "--debug", action="store_true", help="log everything; show the traceback of a bug"
    )
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; the arguments of a ``listed`` command may stand between its options.

    argparse takes only those before or after all options.
    """
    arguments, rest = parser.parse_known_args(argv)
    name: str = getattr(arguments, "listed", "")
    if rest and (not name or any(each.startswith("-") and each != "-" for each in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        getattr(arguments, name).extend(rest)
    return arguments


def listed(parser: argparse.ArgumentParser, name: str) -> None:
    """Let the arguments of a list stand between options, too; see ``parse``."""
    parser.set_defaults(listed=name)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option for the configuration file."""
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration file (default: /etc/sessiond.yml, or built-in defaults if it is "
        "absent); sessiond check --settings lists all settings",
    )


def epilog(examples: str, codes: dict[int | str, str]) -> str:
    """Return the end of a help text: examples, and exit codes with their meanings."""
    lines = [
        textwrap.fill(meaning, 80, initial_indent=f"{code:>5}  ", subsequent_indent=" " * 7)
        for code, meaning in codes.items()
    ]
    return "examples:\n" + textwrap.indent(examples, "  ") + "\n\nexit codes:\n" + "\n".join(lines)


def date(text: str) -> str:
    """Parse a time, in UTC unless it says otherwise, to the format of ``@timestamp``."""
    from datetime import UTC

    time = _time(text, "2026-05-01T10:00:00")
    return _stamp(time if time.tzinfo else time.replace(tzinfo=UTC))


def recent(text: str) -> str:
    """Parse a time as a person says it, to the format of ``@timestamp``.

    A time without a zone is in the local one, in which the commands show times. 10:30, today and
    yesterday are short forms, and 2h is so long ago.
    """
    import re
    from datetime import datetime, timedelta

    now = datetime.now().astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return _stamp(midnight - timedelta(days=text == "yesterday"))
    if ago := re.fullmatch(r"([0-9]{1,4})([smhd])", text):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
        return _stamp(now - timedelta(**{unit: int(ago[1])}))
    if clock := re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text):
        return _stamp(midnight.replace(hour=int(clock[1]), minute=int(clock[2])))
    return _stamp(_time(text, "2026-05-01T10:00, 10:00, yesterday, or 2h (ago)").astimezone())


def _time(text: str, example: str) -> datetime:
    from datetime import UTC, datetime

    try:
        if text.isascii() and text.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC)  # with a fraction, as in a record
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"{printable(text)!r} is not a time such as {example}"
        ) from None


def _stamp(time: datetime) -> str:
    from datetime import UTC

    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def pid(text: str) -> int:
    """Parse a pid."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**22 + 1:
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is not a pid")
    return int(text)
