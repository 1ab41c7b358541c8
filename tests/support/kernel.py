"""The kernel, which the tests share: one user at a time, and unchanged afterwards."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# Three kinds of rules, and the ignored failures, each for two architectures.
BUILT_IN_RULES = 8

LOCK = Path("/run/lock/sessiond-kernel.lock")
NETLINK_AUDIT = 9  # linux/netlink.h; not in Python's socket module
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO of linux/proc_ns.h
_SETTINGS = {  # line of auditctl -s: option of auditctl that sets it
    "enabled": "-e",
    "failure": "-f",
    "rate_limit": "-r",
    "backlog_limit": "-b",
    "backlog_wait_time": "--backlog_wait_time",
}

_AFTER_BOOT = {  # kernel/audit.c
    "enabled": "0",
    "failure": "1",
    "rate_limit": "0",
    "backlog_limit": "64",
    "backlog_wait_time": "15000",
}


def missing() -> str | None:
    """Return why tests of the real kernel can't run here, as text; None if they can."""
    if os.geteuid() != 0:
        return "needs root"
    if os.readlink("/proc/self/ns/pid") != _INITIAL_PID_NAMESPACE:
        return "needs the host's initial pid namespace"
    try:
        asked = subprocess.run(["auditctl", "-s"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "needs auditctl, of the Debian package auditd"
    if asked.returncode:
        return f"needs the kernel's audit: {asked.stderr.strip() or 'not available'}"
    if "enabled 2" in asked.stdout:
        return "needs rules that can be changed: audit is locked until the next boot"
    return None


@contextmanager
def lock() -> Iterator[None]:
    """Hold the lock of this machine for using audit or creating heavy load."""
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def auditctl(*arguments: str) -> str:
    """Run auditctl and return its output; raises CalledProcessError if it fails."""
    return subprocess.run(
        ["auditctl", *arguments], capture_output=True, text=True, check=True
    ).stdout


def send_user_message(kind: int, text: bytes) -> None:
    """Send a user record, such as 1107 or 2100 to 2999; it is returned among the records."""
    payload = text + b"\0"
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(payload), kind, 5, 1, 0) + payload)
        (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    assert error == 0, os.strerror(-error)


@dataclass(frozen=True, slots=True)
class AuditState:
    """The audit state that a program must restore: status and rules, by auditctl."""

    status: dict[str, str]
    rules: tuple[str, ...]

    @classmethod
    def read(cls) -> AuditState:
        """Read the kernel's current state."""
        status = dict(line.split(" ", 1) for line in auditctl("-s").splitlines() if " " in line)
        for counter in ("lost", "backlog", "backlog_wait_time_actual"):
            status.pop(counter, None)
        rules = tuple(line for line in auditctl("-l").splitlines() if line != "No rules")
        return cls(status, rules)

    @property
    def owner(self) -> int:
        """The pid of the audit daemon; 0 for none."""
        return int(self.status["pid"])

    def restore(self) -> None:
        """Restore this state in the kernel; an owner disappears when its socket is closed."""
        now = AuditState.read()
        if now.rules != self.rules:
            auditctl("-D")
            for rule in self.rules:
                auditctl(*rule.split())
        for name, option in _SETTINGS.items():
            if now.status.get(name) != self.status.get(name):
                auditctl(option, self.status[name])


@contextmanager
def after_boot() -> Iterator[AuditState]:
    """Set audit to its state after a boot, and restore the found state at the end.

    Earlier activity on this machine must not affect the tests: remaining rules, enabled
    auditing. Skips the test if another program is the audit daemon.
    """
    found = AuditState.read()
    if found.owner:
        pytest.skip(f"needs the audit socket, which process {found.owner} owns")
    clean = AuditState({**found.status, **_AFTER_BOOT}, ())
    clean.restore()
    try:
        yield clean
    finally:
        found.restore()


def kernel_lost() -> int:
    """Return the number of records that the kernel has lost since the boot or a reset."""
    status = dict(line.split(" ", 1) for line in auditctl("-s").splitlines() if " " in line)
    return int(status["lost"])
