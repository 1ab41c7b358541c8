"""Names of the kernel's numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.ecs import decoders
from sessiond.ecs.decoders import Address, socket_address
from sessiond.ecs.normalizations import SYSCALLS


@pytest.mark.parametrize(
    ("saddr", "address"),
    [
        ("02000050C00002070000000000000000", Address("ipv4", "192.0.2.7", 80)),
        (
            "0A0001BB0000000020010DB800000000000000000000000700000000",
            Address("ipv6", "2001:db8::7", 443),
        ),
        ("01002F6465762F6C6F67000000", Address("unix", path="/dev/log")),
        ("0100006162630000", Address("unix", path="@abc")),
        ("0100", Address("unix")),
        ("100000002A00000000000000", Address("netlink", port=42)),
        ("100000000000000000000000", Address("netlink")),
        ("28000000160000000300000000000000", Address("40", port=22)),
        ("020000", Address("ipv4")),
        ("1100080600000000", Address("17")),
        (
            "0A0001BB0000000720010DB800000000000000000000000700000000",
            Address("ipv6", "2001:db8::7", 443, flow="7"),
        ),
        (
            "0A0001BB0000000000000000000000000000FFFFC000020700000000",
            Address("ipv6", "192.0.2.7", 443),
        ),
        ("FFFF", Address("65535")),
        ("00", None),
    ],
)
def test_a_socket_address_is_decoded(saddr: str, address: Address | None) -> None:
    """The bytes are those in the memory of a little-endian machine."""
    assert socket_address(bytes.fromhex(saddr)) == address


@given(st.binary(max_size=130))
def test_any_bytes_are_an_address_or_none(saddr: bytes) -> None:
    """A short one is not an error."""
    address = socket_address(saddr)
    assert address is None or address.family
    if address and address.path:
        assert address.family == "unix"


@pytest.mark.parametrize(
    ("number", "name"),
    [(9, "SIGKILL"), (31, "SIGSYS"), (34, "SIGRTMIN"), (36, "SIGRTMIN+2"), (64, "SIGRTMAX")],
)
def test_a_signal_has_a_name(number: int, name: str) -> None:
    """kill -l prints the same."""
    assert decoders.signal_name(number) == name


def test_what_is_no_signal_is_a_number() -> None:
    """Signal 0 of kill(2) is only a query."""
    assert [decoders.signal_name(number) for number in (0, 99, -1)] == ["0", "99", "-1"]


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (0, "O_RDONLY"),
        (0o101, "O_WRONLY|O_CREAT"),
        (0x80241, "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC"),
        (0o4010002, "O_RDWR|O_SYNC"),
        (0o20200002, "O_RDWR|O_TMPFILE"),
        (0x40000000, "O_RDONLY|0x40000000"),
    ],
)
def test_open_flags(value: int, flags: str) -> None:
    """A flag that includes another one is named once; an unknown bit is shown."""
    assert decoders.open_flags(value) == flags


def test_open_flags_of_another_machine() -> None:
    """Machines differ in the flags for directories, links and the cache."""
    assert decoders.open_flags(0o140000, "aarch64") == "O_RDONLY|O_DIRECTORY|O_NOFOLLOW"
    assert decoders.open_flags(0o20040002, "ppc64le") == "O_RDWR|O_TMPFILE"
    assert decoders.open_flags(0o600000, "arm") == "O_RDONLY|O_DIRECT|O_LARGEFILE"
    assert decoders.open_flags(0o600000, "riscv64") == "O_RDONLY|O_DIRECTORY|O_NOFOLLOW"


def test_other_flags() -> None:
    """Each type of flags has its own header."""
    assert (
        decoders.mount_flags(0x1002F)
        == "MS_RDONLY|MS_NOSUID|MS_NODEV|MS_NOEXEC|MS_REMOUNT|MS_POSIXACL"
    )
    assert decoders.clone_flags(0x4111) == "CLONE_VM|CLONE_VFORK|SIGCHLD"
    assert decoders.namespace_flags(0x10020000) == "CLONE_NEWNS|CLONE_NEWUSER"
    assert decoders.protection(0) == "PROT_NONE"
    assert decoders.protection(7) == "PROT_READ|PROT_WRITE|PROT_EXEC"
    assert decoders.access_mode(0) == "F_OK"
    assert decoders.socket_type(0o2000001) == "SOCK_STREAM|SOCK_CLOEXEC"
    assert decoders.ptrace_request(16) == "PTRACE_ATTACH"
    assert decoders.seccomp_action(0x7FFC0000) == "log"


def test_a_mode_is_four_octal_digits_and_a_type() -> None:
    """The digits are those of chmod(1)."""
    assert (decoders.octal_mode(0o104755), decoders.file_type(0o104755)) == ("4755", "file")
    assert (decoders.octal_mode(0o40000), decoders.file_type(0o40000)) == ("0000", "dir")
    assert decoders.file_type(0o644) is None


def test_an_argument_is_a_32_bit_int() -> None:
    """A 64-bit kernel prints AT_FDCWD with either width."""
    assert decoders.signed(0xFFFFFF9C) == decoders.AT_FDCWD
    assert decoders.signed(0xFFFFFFFFFFFFFF9C) == decoders.AT_FDCWD
    assert decoders.signed(5) == 5


def test_arguments_are_of_known_syscalls_and_in_reach() -> None:
    """A record has a0 to a3."""
    for name, arguments in decoders.ARGUMENTS.items():
        assert name in SYSCALLS
        assert all(0 <= position <= 3 for position, _, _ in arguments)
    assert decoders.DIRECTORY_ARGUMENTS.keys() <= SYSCALLS.keys()
