"""Names of the kernel's numbers, for records of any machine and any version of libaudit."""

from __future__ import annotations

import pytest

from sessiond.audit import kernel_names
from sessiond.audit.rules import libaudit

X86_64, AARCH64 = 0xC000003E, 0xC00000B7


@pytest.mark.parametrize(
    ("arch", "machine", "execve", "exit_group", "connect"),
    [
        (X86_64, "x86_64", 59, 231, 42),
        (0x40000003, "i386", 11, 252, 362),
        (AARCH64, "aarch64", 221, 94, 203),
        (0x40000028, "arm", 11, 248, 283),
        (0x80000015, "ppc64", 11, 234, 328),
        (0x80000016, "s390x", 11, 248, 362),
        (0xC00000F3, "riscv64", 221, 94, 203),
        (0xC0000102, "loongarch64", 221, 94, 203),
        (0x400000C3, "arcv2", 221, 94, 203),
        (0x00000008, "mips", 4011, 4246, 4170),
        (0xC0000008, "mipsel64", 5057, 5205, 5041),
        (0xA0000008, "mips64n32", 6057, 6205, 6041),
        (0xC0009026, "alpha", 59, 405, 98),
        (0x00000004, "m68k", 11, 247, 359),
        (0x8000000F, "parisc64", 11, 222, 31),
        (0x4000002A, "shel", 11, 252, 342),
        (0x8000002B, "sparc64", 59, 188, 98),
    ],
)
def test_every_machine_has_its_numbers(
    arch: int, machine: str, execve: int, exit_group: int, connect: int
) -> None:
    """The names are those of Linux's headers."""
    assert kernel_names.arch_name(arch) == machine
    numbers = (execve, exit_group, connect)
    names = [kernel_names.syscall_name(number, arch) for number in numbers]
    assert names == ["execve", "exit_group", "connect"]


def test_x32_is_the_machine_with_a_bit_in_its_numbers() -> None:
    """From 512 on x32 has its own numbers; below, those of x86_64."""
    bit = 1 << 30
    assert kernel_names.syscall_name(bit | 520, X86_64) == "execve"
    assert kernel_names.syscall_name(bit | 231, X86_64) == "exit_group"
    assert kernel_names.syscall_name(520, X86_64) is None


@pytest.mark.parametrize("arch", [X86_64, 0x40000003, AARCH64, 0x80000016, 0xC00000F3, 0x2])
def test_new_system_calls_have_one_number_everywhere(arch: int) -> None:
    """Since Linux 5.1; the system's library need not know them."""
    assert kernel_names.syscall_name(424, arch) == "pidfd_send_signal"
    assert kernel_names.syscall_name(437, arch) == "openat2"
    assert kernel_names.syscall_name(452, arch) == "fchmodat2"
    assert kernel_names.syscall_name(463, arch) == "setxattrat"
    assert kernel_names.syscall_name(999, arch) is None


def test_alpha_has_the_new_ones_110_higher() -> None:
    """Its table had been longer."""
    assert kernel_names.syscall_name(534, 0xC0009026) == "pidfd_send_signal"
    assert kernel_names.syscall_name(562, 0xC0009026) == "fchmodat2"


def test_what_the_library_knows_as_well_it_names_alike() -> None:
    """Except for a few that have other names in the C library."""
    differing = {
        (kernel_names.syscall_name(number, AARCH64), libaudit.syscall_name(number, AARCH64))
        for number in range(424)
        if libaudit.syscall_name(number, AARCH64)
    }
    assert {pair for pair in differing if pair[0] != pair[1]} == {
        ("pread64", "pread"),
        ("pwrite64", "pwrite"),
        ("getdents64", "getdents"),
        ("fstat", "newfstat"),
    }


def test_a_machine_that_is_none_has_no_names() -> None:
    """The record then shows the numbers."""
    assert kernel_names.arch_name(0xDEAD) is None
    assert kernel_names.syscall_name(59, 0xDEAD) is None
