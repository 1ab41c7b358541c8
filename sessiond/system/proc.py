"""Capabilities, namespaces and memory of this process, read from procfs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.text import printable

PROC: Final = Path("/proc")

# Numbers of linux/capability.h, as far as they are used.
CAPABILITIES: Final = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_AUDIT_CONTROL": 30,
    "CAP_AUDIT_READ": 37,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}

# Inode numbers of the kernel's initial namespaces (linux/proc_ns.h); the network namespace has a
# fixed number only since Linux 6.18, so it is compared with kthreadd's instead.
_INITIAL: Final = {"pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}


class Namespaces(NamedTuple):
    """Whether this process is in the host's initial namespaces; None if unknown."""

    pid: bool | None
    user: bool | None
    network: bool | None


def effective_capabilities(proc: Path = PROC) -> int | None:
    """Return the effective set of this process, bit n for capability n; None if it can't be read.

    Source: CapEff in proc_pid_status(5).
    """
    try:
        for line in (proc / "self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    except (OSError, ValueError, IndexError):
        pass
    return None


def has_capability(capability: str, proc: Path = PROC) -> bool:
    """Return whether ``capability`` (a name in CAPABILITIES) is effective in this process."""
    return bool((effective_capabilities(proc) or 0) >> CAPABILITIES[capability] & 1)


def resident_bytes(proc: Path = PROC) -> int | None:
    """Return the resident memory of this process in bytes (proc_pid_statm(5)); None if unknown."""
    try:
        return int((proc / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def namespaces(proc: Path = PROC) -> Namespaces:
    """Return which of the host's initial namespaces this process is in.

    The initial network namespace is that of the kernel thread kthreadd, which never leaves it:
    seeing kthreadd requires the initial pid namespace, reading its link CAP_SYS_PTRACE.
    """
    return Namespaces(_initial(proc, "pid"), _initial(proc, "user"), _initial_network(proc))


def _initial(proc: Path, kind: str) -> bool | None:
    inode = namespace(proc / "self/ns" / kind)
    return None if inode is None else inode == _INITIAL[kind]


def _initial_network(proc: Path) -> bool | None:
    own = namespace(proc / "self/ns/net")
    try:
        kernel_thread = (proc / "2/comm").read_text().strip() == "kthreadd"
    except OSError:
        return None
    initial = namespace(proc / "2/ns/net") if kernel_thread else None
    return None if own is None or initial is None else own == initial


def process_name(pid: int, proc: Path = PROC) -> str | None:
    """Return the comm of a process, printable; None if it doesn't exist."""
    try:
        raw = (proc / str(pid) / "comm").read_bytes()
    except OSError:
        return None
    return printable(raw.decode("ascii", "backslashreplace").strip())


def namespace(link: Path) -> int | None:
    """Return the inode number of the namespace that ``link`` leads to; None if it can't be read."""
    try:
        return parse_namespace(os.fsencode(link.readlink()))
    except OSError:
        return None


def parse_namespace(link: bytes) -> int | None:
    """Return the inode number in a link like "pid:[4026531836]"; None for an invalid one."""
    number = link[link.find(b"[") + 1 : -1]
    return int(number) if number.isdigit() else None
