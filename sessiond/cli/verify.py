"""``sessiond verify``: checks that lines are complete and unchanged (event.chain)."""

from __future__ import annotations

import argparse
from pathlib import Path

from sessiond import errors
from sessiond.cli import declare, terminal
from sessiond.cli.recordings import event_files
from sessiond.text import printable

BROKEN = 1
_SETTING = "event.chain_key"


def add(commands: declare.Commands) -> None:
    """Declare the command."""
    parser = declare.command(
        commands,
        "verify",
        _verify,
        "check whether lines were changed, removed or inserted",
        "Reads lines that were written with event.chain: true, in order, and checks the seal of "
        "each line against the line before it. Reports the first line that does not match. It "
        "can't detect lines removed from the end: compare the last number with sessiond status.",
        "sessiond verify --new-key         creates the key, once\n"
        "sessiond verify                   checks the configured file and its predecessors\n"
        "sessiond verify events.ndjson.2.gz events.ndjson.1 events.ndjson\n"
        "sessiond verify --key copy.key archive/",
        (0, 1, 2, 8),
    )
    parser.add_argument(
        "file",
        metavar="FILE|DIRECTORY|-",
        nargs="*",
        help="event files, also compressed ones, oldest first; - is standard input (default: the "
        "configured output file and its rotated predecessors)",
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the key (default: that of event.chain_key)"
    )
    parser.add_argument(
        "--new-key", action="store_true", help="create a new key in that file, and exit"
    )
    declare.add_config(parser)


def _verify(arguments: argparse.Namespace) -> int:
    from sessiond.config import load
    from sessiond.config.schema import CHAIN_KEY
    from sessiond.ecs.chain import MIN_KEY, ChainCheck
    from sessiond.system import log
    from sessiond.system.packed import UnreadableFileError
    from sessiond.system.secret import make_key, read_key
    from sessiond.viewer import files

    log.configure_command(debug=arguments.debug)
    config = load.load(arguments.config)
    path = arguments.key or config.event.chain_key or CHAIN_KEY
    if arguments.new_key:
        try:
            make_key(path, MIN_KEY)
        except OSError as error:
            raise errors.ConfigError(f"{_SETTING}: {path}: {error.strerror}") from None
        terminal.say(f"{path}: new key; keep a copy where root of this host can't change it")
        return 0
    check = ChainCheck(read_key(_SETTING, path, least=MIN_KEY))
    try:
        for name in sorted(event_files(arguments), key=_first_number):
            for line in files.read(name):
                wrong = check.take(line)
                if wrong is not None:
                    terminal.say(printable(f"{name}: {wrong}"))
                    return BROKEN
    except UnreadableFileError as error:
        raise errors.InputError(str(error)) from None
    if not check.lines:
        raise errors.InputError(
            "no line has a seal: were the lines written with event.chain: true?"
        )
    before = f"; {check.unsealed} lines before them have no seal" if check.unsealed else ""
    terminal.say(
        f"{check.lines} lines, {check.first} to {check.last}: as they were written{before}"
    )
    return 0


def _first_number(name: str) -> int:
    """The number of a file's first line; dates don't give the order, as some events arrive late."""
    from sessiond.ecs.chain import sequence_of
    from sessiond.system.packed import STANDARD_INPUT
    from sessiond.viewer import files

    if name == STANDARD_INPUT:
        return 0
    return next((sequence_of(line) or 0 for line in files.read(name)), 0)
