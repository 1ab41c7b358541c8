"""What procfs tells of a process (proc(5)): parsed in some functions, read in others.

Everything is read through one descriptor of the process's directory. It belongs to that process
and to no later one with the same pid, so what comes together here was never two processes; and
``stat`` is read first and last, so it was never two programs of one process either.

"Gone" is an answer (None), and so is "denied": what may not be read is None and counted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.process import container
from sessiond.process.events import Facts, Observed, Program

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_TICK: Final = 1_000_000_000 // TICKS_PER_SECOND

# include/linux/sched.h
_PF_KTHREAD: Final = 0x00200000

# A look-up reads at most so much of an argv or of an environment.
_ARGS_LIMIT: Final = 128 * 1024
_ENVIRONMENT_LIMIT: Final = 256 * 1024

# How often a process is read again that executes one program after the other meanwhile.
_ATTEMPTS: Final = 3

_DELETED: Final = b" (deleted)"
_ESTABLISHED: Final = b"01"  # TCP_ESTABLISHED of net/tcp_states.h
_SSHD: Final = (b"sshd", b"sshd-session", b"sshd-auth")


class Stat(NamedTuple):
    """The members of /proc/PID/stat that are used here; ``start`` is in clock ticks since boot.

    ``start_code`` and ``args_start`` change with each exec; both, and ``args_end``, are 0 where
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
        """Whether all of the process has ended, not just the thread that was its first."""
        return self.state in (b"Z", b"X") and self.threads <= 1

    def shows_the_same(self, other: Stat) -> bool:
        """Whether nothing has changed that is told of a process: running or waiting isn't."""
        return self.is_zombie == other.is_zombie and self == other._replace(
            state=self.state, threads=self.threads, flags=self.flags
        )


class Status(NamedTuple):
    """The members of /proc/PID/status that are used here: ids as real, effective, saved, fs."""

    tgid: int
    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    groups: tuple[int, ...]
    vpid: int | None
    cap_permitted: int | None
    cap_effective: int | None


def parse_stat(data: bytes) -> Stat:
    """Parse /proc/PID/stat. Raises ValueError on what isn't one.

    comm may hold anything, also ") R 1 1" or a newline: the last parenthesis ends it.
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


# The name, the one member that a process chooses, comes first, with its newlines escaped.
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


def parse_status(data: bytes) -> Status:
    """Parse /proc/PID/status. Raises ValueError on what isn't one."""
    found = _STATUS.search(data)
    if found is None:
        raise ValueError("not a status of a process")
    tgid, uids, gids, groups, pids, permitted, effective = found.groups()
    return Status(
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


def parse_args(data: bytes) -> tuple[bytes, ...]:
    """Split /proc/PID/cmdline into the arguments, empty ones too.

    The kernel shows the memory where the argv lay at exec, and a process may write there.
    setproctitle(3) leaves one text, and NULs up to the old argv's end: a first argument with a
    blank and nothing but empty ones after it is taken for a title. What else was rewritten can't be
    told from an argv; with eBPF it is taken at exec, before the process can.
    """
    if not data:
        return ()
    args = data.removesuffix(b"\0").split(b"\0")
    if b" " in args[0] and not any(args[1:]):
        del args[1:]
    return tuple(args)


def parse_cgroup(data: bytes) -> bytes | None:
    """Choose from /proc/PID/cgroup (cgroups(7)) the path that tells most; None if there is none.

    With version 1, a process has a path in each hierarchy. The first that names a container is
    taken; else the first that isn't the root, version 2's before systemd's before the others'.
    """
    ranked: list[tuple[int, bytes]] = []
    for line in data.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, found, path = rest.partition(b":")
        if found and path.startswith(b"/"):
            rank = 0 if number == b"0" else 1 if controllers == b"name=systemd" else 2
            # Of a removed cgroup; who names a cgroup so itself gains nothing by it.
            ranked.append((rank, path.removesuffix(_DELETED)))
    if not ranked:
        return None
    ranked.sort(key=lambda each: each[0])
    paths = [path for _, path in ranked]
    for path in paths:
        if path != b"/" and container.identify(path) is not None:
            return path
    return next((path for path in paths if path != b"/"), b"/")


def parse_connection(environment: bytes) -> bytes | None:
    """Find SSH_CONNECTION in /proc/PID/environ: the first, as getenv(3) does."""
    found = (b"\0" + environment).partition(b"\0SSH_CONNECTION=")
    return found[2].partition(b"\0")[0] if found[1] else None


def parse_tcp(table: bytes) -> dict[int, bytes]:
    """Find the established connections in /proc/net/tcp or tcp6 (proc_net_tcp.rst), by inode.

    Each is written as in SSH_CONNECTION: the other side's address and port, then our own.
    """
    found = {}
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == _ESTABLISHED:
            with contextlib.suppress(ValueError):
                ends = _address(words[2]) + b" " + _address(words[1])
                found[int(words[9])] = ends
    return found


def _address(end: bytes) -> bytes:
    """Read "0100007F:1F90": words of 32 bits, each in the order of this machine, and a port."""
    address, _, port = end.decode("ascii").partition(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return f"{ipaddress.ip_address(packed)} {int(port, 16)}".encode()


def parse_namespace(link: bytes) -> int | None:
    """Take the inode number from a link like "pid:[4026531836]"; None if it isn't one."""
    number = link[link.find(b"[") + 1 : -1]
    return int(number) if number.isdigit() else None


def now() -> int:
    """The time since boot, suspended or not, in ns: the clock of all process events."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id(root: Path = Path("/proc")) -> str:
    """The random id of this boot (random(4)). Raises OSError where /proc/sys isn't there."""
    return (root / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class _GoneError(Exception):
    """The process ended while it was being read."""


class Procfs:
    """The processes in a procfs mounted at ``root``.

    ``denied`` counts the reads that the system refused, ``malformed`` what could not be parsed.
    ``args_limit`` is how many bytes of an argv are read.
    """

    def __init__(self, root: Path = Path("/proc"), *, args_limit: int = _ARGS_LIMIT) -> None:
        """Open nothing yet."""
        self._root = os.fsencode(root)
        self._args_limit = args_limit
        self.denied = 0
        self.malformed = 0

    def pids(self) -> list[int]:
        """The pids of all processes, zombies too; threads have no entry in the listing."""
        return [int(entry) for entry in os.listdir(self._root) if entry.isdigit()]  # noqa: PTH208

    def snapshot(self) -> list[Observed]:
        """Every process that is there; not the zombies, whose end has been told already."""
        seen = (self._observe(pid, zombies=False) for pid in self.pids())
        return [observed for observed in seen if observed is not None]

    def look_up(self, pid: int) -> Observed | None:
        """The process that has the pid; None if there is none, or if it is a thread's.

        A zombie is found: of its program nothing but comm is left.
        """
        return self._observe(pid, zombies=True)

    def connections(self, pids: Iterable[int]) -> dict[int, bytes]:
        """The TCP connection that each of these processes holds; not those that hold none.

        As in SSH_CONNECTION, see ``parse_tcp``. A process that is gone holds none.
        """
        tables: dict[Path, dict[int, bytes]] = {}  # by network namespace
        found = {}
        for pid in pids:
            process = Path(os.fsdecode(self._root), str(pid))
            try:
                namespace = (process / "ns/net").readlink()
                inodes = set(_sockets(process / "fd"))
                if namespace not in tables:
                    read = [path.read_bytes() for path in process.glob("net/tcp*")]
                    tables[namespace] = {
                        k: v for table in read for k, v in parse_tcp(table).items()
                    }
            except PermissionError:
                self.denied += 1
                continue
            except OSError:
                continue
            held = inodes & tables[namespace].keys()
            if held:
                found[pid] = tables[namespace][held.pop()]
        return found

    def _observe(self, pid: int, *, zombies: bool) -> Observed | None:
        try:
            directory = os.open(
                b"%b/%d" % (self._root, pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            )
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:
            self.denied += 1
            return None
        try:
            before = self._stat(directory)
            for _ in range(_ATTEMPTS):
                if before is None or (before.is_zombie and not zombies):
                    return None
                observed = self._read(directory, before)
                after = self._stat(directory)
                settled = after is not None and after.shows_the_same(before)
                if settled and not _is_in_exec(before, observed):
                    return observed
                before = after
            # It changes faster than it can be read: the last reading, with the newest stat.
            return None if before is None else self._read(directory, before)
        except _GoneError:
            return None
        except ValueError:
            self.malformed += 1
            return None
        finally:
            os.close(directory)

    def _stat(self, directory: int) -> Stat | None:
        data = self._file(directory, b"stat")
        return None if data is None else parse_stat(data)

    def _read(self, directory: int, stat: Stat) -> Observed | None:
        text = self._file(directory, b"status")
        if text is None:
            return None
        status = parse_status(text)
        if status.tgid != stat.pid:
            return None  # a thread: it has a directory, but isn't listed
        kernel_thread = bool(stat.flags & _PF_KTHREAD)
        executable: bytes | None = None
        deleted = False
        args: tuple[bytes, ...] | None = None
        size: int | None = None
        directory_now: bytes | None = None
        if not kernel_thread and not stat.is_zombie:
            executable, deleted = self._path(directory, b"exe")
            args, size = self._args(directory, stat)
            directory_now, _ = self._path(directory, b"cwd")
        parent = self._parent(stat)
        connection = None
        if (
            parent is not None
            and parent.comm in _SSHD
            and stat.sid == stat.pid
            and stat.comm not in _SSHD
        ):
            environment = self._file(directory, b"environ", _ENVIRONMENT_LIMIT)
            connection = parse_connection(environment or b"")
        cgroup = self._file(directory, b"cgroup")
        return Observed(
            time=now(),
            facts=Facts(
                pid=stat.pid,
                start=stat.start * _TICK,
                ppid=stat.ppid,
                parent_start=parent.start * _TICK if parent is not None else None,
                pgid=stat.pgid,
                sid=stat.sid,
                vpid=status.vpid,
                tty_major=stat.tty_major,
                tty_minor=stat.tty_minor,
                uid=status.uids[0],
                euid=status.uids[1],
                suid=status.uids[2],
                fsuid=status.uids[3],
                gid=status.gids[0],
                egid=status.gids[1],
                sgid=status.gids[2],
                fsgid=status.gids[3],
                cap_permitted=status.cap_permitted,
                cap_effective=status.cap_effective,
                loginuid=self._number(directory, b"loginuid"),
                audit_session=self._number(directory, b"sessionid"),
                pid_namespace=self._namespace(directory, b"ns/pid"),
                mount_namespace=self._namespace(directory, b"ns/mnt"),
                user_namespace=self._namespace(directory, b"ns/user"),
                network_namespace=self._namespace(directory, b"ns/net"),
                # Which hierarchy's id a source tells, is its own affair: here the path is known.
                cgroup_id=None,
                kernel_thread=kernel_thread,
            ),
            program=Program(stat.comm, executable, args, size, deleted=deleted),
            working_directory=directory_now,
            cgroup=parse_cgroup(cgroup) if cgroup is not None else None,
            supplementary_groups=status.groups,
            connection=connection,
        )

    def _parent(self, stat: Stat) -> Stat | None:
        """The parent. It is the right one if the process still has this ppid afterwards."""
        if stat.ppid == 0:
            return None
        try:
            descriptor = os.open(
                b"%b/%d/stat" % (self._root, stat.ppid), os.O_RDONLY | os.O_CLOEXEC
            )
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError:
            self.denied += 1
            return None
        try:
            return parse_stat(_whole(descriptor, None))
        except ProcessLookupError:
            return None
        finally:
            os.close(descriptor)

    def _args(self, directory: int, stat: Stat) -> tuple[tuple[bytes, ...] | None, int | None]:
        """The arguments, and how many bytes they are in all."""
        data = self._file(directory, b"cmdline", self._args_limit + 1)
        if data is None:
            return None, None
        if not data and stat.args_end == 0:
            return None, None  # its first thread has ended, and with it its view of the memory
        if len(data) <= self._args_limit:
            return parse_args(data), len(data)
        size = stat.args_end - stat.args_start
        return parse_args(data[: self._args_limit]), max(size, len(data))

    def _path(self, directory: int, link: bytes) -> tuple[bytes | None, bool]:
        """Where a link of the process leads, without the kernel's " (deleted)", and if it is."""
        path = self._link(directory, link)
        if path is None or not path.endswith(_DELETED):
            return path, False
        # A file can be called so. If it is, it is there by this name, in the process's own root.
        try:
            its_own = os.stat(link, dir_fd=directory)
            if its_own.st_nlink and os.path.samestat(
                its_own, os.stat(b"root" + path, dir_fd=directory)
            ):
                return path, False
        except PermissionError:
            self.denied += 1
        except OSError:
            pass  # by this name, nothing is there
        return path.removesuffix(_DELETED), True

    def _namespace(self, directory: int, link: bytes) -> int | None:
        target = self._link(directory, link)
        return parse_namespace(target) if target is not None else None

    def _number(self, directory: int, name: bytes) -> int | None:
        data = self._file(directory, name)
        return int(data) if data and data.isdigit() else None

    def _link(self, directory: int, name: bytes) -> bytes | None:
        try:
            return os.readlink(name, dir_fd=directory)
        except PermissionError:
            self.denied += 1
        except OSError:
            # Gone, which the last look at stat will find out, or a process without it: a zombie, a
            # kernel without that namespace, a path longer than a page.
            pass
        return None

    def _file(self, directory: int, name: bytes, limit: int | None = None) -> bytes | None:
        """The content; None where it is denied, or where the kernel hasn't got such a file."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
            try:
                return _whole(descriptor, limit)
            finally:
                os.close(descriptor)
        except ProcessLookupError:
            raise _GoneError from None
        except FileNotFoundError:
            if name == b"stat":
                raise _GoneError from None
            return None
        except OSError:
            self.denied += 1
            return None


def _is_in_exec(stat: Stat, observed: Observed | None) -> bool:
    """Tell whether a process is between two programs: it has the new one, and no argv yet."""
    return observed is not None and observed.program.executable is not None and stat.args_end == 0


def _sockets(directory: Path) -> Iterator[int]:
    """The inodes of the sockets among a process's descriptors."""
    for link in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            leads = os.fsencode(link.readlink())
            inode = parse_namespace(leads) if leads.startswith(b"socket:[") else None
            if inode is not None:
                yield inode


def _whole(descriptor: int, limit: int | None) -> bytes:
    """Read up to the end, or to the limit."""
    size = 8192 if limit is None else limit
    data = os.read(descriptor, size)
    # procfs gives short reads only at the end, but for memory, page by page.
    if len(data) < size and limit is None:
        return data
    parts = [data]
    while data and (limit is None or sum(map(len, parts)) < limit):
        data = os.read(descriptor, size)
        parts.append(data)
    return b"".join(parts)[:limit]
