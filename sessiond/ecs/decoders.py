"""Decodes the numbers in audit records: signals, modes, flags, socket addresses.

The numbers are those of Linux's generic ABI (include/uapi), which most machines share.
"""

from __future__ import annotations

import ipaddress
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from sessiond.text import display

# Numbers that never reach user space, but occur in exit=: include/linux/errno.h
KERNEL_ERRORS: Final = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    517: "EPROBE_DEFER",
    518: "EOPENSTALE",
    519: "ENOPARAM",
    529: "EIOCBQUEUED",
}

# include/linux/socket.h
UNIX, IPV4, IPV6, NETLINK, VSOCK = 1, 2, 10, 16, 40
# Names of an argument of socket(2), and the fewer families that auditd.data.socket.family names:
# Elastic's rules use numbers for the others.
FAMILIES: Final = {
    0: "unspecified",
    UNIX: "unix",
    IPV4: "ipv4",
    3: "ax25",
    4: "ipx",
    5: "appletalk",
    9: "x25",
    IPV6: "ipv6",
    15: "key",
    NETLINK: "netlink",
    17: "packet",
    29: "can",
    30: "tipc",
    31: "bluetooth",
    38: "alg",
    VSOCK: "vsock",
    44: "xdp",
}
_NAMED_FAMILIES: Final = frozenset((UNIX, IPV4, IPV6, NETLINK))
_FILE_TYPES: Final = {
    0o010000: "fifo",
    0o020000: "character-device",
    0o040000: "dir",
    0o060000: "block-device",
    0o100000: "file",
    0o120000: "symlink",
    0o140000: "socket",
}


class Address(NamedTuple):
    """A socket address; members that its family lacks are None."""

    family: str
    ip: str | None = None
    port: int | None = None
    path: str | None = None
    flow: str | None = None


def address_text(address: str | bytes) -> str:
    """Return an IP address in its usual form; raises ValueError if it is none.

    IPv4 through an IPv6 socket (::ffff:192.0.2.7) is that IPv4 address, as Go and thus Auditbeat
    writes it. Versions of Python would write it in different ways.
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found)


def socket_address(saddr: bytes, order: Literal["little", "big"] = sys.byteorder) -> Address | None:
    """Decode a ``struct sockaddr`` in a machine's byte order; None if it is too short.

    The name of an abstract unix socket starts with "@", as in ss(8) and netstat(8).
    """
    if len(saddr) < 2:
        return None
    family = int.from_bytes(saddr[:2], order)
    name = FAMILIES[family] if family in _NAMED_FAMILIES else str(family)
    port = int.from_bytes(saddr[2:4], "big")
    if family == IPV4 and len(saddr) >= 8:
        return Address(name, str(ipaddress.IPv4Address(saddr[4:8])), port)
    if family == IPV6 and len(saddr) >= 24:
        flow = int.from_bytes(saddr[4:8], "big")
        return Address(name, address_text(saddr[8:24]), port, flow=str(flow) if flow else None)
    if family == UNIX:
        path = saddr[2:]
        if path[:1] == b"\0":
            return Address(name, path=display(b"@" + path[1:].rstrip(b"\0")) if path[1:] else None)
        return Address(name, path=display(path.partition(b"\0")[0]) or None)
    if family == NETLINK and len(saddr) >= 8:
        return Address(name, port=int.from_bytes(saddr[4:8], order) or None)
    if family == VSOCK and len(saddr) >= 12:
        return Address(name, port=int.from_bytes(saddr[4:8], order))
    return Address(name)


def signal_name(number: int) -> str:
    """Return a signal's name: "SIGTERM" for 15, "SIGRTMIN+2" for 36; else its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        pass
    if 34 < number < 64:
        return f"SIGRTMIN+{number - 34}"
    return str(number)


def file_type(mode: int) -> str | None:
    """Return the name of the type in an inode's mode; None if it has none."""
    return _FILE_TYPES.get(mode & 0o170000)


def octal_mode(mode: int) -> str:
    """Return the permission bits of a mode as four octal digits: "0755", "4755"."""
    return f"{mode & 0o7777:04o}"


def _flags(names: Iterable[tuple[int, str]], zero: str = "0") -> Callable[[int], str]:
    known = tuple(names)

    def name(value: int) -> str:
        found = []
        rest = value
        for bits, word in known:
            if rest & bits == bits:
                found.append(word)
                rest &= ~bits
        if rest:
            found.append(f"{rest:#x}")
        return "|".join(found) or zero

    return name


def _choice(names: dict[int, str]) -> Callable[[int], str]:
    return lambda value: names.get(value, str(value))


# include/uapi/asm-generic/fcntl.h; O_SYNC holds O_DSYNC, O_TMPFILE holds O_DIRECTORY
def _open_extras(*, directory: int, nofollow: int, direct: int, large: int) -> Callable[[int], str]:
    return _flags(
        (
            (0o100, "O_CREAT"),
            (0o200, "O_EXCL"),
            (0o400, "O_NOCTTY"),
            (0o1000, "O_TRUNC"),
            (0o2000, "O_APPEND"),
            (0o4000, "O_NONBLOCK"),
            (0o4010000, "O_SYNC"),
            (0o10000, "O_DSYNC"),
            (0o20000, "O_ASYNC"),
            (direct, "O_DIRECT"),
            (large, "O_LARGEFILE"),
            (0o20000000 | directory, "O_TMPFILE"),
            (directory, "O_DIRECTORY"),
            (nofollow, "O_NOFOLLOW"),
            (0o1000000, "O_NOATIME"),
            (0o2000000, "O_CLOEXEC"),
            (0o10000000, "O_PATH"),
        ),
        zero="",
    )


_generic_extras: Final = _open_extras(
    directory=0o200000, nofollow=0o400000, direct=0o40000, large=0o100000
)
# include/uapi/asm/fcntl.h of arm, arm64 and m68k, and of powerpc
_arm_extras: Final = _open_extras(
    directory=0o40000, nofollow=0o100000, direct=0o200000, large=0o400000
)
_ppc_extras: Final = _open_extras(
    directory=0o40000, nofollow=0o100000, direct=0o400000, large=0o200000
)


def open_flags(value: int, machine: str = "") -> str:
    """Name the flags of open(2) on a machine, the access mode first: "O_WRONLY|O_CREAT"."""
    access = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[value & 3]
    if machine.startswith(("arm", "aarch64", "m68k")):
        extras = _arm_extras(value & ~3)
    elif machine.startswith("ppc"):
        extras = _ppc_extras(value & ~3)
    else:
        extras = _generic_extras(value & ~3)
    return f"{access}|{extras}" if extras else access


access_mode: Final = _flags(((4, "R_OK"), (2, "W_OK"), (1, "X_OK")), zero="F_OK")

protection: Final = _flags(
    ((1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")), zero="PROT_NONE"
)

# include/uapi/linux/mount.h
mount_flags: Final = _flags(
    (1 << bit, f"MS_{name}")
    for bit, name in enumerate(
        "RDONLY NOSUID NODEV NOEXEC SYNCHRONOUS REMOUNT MANDLOCK DIRSYNC NOSYMFOLLOW 9 NOATIME "
        "NODIRATIME BIND MOVE REC SILENT POSIXACL UNBINDABLE PRIVATE SLAVE SHARED RELATIME "
        "KERNMOUNT I_VERSION STRICTATIME LAZYTIME".split()
    )
    if not name.isdigit()
)

unmount_flags: Final = _flags(
    ((1, "MNT_FORCE"), (2, "MNT_DETACH"), (4, "MNT_EXPIRE"), (8, "UMOUNT_NOFOLLOW"))
)

# include/uapi/linux/sched.h; the low byte is the signal sent at the child's end
_clone_bits: Final = _flags(
    (
        (0x80, "CLONE_NEWTIME"),
        (0x100, "CLONE_VM"),
        (0x200, "CLONE_FS"),
        (0x400, "CLONE_FILES"),
        (0x800, "CLONE_SIGHAND"),
        (0x1000, "CLONE_PIDFD"),
        (0x2000, "CLONE_PTRACE"),
        (0x4000, "CLONE_VFORK"),
        (0x8000, "CLONE_PARENT"),
        (0x10000, "CLONE_THREAD"),
        (0x20000, "CLONE_NEWNS"),
        (0x40000, "CLONE_SYSVSEM"),
        (0x80000, "CLONE_SETTLS"),
        (0x100000, "CLONE_PARENT_SETTID"),
        (0x200000, "CLONE_CHILD_CLEARTID"),
        (0x800000, "CLONE_UNTRACED"),
        (0x1000000, "CLONE_CHILD_SETTID"),
        (0x2000000, "CLONE_NEWCGROUP"),
        (0x4000000, "CLONE_NEWUTS"),
        (0x8000000, "CLONE_NEWIPC"),
        (0x10000000, "CLONE_NEWUSER"),
        (0x20000000, "CLONE_NEWPID"),
        (0x40000000, "CLONE_NEWNET"),
        (0x80000000, "CLONE_IO"),
    ),
    zero="",
)


def clone_flags(value: int) -> str:
    """Name the flags of clone(2), the signal at the child's end last."""
    ending = value & 0x7F
    names = [_clone_bits(value & ~0x7F), signal_name(ending) if ending else ""]
    return "|".join(filter(None, names)) or "0"


namespace_flags: Final = _clone_bits

socket_family: Final = _choice(FAMILIES)


def socket_type(value: int) -> str:
    """Name the type of socket(2), with its flags."""
    kinds = {1: "STREAM", 2: "DGRAM", 3: "RAW", 4: "RDM", 5: "SEQPACKET", 6: "DCCP", 10: "PACKET"}
    name = kinds.get(value & 0xF)
    words = [f"SOCK_{name}" if name else str(value & 0xF)]
    words += ["SOCK_NONBLOCK"] if value & 0o4000 else []
    words += ["SOCK_CLOEXEC"] if value & 0o2000000 else []
    return "|".join(words)


# include/uapi/linux/ptrace.h
ptrace_request: Final = _choice(
    {
        0: "PTRACE_TRACEME",
        1: "PTRACE_PEEKTEXT",
        2: "PTRACE_PEEKDATA",
        3: "PTRACE_PEEKUSER",
        4: "PTRACE_POKETEXT",
        5: "PTRACE_POKEDATA",
        6: "PTRACE_POKEUSER",
        7: "PTRACE_CONT",
        8: "PTRACE_KILL",
        9: "PTRACE_SINGLESTEP",
        12: "PTRACE_GETREGS",
        13: "PTRACE_SETREGS",
        16: "PTRACE_ATTACH",
        17: "PTRACE_DETACH",
        24: "PTRACE_SYSCALL",
        0x4200: "PTRACE_SETOPTIONS",
        0x4201: "PTRACE_GETEVENTMSG",
        0x4202: "PTRACE_GETSIGINFO",
        0x4203: "PTRACE_SETSIGINFO",
        0x4204: "PTRACE_GETREGSET",
        0x4205: "PTRACE_SETREGSET",
        0x4206: "PTRACE_SEIZE",
        0x4207: "PTRACE_INTERRUPT",
        0x4208: "PTRACE_LISTEN",
    }
)

# include/uapi/linux/seccomp.h: the action in a SECCOMP record's code
seccomp_action: Final = _choice(
    {
        0: "kill",
        0x80000000: "kill-process",
        0x00030000: "trap",
        0x00050000: "errno",
        0x7FC00000: "user-notif",
        0x7FF00000: "trace",
        0x7FFC0000: "log",
        0x7FFF0000: "allow",
    }
)

# include/uapi/linux/audit.h: the list of rules in a CONFIG_CHANGE record
rule_list: Final = _choice(
    {0: "user", 1: "task", 4: "exit", 5: "exclude", 6: "filesystem", 7: "io_uring"}
)

_RING_OPERATIONS: Final = (
    "nop readv writev fsync read_fixed write_fixed poll_add poll_remove sync_file_range sendmsg "
    "recvmsg timeout timeout_remove accept async_cancel link_timeout connect fallocate openat "
    "close files_update statx read write fadvise madvise send recv openat2 epoll_ctl splice "
    "provide_buffers remove_buffers tee shutdown renameat unlinkat mkdirat symlinkat linkat "
    "msg_ring fsetxattr setxattr fgetxattr getxattr socket uring_cmd send_zc sendmsg_zc "
    "read_multishot waitid futex_wait futex_wake futex_waitv fixed_fd_install ftruncate bind "
    "listen recv_zc epoll_wait readv_fixed writev_fixed pipe"
).split()


def ring_operation(number: int) -> str:
    """Name an operation of io_uring: IORING_OP_* of include/uapi/linux/io_uring.h."""
    return _RING_OPERATIONS[number] if number < len(_RING_OPERATIONS) else str(number)


def signed(value: int) -> int:
    """Read a syscall argument, printed as unsigned, as the 32-bit int that it is."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _number(value: int) -> str:
    return str(signed(value))


# The named arguments of syscalls: auditd.arguments.NAME. The records have them in hex, as a0 to a3,
# which stay in auditd.data. A row has the argument's position, its name and its format.
Argument = tuple[int, str, Callable[[int], str]]


def _arguments(*rows: tuple[str, str]) -> dict[str, tuple[Argument, ...]]:
    decoders: dict[str, Callable[[int], str]] = {
        "access": access_mode,
        "clone": clone_flags,
        "family": socket_family,
        "mode": octal_mode,
        "mount": mount_flags,
        "namespaces": namespace_flags,
        "number": _number,
        "open": open_flags,
        "protection": protection,
        "ptrace": ptrace_request,
        "signal": lambda value: signal_name(signed(value)),
        "type": socket_type,
        "unmount": unmount_flags,
    }
    table: dict[str, tuple[Argument, ...]] = {}
    for names, specification in rows:
        arguments = []
        for word in specification.split():
            position, name, decoder = word.split(":")
            arguments.append((int(position), name, decoders[decoder]))
        for name in names.split():
            table[name] = tuple(arguments)
    return table


ARGUMENTS: Final = _arguments(
    ("open", "1:flags:open 2:mode:mode"),
    ("openat", "2:flags:open 3:mode:mode"),
    ("open_by_handle_at", "2:flags:open"),
    ("creat mkdir chmod fchmod", "1:mode:mode"),
    ("mkdirat fchmodat fchmodat2", "2:mode:mode"),
    ("mknod", "1:mode:mode"),
    ("mknodat", "2:mode:mode"),
    ("access", "1:mode:access"),
    ("faccessat faccessat2", "2:mode:access"),
    ("chown lchown fchown", "1:uid:number 2:gid:number"),
    ("fchownat", "2:uid:number 3:gid:number"),
    ("mount", "3:flags:mount"),
    ("umount2", "1:flags:unmount"),
    ("kill", "0:pid:number 1:signal:signal"),
    ("tkill", "0:pid:number 1:signal:signal"),
    ("tgkill", "0:pid:number 1:tid:number 2:signal:signal"),
    ("pidfd_send_signal", "1:signal:signal"),
    ("rt_sigqueueinfo", "0:pid:number 1:signal:signal"),
    ("ptrace", "0:request:ptrace 1:pid:number"),
    ("clone", "0:flags:clone"),
    ("unshare", "0:flags:namespaces"),
    ("setns", "1:flags:namespaces"),
    ("mmap mprotect pkey_mprotect", "2:protection:protection"),
    ("socket socketpair", "0:family:family 1:type:type"),
    ("setuid setfsuid setuid32 setfsuid32", "0:uid:number"),
    ("setgid setfsgid setgid32 setfsgid32", "0:gid:number"),
    ("setreuid setreuid32", "0:ruid:number 1:euid:number"),
    ("setregid setregid32", "0:rgid:number 1:egid:number"),
    ("setresuid setresuid32", "0:ruid:number 1:euid:number 2:suid:number"),
    ("setresgid setresgid32", "0:rgid:number 1:egid:number 2:sgid:number"),
)

# The syscalls whose path is relative to a directory descriptor, and the position of the descriptor.
DIRECTORY_ARGUMENTS: Final = {
    **dict.fromkeys(
        "openat openat2 mkdirat mknodat fchownat fchmodat fchmodat2 unlinkat newfstatat fstatat64 "
        "statx readlinkat faccessat faccessat2 utimensat futimesat execveat name_to_handle_at "
        "setxattrat removexattrat open_tree".split(),
        (0,),
    ),
    **dict.fromkeys("renameat renameat2 linkat".split(), (0, 2)),
    "symlinkat": (1,),
}
AT_FDCWD: Final = -100
