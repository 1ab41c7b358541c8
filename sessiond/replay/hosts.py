"""The hosts in logs, and the boots of each host.

A boot starts with SYSTEM_BOOT, with DAEMON_START of another kernel, or where serials decrease while
time increases; journald records the boot itself. Where both jump, time by more than ten minutes
back, another log begins, perhaps of another host: it counts as a boot too. Processes of different
boots are unrelated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sessiond.audit.auditd_log import LogRecord
from sessiond.audit.record import parse_stamp
from sessiond.replay.blocks import Block, Identity
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
# The decrease of time, in ms, that with a jump of the serial proves another log. A system call that
# waits has the stamp of its beginning, and the serial of its end.
_OTHER_LOG: Final = 600_000
# Boots of a host with less time between them on average, in ms, are those of several hosts.
_MIN_UPTIME: Final = 20_000
_MANY: Final = 5
# Maximum time, in ms, by which records of a boot precede its SYSTEM_BOOT.
_BOOTING: Final = 600_000
_KERNEL: Final = re.compile(rb"kernel=(\S+)")


class Boot:
    """One boot of a host, and its records that are not yet in a block."""

    def __init__(self, identity: Identity) -> None:
        """Start before its first record."""
        self.identity = identity
        self.records: list[tuple[int, bytes]] = []
        self.names: list[tuple[int, bytes, bytes]] = []  # of records: type, payload, names
        self.now = 0  # the latest stamp, in ns
        self.latest = AuditStamp(0)
        self.first = AuditStamp(0)
        self.highest = 0  # of the kernel's serials
        self.begun_by_sign = False  # inferred, so that its SYSTEM_BOOT is still to come

    def take(self, record: LogRecord) -> None:
        """Take a further record of the last record's event."""
        self.records.append((record.type, record.payload))
        if record.names:
            self.names.append((record.type, record.payload, record.names))

    def add(self, record: LogRecord, time: AuditStamp, serial: int) -> None:
        """Take a record of this boot."""
        self.take(record)
        self.first = self.first or time
        self.latest = max(self.latest, time)
        self.now = self.latest * MILLISECOND
        if record.type not in _DAEMON_TYPES:
            self.highest = max(self.highest, serial)

    def block(self, *, last: bool = False) -> Block:
        """Return the records since the last block; ``last`` if no others will follow."""
        block = Block(self.identity, self.now, self.records, self.names, last)
        self.records, self.names = [], []
        return block

    def is_over(self, record: LogRecord, time: AuditStamp, serial: int, kernel: bytes) -> bool:
        """Return whether a record is of a later boot; ``kernel`` is the current one, if known."""
        if record.type == SYSTEM_BOOT:
            return not (self.begun_by_sign and time - self.first <= _BOOTING)
        if record.type == DAEMON_START:
            found = _KERNEL.search(record.payload)
            return bool(kernel) and found is not None and found[1] != kernel
        decrease = self.highest - serial
        later = time - self.latest
        if record.type in _DAEMON_TYPES:
            return False
        if later < -_OTHER_LOG:
            return self._jumps(decrease)
        if not 0 < decrease < _HALF:
            return False
        return later > _REORDERED or (later > 0 and decrease > _MIN_DECREASE)

    def _jumps(self, decrease: int) -> bool:
        """Return whether a serial is far from the last one, in either direction."""
        return self.highest > 0 and min(decrease % (2 * _HALF), -decrease % (2 * _HALF)) > (
            _MIN_DECREASE
        )


class Host:
    """One host of a log, and its current boot."""

    def __init__(self, node: str, machine: str, number: int) -> None:
        """Start before the first record; ``number`` counts hosts."""
        self._number = number
        self._node = node
        self._machine = machine
        self._kernel = b""
        self.boots = 0
        self._by_id: dict[str, Boot] = {}
        self._now: Boot | None = None
        self._stamp = b""  # of the last record
        # Of the boots that journald does not name: number, first and last beginning.
        self._inferred = (0, AuditStamp(0), AuditStamp(0))

    @property
    def is_mixed(self) -> bool:
        """Whether it has more boots than a host can have in that time."""
        number, first, last = self._inferred
        return number > _MANY and last - first < number * _MIN_UPTIME

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
        again = record.payload[:end] == self._stamp  # the same event, written twice
        self._stamp = record.payload[:end]
        over: Boot | None = None
        if record.boot:
            boot = self._by_id.get(record.boot)
            if boot is None:
                boot = self._by_id[record.boot] = self._begin(record.boot)
        elif self._now is None or (
            not again and self._now.is_over(record, time, serial, self._kernel)
        ):
            over = self._now
            boot = self._now = self._begin("" if over is None else f"{time:x}-{serial:x}")
            boot.begun_by_sign = over is not None
            number, first, last = self._inferred
            self._inferred = (number + 1, min(first or time, time), max(last, time))
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
        return Boot(Identity(self._node, self._machine, boot, (self._number, self.boots)))

    def living(self) -> Iterator[Boot]:
        """Yield the boots that are not over."""
        if self._now is not None:
            yield self._now
        yield from self._by_id.values()


class Hosts:
    """All hosts of the logs that are replayed."""

    def __init__(self) -> None:
        """Start empty."""
        self._hosts: dict[tuple[str, int], Host] = {}

    def __len__(self) -> int:
        return len({node for node, _ in self._hosts})

    @property
    def boots(self) -> int:
        """The number of boots so far."""
        return sum(host.boots for host in self._hosts.values())

    @property
    def mixed(self) -> list[str]:
        """The names of hosts whose records are those of several."""
        return [node for (node, _), host in self._hosts.items() if host.is_mixed]

    def of(self, record: LogRecord, series: int = 0) -> Host:
        """Return the host of a record; ``series`` is the number of the logs that it is in.

        Series are read side by side, so that times within a host only increase within one.
        """
        key = (record.node, series)
        host = self._hosts.get(key)
        if host is None:
            number = len(self._hosts)
            host = self._hosts[key] = Host(record.node, record.machine, number)
        return host

    def living(self) -> Iterator[Boot]:
        """Yield the boots that are not over, host by host."""
        for host in self._hosts.values():
            yield from host.living()
