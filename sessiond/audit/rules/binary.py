"""The kernel's binary format of an audit rule, struct audit_rule_data (linux/audit.h).

This module parses, compares and describes rules like ``auditctl -l``, and validates them like the
kernel (audit_data_to_entry and audit_field_valid in kernel/auditfilter.c), so that a rule for which
the kernel would only return EINVAL is refused with a reason.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from sessiond.audit.rules import libaudit

# AUDIT_FILTER_*
USER: Final = 0
TASK: Final = 1
EXIT: Final = 4
EXCLUDE: Final = 5
FILESYSTEM: Final = 6
IO_URING: Final = 7
LIST_MASK: Final = 0x07
PREPEND: Final = 0x10

# AUDIT_NEVER, AUDIT_ALWAYS
NEVER: Final = 0
ALWAYS: Final = 2

# AUDIT_* fields; the ranges below are of consecutive numbers
PID, UID, EUID, SUID, FSUID, GID, EGID, SGID, FSGID, LOGINUID, PERS, ARCH, MSGTYPE = range(13)
SUBJ_USER, SUBJ_ROLE, SUBJ_TYPE, SUBJ_SEN, SUBJ_CLR, PPID = range(13, 19)
OBJ_USER, OBJ_ROLE, OBJ_TYPE, OBJ_LEV_LOW, OBJ_LEV_HIGH, LOGINUID_SET, SESSIONID, FSTYPE = range(
    19, 27
)
DEVMAJOR, DEVMINOR, INODE, EXIT_CODE, SUCCESS, WATCH, PERM, DIR, FILETYPE = range(100, 109)
OBJ_UID, OBJ_GID, FIELD_COMPARE, EXE, SADDR_FAM = range(109, 114)
ARG0, ARG1, ARG2, ARG3 = range(200, 204)
FILTERKEY: Final = 210

PERM_EXEC, PERM_WRITE, PERM_READ, PERM_ATTR = 1, 2, 4, 8
KEY_SEPARATOR: Final = "\x01"
MAX_KEY: Final = 256

_OPERATORS: Final = 0x78000000
_EQUAL: Final = 0x40000000
_NOT_EQUAL: Final = 0x30000000
_BITS: Final = (0x08000000, 0x48000000)  # & and &=
_ALL_OPERATORS: Final = frozenset(
    {_EQUAL, _NOT_EQUAL, *_BITS, 0x10000000, 0x20000000, 0x50000000, 0x60000000}
)
_UNSET: Final = 0xFFFFFFFF
_NEGATIVE: Final = 0x80000000  # the first negative value of 32 bits

_STRINGS: Final = frozenset(
    {*range(SUBJ_USER, PPID), *range(OBJ_USER, LOGINUID_SET), WATCH, DIR, FILTERKEY, EXE}
)
_USERS: Final = frozenset({UID, EUID, SUID, FSUID, LOGINUID, OBJ_UID})
_GROUPS: Final = frozenset({GID, EGID, SGID, FSGID, OBJ_GID})
_ANY_OPERATOR: Final = frozenset({ARG0, ARG1, ARG2, ARG3, PERS, DEVMINOR})
_ORDER_OPERATORS: Final = (
    _USERS
    | _GROUPS
    | {PID, MSGTYPE, PPID, DEVMAJOR, EXIT_CODE, SUCCESS, INODE, SESSIONID, SADDR_FAM}
    | {SUBJ_SEN, SUBJ_CLR, OBJ_LEV_LOW, OBJ_LEV_HIGH}
)
_EQUALITY_OPERATORS: Final = frozenset(
    {SUBJ_USER, SUBJ_ROLE, SUBJ_TYPE, OBJ_USER, OBJ_ROLE, OBJ_TYPE, WATCH, DIR, FILTERKEY}
    | {LOGINUID_SET, ARCH, FSTYPE, PERM, FILETYPE, FIELD_COMPARE, EXE}
)
_FILES: Final = frozenset(
    {DEVMAJOR, DEVMINOR, INODE, WATCH, PERM, DIR, FILETYPE, OBJ_UID, OBJ_GID}
    | set(range(OBJ_USER, LOGINUID_SET))
)
# The fields that the exclude list compares (kernel/auditfilter.c: audit_filter).
OF_MESSAGES: Final = frozenset(
    {PID, UID, GID, LOGINUID, LOGINUID_SET, MSGTYPE, *range(SUBJ_USER, PPID), EXE}
)
_NO_SYSCALLS: Final = (USER, TASK, EXCLUDE, FILESYSTEM)  # lists whose rules have none

# linux/audit.h: AUDIT_COMPARE_* from 1 on
_COMPARISONS: Final = (
    *("uid obj_uid", "gid obj_gid", "euid obj_uid", "egid obj_gid", "auid obj_uid"),
    *("suid obj_uid", "sgid obj_gid", "fsuid obj_uid", "fsgid obj_gid"),
    *("uid auid", "uid euid", "uid fsuid", "uid suid", "auid fsuid", "auid suid", "auid euid"),
    *("euid suid", "euid fsuid", "suid fsuid"),
    *("gid egid", "gid fsgid", "gid sgid", "egid fsgid", "egid sgid", "sgid fsgid"),
)

_WORDS: Final = libaudit.MASK_WORDS
_FIELDS: Final = libaudit.MAX_FIELDS
_HEAD: Final = struct.Struct(f"=3I{_WORDS}I{3 * _FIELDS}II")
# The last 16 bits of the mask name classes of system calls, which the kernel replaces by their
# members (AUDIT_SYSCALL_CLASSES): they are never listed, and no system call has such a number.
SYSCALLS: Final = _WORDS * 32 - 16
_CLASS_BITS: Final = 0xFFFF0000


class Field(NamedTuple):
    """One condition of a rule. ``string`` is the value of fields that hold one, else empty."""

    type: int
    operator: int
    value: int  # unsigned, 32 bits; the string's length where there is one
    string: bytes

    @property
    def text(self) -> str:
        r"""The string as text, with bytes that are not UTF-8 as \\xNN."""
        return self.string.decode("utf-8", "backslashreplace")


class RuleData(NamedTuple):
    """A parsed rule. ``mask`` has 64 words of 32 system calls."""

    flags: int
    action: int
    mask: tuple[int, ...]
    fields: tuple[Field, ...]

    @property
    def list(self) -> int:
        """The AUDIT_FILTER_* number of the list that the rule is for."""
        return self.flags & LIST_MASK

    @property
    def key(self) -> str:
        """The rule's keys, joined by KEY_SEPARATOR; empty when it has none."""
        return next((field.text for field in self.fields if field.type == FILTERKEY), "")

    @property
    def all_syscalls(self) -> bool:
        """Whether the rule covers every system call."""
        return all(word == 0xFFFFFFFF for word in self.mask[:-1])

    def syscalls(self) -> Iterator[int]:
        """Yield the numbers of the system calls that the rule covers."""
        for number in range(_WORDS * 32):
            if self.has_syscall(number):
                yield number

    def has_syscall(self, number: int) -> bool:
        """Whether the rule is for the system call of that number."""
        return bool(self.mask[number // 32] >> number % 32 & 1)

    def meets(self, other: RuleData) -> bool:
        """Whether the rule and ``other`` cover a common system call of one architecture."""
        arches = {
            field.value for rule in (self, other) for field in rule.fields if field.type == ARCH
        }
        return len(arches) < 2 and any(map(int.__and__, self.mask, other.mask))

    @property
    def is_watch(self) -> bool:
        """Whether it is a watch (-w)."""
        types = [field.type for field in self.fields]
        return (
            self.list == EXIT
            and self.action == ALWAYS
            and self.all_syscalls
            and types[:2] in ([WATCH, PERM], [DIR, PERM])
            and types[2:] in ([], [FILTERKEY])
        )

    @property
    def is_about_files(self) -> bool:
        """Whether it can only match system calls that name a file."""
        return any(field.type in _FILES for field in self.fields)

    @property
    def is_unconditional(self) -> bool:
        """Whether it matches every call of its system calls and architecture."""
        return all(field.type in (ARCH, FILTERKEY) for field in self.fields)

    @property
    def is_about_failure(self) -> bool:
        """Whether it matches only failed system calls."""
        return any(
            field.operator == _EQUAL
            and (
                (field.type == SUCCESS and field.value == 0)
                or (field.type == EXIT_CODE and field.value >= _NEGATIVE)
            )
            for field in self.fields
        )

    @property
    def is_about_one_process(self) -> bool:
        """Whether it matches only the system calls of one pid."""
        return any(field.type == PID and field.operator == _EQUAL for field in self.fields)

    def fits_arch(self, arch: int) -> bool:
        """Return whether it matches system calls of that AUDIT_ARCH_* value."""
        return all(
            (field.value == arch) == (field.operator == _EQUAL)
            for field in self.fields
            if field.type == ARCH
        )


def unpack(data: bytes) -> RuleData:
    """Parse a struct audit_rule_data; raises ValueError for invalid data."""
    if len(data) < _HEAD.size:
        raise ValueError(f"an audit rule has at least {_HEAD.size} bytes, this has {len(data)}")
    words = _HEAD.unpack_from(data)
    flags, action, count = words[:3]
    if count > _FIELDS or len(data) < _HEAD.size + words[-1]:
        raise ValueError("the audit rule's counts don't fit its size")
    types, values, operators = (words[3 + _WORDS + _FIELDS * part :] for part in range(3))
    position = _HEAD.size
    fields = []
    for type_, value, flag in zip(types[:count], values, operators, strict=False):
        string = b""
        if type_ in _STRINGS:
            string = data[position : position + value]
            position += value
        fields.append(Field(type_, flag & _OPERATORS, value, string))
    return RuleData(flags, action, words[3 : 3 + _WORDS], tuple(fields))


def canonical(data: bytes) -> bytes:
    """Return the rule as the kernel lists it, for comparison and deletion.

    Sent and listed rules differ in the flag that puts a rule first, in the class bits of the mask,
    and in netlink's padding at the end. Raises ValueError when ``data`` isn't a rule.
    """
    if len(data) < _HEAD.size:
        raise ValueError(f"an audit rule has at least {_HEAD.size} bytes, this has {len(data)}")
    words = list(_HEAD.unpack_from(data))
    words[0] &= ~PREPEND
    words[2 + _WORDS] &= ~_CLASS_BITS
    return _HEAD.pack(*words) + data[_HEAD.size : _HEAD.size + words[-1]]


def hides(data: bytes, record_type: int) -> bool:
    """Return whether a rule may suppress all records of a type, ignoring its other fields.

    Such a rule is on the exclude list. Only a ``msgtype`` that is compared for equality certainly
    excludes other types.
    """
    rule = unpack(data)
    if rule.flags & LIST_MASK != EXCLUDE or rule.action == NEVER:
        return False
    return not any(
        field.type == MSGTYPE and field.operator == _EQUAL and field.value != record_type
        for field in rule.fields
    )


# --- as auditctl -l shows it ----------------------------------------------------------------------


def describe(data: bytes) -> str:
    """Return the rule as ``auditctl -l`` prints it; raises ValueError when ``data`` isn't one.

    It differs where auditctl 3.0 prints the text of another rule: it shows the operator of ``exe``;
    it shows a rule as -w only if -w makes exactly that rule, so not if the action is never or if
    the permissions precede the path; and without an arch, system calls have this machine's names
    (auditctl uses the arch of the previously printed rule).
    """
    rule = unpack(data)
    watch = rule.is_watch
    fields = [_describe_field(field, watch=watch) for field in rule.fields if field.type != ARCH]
    return "".join(fields).removeprefix(" ") if watch else _head(rule) + "".join(fields)


def _head(rule: RuleData) -> str:
    action = libaudit.action_name(rule.action) or str(rule.action)
    list_ = libaudit.list_name(rule.flags & ~PREPEND) or str(rule.list)
    arch = libaudit.native_arch()
    text = f"-a {action},{list_}"
    for field in rule.fields:
        if field.type == ARCH:
            arch = field.value
            text += f" -F arch{_symbol(field)}{_arch_text(arch)}"
    if rule.list in _NO_SYSCALLS:
        return text
    if rule.all_syscalls:
        return f"{text} -S all"
    if rule.list == IO_URING:  # the numbers are of io_uring operations
        arch = 0
    names = [libaudit.syscall_name(number, arch) or str(number) for number in rule.syscalls()]
    return f"{text} -S {','.join(names)}" if names else text


def _arch_text(arch: int) -> str:
    if libaudit.arch_name(arch) is None:
        return f"0x{arch:X}"
    return "b64" if arch & 0x80000000 else "b32"


def _symbol(field: Field) -> str:
    return libaudit.operator_symbol(field.operator) or "(null)"


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _describe_field(field: Field, *, watch: bool) -> str:
    if field.type == FILTERKEY:
        option = " -k " if watch else " -F key="
        return "".join(option + key for key in field.text.split(KEY_SEPARATOR) if key)
    if field.type in (WATCH, DIR):
        name = "path" if field.type == WATCH else "dir"
        return f" -w {field.text}" if watch else f" -F {name}={field.text}"
    if field.type == PERM:
        letters = zip("rwxa", (PERM_READ, PERM_WRITE, PERM_EXEC, PERM_ATTR), strict=True)
        text = "".join(letter for letter, bit in letters if field.value & bit)
        return f" -p {text}" if watch else f" -F perm={text}"
    if field.type == FIELD_COMPARE:
        if not 1 <= field.value <= len(_COMPARISONS):
            return ""
        left, right = _COMPARISONS[field.value - 1].split()
        return f" -C {left}{_symbol(field)}{right}"
    name = libaudit.field_name(field.type) or ""
    if not name:
        return f" f{field.type}{_symbol(field)}{_signed(field.value)}"
    return f" -F {name}{_symbol(field)}{_value(field)}"


def _value(field: Field) -> str:
    value = _signed(field.value)
    if field.type in _STRINGS:
        return field.text
    if field.type == MSGTYPE:
        return libaudit.message_type_name(value) or str(value)
    if field.type == FSTYPE:
        return libaudit.filesystem_name(value) or str(value)
    if field.type == INODE:
        return str(field.value)
    if ARG0 <= field.type <= ARG3:
        return f"0x{field.value:X}"
    if field.type == EXIT_CODE and value < 0:
        name = libaudit.errno_name(-value)
        return f"-{name}" if name else str(value)
    return str(value)


# --- what the kernel accepts ----------------------------------------------------------------------


def objection(rule: RuleData) -> str | None:
    """Return the reason why the kernel would refuse the rule as invalid, None if it is valid.

    The existence of paths is not checked.
    """
    seen: set[int] = set()
    for field in rule.fields:
        reason = _field_objection(rule, field) or _value_objection(field)
        reason = reason or _place_objection(field, seen)
        if reason is not None:
            return reason
        seen.add(field.type)
    return None


def _field_objection(rule: RuleData, field: Field) -> str | None:
    name = libaudit.field_name(field.type) or str(field.type)
    if rule.list == FILESYSTEM and field.type not in (FSTYPE, FILTERKEY):
        return f"the filesystem list takes no field but fstype and key, this rule has {name}"
    if field.operator not in _ALL_OPERATORS:
        return f"field {name} has an operator that the kernel doesn't know"
    if field.type in _ANY_OPERATOR:
        return None
    if field.type in _ORDER_OPERATORS:
        if field.operator in _BITS:
            return f"{name} doesn't take & and &=; a0 to a3, pers and devminor do"
        return None
    if field.type in _EQUALITY_OPERATORS:
        if field.operator not in (_EQUAL, _NOT_EQUAL):
            return f"{name} takes only = and !="
        return None
    return f"the kernel knows no field {name} in rules"


def _value_objection(field: Field) -> str | None:
    name = libaudit.field_name(field.type) or str(field.type)
    if field.type in _USERS | _GROUPS and field.value == _UNSET and field.type != LOGINUID:
        return f"{name} can't be -1 or unset: every process has one; only auid can be unset"
    if field.type == LOGINUID and field.value == _UNSET:
        # The kernel then tests whether the process has a login uid (AUDIT_LOGINUID_SET).
        return (
            None if field.operator in (_EQUAL, _NOT_EQUAL) else f"unset {name} takes only = and !="
        )
    if field.type in (WATCH, DIR, EXE):
        if not field.text.startswith("/"):
            return f"{name} must be an absolute path, this is {field.text!r}"
        if field.type != DIR and field.text.endswith("/"):
            return f"{name} must not end with /: use dir= for a directory"
        if field.type != DIR and field.text.rpartition("/")[2] in (".", ".."):
            return f"{name} must not end with . or ..: write the path out"
    if field.type in (WATCH, DIR) and field.operator != _EQUAL:
        return f"{name} takes only ="
    return None


def _place_objection(field: Field, seen: set[int]) -> str | None:
    name = libaudit.field_name(field.type) or str(field.type)
    if field.type in (FILTERKEY, EXE) and field.type in seen:
        return f"a rule can have one {name}: write a rule for each"
    if field.type in (WATCH, DIR, INODE) and seen & {WATCH, DIR, INODE}:
        return "a rule can have one of path, dir and inode: write a rule for each"
    return None
