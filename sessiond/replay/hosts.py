"""The hosts in a log, with a separate pipeline for each boot of each host.

A boot starts with SYSTEM_BOOT, with DAEMON_START of another kernel, or where serials decrease while
time increases; journald records the boot itself. Processes of different boots are unrelated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from sessiond.audit.auditd_log import EnrichedNames, LogRecord
from sessiond.audit.record import parse_stamp
from sessiond.pipeline.pipeline import Pipeline
from sessiond.units import MILLISECOND, AuditStamp

SYSTEM_BOOT: Final = 1127
DAEMON_START: Final = 1200
# The daemon's own records have separate serials.
_DAEMON_TYPES: Final = range(1200, 1300)
_SIGNS: Final = frozenset((SYSTEM_BOOT, *_DAEMON_TYPES))
# Records of different processors can be reordered within this time, in ms of their stamps.
_REORDERED: Final = 2000
# The decrease of a serial that proves a new boot, and the maximum serial at its start.
_MIN_DECREASE: Final = 1000
_HALF: Final = 1 << 31
# Maximum time, in ms, by which records of a boot precede its SYSTEM_BOOT.
_BOOTING: Final = 600_000
_KERNEL: Final = re.compile(rb"kernel=(\S+)")


class Identity(NamedTuple):
    """The host and boot of a pipeline; "" if the log does not contain them."""

    node: str
    machine: str
    boot: str


MakePipeline = Callable[[Identity, EnrichedNames], Pipeline]


class Boot:
    """One boot of a host, and its records that are not yet fed to the pipeline."""

    def __init__(self, identity: Identity, make: MakePipeline) -> None:
        """Make its pipeline."""
        self.identity = identity
        self.names = EnrichedNames()
        self.pipeline = make(identity, self.names)
        self.records: list[tuple[int, bytes]] = []
        self.now = 0  # the latest stamp, in ns
        self.latest = AuditStamp(0)
        self.first = AuditStamp(0)
        self.highest = 0  # of the kernel's serials
        self.begun_by_sign = False  # inferred, so that its SYSTEM_BOOT is still to come

    def take(self, record: LogRecord) -> None:
        """Take a further record of the last record's event."""
        self.records.append((record.type, record.payload))
        if record.names:
            self.names.note(record.payload, record.names)

    def add(self, record: LogRecord, time: AuditStamp, serial: int) -> None:
        """Take a record of this boot."""
        self.take(record)
        self.first = self.first or time
        self.latest = max(self.latest, time)
        self.now = self.latest * MILLISECOND
        if record.type not in _DAEMON_TYPES:
            self.highest = max(self.highest, serial)

    def is_over(self, record: LogRecord, time: AuditStamp, serial: int, kernel: bytes) -> bool:
        """Return whether a record is of a later boot; ``kernel`` is the current one, if known."""
        if record.type == SYSTEM_BOOT:
            return not (self.begun_by_sign and time - self.first <= _BOOTING)
        if record.type == DAEMON_START:
            found = _KERNEL.search(record.payload)
            return bool(kernel) and found is not None and found[1] != kernel
        if record.type in _DAEMON_TYPES or not 0 < self.highest - serial < _HALF:
            return False
        later = time - self.latest
        return later > _REORDERED or (later > 0 and self.highest - serial > _MIN_DECREASE)


class Host:
    """One host of a log, and its current boot."""

    def __init__(self, node: str, machine: str, make: MakePipeline) -> None:
        """Start before the first record."""
        self._make = make
        self._node = node
        self._machine = machine
        self._kernel = b""
        self.boots = 0
        self._by_id: dict[str, Boot] = {}
        self._now: Boot | None = None
        self._stamp = b""  # of the last record

    def boot_of(self, record: LogRecord) -> tuple[Boot, Boot | None]:
        """Return the boot of a record, and the boot that it ends, if any.

        Raises RecordError when the record has no stamp.
        """
        if (
            self._now is not None
            and record.type not in _SIGNS
            and not record.boot
            and record.payload.startswith(self._stamp)
        ):
            self._now.take(record)
            return self._now, None
        time, serial, end = parse_stamp(record.payload)
        self._stamp = record.payload[:end]
        over: Boot | None = None
        if record.boot:
            boot = self._by_id.get(record.boot)
            if boot is None:
                boot = self._by_id[record.boot] = self._begin(record.boot)
        elif self._now is None or self._now.is_over(record, time, serial, self._kernel):
            over = self._now
            boot = self._now = self._begin("" if over is None else f"{time:x}-{serial:x}")
            boot.begun_by_sign = over is not None
        else:
            boot = self._now
        if record.type == SYSTEM_BOOT:
            boot.begun_by_sign = False
        elif record.type == DAEMON_START and (kernel := _KERNEL.search(record.payload)):
            self._kernel = kernel[1]
        boot.add(record, time, serial)
        return boot, over

    def _begin(self, boot: str) -> Boot:
        self.boots += 1
        return Boot(Identity(self._node, self._machine, boot), self._make)

    def living(self) -> Iterator[Boot]:
        """Yield the boots whose pipelines are open."""
        if self._now is not None:
            yield self._now
        yield from self._by_id.values()


class Hosts:
    """All hosts of the logs that are replayed."""

    def __init__(self, make: MakePipeline) -> None:
        """Start empty; ``make`` makes the pipeline of a boot."""
        self._make = make
        self._hosts: dict[str, Host] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def boots(self) -> int:
        """The number of boots so far."""
        return sum(host.boots for host in self._hosts.values())

    def of(self, record: LogRecord) -> Host:
        """Return the host of a record."""
        host = self._hosts.get(record.node)
        if host is None:
            host = self._hosts[record.node] = Host(record.node, record.machine, self._make)
        return host

    def living(self) -> Iterator[Boot]:
        """Yield the boots whose pipelines are open, host by host."""
        for host in self._hosts.values():
            yield from host.living()
