"""The system's libaudit.so.1: its tables of names, and its compiler of rule fields.

libaudit(3) is part of every distribution with PAM. It has the system calls of each architecture,
the fields and operators of rules, record types and error names. This is the only module that calls
it. The library is loaded at first use.

While libaudit compiles a rule, global variables hold the parts so far (an arch, a system call, a
permission). RuleCompiler resets them before each rule. Only one thread at a time may compile.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_uint, c_uint32
from functools import cache
from typing import Final, Self

from sessiond.errors import AuditUnavailableError

MAX_FIELDS: Final = 64  # linux/audit.h
MASK_WORDS: Final = 64  # likewise: AUDIT_BITMASK_SIZE, of 32 bits each
RULE_SIZE: Final = 4 * (3 + MASK_WORDS + 3 * MAX_FIELDS + 1)  # without the strings that follow

_QUIET: Final = 2  # libaudit.h: message_t MSG_QUIET
_NO_DEBUG: Final = 0
_WATCH: Final = 105
_DIR: Final = 107


class _RuleData(ctypes.Structure):
    """struct audit_rule_data (linux/audit.h), up to the strings."""

    _fields_ = (
        ("flags", c_uint32),
        ("action", c_uint32),
        ("field_count", c_uint32),
        ("mask", c_uint32 * MASK_WORDS),
        ("fields", c_uint32 * MAX_FIELDS),
        ("values", c_uint32 * MAX_FIELDS),
        ("fieldflags", c_uint32 * MAX_FIELDS),
        ("buflen", c_uint32),
    )


_RulePointer = POINTER(_RuleData)

# name in the library -> (result, arguments)
_FUNCTIONS: Final = {
    "set_aumessage_mode": (None, [c_int, c_int]),
    "audit_detect_machine": (c_int, []),
    "audit_determine_machine": (c_int, [c_char_p]),
    "audit_machine_to_elf": (c_uint, [c_int]),
    "audit_machine_to_name": (c_char_p, [c_int]),
    "audit_elf_to_machine": (c_int, [c_uint]),
    "audit_name_to_syscall": (c_int, [c_char_p, c_int]),
    "audit_syscall_to_name": (c_char_p, [c_int, c_int]),
    "audit_name_to_flag": (c_int, [c_char_p]),
    "audit_flag_to_name": (c_char_p, [c_int]),
    "audit_name_to_action": (c_int, [c_char_p]),
    "audit_action_to_name": (c_char_p, [c_int]),
    "audit_field_to_name": (c_char_p, [c_int]),
    "audit_operator_to_symbol": (c_char_p, [c_int]),
    "audit_msg_type_to_name": (c_char_p, [c_int]),
    "audit_name_to_msg_type": (c_int, [c_char_p]),
    "audit_errno_to_name": (c_char_p, [c_int]),
    "audit_fstype_to_name": (c_char_p, [c_int]),
    "audit_rule_create_data": (_RulePointer, []),
    "audit_rule_free_data": (None, [_RulePointer]),
    "audit_rule_syscallbyname_data": (c_int, [_RulePointer, c_char_p]),
    "audit_rule_fieldpair_data": (c_int, [POINTER(_RulePointer), c_char_p, c_int]),
    "audit_rule_interfield_comp_data": (c_int, [POINTER(_RulePointer), c_char_p, c_int]),
    "audit_add_watch_dir": (c_int, [c_int, POINTER(_RulePointer), c_char_p]),
    "audit_update_watch_perms": (c_int, [_RulePointer, c_int]),
}
_STATE: Final = (
    "_audit_elf",
    "_audit_syscalladded",
    "_audit_permadded",
    "_audit_archadded",
    "_audit_exeadded",
    "_audit_filterfsadded",
)


@cache
def _library() -> ctypes.CDLL:
    """Load the library, quietly: errors are return codes, never lines on stderr."""
    try:
        library = ctypes.CDLL("libaudit.so.1", use_errno=True)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        for name in _STATE:
            c_uint.in_dll(library, name)
    except (OSError, AttributeError, ValueError) as error:
        raise AuditUnavailableError(
            f"libaudit.so.1 can't be used ({error}): install libaudit1 (Debian) or"
            " audit-libs (Fedora), 3.0 or newer"
        ) from None
    library.set_aumessage_mode(_QUIET, _NO_DEBUG)
    return library


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("ascii", "backslashreplace")


@cache
def native_arch() -> int:
    """Return this machine's AUDIT_ARCH_* value, or 0 when libaudit doesn't know the machine."""
    library = _library()
    return int(library.audit_machine_to_elf(library.audit_detect_machine()))


def arch(name: str) -> int | None:
    """Return the AUDIT_ARCH_* value of "b64", "b32" or a machine name; None when there is none."""
    library = _library()
    machine = library.audit_determine_machine(name.encode("utf-8", "replace"))
    return library.audit_machine_to_elf(machine) or None


def arch_name(value: int) -> str | None:
    """Return the machine's name ("x86_64") of an AUDIT_ARCH_* value; None when it is unknown."""
    library = _library()
    machine = library.audit_elf_to_machine(value)
    return None if machine < 0 else _text(library.audit_machine_to_name(machine))


@cache
def syscall_name(number: int, value: int) -> str | None:
    """Return a system call's name by its number and AUDIT_ARCH_* value; None when unknown."""
    library = _library()
    machine = library.audit_elf_to_machine(value)
    return None if machine < 0 else _text(library.audit_syscall_to_name(number, machine))


def syscall_number(name: str, value: int) -> int | None:
    """Return a system call's number by its name and AUDIT_ARCH_* value; None when unknown."""
    library = _library()
    machine = library.audit_elf_to_machine(value)
    number = (
        -1
        if machine < 0
        else library.audit_name_to_syscall(name.encode("utf-8", "replace"), machine)
    )
    return None if number < 0 else int(number)


def list_number(name: str) -> int | None:
    """Return the AUDIT_FILTER_* number of a list ("exit"); None when there is no such list."""
    number = _library().audit_name_to_flag(name.encode("latin-1"))
    return None if number < 0 else int(number)


def list_name(number: int) -> str | None:
    """Return a list's name by its AUDIT_FILTER_* number; None when it is unknown."""
    return _text(_library().audit_flag_to_name(number))


def action_number(name: str) -> int | None:
    """Return the number of an action ("never", "possible", "always"); None when unknown."""
    number = _library().audit_name_to_action(name.encode("latin-1"))
    return None if number < 0 else int(number)


def action_name(number: int) -> str | None:
    """Return an action's name by its number; None when it is unknown."""
    return _text(_library().audit_action_to_name(number))


def field_name(number: int) -> str | None:
    """Return a rule field's name by its AUDIT_* number; None when it is unknown."""
    return _text(_library().audit_field_to_name(number))


def operator_symbol(flags: int) -> str | None:
    """Return an operator ("!=") by its AUDIT_* bits; None when it is unknown."""
    return _text(_library().audit_operator_to_symbol(flags))


@cache
def message_type_name(number: int) -> str | None:
    """Return a record type's name ("SYSCALL" for 1300); None when it is unknown."""
    return _text(_library().audit_msg_type_to_name(number))


def message_type(name: str) -> int | None:
    """Return a record type's number by its name or as "UNKNOWN[1399]"; None when it is unknown."""
    number = _library().audit_name_to_msg_type(name.encode("utf-8", "replace"))
    return int(number) if number > 0 else None


@cache
def errno_name(number: int) -> str | None:
    """Return the name of a positive error number ("EPERM" for 1); None when it is unknown."""
    return _text(_library().audit_errno_to_name(number))


def filesystem_name(magic: int) -> str | None:
    """Return a file system type's name by its magic number; None when libaudit has no name."""
    return _text(_library().audit_fstype_to_name(magic))


def path_mode(path: bytes) -> int:
    """Return the st_mode of ``path``, links followed; raises OSError like stat(2).

    auditctl uses it to distinguish watches of directories from watches of files. So does the parser
    of rules, whose only I/O goes through this module.
    """
    return os.stat(path).st_mode  # noqa: PTH116 - a path of bytes, which pathlib doesn't take


def uring_operation(word: bytes) -> int | None:
    """Return an io_uring operation's number by its name; None when this libaudit knows none."""
    try:
        lookup = _library().audit_name_to_uringop
    except AttributeError:
        return None
    number = lookup(c_char_p(word))
    return None if number < 0 else int(number)


class RuleCompiler:
    """Builds one rule; a context manager, because the rule is in libaudit's memory.

    Methods take words as bytes (none with a NUL) and return libaudit's codes: 0 means success, a
    negative number is an EAU_* error. After an error the rule must be discarded.
    """

    def __init__(self) -> None:
        """Create an empty rule, and reset libaudit's variables."""
        self._library = _library()
        self._state = {name: c_uint.in_dll(self._library, name) for name in _STATE}
        for variable in self._state.values():
            variable.value = 0
        self._rule = self._library.audit_rule_create_data()
        if not self._rule:
            raise MemoryError

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the rule."""
        self._library.audit_rule_free_data(self._rule)

    @property
    def arch(self) -> int:
        """The AUDIT_ARCH_* value whose system calls are used; 0 without an arch so far."""
        return self._state["_audit_elf"].value

    @arch.setter
    def arch(self, value: int) -> None:
        self._state["_audit_elf"].value = value

    @property
    def has_syscall(self) -> bool:
        """Whether the rule has a system call; then an arch is no longer allowed."""
        return bool(self._state["_audit_syscalladded"].value)

    @has_syscall.setter
    def has_syscall(self, value: bool) -> None:
        self._state["_audit_syscalladded"].value = value

    @property
    def may_have_key(self) -> bool:
        """Whether the rule has a part that a key requires."""
        names = ("_audit_syscalladded", "_audit_permadded", "_audit_exeadded")
        return any(self._state[name].value for name in (*names, "_audit_filterfsadded"))

    @property
    def last_field(self) -> int:
        """The AUDIT_* number of the field added last."""
        rule = self._rule.contents
        return int(rule.fields[rule.field_count - 1])

    def note_permission(self) -> None:
        """Note that the rule has a permission, which allows keys."""
        self._state["_audit_permadded"].value = 1

    def note_executable(self) -> None:
        """Note that the rule has an executable, which allows keys."""
        self._state["_audit_exeadded"].value = 1

    def mask(self) -> bytes:
        """Return the system calls added so far, as the kernel's bit mask."""
        return bytes(self._rule.contents.mask)

    def syscall(self, word: bytes) -> int:
        """Add a system call by name or number, or "all"."""
        return int(self._library.audit_rule_syscallbyname_data(self._rule, word))

    def syscall_bit(self, number: int) -> int:
        """Add a system call, or an io_uring operation, by its number.

        The bit is set here, because libaudit 3.1.3 and later do not export their function for that.
        Like that function it refuses numbers in the mask's last word, with -1.
        """
        word, bit = divmod(number, 32)
        if not 0 <= word < MASK_WORDS - 1:
            return -1
        self._rule.contents.mask[word] |= 1 << bit
        return 0

    def field(self, pair: bytes, list_: int) -> int:
        """Add a field as in ``-F pair``, for a rule in the list with that AUDIT_FILTER_* number."""
        return self._pair(self._library.audit_rule_fieldpair_data, pair, list_)

    def comparison(self, pair: bytes, list_: int) -> int:
        """Add a comparison of two fields as in ``-C pair``."""
        return self._pair(self._library.audit_rule_interfield_comp_data, pair, list_)

    def _pair(self, function: Callable[..., int], pair: bytes, list_: int) -> int:
        # libaudit cuts the pair at its operator, in place, and may move the rule in memory.
        text = ctypes.create_string_buffer(pair)
        return int(function(ctypes.byref(self._rule), text, list_))

    def watch(self, path: bytes, *, directory: bool) -> int:
        """Turn the empty rule into a watch of ``path``, with all permissions."""
        kind = _DIR if directory else _WATCH
        return int(self._library.audit_add_watch_dir(kind, ctypes.byref(self._rule), path))

    def permissions(self, bits: int) -> int:
        """Set the permissions (AUDIT_PERM_* bits), or change the ones that are set."""
        return int(self._library.audit_update_watch_perms(self._rule, bits))

    def finish(self, flags: int, action: int) -> bytes:
        """Return the bytes to send with AUDIT_ADD_RULE or AUDIT_DEL_RULE."""
        rule = self._rule.contents
        rule.flags, rule.action = flags, action
        return ctypes.string_at(self._rule, RULE_SIZE + rule.buflen)
