"""Types and units of time, and the number that stands for "no id".

Four clocks meet in the daemon. A function that takes one of these types refuses the others: mypy
tells a time since boot in ns from the stamp of an audit record in ms.
"""

from __future__ import annotations

from typing import Final, NewType

BootTime = NewType("BootTime", int)  # ns of CLOCK_BOOTTIME: process events, table, pipeline
AuditStamp = NewType("AuditStamp", int)  # ms since the epoch: the stamp of an audit record
Monotonic = NewType("Monotonic", float)  # s of CLOCK_MONOTONIC: deadlines of daemon and outputs
WallTime = NewType("WallTime", float)  # s since the epoch: what people are shown

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
# procfs tells a start in clock ticks: USER_HZ, 100 a second on every Linux architecture.
TICK: Final = 10_000_000

# (uid_t)-1: no login user, no audit session (linux/audit.h: AUDIT_UID_UNSET).
UNSET_ID: Final = 4294967295
