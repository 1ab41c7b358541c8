"""The process events: common types for the sources eBPF, proc connector and procfs.

All times are nanoseconds of CLOCK_BOOTTIME, the clock of ``task_struct.start_boottime``; a process
is (pid, start). A member that a source does not know is None: unknown is not zero.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sessiond.process.argv import is_cut, split_args

# What the kernel adds to the path of a deleted file (d_path() of fs/d_path.c).
DELETED: Final = b" (deleted)"


class Facts(NamedTuple):
    """The attributes of a process at one moment, with ids of the host's initial namespaces.

    A source leaves fields that it can't read as None. ``start`` from procfs is rounded down to a
    clock tick (10 ms); from eBPF it is exact.
    """

    pid: int  # task->tgid
    start: int  # task->group_leader->start_boottime
    ppid: int  # the current parent (task->real_parent->tgid); 0 for none
    parent_start: int | None
    pgid: int | None
    sid: int | None
    vpid: int | None  # pid in its own innermost pid namespace
    tty_major: int  # 0, 0: no controlling terminal
    tty_minor: int
    uid: int
    euid: int
    suid: int
    fsuid: int
    gid: int
    egid: int
    sgid: int
    fsgid: int
    cap_permitted: int | None  # bit n is capability number n
    cap_effective: int | None
    loginuid: int | None  # 4294967295: unset
    audit_session: int | None  # 4294967295: unset
    pid_namespace: int | None  # inode numbers, as in /proc/PID/ns
    mount_namespace: int | None
    user_namespace: int | None
    network_namespace: int | None
    # Inode of the cgroup directory: v2, or the v1 hierarchy in which containers have cgroups.
    cgroup_id: int | None
    kernel_thread: bool = False


# The number of members, at the front of Facts, that differ between processes; many share the rest.
OWN_FACTS: Final = 7


class Program(NamedTuple):
    """The program of a process: the result of its last execve.

    ``args`` is the argv, each argument with its NUL, as the kernel stores it; ``argv`` splits it.
    It may be cut: ``args_size`` is the size of the whole in bytes with the NULs, ``args_count`` its
    number of arguments, if the source knows them. ``executable`` is the resolved path, without the
    suffix of a deleted file (see ``deleted``). ``euid`` is the effective user id at the exec,
    ``owner`` the user id of the executable's file (UNSET_ID if everybody, or a group other than
    root's, can write it), ``mount_namespace`` that of the file's mount, in which alone the path is
    valid. Unknown values are None.
    """

    comm: bytes
    executable: bytes | None  # None: a kernel thread, or unknown
    args: bytes | None
    args_size: int | None
    deleted: bool = False
    euid: int | None = None
    owner: int | None = None
    mount_namespace: int | None = None
    args_count: int | None = None

    @property
    def args_cut(self) -> bool:
        """Whether ``args`` is only a part of the argv."""
        return is_cut(self)

    @property
    def argv(self) -> tuple[bytes, ...]:
        """The arguments; empty if unknown."""
        return split_args(self.args or b"")

    @property
    def argc(self) -> int | None:
        """The number of arguments of the whole argv, None if only a part is known."""
        return self.args_count if self.args_cut else len(self.argv)


class Login(NamedTuple):
    """A login, according to a record of the host.

    ``record`` is the name of the record. ``service`` is PAM's name of the service that accepted the
    login, ``host`` the client's address or name, ``terminal`` such as pts/0, ``start`` in ns since
    boot; members that the record lacks are None.
    """

    record: str  # "logind" or "wtmp"
    service: bytes | None
    host: bytes | None
    terminal: bytes | None
    start: int | None


class Entry(NamedTuple):
    """The entry of a process whose ancestors ended unseen, inferred from the host's present state.

    ``inferred`` names the evidence, None for the kernel's own; ``note`` names the part that a user
    could have forged. ``start`` is the recorded start of the login in ns since boot, if any.
    """

    type: str
    source: str | None = None
    note: str | None = None
    inferred: str | None = None
    start: int | None = None


class Observed(NamedTuple):
    """A process as procfs shows it at ``time``: from the snapshot, or looked up on demand.

    ``connection`` is SSH_CONNECTION of its environment, ``login`` its login record: both are read
    only if they may be needed to infer the entry. ``partial`` says that data of procfs is not read
    yet: another event will contain it.
    """

    time: int
    facts: Facts
    program: Program
    working_directory: bytes | None
    cgroup: bytes | None  # path below the hierarchy's root
    supplementary_groups: tuple[int, ...] | None = None
    connection: bytes | None = None
    partial: bool = False
    login: Login | None = None


class Forked(NamedTuple):
    """A new process. ``facts`` are the child's; ``creator`` called fork, vfork or clone.

    The creator differs from ``facts.ppid`` under CLONE_PARENT. Threads are never reported.
    ``inherited`` says that the facts were read at the fork, so that the inherited ones also apply
    to the creator.
    """

    time: int
    facts: Facts
    creator_pid: int
    creator_start: int | None
    comm: bytes
    working_directory: bytes | None  # the creator's, and so the child's, at this moment
    inherited: bool = False


class Executed(NamedTuple):
    """A process executed a program. ``facts`` hold after the exec.

    ``audit_time`` is the time stamp (ms since the epoch) of the audit event of this execve, None if
    the source can't read it, or if there will be no audit event.
    """

    time: int
    facts: Facts
    program: Program
    working_directory: bytes | None
    audit_time: int | None = None


class Exited(NamedTuple):
    """The last thread of a process ended. ``status`` is as in wait(2): code << 8 | signal | 0x80.

    ``group_exit`` is True if exit_group was called or a signal ended the group, False if the last
    thread called exit(2), None if the source does not know.
    """

    time: int
    facts: Facts
    status: int
    group_exit: bool | None = None


class Changed(NamedTuple):
    """A process changed its session, process group or identity; ``facts`` hold after the change.

    ``what`` is "session", "group" or "ids"; with "ids", ``groups`` are the supplementary ones, None
    if the source does not report them.
    """

    time: int
    facts: Facts
    what: str
    groups: tuple[int, ...] | None = None


class CgroupSeen(NamedTuple):
    """A cgroup's path became known."""

    cgroup_id: int
    path: bytes


# The kind of a loss caused by another process that consumed the events.
VANISHED = "vanished"


class Lost(NamedTuple):
    """Events that the source could not deliver: how many, of which kind ("fork", "exec", ...)."""

    time: int
    kind: str
    number: int


ProcessEvent = Observed | Forked | Executed | Exited | Changed | CgroupSeen | Lost
