"""Types and units of time, and the value for "no id".

The daemon uses four clocks. Each has a type of its own, so that mypy rejects, for instance, the
stamp of an audit record (ms) where a time since boot (ns) is expected.
"""

from __future__ import annotations

from typing import Final, NewType

BootTime = NewType("BootTime", int)  # ns of CLOCK_BOOTTIME: process events, table, pipeline
AuditStamp = NewType("AuditStamp", int)  # ms since the epoch: the stamp of an audit record
Monotonic = NewType("Monotonic", float)  # s of CLOCK_MONOTONIC: deadlines of daemon and outputs
WallTime = NewType("WallTime", float)  # s since the epoch: times for people

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
# procfs gives start times in clock ticks: USER_HZ is 100 on every Linux architecture.
TICK: Final = 10_000_000

# (uid_t)-1: no login user, no audit session (linux/audit.h: AUDIT_UID_UNSET).
UNSET_ID: Final = 4294967295
