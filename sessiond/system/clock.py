"""The clocks of the host: boot time, wall clock, and the offset between them."""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from pathlib import Path
from typing import Final

import structlog

from sessiond.units import BootTime

_log = structlog.get_logger(__name__)


def boot_time_ns(path: Path) -> int:
    """When this boot was, in ns since the epoch: measured once in a boot, then read from ``path``.

    It is what turns times since boot into dates. Clocks are set and slewed while a host runs; the
    start of a process must not change with them, also not with a restart of the daemon. ``path``
    lies in a directory that only the daemon's user and root can write; a file of anyone else's is
    not believed. Where it can't be written, a warning is logged and the next start measures again.
    """
    boot = boot_id()
    saved = _saved_boot_time(path, boot)
    if saved is not None:
        return saved
    measured = measure_boot_time()
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _replace(path, json.dumps({"boot_id": boot, "boot_time": measured}).encode())
    except OSError as error:
        _log.warning("boot_time_not_saved", path=str(path), reason=error.strerror)
    return measured


def measure_boot_time(attempts: int = 32) -> int:
    """The wall-clock time minus the time since boot, in ns, by the quickest of some readings."""
    best: tuple[int, int] | None = None
    for _ in range(attempts):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        reading = (after - before, wall - (before + after) // 2)
        best = reading if best is None else min(best, reading)
    assert best is not None  # noqa: S101 -- attempts is positive
    return best[1]


def _saved_boot_time(path: Path, boot_id: str) -> int | None:
    """Read what an earlier start in this boot wrote; None without a file that can be trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if (
                not stat.S_ISREG(status.st_mode)
                or status.st_uid not in (0, os.geteuid())
                or status.st_mode & 0o022
            ):
                return None
            saved = json.loads(file.read(4096))
    except (OSError, ValueError):
        return None
    if not isinstance(saved, dict) or saved.get("boot_id") != boot_id:
        return None
    boot_time = saved.get("boot_time")
    return boot_time if type(boot_time) is int and boot_time > 0 else None


def _replace(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all, whatever stands where it goes."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


# How long, in ns, two clock readings take without a pause between them.
_AT_ONCE: Final = 5_000


def wall_offset() -> int:
    """CLOCK_REALTIME minus CLOCK_BOOTTIME now, in ns, to some microseconds."""
    measured = []
    for _ in range(3):
        before = now()
        wall = time.time_ns()
        took = now() - before
        measured.append((took, wall - before - took // 2))
        if took < _AT_ONCE:
            break
    # The scheduler may have paused us between two readings: the fastest pair is the best.
    return min(measured)[1]


def now() -> BootTime:
    """The time since boot, suspended or not, in ns: the clock of all process events."""
    return BootTime(time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def boot_id(root: Path = Path("/proc")) -> str:
    """The random id of this boot (random(4)). Raises OSError where /proc/sys isn't there."""
    return (root / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
