"""Reads logs and writes the daemon's lines for them.

Offline there is no tracer and no /proc: only the log updates the process table, and the events'
stamps are the clock, so that the same log always yields the same lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import BinaryIO, Final, Protocol

import orjson

from sessiond.audit.auditd_log import (
    SEPARATOR,
    LogRecord,
    LossError,
    LostFormError,
    OtherLineError,
    PosingError,
    TypeNumber,
    joined,
    parse_line,
)
from sessiond.ecs.line import renumbered
from sessiond.errors import RecordError
from sessiond.replay.blocks import Block, Made, Pipelines
from sessiond.replay.hosts import Hosts
from sessiond.replay.journal import export_entries, journal_record
from sessiond.replay.laurel import laurel_records
from sessiond.system.packed import UnreadableFileError, guarded

# Lines handled at once, so that memory does not depend on the log's size.
_BATCH: Final = 512
_MAX_NAMED: Final = 5
_MAX_NODES: Final = 20
_MAX_PROGRAMS: Final = 20
# What a line of JSON begins with; RFC 7464 has a record separator before it.
JSON_LINE: Final = (b"{", b"\x1e")


@dataclass
class Outcome:
    """The result of a replay.

    ``read`` counts lines, ``records`` the audit records among them, ``others`` lines of other
    programs. ``refused`` are invalid lines, by problem; ``first_refused`` are the first few of each
    log, with their numbers; ``lost`` are records in a form that has lost a part. ``posing`` counts
    lines that look like records, by the programs that wrote them. ``other_nodes`` are some of the
    hosts that are not wanted. ``unwritten`` are records that a kernel did not write to its log,
    ``lost_by_audit`` is the largest number that one lost, according to the logs.
    """

    read: int = 0
    records: int = 0
    others: int = 0
    written: int = 0
    events: int = 0
    refused: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    first_refused: list[str] = field(default_factory=list)
    posing: Counter[str] = field(default_factory=Counter)
    other_nodes: set[str] = field(default_factory=set)
    unwritten: int = 0
    lost_by_audit: int = 0

    def take_refused(self) -> list[str]:
        """Return ``first_refused``, and forget them."""
        refused, self.first_refused = self.first_refused, []
        return refused


class Work(Protocol):
    """Makes lines of blocks, here or in other processes."""

    def submit(self, block: Block) -> list[Made]:
        """Take a block; return results so far, in the order of the blocks."""
        ...

    def rest(self) -> list[Made]:
        """Return the results that ``submit`` has not returned yet."""
        ...


class OwnWork:
    """Makes lines of each block at once, in this process."""

    def __init__(self, pipelines: Pipelines) -> None:
        """Take the pipelines."""
        self.pipelines = pipelines

    def submit(self, block: Block) -> list[Made]:
        """Take a block; return its result."""
        return [self.pipelines.take(block)]

    def rest(self) -> list[Made]:
        """Return nothing: ``submit`` has returned all."""
        return []


@dataclass
class _Log:
    """A log that is being read: ``node`` is the host of records that name none."""

    node: str
    series: int
    line: int = 0
    named: int = 0  # of its invalid lines


class Replay:
    """Reads logs, and writes the lines of all their hosts as one stream.

    ``work`` makes lines of blocks, ``write`` takes them, ``type_number`` returns the number of a
    record type's name. ``wanted`` is the only host to read, "" for all.
    """

    def __init__(
        self,
        work: Work,
        write: Callable[[list[bytes]], object],
        type_number: TypeNumber,
        *,
        wanted: str = "",
    ) -> None:
        """Start before the first log."""
        self.outcome = Outcome()
        self.hosts = Hosts()
        self._work = work
        self._write = write
        self._type_number = lru_cache(type_number)
        self._wanted = wanted
        self._sequence = 0

    def read(
        self,
        lines: Iterable[bytes],
        source: BinaryIO | None = None,
        name: str = "",
        *,
        node: str = "",
        series: int = 0,
    ) -> Iterator[None]:
        """Read a log a batch of lines at a time, until the iterator ends.

        ``source`` is the file of the lines, needed for an export of the journal. ``node`` is the
        host of records that name none. Logs of different ``series`` can be read side by side.
        A line of b"" says that no more has arrived yet: what can be written is written. Raises
        UnreadableFileError if reading ``name`` fails.
        """
        log = _Log(node, series)
        source_lines = iter(lines)
        damage: UnreadableFileError | None = None
        while damage is None:
            batch: list[bytes] = []
            ended, waits = True, False
            try:
                # Not extend, which keeps nothing in a compiled module if the iterator raises.
                for line in islice(source_lines, 1 if log.line == 0 else _BATCH):
                    ended, waits = False, not line
                    if waits:
                        break
                    batch.append(line)
            except UnreadableFileError as error:
                damage = error  # behind the lines of the batch
            if ended and damage is None:
                break
            if not batch:
                self._catch_up()
                continue
            if log.line == 0 and source is not None and batch[0].startswith(b"__CURSOR="):
                yield from self._read_entries(log, guarded(name, export_entries(batch, source)))
                return
            for line in batch:
                self._take(log, line)
            self._poll()
            if waits:
                self._catch_up()
            yield
        if damage is not None:
            raise damage

    def _read_entries(self, log: _Log, entries: Iterator[dict[str, bytes]]) -> Iterator[None]:
        for entry in entries:
            log.line += 1
            self.outcome.read += 1
            try:
                self._feed(log, journal_record(entry, self._type_number))
            except RecordError as error:
                self._refuse(log, b"entry", error)
            if log.line % _BATCH == 0:
                self._poll()
                yield
        self._poll()

    def finish(self) -> Outcome:
        """Write the events in flight, at the end of the input."""
        self._poll()
        for boot in self.hosts.living():
            self._submit(boot.block(last=True))
        self._put(self._work.rest())
        return self.outcome

    def _take(self, log: _Log, line: bytes) -> None:
        log.line += 1
        self.outcome.read += 1
        try:
            if line.startswith(JSON_LINE):
                for record in json_records(line, self._type_number):
                    self._feed(log, record)
            elif line.find(b" type=", line.find(b"audit(") + 1) >= 0:
                self._take_joined(log, line)
            else:
                self._feed(log, parse_line(line, self._type_number))
        except RecordError as error:
            self._refuse(log, line, error)

    def _take_joined(self, log: _Log, line: bytes) -> None:
        node = ""
        for part in joined(line):
            record = parse_line(part, self._type_number)
            node = record.node or node
            self._feed(log, record._replace(node=node))

    def _feed(self, log: _Log, record: LogRecord) -> None:
        if log.node and not record.node:
            record = record._replace(node=log.node)
        if self._wanted and record.node != self._wanted:
            self.outcome.others += 1
            if len(self.outcome.other_nodes) < _MAX_NODES:
                self.outcome.other_nodes.add(record.node)
            return
        boot, over = self.hosts.of(record, log.series).boot_of(record)
        self.outcome.records += 1
        if over is not None:
            self._submit(over.block(last=True))
        if len(boot.records) >= _BATCH:
            self._submit(boot.block())

    def _refuse(self, log: _Log, line: bytes, error: RecordError) -> None:
        if not line.strip() or SEPARATOR.match(line):
            return
        outcome = self.outcome
        if isinstance(error, LossError):
            if error.since_boot:
                outcome.lost_by_audit = max(outcome.lost_by_audit, error.lost)
            else:
                outcome.unwritten += error.lost
        if isinstance(error, PosingError) and (
            error.program in outcome.posing or len(outcome.posing) < _MAX_PROGRAMS
        ):
            outcome.posing[error.program] += 1
        if isinstance(error, OtherLineError):
            outcome.others += 1
        elif isinstance(error, LostFormError):
            outcome.lost[str(error)] += 1
        else:
            outcome.refused += 1
            if log.named < _MAX_NAMED:
                log.named += 1
                outcome.first_refused.append(f"line {log.line}: {error}")

    def _poll(self) -> None:
        for boot in self.hosts.living():
            if boot.records:
                self._submit(boot.block())

    def _catch_up(self) -> None:
        """Write the lines of all blocks, because the input may pause for long."""
        self._put(self._work.rest())

    def _submit(self, block: Block) -> None:
        self._put(self._work.submit(block))

    def _put(self, results: list[Made]) -> None:
        for made in results:
            lines = [renumbered(line, self._sequence) for line in made.lines]
            self._sequence += made.numbers
            self.outcome.events += made.events
            self.outcome.written += len(lines)
            if lines:
                self._write(lines)


def json_records(line: bytes, type_number: TypeNumber) -> list[LogRecord]:
    """Return the records of a line of JSON: an entry of the journal, or an event of LAUREL.

    Raises RecordError, as ``journal_record`` and ``laurel_records`` do.
    """
    try:
        entry = orjson.loads(line.lstrip(b"\x1e"))
    except ValueError:
        raise RecordError("not a whole JSON object in one line") from None
    if "__CURSOR" in entry or "_TRANSPORT" in entry:
        return [journal_record(entry, type_number)]
    return laurel_records(entry, type_number)
