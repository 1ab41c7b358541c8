"""Read a log in auditd's format and write the lines that the daemon would have written.

Offline there is no tracer and no /proc: the table is moved by the log alone, and the event's own
time stamps are the clock, so the same log gives the same lines every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from dataclasses import field as member
from itertools import islice
from typing import Final

from sessiond.audit.record import (
    decode,
    display,
    enrichment,
    fields,
    parse_stamp,
    split_log_line,
)
from sessiond.errors import RecordError
from sessiond.pipeline import MILLISECOND, Pipeline

# Lines that are handled at once; memory doesn't depend on the log's size.
_BATCH: Final = 512


class LoggedNames:
    """Users and groups by what an ENRICHED log says of them: the host that wrote it knew."""

    _USERS = ("auid", "uid", "euid", "suid", "fsuid", "ouid")
    _GROUPS = ("gid", "egid", "sgid", "fsgid", "ogid")
    _MOST = 65_536

    def __init__(self) -> None:
        """Know nobody yet."""
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._seen: set[bytes] = set()

    def user(self, uid: int) -> str | None:
        """The name of a user id, if the log has told it by now."""
        return self._users.get(uid)

    def group(self, gid: int) -> str | None:
        """The name of a group id, if the log has told it by now."""
        return self._groups.get(gid)

    def learn(self, text: bytes, names: bytes) -> None:
        """Take a record's text and the names behind it, ``UID="ann" GID="users"``."""
        # The same names come with the same ids again and again.
        if names in self._seen:
            return
        if len(self._seen) >= self._MOST:
            self._seen.clear()
        self._seen.add(names)
        ids, told = fields(text), fields(names)
        for known, wanted in ((self._users, self._USERS), (self._groups, self._GROUPS)):
            for name in wanted:
                shown, value = decode(told.get(name.upper(), b"")), ids.get(name, b"")
                # auditd writes unset and unknown(1000) where there is no name.
                if shown and value.isdigit() and shown != b"unset" and b"(" not in shown:
                    known[int(value)] = display(shown)


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
    names: LoggedNames,
) -> Outcome:
    """Feed a log's lines to the pipeline and write what comes out.

    ``type_number`` gives the number of a record type's name; ``names``, which the pipeline asks,
    learns what the log tells. A line that is no record is counted and passed over.
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
    if not line.strip():
        return
    outcome.refused += 1
    if len(outcome.first_refused) < 5:
        outcome.first_refused.append(f"line {outcome.read}: {error}")
