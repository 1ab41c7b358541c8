"""Reads the event files that a command names, or that the configuration does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sessiond import errors
from sessiond.cli import declare
from sessiond.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from sessiond.viewer.detect import Ruleset
    from sessiond.viewer.model import Recording


def add_files(parser: argparse.ArgumentParser) -> None:
    """Declare the argument for the files, and the configuration that names them otherwise."""
    parser.add_argument(
        "file",
        metavar="FILE|DIRECTORY|-",
        nargs="*",
        help="event files, also compressed ones; - is standard input (default: the configured "
        "output file and its rotated predecessors)",
    )
    declare.listed(parser, "file")
    declare.add_config(parser)


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


def read_recording(arguments: argparse.Namespace, rules: list[Path] | None = None) -> Recording:
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

    detector = Detector(read_rules(rules))

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


def follow_recording(
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


def all_lines(arguments: argparse.Namespace) -> Iterator[bytes]:
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


def read_rules(paths: list[Path], level: str = "informational") -> Ruleset:
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
