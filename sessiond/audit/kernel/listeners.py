"""Lists the processes that read audit records by multicast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.system.netlink import NETLINK_AUDIT
from sessiond.system.proc import PROC, process_name

_READLOG: Final = 0x1  # bit of the group AUDIT_NLGRP_READLOG


class Listener(NamedTuple):
    """A socket in the audit multicast group, and the visible processes that hold it."""

    inode: int
    drops: int  # records it lost because it read too slowly
    holders: tuple[tuple[int, str], ...]  # (pid, comm)


def listeners(proc: Path = PROC) -> list[Listener] | None:
    """Return the sockets in the audit multicast group of this network namespace.

    None when PROC/net/netlink can't be read. Source: net/netlink/af_netlink.c,
    netlink_native_seq_show. Holders are found by their descriptors, as far as those may be read.
    """
    try:
        lines = (proc / "net/netlink").read_text().splitlines()[1:]
    except OSError:
        return None
    found = []
    for line in lines:
        _, protocol, _, groups, _, _, _, _, drops, inode = line.split()
        if int(protocol) == NETLINK_AUDIT and int(groups, 16) & _READLOG:
            found.append((int(inode), int(drops)))
    holders = _holders({inode for inode, _ in found}, proc) if found else {}
    return [Listener(inode, drops, tuple(holders.get(inode, ()))) for inode, drops in found]


def _holders(inodes: set[int], proc: Path) -> dict[int, list[tuple[int, str]]]:
    """Find the processes that have these sockets open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    holders: dict[int, list[tuple[int, str]]] = {}
    for process in proc.glob("[0-9]*"):
        for inode in {wanted[target] for target in _descriptors(process) if target in wanted}:
            pid = int(process.name)
            holders.setdefault(inode, []).append((pid, process_name(pid, proc) or "?"))
    return holders


def _descriptors(process: Path) -> Iterator[str]:
    """Yield the targets of a process's descriptors, as far as they are readable."""
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        try:
            yield str(descriptor.readlink())
        except OSError:
            continue  # it has just been closed
