"""This host: its description, the CPU time and memory of processes, and its audit state."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# The lock is that of the tests: only one program at a time may use audit or create a load.
LOCK: Final = Path("/run/lock/sessiond-kernel.lock")

_TICK: Final = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers_types.h

_SETTINGS: Final = {  # line of auditctl -s: option of auditctl that sets it
    "failure": "-f",
    "rate_limit": "-r",
    "backlog_limit": "-b",
    "backlog_wait_time": "--backlog_wait_time",
    "enabled": "-e",
}


class BenchError(Exception):
    """Something can't be measured; the message is one line with the reason."""


def auditctl(*arguments: str) -> str:
    """Run auditctl and return its output; raises BenchError if it fails."""
    try:
        done = subprocess.run(["auditctl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BenchError("no auditctl here; it is in the Debian package auditd") from None
    if done.returncode:
        said = done.stderr.strip() or "failed"
        raise BenchError(f"auditctl {' '.join(arguments)}: {said}")
    return done.stdout


def audit_status() -> dict[str, str]:
    """Return the values of auditctl -s."""
    return dict(line.split(" ", 1) for line in auditctl("-s").splitlines() if " " in line)


@contextmanager
def _alone() -> Iterator[None]:
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"  waiting for whoever holds {LOCK}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def why_not() -> str | None:
    """Return why audit can't be measured here, as text; None if it can."""
    if os.geteuid() != 0:
        return "needs root"
    with _alone():
        return _in_the_way()


def _in_the_way() -> str | None:
    try:
        status = audit_status()
    except BenchError as error:
        return str(error)
    if status["enabled"] == "2":
        return "the audit configuration is locked until the next boot"
    if status["pid"] != "0":
        return f"process {status['pid']} is the audit daemon: stop it first"
    return None


@contextmanager
def audit_lent() -> Iterator[None]:
    """Take the kernel's audit without rules; restore its state at the end.

    Raises BenchError if another audit daemon runs, or the configuration is locked.
    """
    with _alone():
        reason = _in_the_way()
        if reason:
            raise BenchError(reason)
        settings = audit_status()
        rules = [line for line in auditctl("-l").splitlines() if line != "No rules"]
        try:
            auditctl("-D")
            yield
        finally:
            _restore(settings, rules)


def _restore(settings: dict[str, str], rules: Sequence[str]) -> None:
    auditctl("-D")
    if rules:
        with tempfile.NamedTemporaryFile("w", suffix=".rules") as file:
            file.write("\n".join(rules) + "\n")
            file.flush()
            auditctl("-R", file.name)
    for name, option in _SETTINGS.items():
        if name in settings:
            auditctl(option, settings[name])


def family(pid: int) -> list[int]:
    """Return a process and all its living descendants."""
    found = [pid]
    for each in found:
        try:
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
    return found


def cpu(pid: int) -> int:
    """Return the ns of CPU time of a process, its descendants and its ended children.

    Living processes have exact CPU clocks (clock_getcpuclockid(3)); /proc/PID/stat has ended
    children in clock ticks.
    """
    used = 0
    for each in family(pid):
        try:
            used += time.clock_gettime_ns(~each << 3 | _CPUCLOCK_SCHED)
            fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        used += (int(fields[13]) + int(fields[14])) * 1_000_000_000 // _TICK
    return used


def thread_cpu(name: str) -> int:
    """Return the ns of CPU time of the kernel thread with that name; 0 without one."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            # PF_KTHREAD of linux/sched.h: any process can choose its name.
            flags = int((each / "stat").read_text().rsplit(")", 1)[1].split()[6])
            if flags & 0x200000 and (each / "comm").read_text().strip() == name:
                return int((each / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return 0


def memory(pid: int) -> dict[str, float]:
    """Return the resident memory of a process and its descendants, in MB, as PSS and as RSS."""
    total = {"pss": 0.0, "rss": 0.0}
    for each in family(pid):
        try:
            told = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue
        for name in total:
            found = re.search(rf"^{name}:\s+(\d+) kB", told, re.MULTILINE | re.IGNORECASE)
            total[name] += int(found[1]) * 1024 / 1e6 if found else 0
    return total


def written(pid: int) -> int:
    """Return the bytes that a process has written with write(2); 0 if it has ended."""
    try:
        found = re.search(r"^wchar: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) if found else 0


@contextmanager
def raised(file: Path, number: int) -> Iterator[None]:
    """Raise a setting of /proc/sys to at least ``number``; restore it at the end."""
    before = file.read_text()
    try:
        file.write_text(str(max(number, int(before))))
        yield
    finally:
        file.write_text(before)


def peak_memory(pid: int) -> float:
    """Return the peak of a process's resident memory in MB; 0 if it has ended."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    except OSError:
        return 0
    return int(found[1]) * 1024 / 1e6 if found else 0


def machine() -> dict[str, Any]:
    """Return the facts that the figures depend on: processor, cores, memory, versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)", cpuinfo, re.MULTILINE)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mb": round(total / 1e6),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }
