"""The running kernel's struct layouts, from its headers: for kernels that have no BTF.

bcc finds the headers itself: in /lib/modules/RELEASE/build, or in the archive of a kernel with
CONFIG_IKHEADERS. A small program is compiled against them but never loaded: each of its functions
returns one offset, which its first instruction then contains.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sessiond.errors import SourceUnavailableError
from sessiond.sources.ebpf import btf

_ARCHIVE = Path("/sys/kernel/kheaders.tar.xz")

_INCLUDES = (
    "linux/version.h linux/sched.h linux/sched/signal.h linux/cred.h linux/pid.h linux/nsproxy.h"
    " linux/pid_namespace.h linux/user_namespace.h net/net_namespace.h linux/cgroup.h"
    " linux/kernfs.h linux/mm_types.h linux/fs.h linux/fs_struct.h linux/dcache.h linux/mount.h"
    " linux/binfmts.h linux/tty.h linux/tty_driver.h linux/xarray.h"
).split()

# fs/mount.h is private to the kernel: these are the beginnings of its structs, since 3.3.
_PRIVATE = """
struct mount {
  struct hlist_node mnt_hash;
  struct mount *mnt_parent;
  struct dentry *mnt_mountpoint;
  struct vfsmount mnt;
};
struct mnt_namespace {
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
  atomic_t count;
#endif
  struct ns_common ns;
};
"""

# Members that not every kernel has, with their conditions. kernel/audit.h is private and changes:
# its layout is not available here.
_CONDITIONS = {
    "loginuid": "defined(CONFIG_AUDITSYSCALL)",
    "sessionid": "defined(CONFIG_AUDITSYSCALL)",
    "audit_context": "defined(CONFIG_AUDITSYSCALL)",
    "quick_threads": "LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)",
    "status": "defined(__x86_64__)",
    "orig_ax": "defined(__x86_64__)",
    "di": "defined(__x86_64__)",
    "bx": "defined(__x86_64__)",
    "syscallno": "defined(__aarch64__)",
    "orig_x0": "defined(__aarch64__)",
    "memory_cgrp_id": "defined(CONFIG_MEMCG)",
    "pids_cgrp_id": "defined(CONFIG_CGROUP_PIDS)",
    "cpu_cgrp_id": "defined(CONFIG_CGROUP_SCHED)",
}
_EXIT_PARAMETERS = "LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0) ? 3 : 2"

# Each loads a constant, whose lower half has the same place: BPF_ALU64 | BPF_MOV | BPF_K and
# BPF_LD | BPF_IMM | BPF_DW, of linux/bpf.h.
_LOADS = (0xB7, 0x18)


def available(root: Path = Path("/")) -> bool:
    """Return whether the running kernel's headers are readable where bcc looks for them."""
    places = root / "lib/modules" / platform.release() / "build", root / _ARCHIVE.relative_to("/")
    return any(os.access(place, os.R_OK) for place in places)


class KernelHeaders:
    """The layouts in the headers of the running kernel, or in ``source``.

    Raises SourceUnavailableError when they can't be compiled. Blocks for some seconds.
    """

    def __init__(self, bcc: Any, source: Path | None = None) -> None:  # noqa: ANN401  # no types
        before = os.environ.pop("BCC_KERNEL_SOURCE", None)
        if source is not None:
            os.environ["BCC_KERNEL_SOURCE"] = str(source)
        wanted = dict(_wanted())
        try:
            module = bcc.BPF(text=_program(wanted).encode())
            code = {name: module.dump_func(f"value_{i}".encode()) for i, name in enumerate(wanted)}
        except Exception as error:  # noqa: BLE001  # bcc raises bare exceptions
            raise SourceUnavailableError(
                "ebpf",
                f"there is no BTF, and bcc could not compile the kernel's headers ({error})",
                "see the compiler's messages in the log, or use backend: proc_connector",
            ) from None
        finally:
            os.environ.pop("BCC_KERNEL_SOURCE", None)
            if before is not None:
                os.environ["BCC_KERNEL_SOURCE"] = before
        self._values = {name: _returned(instructions) for name, instructions in code.items()}

    def offset(self, struct: str, path: str) -> int | None:
        """Return the byte offset of ``path`` (``a.b.c``) in ``struct``, None if it is absent."""
        return self._value(f"{struct}.{path}")

    def size(self, struct: str) -> int | None:
        """Return the size of ``struct`` in bytes, None if it is absent."""
        return self._value(struct)

    def enumerator(self, enum: str, name: str) -> int | None:
        """Return the value of ``name`` in ``enum``, None if it is absent."""
        return self._value(f"{enum} {name}")

    def parameters(self, typedef: str) -> int | None:
        """Return how many parameters the function type ``typedef`` has, None if there is none."""
        return self._value(typedef)

    def _value(self, name: str) -> int | None:
        value = self._values.get(name, -1)
        return None if value < 0 else value


def _wanted() -> Iterator[tuple[str, str]]:
    """Yield everything that ``btf.generate`` may request, with the expression for it."""
    members = {struct: list(each.values()) for struct, each in btf.MEMBERS.items()}
    members["task_struct"] += btf.OPTIONAL_MEMBERS["task_struct"].values()
    members["pt_regs"] = list(btf.OPTIONAL_MEMBERS["pt_regs"].values())
    members["signal_struct"].append(("int", ("quick_threads",)))
    for struct, each in members.items():
        yield struct, f"sizeof(struct {struct})"
        for _, paths in each:
            for path in paths:
                yield f"{struct}.{path}", f"__builtin_offsetof(struct {struct}, {path})"
    for controller in btf.CGROUP_CONTROLLERS:
        yield f"cgroup_subsys_id {controller}_cgrp_id", f"{controller}_cgrp_id"
    yield "btf_trace_sched_process_exit", _EXIT_PARAMETERS


def _program(wanted: dict[str, str]) -> str:
    text = "".join(f"#include <{name}>\n" for name in _INCLUDES) + _PRIVATE
    for number, (name, expression) in enumerate(wanted.items()):
        condition = _CONDITIONS.get(name.replace(".", " ").split()[-1], "1")
        text += (
            f"#if {condition}\nint value_{number}(void *ctx) {{ return {expression}; }}\n"
            f"#else\nint value_{number}(void *ctx) {{ return -1; }}\n#endif\n"
        )
    return text


def _returned(instructions: bytes) -> int:
    """Return the constant of a function that only returns a constant."""
    if instructions[0] not in _LOADS:
        raise SourceUnavailableError(
            "ebpf",
            "bcc compiled the kernel's headers to something unexpected",
            "report it with the output of uname -r, and use backend: proc_connector",
        )
    return int.from_bytes(instructions[4:8], "little", signed=True)
