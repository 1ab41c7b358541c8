"""``sessiond detect``: matches Sigma rules against events."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessiond.cli import declare, terminal
from sessiond.cli.recordings import add_files, all_lines, read_rules
from sessiond.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable


def add(commands: declare.Commands) -> None:
    """Declare the command."""
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
    add_files(parser)
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


def _detect(arguments: argparse.Namespace) -> int:
    import gc

    import orjson

    from sessiond.viewer.detect import Detector
    from sessiond.viewer.sigma import OWN_RULES
    from sessiond.viewer.words import Colours

    ruleset = read_rules(arguments.rules or [OWN_RULES], arguments.level)
    detector = Detector(ruleset)
    found = 0
    gc.freeze()  # the rules stay alive; events have no reference cycles
    gc.disable()
    for line in all_lines(arguments):
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
    return 0 if found else declare.DIFFERENT


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
