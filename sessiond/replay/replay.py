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
from typing import BinaryIO, Final

import orjson

from sessiond.audit.auditd_log import (
    SEPARATOR,
    LogRecord,
    LostFormError,
    OtherLineError,
    TypeNumber,
    parse_line,
)
from sessiond.errors import RecordError
from sessiond.replay.hosts import Boot, Hosts, MakePipeline
from sessiond.replay.journal import export_entries, journal_record
from sessiond.replay.laurel import laurel_records
from sessiond.system.packed import guarded

# Lines handled at once, so that memory does not depend on the log's size.
_BATCH: Final = 512
_MAX_NAMED: Final = 5


@dataclass
class Outcome:
    """The result of a replay.

    ``read`` counts lines, ``records`` the audit records among them, ``others`` lines of other
    programs. ``refused`` are invalid lines, by problem; ``first_refused`` are the first few of a
    file, with their numbers; ``lost`` are records in a form that has lost a part.
    """

    read: int = 0
    records: int = 0
    others: int = 0
    written: int = 0
    events: int = 0
    refused: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    first_refused: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Selects the lines to write. All lines are made, because later ones refer to their processes.

    ``since`` and ``until`` are dates in the format of ``@timestamp``, ``session`` is the number of
    an audit session or the entity id of a session leader or an entry leader.
    """

    since: str = ""
    until: str = ""
    session: str = ""

    def takes(self, line: bytes) -> bool:
        """Return whether to write a line."""
        # {"@timestamp":"2026-05-01T10:00:10.002000Z", ...
        date = line[15:42].decode("ascii", "replace")
        if date < self.since or (self.until and date >= self.until):
            return False
        return not self.session or self.session in _sessions(line)


def _sessions(line: bytes) -> Iterator[str]:
    document = orjson.loads(line)
    yield document.get("auditd", {}).get("session", "")
    for leader in ("session_leader", "entry_leader"):
        yield document.get("process", {}).get(leader, {}).get("entity_id", "")


class Replay:
    """Feeds logs sequentially to the pipelines of their hosts, and writes the lines.

    ``make`` makes the pipeline of a boot of a host, ``write`` takes lines, ``type_number`` returns
    the number of a record type's name. ``node`` is the only host wanted, "" for all.
    """

    def __init__(
        self,
        make: MakePipeline,
        write: Callable[[list[bytes]], object],
        type_number: TypeNumber,
        *,
        wanted: Filter | None = None,
        node: str = "",
    ) -> None:
        """Start before the first log."""
        self.outcome = Outcome()
        self.hosts = Hosts(make)
        self._write = write
        self._type_number = lru_cache(type_number)
        self._filter = wanted
        self._node = node
        self._sequence = 0
        self._line = 0

    def read(self, lines: Iterable[bytes], source: BinaryIO | None = None, name: str = "") -> None:
        """Read a log to its end.

        ``source`` is the file of the lines, needed for an export of the journal.
        Raises UnreadableFileError if reading ``name`` fails.
        """
        self._line = 0
        self.outcome.first_refused.clear()
        source_lines = iter(lines)
        while batch := list(islice(source_lines, 1 if self._line == 0 else _BATCH)):
            if self._line == 0 and source is not None and batch[0].startswith(b"__CURSOR="):
                self._read_entries(guarded(name, export_entries(batch, source)))
                return
            for line in batch:
                self._take(line)
            self._poll()

    def _read_entries(self, entries: Iterator[dict[str, bytes]]) -> None:
        for entry in entries:
            self._line += 1
            self.outcome.read += 1
            try:
                self._feed(journal_record(entry, self._type_number))
            except RecordError as error:
                self._refuse(b"entry", error)
            if self._line % _BATCH == 0:
                self._poll()
        self._poll()

    def finish(self) -> Outcome:
        """Write the events in flight, at the end of the input."""
        self._poll()
        for boot in self.hosts.living():
            self._end(boot)
        return self.outcome

    def _take(self, line: bytes) -> None:
        self._line += 1
        self.outcome.read += 1
        try:
            if line[:1] in b"{\x1e":
                self._take_json(line)
            else:
                self._feed(parse_line(line, self._type_number))
        except RecordError as error:
            self._refuse(line, error)

    def _take_json(self, line: bytes) -> None:
        try:
            entry = orjson.loads(line.lstrip(b"\x1e"))
        except ValueError:
            raise RecordError("not a whole JSON object in one line") from None
        if "__CURSOR" in entry or "_TRANSPORT" in entry:
            self._feed(journal_record(entry, self._type_number))
            return
        for record in laurel_records(entry, self._type_number):
            self._feed(record)

    def _feed(self, record: LogRecord) -> None:
        if self._node and record.node != self._node:
            self.outcome.others += 1
            return
        boot, over = self.hosts.of(record).boot_of(record)
        self.outcome.records += 1
        if over is not None:
            self._advance(over)
            self._end(over)
        if len(boot.records) >= _BATCH:
            self._advance(boot)

    def _refuse(self, line: bytes, error: RecordError) -> None:
        if not line.strip() or SEPARATOR.match(line):
            return
        outcome = self.outcome
        if isinstance(error, OtherLineError):
            outcome.others += 1
        elif isinstance(error, LostFormError):
            outcome.lost[str(error)] += 1
        else:
            outcome.refused += 1
            if len(outcome.first_refused) < _MAX_NAMED:
                outcome.first_refused.append(f"line {self._line}: {error}")

    # Pipelines

    def _poll(self) -> None:
        for boot in self.hosts.living():
            if boot.records:
                self._advance(boot)

    def _advance(self, boot: Boot) -> None:
        records, boot.records = boot.records, []
        pipeline = boot.pipeline
        pipeline.feed_audit(records, now=boot.now)
        pipeline.lines.sequence = self._sequence
        self._out(boot, pipeline.poll(boot.now))

    def _end(self, boot: Boot) -> None:
        boot.pipeline.lines.sequence = self._sequence
        self._out(boot, boot.pipeline.flush(boot.now))
        self.outcome.events += boot.pipeline.counters.audit_events

    def _out(self, boot: Boot, lines: list[bytes]) -> None:
        self._sequence = boot.pipeline.lines.sequence
        if self._filter is not None:
            lines = [line for line in lines if self._filter.takes(line)]
        self.outcome.written += len(lines)
        if lines:
            self._write(lines)
