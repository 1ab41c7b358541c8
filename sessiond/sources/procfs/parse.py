"""Parses the files of /proc (proc(5)); no I/O."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from sessiond.process import container
from sessiond.process.events import DELETED

_LISTEN: Final = b"0A"
_ESTABLISHED: Final = b"01"  # TCP_ESTABLISHED of net/tcp_states.h


class Stat(NamedTuple):
    """The members of /proc/PID/stat that are used here; ``start`` is in clock ticks since boot.

    ``start_code`` and ``args_start`` change with each exec; both, and ``args_end``, are 0 if
    the reader may not ptrace the process.
    """

    pid: int
    comm: bytes
    state: bytes
    ppid: int
    pgid: int
    sid: int
    tty_major: int
    tty_minor: int
    flags: int
    threads: int
    start: int
    start_code: int
    args_start: int
    args_end: int

    @property
    def is_zombie(self) -> bool:
        """Whether the whole process has ended, not only its first thread."""
        return self.state in (b"Z", b"X") and self.threads <= 1

    def is_same_program(self, other: Stat) -> bool:
        """Whether no exec happened between the two, as far as the memory shows it."""
        return self.start_code == other.start_code and self.args_start == other.args_start

    def shows_the_same(self, other: Stat) -> bool:
        """Whether all reported values are equal, apart from running or waiting."""
        return self.is_zombie == other.is_zombie and self == other._replace(
            state=self.state, threads=self.threads, flags=self.flags
        )


class ProcStatus(NamedTuple):
    """The members of /proc/PID/status that are used here: ids as real, effective, saved, fs."""

    tgid: int
    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    groups: tuple[int, ...]
    vpid: int | None
    cap_permitted: int | None
    cap_effective: int | None


def parse_stat(data: bytes) -> Stat:
    """Parse /proc/PID/stat. Raises ValueError for invalid data.

    comm may contain anything, also ") R 1 1" or a newline: the last parenthesis ends it.
    """
    before, found, after = data.rpartition(b") ")
    pid, opened, comm = before.partition(b" (")
    fields = after.split()
    if not found or not opened or len(fields) < 47:
        raise ValueError("not a stat of a process")
    # Fields count from 3, the state, as proc(5) numbers them; int takes blanks and signs.
    (major, minor) = split_device(int(fields[4]))
    return Stat(
        pid=int(pid),
        comm=comm,
        state=fields[0],
        ppid=int(fields[1]),
        pgid=int(fields[2]),
        sid=int(fields[3]),
        tty_major=major,
        tty_minor=minor,
        flags=int(fields[6]),
        threads=int(fields[17]),
        start=int(fields[19]),
        start_code=int(fields[23]),
        args_start=int(fields[45]),
        args_end=int(fields[46]),
    )


def split_device(number: int) -> tuple[int, int]:
    """Split a device number as the kernel encodes it for user space (new_encode_dev): major, minor.

    stat prints it signed.
    """
    number &= 0xFFFFFFFF
    return number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00


# The name, the only member that a process controls, comes first, with newlines escaped.
_STATUS: Final = re.compile(
    rb"\nTgid:\t(?P<tgid>\d+)\n"
    rb".*?\nUid:\t(?P<uids>\d+\t\d+\t\d+\t\d+)\n"
    rb"Gid:\t(?P<gids>\d+\t\d+\t\d+\t\d+)\n"
    rb"(?:.*?\nGroups:\t(?P<groups>[\d ]*)\n)?"
    rb"(?:.*?\nNSpid:\t(?P<pids>[\d\t]+)\n)?"
    rb"(?:.*?\nCapPrm:\t(?P<permitted>[0-9a-f]+)\n)?"
    rb"(?:CapEff:\t(?P<effective>[0-9a-f]+)\n)?",
    re.DOTALL,
)


def parse_status(data: bytes) -> ProcStatus:
    """Parse /proc/PID/status. Raises ValueError for invalid data."""
    found = _STATUS.search(data)
    if found is None:
        raise ValueError("not a status of a process")
    tgid, uids, gids, groups, pids, permitted, effective = found.groups()
    return ProcStatus(
        tgid=int(tgid),
        uids=_four(uids),
        gids=_four(gids),
        groups=tuple(map(int, groups.split())) if groups else (),
        # From the reader's namespace to the process's own.
        vpid=int(pids.split()[-1]) if pids and not pids.isspace() else None,
        cap_permitted=int(permitted, 16) if permitted else None,
        cap_effective=int(effective, 16) if effective else None,
    )


def _four(text: bytes) -> tuple[int, int, int, int]:
    real, effective, saved, filesystem = map(int, text.split(b"\t"))
    return real, effective, saved, filesystem


def parse_args(data: bytes) -> bytes:
    """Return the argv of /proc/PID/cmdline, joined, each argument with its NUL.

    The kernel shows the memory of the argv at exec, which the process can overwrite.
    setproctitle(3) leaves one text, and NULs up to the old argv's end: a first argument with a
    blank, followed only by empty ones, is treated as a title. Other changes look like an argv; the
    eBPF programs read it at exec, before the process can change it.
    """
    first, nul, rest = data.partition(b"\0")
    if b" " in first and not rest.strip(b"\0"):
        return first + b"\0"
    return data if nul or not data else data + b"\0"


def parse_cgroup(data: bytes) -> bytes | None:
    """Return the most informative path of /proc/PID/cgroup (cgroups(7)); None without any.

    With version 1, a process has a path in each hierarchy. The first one that names a container is
    used; else the first one that is not the root, in the order version 2, systemd, others.
    """
    ranked: list[tuple[int, bytes]] = []
    for line in data.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, found, path = rest.partition(b":")
        if found and path.startswith(b"/"):
            rank = 0 if number == b"0" else 1 if controllers == b"name=systemd" else 2
            # The suffix of a removed cgroup; a cgroup with such a name gains nothing.
            ranked.append((rank, path.removesuffix(DELETED)))
    if not ranked:
        return None
    ranked.sort(key=lambda each: each[0])
    paths = [path for _, path in ranked]
    for path in paths:
        if path != b"/" and container.identify(path) is not None:
            return path
    return next((path for path in paths if path != b"/"), b"/")


def parse_variable(environment: bytes, name: bytes) -> bytes | None:
    """Return the value of a variable in /proc/PID/environ: the first one, like getenv(3)."""
    found = (b"\0" + environment).partition(b"\0%b=" % name)
    return found[2].partition(b"\0")[0] if found[1] else None


class TcpTable(NamedTuple):
    """The connections of a network namespace, and the ports on which root listens.

    A connection, by the inode of its socket, is written as in SSH_CONNECTION: the other side's
    address and port, then our own.
    """

    connections: dict[int, bytes]
    root_ports: frozenset[bytes]

    def accepted(self, inodes: Iterable[int]) -> bytes | None:
        """Return the client's connection among a server's sockets, in descriptor order.

        A login server also holds connections that it opened for its users (forwards). The client's
        connection uses a port on which root listens; without such a one, the first one counts.
        """
        held = [self.connections[inode] for inode in inodes if inode in self.connections]
        came_in = [ends for ends in held if ends.rpartition(b" ")[2] in self.root_ports]
        return next(iter(came_in or held), None)


def parse_tcp(*tables: bytes) -> TcpTable:
    """Parse /proc/net/tcp and tcp6 (proc_net_tcp.rst); invalid lines are skipped."""
    connections = {}
    ports = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            words = line.split()
            if len(words) < 10:
                continue
            with contextlib.suppress(ValueError):
                if words[3] == _ESTABLISHED:
                    ends = _address(words[2]) + b" " + _address(words[1])
                    connections[int(words[9])] = ends
                elif words[3] == _LISTEN and words[7] == b"0":
                    ports.add(_address(words[1]).rpartition(b" ")[2])
    return TcpTable(connections, frozenset(ports))


def _address(end: bytes) -> bytes:
    """Parse "0100007F:1F90": 32-bit words, each in this machine's byte order, and a port."""
    address, _, port = end.decode("ascii").partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return f"{ipaddress.ip_address(packed)} {int(port, 16)}".encode()
