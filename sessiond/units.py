"""Units of time in ns, and the number that stands for "no id"."""

from __future__ import annotations

from typing import Final

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
# procfs tells a start in clock ticks: USER_HZ, 100 a second on every Linux architecture.
TICK: Final = 10_000_000

# (uid_t)-1: no login user, no audit session (linux/audit.h: AUDIT_UID_UNSET).
UNSET_ID: Final = 4294967295
