"""Names for the kernel's numbers, for records of any machine and kernel.

libaudit knows the machines and system calls of its time. sessiond's own tables have the other
machines, and the system calls that all machines number alike since Linux 5.1.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from sessiond.audit.rules import libaudit
from sessiond.audit.rules.libaudit import errno_name, message_type_name
from sessiond.audit.syscall_tables import TABLES

__all__ = ["arch_name", "errno_name", "message_type_name", "numbers_of", "syscall_name"]

X86_64: Final = 0xC000003E
# arch/x86/include/uapi/asm/unistd.h: __X32_SYSCALL_BIT, and where its own numbers begin
_X32_BIT: Final = 1 << 30
_X32_OWN: Final = 512

# AUDIT_ARCH_* of include/uapi/linux/audit.h: the name, the table, and its first number.
_MACHINES: Final = {
    0x00000002: ("sparc", "sparc", 0),
    0x00000004: ("m68k", "m68k", 0),
    0x00000008: ("mips", "mips", 4000),
    0x0000000F: ("parisc", "parisc", 0),
    0x00000028: ("armeb", "", 0),
    0x0000002A: ("sh", "sh", 0),
    0x0000005C: ("openrisc", "generic32", 0),
    0x0000005D: ("arcompactbe", "generic32", 0),
    0x0000005E: ("xtensa", "", 0),
    0x000000A4: ("hexagon", "generic32", 0),
    0x000000BD: ("microblaze", "", 0),
    0x000000C3: ("arcv2be", "generic32", 0),
    0x40000008: ("mipsel", "mips", 4000),
    0x40000028: ("arm", "", 0),
    0x4000002A: ("shel", "sh", 0),
    0x4000005D: ("arcompact", "generic32", 0),
    0x40000071: ("nios2", "generic32", 0),
    0x400000C3: ("arcv2", "generic32", 0),
    0x400000F3: ("riscv32", "generic32", 0),
    0x400000FC: ("csky", "generic32", 0),
    0x40000102: ("loongarch32", "generic32", 0),
    0x80000008: ("mips64", "mips64", 5000),
    0x8000000F: ("parisc64", "parisc", 0),
    0x8000002A: ("sh64", "sh", 0),
    0x8000002B: ("sparc64", "sparc64", 0),
    0xA0000008: ("mips64n32", "mips64n32", 6000),
    0xC0000008: ("mipsel64", "mips64", 5000),
    0xC000002A: ("shel64", "sh", 0),
    0xC0000032: ("ia64", "", 0),
    0xC00000B7: ("aarch64", "generic64", 0),
    0xC00000F3: ("riscv64", "generic64", 0),
    0xC0000102: ("loongarch64", "generic64", 0),
    0xC0009026: ("alpha", "alpha", 0),
    0xE0000008: ("mipsel64n32", "mips64n32", 6000),
}
_NO_MACHINE: Final = ("", "", 0)

# More than any machine has.
_MAX_CALLS: Final = 1024

# scripts/syscall.tbl: additions of machines with the generic table
_OWN: Final = {
    "aarch64": {38: "renameat"},
    "riscv32": {258: "riscv_hwprobe", 259: "riscv_flush_icache"},
    "riscv64": {258: "riscv_hwprobe", 259: "riscv_flush_icache"},
    "arcompact": {244: "cacheflush", 245: "arc_settls", 246: "arc_gettls", 247: "sysfs"},
    "arcv2": {244: "cacheflush", 245: "arc_settls", 246: "arc_gettls", 247: "sysfs"},
    "csky": {244: "set_thread_area", 245: "cacheflush"},
    "nios2": {244: "cacheflush"},
    "openrisc": {244: "or1k_atomic"},
}

# Since Linux 5.1 new system calls have the same number on all machines (alpha: 110 higher).
_COMMON_FIRST: Final = 424
_ALPHA_MORE: Final = 110
_COMMON: Final = (
    "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen "
    "fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 "
    "process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset "
    "landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv "
    "set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait "
    "futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal "
    "setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr "
    "listns"
).split()


def arch_name(value: int, /) -> str | None:
    """Return the machine's name of an AUDIT_ARCH_* value; None for an unknown one."""
    return _MACHINES.get(value, _NO_MACHINE)[0] or libaudit.arch_name(value)


def syscall_name(number: int, value: int, /) -> str | None:
    """Return a system call's name by its number on the machine of an AUDIT_ARCH_* value."""
    name, table, first = _MACHINES.get(value, _NO_MACHINE)
    if value == X86_64 and number & _X32_BIT:
        number ^= _X32_BIT
        if number >= _X32_OWN:
            return _table("x32").get(number)
    index = number - first
    shared = index - _COMMON_FIRST - (_ALPHA_MORE if name == "alpha" else 0)
    if 0 <= shared < len(_COMMON):
        return _COMMON[shared]
    if not table:
        return libaudit.syscall_name(number, value)
    return _table(table).get(index) or _OWN.get(name, {}).get(index)


@cache
def numbers_of(machine: str, call: str) -> tuple[int, int] | None:
    """Return the AUDIT_ARCH_* value of a machine's name and the number of a system call there."""
    values = (value for value, (name, _, _) in _MACHINES.items() if name == machine)
    value = next(values, None) or libaudit.arch(machine)
    if not value:
        return None
    first = _MACHINES.get(value, _NO_MACHINE)[2]
    numbers = range(first, first + _MAX_CALLS)
    number = next((number for number in numbers if syscall_name(number, value) == call), None)
    return None if number is None else (value, number)


@cache
def _table(name: str) -> dict[int, str]:
    found: dict[int, str] = {}
    number = 0
    for word in TABLES[name].split():
        if word.isdigit():
            number = int(word)
        else:
            found[number] = word
            number += 1
    return found
