"""``sessiond replay``: reads a log in auditd's format and writes the daemon's lines for it.

Offline there is no tracer and no /proc: the table is moved by the log alone, and the event's own
time stamps are the clock, so the same log gives the same lines every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import field as member
from itertools import islice
from typing import Final

from sessiond.audit.auditd_log import SEPARATOR, EnrichedNames, enrichment, split_log_line
from sessiond.audit.record import parse_stamp
from sessiond.errors import RecordError
from sessiond.pipeline.pipeline import Pipeline
from sessiond.units import MILLISECOND

# Lines that are handled at once; memory doesn't depend on the log's size.
_BATCH: Final = 512


@dataclass
class Outcome:
    """What a replay did: lines read, those that are no records (the first few by number)."""

    read: int = 0
    refused: int = 0
    written: int = 0
    first_refused: list[str] = member(default_factory=list)


def replay(
    lines: Iterable[bytes],
    pipeline: Pipeline,
    write: Callable[[list[bytes]], object],
    type_number: Callable[[str], int | None],
    names: EnrichedNames,
) -> Outcome:
    """Feed a log's lines to the pipeline and write what comes out.

    ``type_number`` gives the number of a record type's name; ``names``, which the pipeline asks,
    learns the names in the log. A line that is no record is counted and skipped.
    """
    outcome = Outcome()
    source = iter(lines)
    now = 0
    while batch := list(islice(source, _BATCH)):
        records = []
        for line in batch:
            outcome.read += 1
            try:
                record = split_log_line(line, type_number)
                now = max(now, parse_stamp(record[1])[0] * MILLISECOND)
            except RecordError as error:
                _refuse(outcome, line, error)
                continue
            records.append(record)
            told = enrichment(line)
            if told:
                names.learn(record[1], told)
        pipeline.feed_audit(records, now=now, wall_offset=0)
        _write(pipeline.poll(now), write, outcome)
    _write(pipeline.flush(now), write, outcome)
    return outcome


def _write(lines: list[bytes], write: Callable[[list[bytes]], object], outcome: Outcome) -> None:
    outcome.written += len(lines)
    if lines:
        write(lines)


def _refuse(outcome: Outcome, line: bytes, error: RecordError) -> None:
    if not line.strip() or SEPARATOR.match(line):
        return
    outcome.refused += 1
    if len(outcome.first_refused) < 5:
        outcome.first_refused.append(f"line {outcome.read}: {error}")
