"""The commands that analyse traffic: ``top``, and ``filters`` for a dry run of filters."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessiond import errors
from sessiond.cli import declare, terminal
from sessiond.cli.viewer import event_files, output_file
from sessiond.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessiond.filters.recorded import Recorded
    from sessiond.filters.traffic import Suggestions, Traffic

PROBLEMS_FOUND = 1
# Refresh interval of the live table, in seconds.
_REDRAW = 2.0
_CLEAR = "\x1b[2J\x1b[H"


def add(commands: declare.Commands) -> None:
    """Declare the commands."""
    _add_top(commands)
    _add_filters(commands)


def _add_top(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "top",
        _top,
        "show what causes the lines; suggest filters",
        "Reads events from the configured output file and its rotated predecessors, or from the "
        "given files, and counts lines and bytes by their cause. --suggest prints the filters "
        "that would save the most: only filters that no ordinary user can hide behind, and none "
        "that affects the sessions of people.",
        "sessiond top                               by executable\n"
        "sessiond top --by parent,user web1.ndjson web2.ndjson.gz\n"
        "sessiond top --live                        count new lines as they are written\n"
        "sessiond top --suggest >> filters.yml",
        (0, 2, 8),
    )
    _add_files(parser)
    parser.add_argument(
        "--by",
        type=_fields,
        default=["executable"],
        metavar="WHAT",
        help="executable, parent, unit, user, entry, action, filter, or several with commas",
    )
    parser.add_argument("-n", "--number", type=int, default=20, help="number of rows (20)")
    parser.add_argument("--suggest", action="store_true", help="print filters, as YAML")
    parser.add_argument("--live", action="store_true", help="count new lines only")


def _add_filters(commands: declare.Commands) -> None:
    parser = declare.command(
        commands,
        "filters",
        _filters,
        "test filters on existing events",
        "Reads events and prints for each configured filter what it would have dropped, folded or "
        "labelled, with examples. Lines do not record who owns a program's file, so the daemon's "
        "filters may match less. Exit code 1: a filter matches nothing, or an ordinary user can "
        "hide behind one that drops or folds.",
        "sessiond filters -c new.yml                the configured output file\n"
        "sessiond filters -c new.yml events.ndjson && cp new.yml /etc/sessiond.yml",
        (0, 1, 2, 8),
    )
    _add_files(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_files(parser: declare.Parser) -> None:
    declare.add_config(parser)
    parser.add_argument(
        "file",
        nargs="*",
        help="event files, also compressed ones, directories, patterns; - is standard input "
        "(default: the configured output file)",
    )


def _fields(text: str) -> list[str]:
    from sessiond.filters.traffic import FIELDS

    names = text.split(",")
    for name in names:
        if name not in FIELDS:
            raise argparse.ArgumentTypeError(
                f"{printable(name)!r} is not one of {', '.join(FIELDS)}"
            )
    return names


def _documents(names: list[str]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the events of files with their sizes. Raises InputError if the files contain none."""
    from sessiond.viewer import files

    found, wrong = 0, 0
    for name in names:
        for line in files.read(name):
            document = _document(line)
            if document is None:
                wrong += 1
                continue
            found += 1
            yield document, len(line)
    if wrong:
        sys.stderr.write(f"sessiond: {wrong} lines are not events\n")
    if not found:
        raise errors.InputError(f"{', '.join(map(printable, names))}: no event")


def _document(line: bytes) -> dict[str, Any] | None:
    import orjson

    try:
        document = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(document, dict) or not isinstance(document.get("event"), dict):
        return None
    return document if isinstance(document.get("process", {}), dict) else None


# --- top -----------------------------------------------------------------------------------------


def _top(arguments: argparse.Namespace) -> int:
    from sessiond.filters.traffic import Suggestions, Traffic

    if arguments.live:
        return _live(arguments)
    traffic, suggestions = Traffic(arguments.by), Suggestions()
    for document, size in _documents(event_files(arguments)):
        traffic.take(document, size)
        if arguments.suggest:
            suggestions.take(document)
    if arguments.suggest:
        _say_suggestions(suggestions)
    else:
        terminal.say(_table(traffic, arguments.by, arguments.number, _seconds(traffic)))
    return 0


def _live(arguments: argparse.Namespace) -> int:
    from sessiond.filters.traffic import Traffic
    from sessiond.viewer import files

    path = Path(arguments.file[0]) if arguments.file else output_file(arguments)
    traffic = Traffic(arguments.by)
    began = drawn = time.monotonic()
    skipped = path.stat().st_size if path.exists() else 0
    for lines in files.followed(path):
        for line in lines:
            if skipped > 0:
                skipped -= len(line)
                continue
            if (document := _document(line)) is not None:
                traffic.take(document, len(line))
        now = time.monotonic()
        if now - drawn >= _REDRAW:
            drawn = now
            clear = _CLEAR if sys.stdout.isatty() else ""
            terminal.say(clear + _table(traffic, arguments.by, arguments.number, now - began))
            sys.stdout.flush()
    return 0


def _seconds(traffic: Traffic) -> float:
    try:
        first, last = map(datetime.fromisoformat, (traffic.first, traffic.last))
    except ValueError:
        return 0.0
    return (last - first).total_seconds()


def _table(traffic: Traffic, by: list[str], number: int, seconds: float) -> str:
    total, size = traffic.lines.total(), traffic.bytes.total()
    rows = [("lines", "%", "bytes", "lines/s", "bytes/s", *by)]
    for key, lines in traffic.lines.most_common(number):
        own = traffic.bytes[key]
        rows.append((*_numbers(lines, own, total, seconds), *map(printable, key)))
    rows.append((*_numbers(total, size, total, seconds), "in all"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    names = [max(len(row[n]) for row in rows[:-1]) for n in range(5, 5 + len(by))]
    return "\n".join(
        "  ".join(
            [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
            + [cell.ljust(width) for cell, width in zip(row[5:], names, strict=False)]
        ).rstrip()
        for row in rows
    )


def _numbers(lines: int, size: int, total: int, seconds: float) -> tuple[str, ...]:
    share = f"{100 * lines / total:.1f}" if total else "-"
    rate = (f"{lines / seconds:.1f}", f"{size / seconds:.0f}") if seconds > 0 else ("-", "-")
    return f"{lines:,}", share, f"{size:,}", *rate


def _say_suggestions(suggestions: Suggestions) -> None:
    from sessiond.system.ordinary_users import ordinary_users

    found = suggestions.best(ordinary_users())
    if not found:
        terminal.say("# no safe filter would remove as much as 1 % of these lines")
        return
    taken = sum(lines for _, lines in found)
    total = suggestions.total
    terminal.say(
        f"# {len(found)} filters would fold {taken:,} of {total:,} lines"
        f" ({100 * taken / total:.1f} %); sessiond filters -c FILE tries them.\nfilters:"
    )
    for number, (conditions, lines) in enumerate(found, 1):
        when = ", ".join(f"{name}: {_quoted(value)}" for name, value in conditions.items())
        terminal.say(
            f"  # {lines:,} lines ({100 * lines / total:.1f} %)\n"
            f"  - name: suggestion {number}\n    when: {{{when}}}\n    then: fold"
        )


def _quoted(text: str) -> str:
    import orjson

    return orjson.dumps(text).decode()


# --- filters -------------------------------------------------------------------------------------


def _filters(arguments: argparse.Namespace) -> int:
    from sessiond.config import load
    from sessiond.filters.exposure import exposures
    from sessiond.filters.recorded import Recorded
    from sessiond.system import log
    from sessiond.system.ordinary_users import ordinary_users

    log.configure("debug" if arguments.debug else "warning", "console")
    rules = load.load(arguments.config).filters
    if not rules:
        raise errors.ConfigError("the configuration has no filters; try sessiond top --suggest")
    recorded = Recorded(rules)
    for document, size in _documents(event_files(arguments)):
        recorded.take(document, size, _nanoseconds(document))
    recorded.finish()
    unsafe = {each.name: each for each in exposures(rules, ordinary_users()) if not each.safe}
    if arguments.json:
        terminal.say(_as_json(recorded, list(unsafe)))
    else:
        for name in recorded.tallies:
            _say_tally(name, recorded)
            if name in unsafe:
                terminal.say(f"  unsafe: {unsafe[name].text}; {unsafe[name].advice}")
        _say_sum(recorded)
    nothing = any(
        not tally.lines and tally.rule.action != "keep" for tally in recorded.tallies.values()
    )
    return PROBLEMS_FOUND if unsafe or nothing else 0


def _nanoseconds(document: dict[str, Any]) -> int:
    try:
        stamp = datetime.fromisoformat(str(document.get("@timestamp")))
    except ValueError:
        return 0
    return int(stamp.timestamp() * 1_000_000) * 1000


def _say_tally(name: str, recorded: Recorded) -> None:
    from sessiond.filters.recorded import asks_for_paths

    tally = recorded.tallies[name]
    action = tally.rule.action
    if action == "keep":
        terminal.say(f"{name}: keeps the lines that it matches")
        return
    done = {"drop": "drops", "fold": "folds", "mark": "labels"}[action]
    share = 100 * tally.lines / recorded.lines
    terminal.say(f"{name}: {done} {tally.lines:,} lines, {tally.bytes:,} bytes ({share:.1f} %)")
    for example in tally.examples:
        terminal.say(f"  such as {printable(example)}")
    if not tally.lines:
        terminal.say("  no event matches its conditions")
    elif action == "drop" and asks_for_paths(tally.rule):
        terminal.say("  provided that root owns the programs' files")


def _say_sum(recorded: Recorded) -> None:
    taken = recorded.lines - recorded.written
    left = recorded.written + recorded.folded_lines
    terminal.say(
        f"of {recorded.lines:,} lines {recorded.written:,} are written and {taken:,} left out or"
        f" folded into {recorded.folded_lines:,}: {left:,} lines"
        f" ({100 * left / recorded.lines:.1f} %)"
    )


def _as_json(recorded: Recorded, unsafe: list[str]) -> str:
    import orjson

    return orjson.dumps(
        {
            "lines": recorded.lines,
            "written": recorded.written,
            "folded_into": recorded.folded_lines,
            "filters": {
                name: {
                    "action": tally.rule.action,
                    "lines": tally.lines,
                    "bytes": tally.bytes,
                    "examples": tally.examples,
                    "safe": name not in unsafe,
                }
                for name, tally in recorded.tallies.items()
            },
        }
    ).decode()
