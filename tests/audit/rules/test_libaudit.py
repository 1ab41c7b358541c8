"""The wrapper of libaudit: names in both directions, and independent rules."""

from __future__ import annotations

import platform

import pytest

from sessiond.audit.rules import binary, libaudit
from sessiond.audit.rules.libaudit import RuleCompiler

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7


def test_system_calls_have_names_by_architecture() -> None:
    """The same number is another system call on another machine; a name can be missing."""
    assert libaudit.syscall_name(59, X86_64) == "execve"
    assert libaudit.syscall_name(11, I386) == "execve"
    assert libaudit.syscall_number("execve", AARCH64) == 221
    assert libaudit.syscall_number("open", AARCH64) is None
    assert libaudit.syscall_name(59, 0x12345678) is None
    assert libaudit.syscall_number("execve", 0x12345678) is None


def test_architectures_have_names_and_widths() -> None:
    """b64 is this machine; a machine's name is that machine."""
    assert libaudit.arch("b64") == libaudit.native_arch()
    assert libaudit.arch_name(libaudit.native_arch()) == platform.machine()
    assert libaudit.arch("x86_64") == X86_64
    assert libaudit.arch("b65") is None
    assert libaudit.arch_name(1) is None


def test_other_tables() -> None:
    """Unknown values are None, never a guess."""
    assert libaudit.message_type_name(1300) == "SYSCALL"
    assert libaudit.message_type("SYSCALL") == 1300
    assert libaudit.message_type("UNKNOWN[1399]") == 1399
    assert libaudit.message_type("NONSENSE") is None
    assert libaudit.errno_name(13) == "EACCES"
    assert libaudit.errno_name(0) is None
    assert libaudit.list_number("exit") == binary.EXIT
    assert libaudit.list_number("entry") is None
    assert libaudit.action_number("always") == binary.ALWAYS
    assert libaudit.field_name(binary.LOGINUID) == "auid"
    assert libaudit.field_name(99) is None


def test_each_rule_starts_afresh() -> None:
    """The arch and system calls of one rule do not affect the next rule."""
    with RuleCompiler() as first:
        assert first.field(b"arch=b32", binary.EXIT) == 0
        assert first.syscall(b"socketcall") == 0
        first.has_syscall = True
        assert first.arch != libaudit.native_arch()
    with RuleCompiler() as second:
        assert second.arch == 0
        assert not second.has_syscall
        assert not second.may_have_key
        assert second.field(b"arch=b64", binary.EXIT) == 0
        assert second.mask() == bytes(256)


@pytest.mark.parametrize("number", [0, 31, 32, 59, 1000, 32 * 63 - 1])
def test_a_bit_is_the_one_that_a_system_call_of_that_number_has(number: int) -> None:
    """The mask is filled here for io_uring, by libaudit for system calls, with the same result."""
    with RuleCompiler() as compiler:
        compiler.arch = libaudit.native_arch()
        assert compiler.syscall(str(number).encode()) == 0
        by_libaudit = compiler.mask()
    with RuleCompiler() as compiler:
        assert compiler.syscall_bit(number) == 0
        assert compiler.mask() == by_libaudit
        assert compiler.syscall_bit(number) == 0, "a bit that is set stays set"
        assert compiler.mask() == by_libaudit


@pytest.mark.parametrize("number", [-1, 32 * 63, 32 * 64, 2**31 - 1])
def test_a_number_that_the_mask_has_no_bit_for_is_refused(number: int) -> None:
    """Numbers outside the mask, and in its last word (classes of calls), are refused."""
    with RuleCompiler() as compiler:
        assert compiler.syscall_bit(number) < 0
        assert compiler.mask() == bytes(256)


def test_errors_are_codes_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """libaudit's own messages on standard error are suppressed."""
    with RuleCompiler() as compiler:
        assert compiler.field(b"uid=no-such-user", binary.EXIT) < 0
        assert compiler.field(b"nonsense=1", binary.EXIT) < 0
        assert compiler.syscall(b"nonsense") != 0
        assert compiler.permissions(1) != 0
    assert capfd.readouterr() == ("", "")


def test_a_rule_grows_with_its_strings() -> None:
    """The bytes are the fixed part and the strings, in order."""
    with RuleCompiler() as compiler:
        assert compiler.watch(b"/etc/passwd", directory=False) == 0
        assert compiler.field(b"key=who", binary.EXIT) == 0
        data = compiler.finish(binary.EXIT, binary.ALWAYS)
    assert len(data) == libaudit.RULE_SIZE + len("/etc/passwdwho")
    assert data.endswith(b"/etc/passwdwho")


def test_the_field_limit_is_an_error() -> None:
    """A rule has room for 64 fields; libaudit refuses the last one."""
    with RuleCompiler() as compiler:
        codes = [compiler.field(b"pid=1", binary.EXIT) for _ in range(64)]
    assert codes[:63] == [0] * 63
    assert codes[63] < 0
