"""``sessiond replay``: converts logs of audit records to events."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from sessiond import errors
from sessiond.cli import declare
from sessiond.cli.terminal import complain

if TYPE_CHECKING:
    from sessiond.config.schema import Config
    from sessiond.replay.progress import Progress
    from sessiond.replay.replay import Replay
    from sessiond.replay.series import Log

# Bytes written to a file at once; a line has a few KB.
_BUFFER = 1 << 18


def add(commands: declare.Commands) -> None:
    """Declare the command."""
    parser = declare.command(
        commands,
        "replay",
        _replay,
        "convert logs of audit records to events",
        "Reads logs and writes the events that the daemon would have written, as far as the logs "
        "allow. Reads the formats of auditd (raw or ENRICHED), ausearch (--raw or default), "
        "syslog, dmesg, LAUREL and the journal (-o json, -o export), also compressed with gzip, "
        "xz, bzip2 or zstd. Each node and each boot counts as a separate host. Logs that do not "
        "name their host are of one host, unless their times overlap: then each directory is a "
        "host, with its own name. Changes nothing on the host and needs only read access to the "
        "logs. Prints a summary on standard error.",
        "sessiond replay /var/log/audit             all logs of a directory, oldest first\n"
        "sessiond replay 'evidence/*/audit.log*' -o events.ndjson\n"
        "ausearch --raw -ts today | sessiond replay - --session 42\n"
        "journalctl -o json _TRANSPORT=audit | sessiond replay -",
        (0, 1, 2, 6, 141),
    )
    parser.add_argument(
        "log", metavar="FILE|DIRECTORY|-", nargs="+", help="logs; - is standard input"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="-|PATH|output.http|output.socket",
        action="append",
        help="where to write: standard output (default), a file, or an output of the "
        "configuration; replay waits until that has accepted all lines; may be repeated",
    )
    parser.add_argument(
        "--since",
        type=declare.date,
        metavar="TIME",
        help="write events from this time on: 2026-05-01, 2026-05-01T10:00, with a time zone or in "
        "UTC, or seconds since the epoch",
    )
    parser.add_argument(
        "--until", type=declare.date, metavar="TIME", help="write events before this time"
    )
    parser.add_argument("--node", metavar="NAME", help="read only the records of this node")
    parser.add_argument(
        "--session",
        metavar="ID",
        help="write the events of an audit session, or of a session or entry leader (entity id)",
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        metavar="N",
        help="share the hosts and boots among N processes, 1 to 8 (default: one for each "
        "processor, 1 for small logs); the output is the same",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no summary on standard error")
    declare.add_config(parser)


def _jobs(text: str) -> int:
    """Parse a number of processes."""
    from sessiond.replay.workers import MAX_JOBS

    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_JOBS}")
    return int(text)


def _replay(arguments: argparse.Namespace) -> int:
    from sessiond.audit.rules import libaudit
    from sessiond.config import load
    from sessiond.daemon import factory
    from sessiond.ecs.normalizations import NUMBERS
    from sessiond.replay import files, workers
    from sessiond.replay.blocks import Filter, Pipelines
    from sessiond.replay.copies import copies
    from sessiond.replay.progress import Progress, summary
    from sessiond.replay.replay import OwnWork, Replay, Work
    from sessiond.replay.series import series, side_by_side
    from sessiond.system import log
    from sessiond.system.packed import is_stream
    from sessiond.text import printable

    def type_number(name: str) -> int | None:
        return NUMBERS.get(name) or libaudit.message_type(name)

    if arguments.since and arguments.until and arguments.until <= arguments.since:
        raise errors.ConfigError("--until is not after --since: no event can be between them")
    log.configure_command(debug=arguments.debug)
    config = load.load(arguments.config)
    wanted = Filter(
        since=arguments.since or "", until=arguments.until or "", session=arguments.session or ""
    )
    pipelines = Pipelines(
        lambda host, names: factory.offline_pipeline(
            config, names, node=host.node, machine=host.machine, boot=host.boot
        ),
        None if wanted == Filter() else wanted,
    )
    names = files.expand(arguments.log)
    for copy, original in copies(names).items():
        complain(f"{copy}: {original} has the same records, which are read once")
        names.remove(copy)
    jobs = arguments.jobs or workers.default_jobs(names)
    with ExitStack() as stack:
        work: Work = OwnWork(pipelines)
        if jobs > 1:
            work = stack.enter_context(workers.started(jobs, pipelines))
        outputs = dict.fromkeys(arguments.output or ["-"])
        sinks = [stack.enter_context(_opened(name, config)) for name in outputs]
        replay = Replay(
            work,
            _write_all(sinks, flush=any(map(is_stream, names))),
            type_number,
            wanted=arguments.node or "",
        )
        reader = _Reader(replay, Progress(sys.stderr, names))
        logs = series(names, type_number)
        side_by_side(reader.read(number, each) for number, each in enumerate(logs))
        outcome = replay.finish()
        for sink in sinks:
            sink.flush()
    for form, count in outcome.lost.items():
        complain(f"{count} {'line' if count == 1 else 'lines'}: {form}")
    for program, count in outcome.posing.items():
        complain(
            f"{count} {'line' if count == 1 else 'lines'} of {printable(program)}: not taken for "
            "records, as any program can write such lines; if it only passes auditd's log on, cut "
            "off what stands before type="
        )
    if arguments.node and not outcome.records and outcome.other_nodes:
        found = ", ".join(sorted(node or "hosts without a name" for node in outcome.other_nodes))
        complain(f"no record is of node {arguments.node}; there are records of {found}")
    for node in replay.hosts.mixed:
        complain(
            f"{printable(node) or 'the host without a name'}: more boots than a host can have in "
            "that time; its log may have the records of several hosts, mixed and without node=, "
            "which can't be told apart: replay the log of each host"
        )
    if arguments.session and outcome.events and not outcome.written:
        complain(f"no event is of session {printable(arguments.session)}, or not in this time")
    if not arguments.quiet:
        complain(summary(outcome, hosts=len(replay.hosts), boots=replay.hosts.boots))
    return declare.DIFFERENT if reader.failed or outcome.refused or outcome.lost else 0


class _Reader:
    """Reads logs, and reports what can't be read; ``failed`` says that a file could not."""

    def __init__(self, replay: Replay, progress: Progress) -> None:
        self.failed = False
        self._replay = replay
        self._progress = progress

    def read(self, number: int, logs: list[Log]) -> Iterator[None]:
        """Read the logs of a series one after the other, a batch of lines at a time."""
        for log in logs:
            refused: list[str] = []
            for _ in self._read(number, log):
                refused += self._replay.outcome.take_refused()
                yield
            refused += self._replay.outcome.take_refused()
            self._progress.clear()
            for line in refused:
                complain(f"{log.name}: {line}")

    def _read(self, number: int, log: Log) -> Iterator[None]:
        from sessiond.replay import files
        from sessiond.system import packed

        try:
            with files.opened(log.name) as (source, position):
                read = packed.arriving_lines if packed.is_stream(log.name) else packed.lines
                lines = self._progress.of(log.name, read(log.name, source), position)
                yield from self._replay.read(lines, source, log.name, node=log.node, series=number)
        except packed.UnreadableFileError as error:
            self._progress.clear()
            complain(str(error))
            self.failed = True


class _Sink(Protocol):
    """Takes lines."""

    def writelines(self, lines: list[bytes], /) -> object: ...

    def flush(self) -> object: ...


def _write_all(sinks: list[_Sink], *, flush: bool) -> Callable[[list[bytes]], None]:
    """Return a function that writes lines to all outputs; ``flush``: files have them at once."""

    def write(lines: list[bytes]) -> None:
        for sink in sinks:
            sink.writelines(lines)
            if flush and isinstance(sink, BufferedWriter):
                sink.flush()

    return write


def _opened(name: str, config: Config) -> AbstractContextManager[_Sink]:
    """Open an output of the configuration, or a file; raises SessiondError."""
    from sessiond.replay.delivered import PREFIX, configured

    if name.startswith(PREFIX):
        return configured(config, name, complain)
    return _open_output(name)


@contextmanager
def _open_output(name: str) -> Iterator[BinaryIO]:
    """Open a file, or standard output for -.

    Raises SessiondError if it can't be written, or would overwrite a log.
    """
    from sessiond.replay import files

    try:
        if name == "-":
            yield sys.stdout.buffer
            return
        if files.is_log(name):
            raise errors.SessiondError(f"-o {name}: a log of records; name another file")
        with Path(name).open("wb", buffering=_BUFFER) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        where = error.filename or name
        raise errors.SessiondError(f"{where}: {(error.strerror or str(error)).lower()}") from None
