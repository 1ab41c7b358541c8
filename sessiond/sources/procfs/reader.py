"""Reads the attributes of a process from procfs (proc(5)).

Everything is read through one descriptor of the process's directory. It belongs to that process and
to no later one with the same pid, so the values never mix two processes. ``stat`` is read first and
last, so they never mix two programs of a process either.

An ended process is returned as None; values that may not be read are None and counted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_IWGRP, S_IWOTH
from typing import Final

from sessiond.process.entry import (
    FIRST_SERIAL,
    LOGIN_SERVERS,
    PTS_MAJORS,
    TTY_MAJOR,
    LoginServer,
    login_server,
)
from sessiond.process.events import DELETED, Facts, Login, Observed, Program
from sessiond.sources.procfs.logins import LoginRecords
from sessiond.sources.procfs.parse import (
    Stat,
    TcpTable,
    parse_args,
    parse_cgroup,
    parse_stat,
    parse_status,
    parse_tcp,
    parse_variable,
)
from sessiond.system.clock import now
from sessiond.system.proc import parse_namespace
from sessiond.units import TICK, UNSET_ID

# include/linux/sched.h
_PF_KTHREAD: Final = 0x00200000
_INIT: Final = 1  # the parent of processes whose own parent has ended

# Maximum number of bytes read of an argv or an environment.
MAX_ARGS: Final = 8 * 1024
_ENVIRONMENT_LIMIT: Final = 256 * 1024
# Bytes of an argv in which arguments are counted: the kernel's default limit is 2 MiB.
_MAX_COUNTED: Final = 4 << 20

# Maximum number of attempts for a process that keeps executing programs.
_ATTEMPTS: Final = 3


# Maximum number of a login server's descriptors examined; its user can make it open many more.
MAX_DESCRIPTORS: Final = 32


class _GoneError(Exception):
    """The process ended while it was being read."""


class Procfs:
    """The processes in a procfs mounted at ``root``.

    ``denied`` counts refused reads, ``malformed`` unparsable data. ``args_limit`` is the maximum
    number of bytes read of an argv; without ``memory`` nothing is read that can block the reader:
    arguments, environment, the executable's file, wtmp. ``logins`` are the host's login records.
    """

    def __init__(
        self,
        root: Path = Path("/proc"),
        *,
        args_limit: int = MAX_ARGS,
        memory: bool = True,
        logins: LoginRecords | None = None,
    ) -> None:
        """Take the options; nothing is opened yet."""
        self._root = os.fsencode(root)
        self._logins = logins or LoginRecords()
        self._args_limit = args_limit
        self._memory = memory
        self.denied = 0
        self.malformed = 0

    def pids(self) -> list[int]:
        """Return the pids of all processes, also zombies; the listing has no threads."""
        return [int(entry) for entry in os.listdir(self._root) if entry.isdigit()]  # noqa: PTH208

    def snapshot(self) -> list[Observed]:
        """Return every process except zombies, whose ends have been reported."""
        seen = (self.observe(pid, zombies=False) for pid in self.pids())
        return [observed for observed in seen if observed is not None]

    def lookup(self, pid: int) -> Observed | None:
        """Return the process with the pid; None if there is none, or for a thread's id.

        A zombie is found too; only comm remains of its program.
        """
        return self.observe(pid, zombies=True)

    def lookup_all(self, pids: list[int]) -> list[Observed | None]:
        """Return the process of each pid, as by ``lookup``."""
        return [self.observe(pid, zombies=True) for pid in pids]

    def connections(self, pids: Iterable[int]) -> dict[int, bytes]:
        """Return the client of each of these login server processes that has one.

        The format is that of SSH_CONNECTION, see ``TcpTable``. Only the first descriptors are
        examined: a server has its client's socket among them.
        """
        tables: dict[Path, TcpTable] = {}  # by network namespace
        found = {}
        for pid in pids:
            process = Path(os.fsdecode(self._root), str(pid))
            try:
                namespace = (process / "ns/net").readlink()
                inodes = list(_sockets(process / "fd"))
                if namespace not in tables:
                    read = [path.read_bytes() for path in process.glob("net/tcp*")]
                    tables[namespace] = parse_tcp(*read)
            except PermissionError:
                self.denied += 1
                continue
            except OSError:
                continue
            accepted = tables[namespace].accepted(inodes)
            if accepted is not None:
                found[pid] = accepted
        return found

    def observe(self, pid: int, *, zombies: bool) -> Observed | None:
        """Return the process with the pid, unless it is a zombie and ``zombies`` is False."""
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
            observed: Observed | None = None
            executed = False
            before = self._stat(directory)
            for _ in range(_ATTEMPTS):
                if before is None or (before.is_zombie and not zombies):
                    return None
                observed = self._read(directory, before)
                after = self._stat(directory)
                settled = after is not None and after.shows_the_same(before)
                if settled and not _is_in_exec(before, observed):
                    return observed
                executed = after is None or not after.is_same_program(before)
                before = after
            # It changes faster than it can be read. The argv may be that of another program.
            return _without_args(observed) if executed and observed is not None else observed
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
            return None  # a thread: it has a directory, but is not listed
        kernel_thread = bool(stat.flags & _PF_KTHREAD)
        executable: bytes | None = None
        deleted = False
        owner: int | None = None
        args: bytes | None = None
        size: int | None = None
        count: int | None = None
        directory_now: bytes | None = None
        if not kernel_thread and not stat.is_zombie:
            executable, deleted = self._path(directory, b"exe")
            owner = self._owner(directory) if executable is not None else None
            args, size, count = self._args(directory, stat)
            directory_now, _ = self._path(directory, b"cwd")
        parent = self._parent(stat)
        connection = self._connection(directory, stat, parent) if not kernel_thread else None
        cgroup_file = self._file(directory, b"cgroup")
        cgroup = parse_cgroup(cgroup_file) if cgroup_file is not None else None
        audit_session = self._number(directory, b"sessionid")
        login = self._login(stat, audit_session, cgroup) if not kernel_thread else None
        return Observed(
            time=now(),
            facts=Facts(
                pid=stat.pid,
                start=stat.start * TICK,
                ppid=stat.ppid,
                parent_start=parent.start * TICK if parent is not None else None,
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
                audit_session=audit_session,
                pid_namespace=self._namespace(directory, b"ns/pid"),
                mount_namespace=self._namespace(directory, b"ns/mnt"),
                user_namespace=self._namespace(directory, b"ns/user"),
                network_namespace=self._namespace(directory, b"ns/net"),
                # The id is source-specific; here the path itself is known.
                cgroup_id=None,
                kernel_thread=kernel_thread,
            ),
            program=Program(
                stat.comm, executable, args, size, deleted=deleted, owner=owner, args_count=count
            ),
            working_directory=directory_now,
            cgroup=cgroup,
            supplementary_groups=status.groups,
            connection=connection,
            login=login,
        )

    def _connection(self, directory: int, stat: Stat, parent: Stat | None) -> bytes | None:
        """Return the client of a login from the process's environment.

        It is read only for a login server's child or an orphan. The server's own processes have the
        environment of the process that started the server.
        """
        if login_server(stat.comm) is not None:
            return None
        server = login_server(parent.comm) if parent is not None else None
        if server is not None and stat.sid == stat.pid:
            servers: tuple[LoginServer, ...] = (server,)
        elif stat.ppid == _INIT:
            servers = LOGIN_SERVERS
        else:
            return None
        environment = self._environment(directory) or b""
        found = (parse_variable(environment, server.variable) for server in servers)
        return next((connection for connection in found if connection), None)

    def _login(self, stat: Stat, audit_session: int | None, cgroup: bytes | None) -> Login | None:
        """Return the recorded login of a process whose parent is init, as the login may be over."""
        if stat.ppid != _INIT:
            return None
        login = self._logins.of_session(audit_session, cgroup)
        if login is not None or not self._memory:
            return login
        line = None
        if stat.tty_major in PTS_MAJORS:
            line = b"pts/%d" % (stat.tty_minor + (stat.tty_major - PTS_MAJORS.start) * 256)
        elif stat.tty_major == TTY_MAJOR:
            line = b"tty%d" % stat.tty_minor if stat.tty_minor < FIRST_SERIAL else None
        pids = (stat.pid, stat.sid, stat.pgid)
        return self._logins.of_terminal(pids, line, stat.start * TICK)

    def _environment(self, directory: int) -> bytes | None:
        if not self._memory:
            return None
        return self._file(directory, b"environ", _ENVIRONMENT_LIMIT)

    def _parent(self, stat: Stat) -> Stat | None:
        """Return the parent, which is valid if the process still has this ppid afterwards."""
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

    def _args(self, directory: int, stat: Stat) -> tuple[bytes | None, int | None, int | None]:
        """Return the arguments, their total size in bytes, and their number."""
        if not self._memory:
            return None, None, None
        data = self._file(directory, b"cmdline", self._args_limit + 1)
        if data is None:
            return None, None, None
        if not data and stat.args_end == 0:
            # Its first thread has ended, so that its memory is inaccessible.
            return None, None, None
        if len(data) <= self._args_limit:
            args = parse_args(data)
            return args, len(args), None
        size = stat.args_end - stat.args_start
        whole = self._file(directory, b"cmdline", _MAX_COUNTED + 1) or b""
        count = whole.count(b"\0") if len(data) <= len(whole) <= _MAX_COUNTED else None
        return data[: self._args_limit], max(size, len(data)), count

    def _path(self, directory: int, link: bytes) -> tuple[bytes | None, bool]:
        """Return the target of a link without the kernel's " (deleted)", and if it is deleted."""
        path = self._link(directory, link)
        if path is None or not path.endswith(DELETED):
            return path, False
        if not self._memory:
            return path.removesuffix(DELETED), True
        # A file name can end like that. Then the file exists by this name in the process's root.
        try:
            its_own = os.stat(link, dir_fd=directory)
            if its_own.st_nlink and os.path.samestat(
                its_own, os.stat(b"root" + path, dir_fd=directory)
            ):
                return path, False
        except PermissionError:
            self.denied += 1
        except OSError:
            pass  # no file of this name
        return path.removesuffix(DELETED), True

    def _owner(self, directory: int) -> int | None:
        """Return the owner of the program's file, as in ``Program.owner``.

        A file on a hanging disk blocks the reader.
        """
        if not self._memory:
            return None
        try:
            file = os.stat(b"exe", dir_fd=directory)
        except PermissionError:
            self.denied += 1
            return None
        except OSError:
            return None  # ended; the final read of stat will show that
        shared = file.st_mode & S_IWOTH or (file.st_mode & S_IWGRP and file.st_gid)
        return UNSET_ID if shared else file.st_uid

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
            # Ended (the final read of stat will show that), or absent: a zombie, a kernel without
            # that namespace, a path longer than a page.
            pass
        return None

    def _file(self, directory: int, name: bytes, limit: int | None = None) -> bytes | None:
        """Return the content; None if it is denied, or if the kernel has no such file."""
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
    """Return whether a process is in the middle of an exec: the new program has no argv yet."""
    return observed is not None and observed.program.executable is not None and stat.args_end == 0


def _without_args(observed: Observed) -> Observed:
    program = observed.program._replace(args=None, args_size=None, args_count=None)
    return observed._replace(program=program)


def _sockets(directory: Path) -> Iterator[int]:
    """Yield the inodes of the sockets among a process's first descriptors, in order."""
    for number in range(MAX_DESCRIPTORS):
        link = directory / str(number)
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            leads = os.fsencode(link.readlink())
            inode = parse_namespace(leads) if leads.startswith(b"socket:[") else None
            if inode is not None:
                yield inode


def _whole(descriptor: int, limit: int | None) -> bytes:
    """Read up to the end, or to the limit."""
    size = 8192 if limit is None else limit
    data = os.read(descriptor, size)
    # procfs returns short reads only at the end, except for memory, which comes page by page.
    if len(data) < size and limit is None:
        return data
    parts = [data]
    while data and (limit is None or sum(map(len, parts)) < limit):
        data = os.read(descriptor, size)
        parts.append(data)
    return b"".join(parts)[:limit]
