"""The commands that analyse traffic: ``top``, and ``filters`` for a dry run of filters."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessiond import errors
from sessiond.cli import declare, terminal
from sessiond.cli.recordings import event_files, output_file
from sessiond.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessiond.filters.recorded import Recorded
    from sessiond.filters.traffic import Suggestions, Traffic

# Refresh interval of the live table, in seconds.
_REDRAW = 2.0
# ECMA-48: the table is drawn over the last one, so that it does not flicker.
_TOP_LEFT = "\x1b[H"
_ERASE_REST_OF_LINE = "\x1b[K"
_ERASE_BELOW = "\x1b[J"
# Rows of the screen beside those of the table: heading, names, sum, and the cursor's.
_OTHER_ROWS = 4


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
    parser.add_argument("-n", "--number", type=_rows, default=20, help="number of rows (20)")
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


def _rows(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{printable(text)!r} is not a number of rows")
    return int(text)


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
        if arguments.suggest or len(arguments.file) > 1:
            raise errors.ConfigError("--live takes one file, and goes without --suggest")
        return _live(arguments)
    traffic, suggestions = Traffic(arguments.by), Suggestions()
    for document, size in _documents(event_files(arguments)):
        traffic.take(document, size)
        if arguments.suggest:
            suggestions.take(document)
    if arguments.suggest:
        _say_suggestions(suggestions)
    else:
        nothing = Traffic(arguments.by)
        terminal.say(_table(traffic, arguments.by, arguments.number, _seconds(traffic), nothing))
    return 0


def _live(arguments: argparse.Namespace) -> int:
    from sessiond.filters.traffic import Traffic
    from sessiond.viewer import files

    path = Path(arguments.file[0]) if arguments.file else output_file(arguments)
    if not files.grows(str(path)):
        raise errors.InputError(f"{printable(str(path))}: can't grow; --live follows a plain file")
    traffic, before = Traffic(arguments.by), Traffic(arguments.by)
    began = drawn = time.monotonic()
    for lines in files.followed(path, new=True):
        for line in lines:
            if (document := _document(line)) is not None:
                traffic.take(document, len(line) + 1)
        now = time.monotonic()
        if now - drawn >= _REDRAW:
            _draw(traffic, arguments, before, now - drawn, now - began)
            before, drawn = traffic.copy(), now
    return 0


def _draw(
    traffic: Traffic,
    arguments: argparse.Namespace,
    before: Traffic,
    seconds: float,
    whole: float,
) -> None:
    """Draw the live table; rates are those of the last ``seconds`` since ``before``."""
    number, columns = arguments.number, terminal.width()
    if columns is not None:
        number = min(number, max(1, shutil.get_terminal_size().lines - _OTHER_ROWS))
    rows = _table(traffic, arguments.by, number, seconds, before).splitlines()
    rows.insert(0, f"new lines since {whole:.0f} s, rates of the last {seconds:.0f} s")
    if columns is None:
        terminal.say("\n".join(rows) + "\n")
    else:
        shown = (row[: columns - 1] + _ERASE_REST_OF_LINE for row in rows)
        terminal.say(_TOP_LEFT + "\n".join(shown) + _ERASE_BELOW)
    with terminal.telling():
        sys.stdout.flush()


def _seconds(traffic: Traffic) -> float:
    try:
        first, last = map(datetime.fromisoformat, (traffic.first, traffic.last))
    except ValueError:
        return 0.0
    return (last - first).total_seconds()


def _table(traffic: Traffic, by: list[str], number: int, seconds: float, before: Traffic) -> str:
    """Return the table; rates are those of the ``seconds`` since ``before``."""
    total, size = traffic.lines.total(), traffic.bytes.total()
    rows = [("lines", "%", "bytes", "lines/s", "bytes/s", *by)]
    for key, lines in traffic.lines.most_common(number):
        own = traffic.bytes[key]
        new = lines - before.lines[key], own - before.bytes[key]
        rows.append((*_numbers(lines, own, total, new, seconds), *map(printable, key)))
    new = total - before.lines.total(), size - before.bytes.total()
    rows.append((*_numbers(total, size, total, new, seconds), "in all"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    names = [max(len(row[n]) for row in rows[:-1]) for n in range(5, 5 + len(by))]
    return "\n".join(
        "  ".join(
            [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
            + [cell.ljust(width) for cell, width in zip(row[5:], names, strict=False)]
        ).rstrip()
        for row in rows
    )


def _numbers(
    lines: int, size: int, total: int, new: tuple[int, int], seconds: float
) -> tuple[str, ...]:
    share = f"{100 * lines / total:.1f}" if total else "-"
    rate = (f"{new[0] / seconds:,.1f}", f"{new[1] / seconds:,.0f}") if seconds > 0 else ("-", "-")
    return f"{lines:,}", share, f"{size:,}", *rate


def _say_suggestions(suggestions: Suggestions) -> None:
    from sessiond.filters.traffic import PEOPLE
    from sessiond.system.ordinary_users import ordinary_users

    found = suggestions.best(ordinary_users())
    if not found:
        terminal.say("# no safe filter would remove as much as 1 % of these lines")
        return
    taken = sum(each.lines for each in found)
    total = suggestions.total
    terminal.say(
        f"# {len(found)} filters would fold {taken:,} of {total:,} lines"
        f" ({100 * taken / total:.1f} %); sessiond filters -c FILE tries them.\nfilters:\n"
        "  # the sessions of people stay whole\n"
        f"  - name: people\n    when: {_flow(PEOPLE)}\n    then: keep"
    )
    for number, (conditions, lines, examples) in enumerate(found, 1):
        such = "".join(f"\n  #   such as {printable(each)}" for each in examples)
        terminal.say(
            f"  # {lines:,} lines ({100 * lines / total:.1f} %){such}\n"
            f"  - name: suggestion {number}\n    when: {_flow(conditions)}\n    then: fold"
        )


def _flow(value: object) -> str:
    """Return a value as YAML in flow style: JSON, with plain names."""
    import orjson

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return orjson.dumps(value).decode()


# --- filters -------------------------------------------------------------------------------------


def _filters(arguments: argparse.Namespace) -> int:
    from sessiond.config import load
    from sessiond.filters.exposure import exposures
    from sessiond.filters.recorded import Recorded
    from sessiond.system import log
    from sessiond.system.ordinary_users import ordinary_users

    log.configure_command(debug=arguments.debug)
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
    return declare.DIFFERENT if unsafe or nothing else 0


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
