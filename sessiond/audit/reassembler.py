"""Reassembles records to events: records with the same stamp and serial belong together.

The kernel queues the records of one event in order, but those of different CPUs interleave, and
records can be lost. An event is complete with its end-of-event record (EOE); a user message is an
event by itself; other events are closed by a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, cast

from sessiond.audit.record import (
    EOE,
    NO_CALL,
    SYSCALL,
    Call,
    Record,
    call,
    from_user_space,
    number,
    parse_stamp,
    syscall_fields,
)
from sessiond.errors import RecordError
from sessiond.units import AuditStamp

ANOM_ABEND: Final = 1701


class AuditEvent:
    """All records of one event, in the order of arrival.

    ``time`` is the stamp in ms since the epoch, ``serial`` the kernel's number. ``complete`` says
    that the end-of-event record has arrived, or that the event has none. ``opened`` is when the
    first record was read, by the reassembler's clock.
    """

    __slots__ = ("_call", "_syscall", "complete", "opened", "records", "serial", "time")

    def __init__(self, time: AuditStamp, serial: int, opened: int) -> None:
        """Open an event at the reassembler's time ``opened``."""
        self.time = time
        self.serial = serial
        self.opened = opened
        self.records: list[Record] = []
        self.complete = False
        self._syscall: dict[str, bytes] | None = None
        self._call: Call | None = None

    @property
    def call(self) -> Call:
        """The head of its SYSCALL record, parsed once; NO_CALL without one."""
        if self._call is None:
            self._call = NO_CALL
            for record in self.records:
                if record.type == SYSCALL:
                    self._call = call(record.text)
                    break
        return self._call

    @property
    def syscall(self) -> dict[str, bytes]:
        """The fields of its SYSCALL record, parsed once; empty without one."""
        if self._syscall is None:
            texts = (record.text for record in self.records if record.type == SYSCALL)
            self._syscall = syscall_fields(next(texts, b""))
        return self._syscall

    def __repr__(self) -> str:
        types = ",".join(str(record.type) for record in self.records)
        return f"AuditEvent({self.time}:{self.serial}, [{types}], complete={self.complete})"


# How long an event in a log accepts records, in ms of the stamps: as long as auparse(3) waits.
LOG_WINDOW: Final = 2000
# Maximum number of remembered stamps of events closed by a deadline, or in a log.
_MAX_CLOSED: Final = 4096
_NONE: Final = frozenset[int]()
# Number of an event's last records with which a further one in a log is compared.
_MAX_COMPARED: Final = 64


class _NewRecord(Protocol):
    def __call__(self, kind: type[Record], values: tuple[int, bytes], /) -> Record: ...


_new_record = cast("_NewRecord", tuple.__new__)  # a third faster than a named tuple's own


def stands_alone(record_type: int) -> bool:
    """Return whether a record of this type is an event by itself: no EOE follows.

    ANOM_ABEND is written when a signal is delivered, outside of any system call.
    """
    return from_user_space(record_type) or record_type == ANOM_ABEND


class Reassembler:
    """Takes records and returns events as they become complete.

    Time is an argument, in the unit of ``timeout``. An event that is open longer than ``timeout``
    is closed as it is; so is the oldest event if more than ``max_in_flight`` are open. Records that
    arrive after their event was closed are counted as ``late`` and dropped.

    ``of_log`` is for logs, in which no record ends an event: auditd does not write EOE, rules can
    exclude PROCTITLE, ausearch writes it first, and a user message can have the serial of a system
    call. An event then takes all records of its stamp until the stamps are LOG_WINDOW later, and
    never counts as unfinished. A repeated record counts once, also if its event was closed.
    """

    def __init__(self, *, timeout: int, max_in_flight: int = 8192, of_log: bool = False) -> None:
        """Start with nothing in flight."""
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._of_log = of_log
        self._ends: frozenset[int] = frozenset() if of_log else frozenset((EOE,))
        self._latest = 0  # of the stamps, in a log
        self._open: dict[bytes, AuditEvent] = {}
        self.records = 0
        self.malformed = 0
        self.unfinished = 0
        self.late = 0
        self._closed: dict[bytes, frozenset[int]] = {}  # in a log the hashes of the records
        self._by_pid: dict[int, list[bytes]] | None = None
        self._opened = 0
        self._lowest = 0
        self._highest = 0

    @property
    def in_flight(self) -> int:
        """The number of open events."""
        return len(self._open)

    @property
    def oldest(self) -> AuditEvent | None:
        """The open event whose first record came first."""
        return next(iter(self._open.values()), None)

    @property
    def unseen(self) -> int:
        """The number of missing serials: a hint, not the count of losses.

        An event that the kernel could not create has no serial; one that it dropped later without
        counting it (kernel/audit.c, kauditd_hold_skb) has one.
        """
        return max(0, self._highest - self._lowest + 1 - self._opened) if self._opened else 0

    def feed(self, batch: Iterable[tuple[int, bytes]], now: int) -> list[AuditEvent]:
        """Take (record type, payload) pairs; return the events they complete, in that order.

        A payload without a stamp is counted in ``malformed`` and skipped.
        """
        events: list[AuditEvent] = []
        opened = self._open
        ends = self._ends
        # Most records follow another one of their event: then its stamp is compared, not looked up.
        event: AuditEvent | None = None
        stamp = b""
        read = 0
        for record_type, payload in batch:
            read += 1
            if event is None or not payload.startswith(stamp):
                stamp = payload[: payload.find(b")") + 1]
                event = opened.get(stamp)
            if event is None:
                if record_type == EOE:
                    # The end of an event that a deadline closed, or whose records were all lost.
                    continue
                if stamp in self._closed and (
                    not self._of_log
                    or hash(_record(record_type, payload, stamp)) in self._closed[stamp]
                ):
                    self.late += 1
                    continue
                try:
                    time, serial, _ = parse_stamp(payload)
                except RecordError:
                    self.malformed += 1
                    continue
                if self._of_log:
                    # At once, so that it does not matter where batches end.
                    events += self._until(time)
                    now = self._latest
                event = AuditEvent(time, serial, now)
                self._opened += 1
                self._lowest = min(self._lowest or serial, serial)
                self._highest = max(self._highest, serial)
                if stands_alone(record_type) and not self._of_log:
                    event.records.append(_record(record_type, payload, stamp))
                    event.complete = True
                    events.append(event)
                    event = None
                    continue
                opened[stamp] = event
            if record_type != EOE:
                record = _record(record_type, payload, stamp)
                if not self._of_log or record not in event.records[-_MAX_COMPARED:]:
                    event.records.append(record)
            if record_type in ends:
                event.complete = True
                del opened[stamp]
                events.append(event)
                event = None
        self.records += read
        self._by_pid = None
        return events + self._surplus()

    def _until(self, time: AuditStamp) -> list[AuditEvent]:
        """Return the events of a log that accept no records of a new event's time, in ms."""
        events: list[AuditEvent] = []
        if time > self._latest:
            self._latest = time
            events = self._expired(time - 1, LOG_WINDOW)
        return events + self._surplus()

    def _surplus(self) -> list[AuditEvent]:
        """Close and return the oldest events above the maximum number of open ones."""
        events: list[AuditEvent] = []
        while len(self._open) > self._max_in_flight:
            events.append(self._close(next(iter(self._open))))
        return events

    def expire(self, now: int) -> list[AuditEvent]:
        """Return the events whose deadline has passed, oldest first; in a log only feeding does."""
        return [] if self._of_log else self._expired(now, self._timeout)

    def _expired(self, now: int, timeout: int) -> list[AuditEvent]:
        expired: list[AuditEvent] = []
        while self._open:
            key, event = next(iter(self._open.items()))
            if event.opened + timeout > now:
                break
            expired.append(self._close(key))
        return expired

    def close_of(self, pid: int, wanted: Callable[[AuditEvent], bool]) -> list[AuditEvent]:
        """Close and return the open events of a process's system calls that are ``wanted``."""
        if self._by_pid is None:
            # Thousands are open if the kernel has lost as many records, so each is searched once.
            self._by_pid = {}
            for key, event in self._open.items():
                # ``call`` caches its result: do not read it before the SYSCALL record has arrived.
                if any(record.type == SYSCALL for record in event.records):
                    self._by_pid.setdefault(number(event.call.pid), []).append(key)
        keys = self._by_pid.get(pid)
        if keys is None:
            return []
        chosen = [key for key in keys if key in self._open and wanted(self._open[key])]
        return [self._close(key) for key in chosen]

    def flush(self) -> list[AuditEvent]:
        """Close and return all open events, at the end of the input."""
        return [self._close(key) for key in list(self._open)]

    def open_events(self) -> list[AuditEvent]:
        """Return all open events, and leave them open."""
        return list(self._open.values())

    def reopen(self, events: Iterable[AuditEvent]) -> None:
        """Continue with the open events of an earlier run."""
        for event in events:
            seconds, milliseconds = divmod(event.time, 1000)
            self._open[b"audit(%d.%03d:%d)" % (seconds, milliseconds, event.serial)] = event
        self._by_pid = None

    def deadline(self) -> int | None:
        """Return when the oldest open event is due, None without open events."""
        for event in self._open.values():
            return event.opened + self._timeout
        return None

    def _close(self, key: bytes) -> AuditEvent:
        event = self._open.pop(key)
        self._closed[key] = frozenset(map(hash, event.records)) if self._of_log else _NONE
        if len(self._closed) > _MAX_CLOSED:
            del self._closed[next(iter(self._closed))]
        # Only a syscall's event ends with EOE. A lone kernel record (LOGIN, CONFIG_CHANGE, AVC) is
        # complete by itself, but that is known only at the deadline.
        # A log does not show whether a record is missing.
        event.complete = self._of_log or all(record.type != SYSCALL for record in event.records)
        if not event.complete:
            self.unfinished += 1
        return event


def _record(record_type: int, payload: bytes, stamp: bytes) -> Record:
    # ": " follows the stamp's ")", or a part of it in a truncated record.
    text = payload[len(stamp) + 2 :]
    if text and text[-1] in (0x0A, 0x00):
        text = text.rstrip(b"\n\0")
    return _new_record(Record, (record_type, text))
