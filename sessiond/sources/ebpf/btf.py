"""The running kernel's struct layouts, from its BTF, as a C header for the tracer's programs.

BTF is the kernel's description of its own types (Documentation/bpf/btf.rst). libbpf, a dependency
of bcc, parses it; this module looks up only the members that the programs read.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple, Protocol

from sessiond.errors import SourceUnavailableError

_KIND_STRUCT, _KIND_UNION, _KIND_ENUM, _KIND_FUNC, _KIND_FUNC_PROTO = 4, 5, 6, 12, 13
_KIND_TYPEDEF, _MODIFIERS = 8, frozenset({8, 9, 10, 11})  # typedef, volatile, const, restrict

Paths = tuple[str, ...]

# The members that the programs read: struct -> name in programs.c -> (C type, possible paths).
# The first path that this kernel has is used; it is an error if there is none.
MEMBERS: dict[str, dict[str, tuple[str, Paths]]] = {
    # Structs that others contain by value, or in arrays, come first.
    "hlist_node": {"next": ("struct hlist_node *", ("next",))},
    "upid": {
        "nr": ("int", ("nr",)),
        "ns": ("struct pid_namespace *", ("ns",)),
    },
    "vfsmount": {"mnt_root": ("struct dentry *", ("mnt_root",))},
    "task_struct": {
        "pid": ("int", ("pid",)),
        "tgid": ("int", ("tgid",)),
        "flags": ("u32", ("flags",)),
        "exit_code": ("int", ("exit_code",)),
        "start_boottime": ("u64", ("start_boottime",)),
        "real_parent": ("struct task_struct *", ("real_parent",)),
        "group_leader": ("struct task_struct *", ("group_leader",)),
        "pid_links": ("struct hlist_node", ("pid_links",)),
        "signal": ("struct signal_struct *", ("signal",)),
        "real_cred": ("struct cred *", ("real_cred",)),
        "nsproxy": ("struct nsproxy *", ("nsproxy",)),
        "cgroups": ("struct css_set *", ("cgroups",)),
        "mm": ("struct mm_struct *", ("mm",)),
        "fs": ("struct fs_struct *", ("fs",)),
        "comm": ("char", ("comm",)),
        "compat": ("u32", ("thread_info.status", "thread_info.flags")),  # x86, arm64
    },
    "signal_struct": {
        "live": ("int", ("live.counter",)),
        "flags": ("u32", ("flags",)),
        "group_exit_code": ("int", ("group_exit_code",)),
        "tty": ("struct tty_struct *", ("tty",)),
        "pids": ("struct pid *", ("pids",)),
    },
    "tty_struct": {
        "driver": ("struct tty_driver *", ("driver",)),
        "index": ("int", ("index",)),
    },
    "tty_driver": {
        "major": ("int", ("major",)),
        "minor_start": ("int", ("minor_start",)),
    },
    "pid": {
        "level": ("u32", ("level",)),
        "numbers": ("struct upid", ("numbers",)),
        "tasks": ("struct hlist_node *", ("tasks",)),
    },
    "xa_node": {"shift": ("u8", ("shift",)), "slots": ("void *", ("slots",))},
    "cred": {
        "uid": ("u32", ("uid",)),
        "fsgid": ("u32", ("fsgid",)),
        "cap_permitted": ("u64", ("cap_permitted",)),
        "cap_effective": ("u64", ("cap_effective",)),
        "user_ns": ("struct user_namespace *", ("user_ns",)),
        "group_info": ("struct group_info *", ("group_info",)),
    },
    "group_info": {
        "ngroups": ("int", ("ngroups",)),
        "gids": ("u32", ("gid",)),
    },
    "nsproxy": {
        "mnt_ns": ("struct mnt_namespace *", ("mnt_ns",)),
        "net_ns": ("struct net *", ("net_ns",)),
    },
    "pid_namespace": {
        "inum": ("u32", ("ns.inum",)),
        "numbers": ("void *", ("idr.idr_rt.xa_head",)),
    },
    "user_namespace": {"inum": ("u32", ("ns.inum",))},
    "mnt_namespace": {"inum": ("u32", ("ns.inum",))},
    "net": {"inum": ("u32", ("ns.inum",))},
    "css_set": {
        "dfl_cgrp": ("struct cgroup *", ("dfl_cgrp",)),
        "subsys": ("struct cgroup_subsys_state *", ("subsys",)),
    },
    "cgroup_subsys_state": {"cgroup": ("struct cgroup *", ("cgroup",))},
    "cgroup": {
        "kn": ("struct kernfs_node *", ("kn",)),
        "root": ("struct cgroup_root *", ("root",)),
        "level": ("int", ("level",)),
    },
    "cgroup_root": {"hierarchy_id": ("int", ("hierarchy_id",))},
    "kernfs_node": {"id": ("u64", ("id",))},
    "mm_struct": {
        "arg_start": ("u64", ("arg_start",)),
        "arg_end": ("u64", ("arg_end",)),
        "exe_file": ("struct file *", ("exe_file",)),
    },
    "file": {
        "dentry": ("struct dentry *", ("f_path.dentry",)),
        "mnt": ("struct vfsmount *", ("f_path.mnt",)),
    },
    "fs_struct": {
        "pwd_dentry": ("struct dentry *", ("pwd.dentry",)),
        "pwd_mnt": ("struct vfsmount *", ("pwd.mnt",)),
    },
    "dentry": {
        "parent": ("struct dentry *", ("d_parent",)),
        "name": ("char *", ("d_name.name",)),
        "hashed": ("void *", ("d_hash.pprev",)),
        "inode": ("struct inode *", ("d_inode",)),
    },
    "inode": {
        "mode": ("u16", ("i_mode",)),
        "uid": ("u32", ("i_uid",)),
        "gid": ("u32", ("i_gid",)),
    },
    "mount": {
        "parent": ("struct mount *", ("mnt_parent",)),
        "mountpoint": ("struct dentry *", ("mnt_mountpoint",)),
        "mnt": ("struct vfsmount", ("mnt",)),
    },
    "linux_binprm": {"filename": ("char *", ("filename",)), "argc": ("int", ("argc",))},
}

# Members without which the tracer still works: loginuid and the audit stamp need CONFIG_AUDIT.
OPTIONAL_MEMBERS: dict[str, dict[str, tuple[str, Paths]]] = {
    "task_struct": {
        "loginuid": ("u32", ("loginuid",)),
        "sessionid": ("u32", ("sessionid",)),
        "audit_context": ("struct audit_context *", ("audit_context",)),
    },
    "audit_context": {
        "dummy": ("int", ("dummy",)),
        "in_syscall": ("int", ("context", "in_syscall")),  # 1: yes, under either name
        "seconds": ("u64", ("stamp.ctime.tv_sec", "ctime.tv_sec")),
        "nanoseconds": ("u64", ("stamp.ctime.tv_nsec", "ctime.tv_nsec")),
    },
    "mount": {"mnt_ns": ("struct mnt_namespace *", ("mnt_ns",))},
    "pt_regs": {  # x86, arm64
        "syscall": ("u32", ("orig_ax", "syscallno")),
        "argument": ("int", ("di", "orig_x0")),
        "argument_32": ("int", ("bx", "orig_x0")),
    },
}

_FEATURES = {
    "task_struct": "LOGIN",
    "audit_context": "AUDIT_STAMP",
    "mount": "MOUNT_NAMESPACE",
    "pt_regs": "SYSCALL",
}

# Version 1 hierarchies, most likely ones first, in which containers have their own directories.
CGROUP_CONTROLLERS = ("memory", "pids", "cpu")


class _Type(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("type", ctypes.c_uint32))


class _Member(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


class _Enumerator(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint32), ("value", ctypes.c_int32))


class Layouts(Protocol):
    """The offsets and sizes of the kernel's structs."""

    def offset(self, struct: str, path: str) -> int | None:
        """Return the byte offset of ``path`` (``a.b.c``) in ``struct``, None if it is absent."""
        ...

    def size(self, struct: str) -> int | None:
        """Return the size of ``struct`` in bytes, None if it is absent."""
        ...

    def enumerator(self, enum: str, name: str) -> int | None:
        """Return the value of ``name`` in ``enum``, None if it is absent."""
        ...

    def parameters(self, typedef: str) -> int | None:
        """Return how many parameters the function type ``typedef`` has, None if there is none."""
        ...


class KernelBtf:
    """The layouts of the running kernel. Close it after use: it holds some megabytes."""

    def __init__(self) -> None:
        try:
            lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise SourceUnavailableError(
                "ebpf", f"libbpf is missing ({error})", "install libbpf1"
            ) from None
        lib.btf__load_vmlinux_btf.restype = ctypes.c_void_p
        lib.btf__find_by_name_kind.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
        lib.btf__type_by_id.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        lib.btf__type_by_id.restype = ctypes.c_void_p
        lib.btf__name_by_offset.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        lib.btf__name_by_offset.restype = ctypes.c_char_p
        lib.btf__free.argtypes = (ctypes.c_void_p,)
        lib.libbpf_set_print(None)
        self._lib = lib
        self._btf = lib.btf__load_vmlinux_btf()
        if not self._btf:
            raise SourceUnavailableError(
                "ebpf",
                "the kernel doesn't describe its types (no readable /sys/kernel/btf/vmlinux, and no"
                " headers in /lib/modules/RELEASE/build)",
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y, install the running kernel's headers,"
                " or use backend: proc_connector",
            )

    def close(self) -> None:
        """Free the parsed BTF."""
        if self._btf:
            self._lib.btf__free(self._btf)
            self._btf = None

    def offset(self, struct: str, path: str) -> int | None:
        """Return the byte offset of ``path`` (``a.b.c``) in ``struct``, None if it is absent."""
        type_id = self._find(struct, _KIND_STRUCT)
        if type_id is None:
            return None
        total = 0
        for name in path.split("."):
            found = self._member(self._strip(type_id), name.encode())
            if found is None:
                return None
            bits, type_id = found
            total += bits
        return total // 8

    def size(self, struct: str) -> int | None:
        """Return the size of ``struct`` in bytes, None if it is absent."""
        type_id = self._find(struct, _KIND_STRUCT)
        return None if type_id is None else int(self._type(type_id)[0].type)

    def enumerator(self, enum: str, name: str) -> int | None:
        """Return the value of ``name`` in ``enum``, None if it is absent."""
        type_id = self._find(enum, _KIND_ENUM)
        if type_id is None:
            return None
        head, address = self._type(type_id)
        for entry in (_Enumerator * (head.info & 0xFFFF)).from_address(address):
            if self._name(entry.name) == name.encode():
                return int(entry.value)
        return None

    def parameters(self, typedef: str) -> int | None:
        """Return how many parameters the function type ``typedef`` has, None if there is none."""
        type_id = self._find(typedef, _KIND_TYPEDEF)
        if type_id is None:
            return None
        pointer, _ = self._type(self._strip(type_id))
        proto, _ = self._type(pointer.type)
        return int(proto.info & 0xFFFF) if self._kind(proto) == _KIND_FUNC_PROTO else None

    def function(self, name: str) -> int | None:
        """Return the id of the kernel's function ``name``, None if it is absent."""
        return self._find(name, _KIND_FUNC)

    def tracepoint(self, name: str) -> int | None:
        """Return the id of the type of the tracepoint ``name``, None if it is absent."""
        return self._find(f"btf_trace_{name}", _KIND_TYPEDEF)

    def _find(self, name: str, kind: int) -> int | None:
        type_id: int = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
        return type_id if type_id > 0 else None

    def _type(self, type_id: int) -> tuple[_Type, int]:
        """Return the type's header and the address of its members, which follow it."""
        address = self._lib.btf__type_by_id(self._btf, type_id)
        return _Type.from_address(address), address + ctypes.sizeof(_Type)

    def _name(self, offset: int) -> bytes:
        name: bytes | None = self._lib.btf__name_by_offset(self._btf, offset)
        return name or b""

    @staticmethod
    def _kind(head: _Type) -> int:
        return int(head.info >> 24 & 0x1F)

    def _strip(self, type_id: int) -> int:
        """Follow typedefs and qualifiers to the type itself."""
        head, _ = self._type(type_id)
        while self._kind(head) in _MODIFIERS:
            type_id = head.type
            head, _ = self._type(type_id)
        return type_id

    def _member(self, type_id: int, name: bytes) -> tuple[int, int] | None:
        """Return (offset in bits, type) of a member, also of one in an anonymous struct."""
        head, address = self._type(type_id)
        if self._kind(head) not in (_KIND_STRUCT, _KIND_UNION):
            return None
        # With kind_flag the high byte of the offset is the width of a bit field.
        mask = 0xFFFFFF if head.info >> 31 else 0xFFFFFFFF
        for member in (_Member * (head.info & 0xFFFF)).from_address(address):
            own = self._name(member.name)
            if own == name:
                return member.offset & mask, member.type
            if not own and (inner := self._member(self._strip(member.type), name)):
                return inner[0] + (member.offset & mask), inner[1]
        return None


class Header(NamedTuple):
    """A generated header, and the names of the features that this kernel lacks."""

    text: str
    missing: tuple[str, ...]


def generate(layouts: Layouts) -> Header:
    """Return the C header that programs.c includes, for the kernel that ``layouts`` describes.

    Raises SourceUnavailableError if the kernel lacks a member that the programs require.
    """
    lines = []
    missing = []
    optional: dict[str, list[str]] = {}
    for struct, members in OPTIONAL_MEMBERS.items():
        found = [_member_line(layouts, struct, name, *how) for name, how in members.items()]
        if None in found:
            missing.append(_FEATURES[struct])
        else:
            optional[struct] = [line for line in found if line is not None]
            lines.append(f"#define HAVE_{_FEATURES[struct]} 1")
    lines += [f"struct {struct};" for struct in {**MEMBERS, **optional}]
    for struct in MEMBERS:
        lines += _declare(
            layouts, struct, _struct_lines(layouts, struct) + optional.pop(struct, [])
        )
    for struct, body in optional.items():
        lines += _declare(layouts, struct, body)
    lines += _constants(layouts)
    return Header("\n".join(lines) + "\n", tuple(missing))


def _declare(layouts: Layouts, struct: str, body: list[str]) -> list[str]:
    """Declare the struct as a union of its members, each with padding, in its actual size."""
    size = f"  char sessiond_size[{layouts.size(struct)}];"
    return [f"struct {struct} {{ union {{", *body, size, "}; };"]


def _member_line(layouts: Layouts, struct: str, name: str, kind: str, paths: Paths) -> str | None:
    for path in paths:
        offset = layouts.offset(struct, path)
        if offset is not None:
            return (
                f"  struct {{ char sessiond_{name}[{offset}]; {kind} {name}; }}"
                " __attribute__((packed));"
            )
    return None


def _struct_lines(layouts: Layouts, struct: str) -> list[str]:
    lines = []
    for name, (kind, paths) in MEMBERS[struct].items():
        line = _member_line(layouts, struct, name, kind, paths)
        if line is None:
            raise SourceUnavailableError(
                "ebpf",
                f"this kernel's struct {struct} has no {' or '.join(paths)}",
                "report it with the output of uname -r, and use backend: proc_connector",
            )
        lines.append(line)
    return lines


def _constants(layouts: Layouts) -> list[str]:
    lines = []
    for controller in CGROUP_CONTROLLERS:
        value = layouts.enumerator("cgroup_subsys_id", f"{controller}_cgrp_id")
        if value is not None:
            lines.append(f"#define CONTROLLER_{controller.upper()} {value}")
    # Present since 5.17, when the last thread's exit(2) sets SIGNAL_GROUP_EXIT as well.
    if layouts.offset("signal_struct", "quick_threads") is not None:
        lines.append("#define HAVE_QUICK_THREADS 1")
    # Since 6.16 the tracepoint says whether the thread is the last one of its group. The first
    # parameter of these function types belongs to the tracepoint itself.
    if (layouts.parameters("btf_trace_sched_process_exit") or 0) > 2:
        lines.append("#define HAVE_GROUP_DEAD 1")
    return lines
