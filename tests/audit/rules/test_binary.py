"""The kernel's format of a rule: parsing, comparison, description."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessiond.audit.rules import binary, libaudit, parser


def compiled(line: str) -> bytes:
    """Return the bytes of one rule, on a host where every path is a plain file."""
    (rule,) = parser.parse(line, "test", path_mode=lambda path: 0o40755 if path == b"/etc" else 0)
    return rule.data


@pytest.mark.parametrize(
    ("line", "description"),
    [
        ("-w /etc/passwd", "-w /etc/passwd -p rwxa"),
        ("-w /etc/ -p wa -k a -k b", "-w /etc -p wa -k a -k b"),
        ("-a task,never", "-a never,task"),
        ("-A exit,always -S 59", "-a always,exit -S execve"),
        (
            "-a always,exit -F arch=b32 -S open,close -F exit=-13 -F auid!=unset -k x",
            "-a always,exit -F arch=b32 -S open,close -F exit=-EACCES -F auid!=-1 -F key=x",
        ),
        (
            "-a always,exit -F a0=10 -F a1&0xff -F inode=4294967295",
            "-a always,exit -S all -F a0=0xA -F a1&0xFF -F inode=4294967295",
        ),
        (
            "-a always,exit -F path=/x -F perm=xr -F filetype=dir -F success=0",
            "-a always,exit -S all -F path=/x -F perm=rx -F filetype=16384 -F success=0",
        ),
        (
            "-a exit,always -C uid!=obj_uid -C fsgid=sgid",
            "-a always,exit -S all -C uid!=obj_uid -C sgid=fsgid",
        ),
        ("-a exclude,never -F msgtype=CWD", "-a never,exclude -F msgtype=CWD"),
        ("-a exclude,never -F msgtype>2999", "-a never,exclude -F msgtype>2999"),
        (
            "-a exit,always -F obj_user=me -F subj_role=r",
            "-a always,exit -S all -F obj_user=me -F subj_role=r",
        ),
    ],
)
def test_described_as_auditctl_does(line: str, description: str) -> None:
    """Golden: the output of auditctl -l for the rule of that line."""
    if libaudit.arch_name(libaudit.native_arch()) != "x86_64" and "59" in line:
        line = line.replace("59", "execve")
    assert binary.describe(compiled(line)) == description


@pytest.mark.parametrize(
    ("line", "description"),
    [
        ("-a exit,always -F exe!=/bin/su", "-a always,exit -S all -F exe!=/bin/su"),
        (
            "-a never,exit -F path=/etc/x -F perm=w",
            "-a never,exit -S all -F path=/etc/x -F perm=w",
        ),
        (
            "-a always,exit -F perm=w -F path=/etc/x",
            "-a always,exit -S all -F perm=w -F path=/etc/x",
        ),
    ],
)
def test_described_truly_where_auditctl_does_not(line: str, description: str) -> None:
    """auditctl 3.0 would print "=", a watch that records, and no text at all."""
    assert binary.describe(compiled(line)) == description
    assert binary.canonical(compiled(description)) == binary.canonical(compiled(line))


def test_bytes_that_are_not_utf_8_are_described() -> None:
    """A path may contain any bytes, which the description shows."""
    (rule,) = parser.parse(b"-w /tmp/\xff\xc3\xa9", "test", path_mode=lambda _: 0)
    assert rule.describe() == "-w /tmp/\\xffé -p rwxa"


def test_canonical_is_what_the_kernel_lists() -> None:
    """The canonical form lacks the flag for the front, the class bits of -S all, and padding."""
    sent = compiled("-A exit,always -F pid=1")
    listed = bytearray(sent)
    struct.pack_into("=I", listed, 0, binary.EXIT)
    struct.pack_into("=I", listed, 4 * (2 + libaudit.MASK_WORDS), 0x0000FFFF)
    assert binary.canonical(sent) == bytes(listed)
    assert binary.canonical(bytes(listed) + b"\0\0") == bytes(listed)
    assert binary.unpack(sent).all_syscalls


@given(st.binary(max_size=1100))
@example(b"")
@example(bytes(1039))
@example(bytes(8) + b"\xff" * 1032)
@example(b"\xff" * 1100)
@example(bytes(1100))
def test_any_bytes_are_a_rule_or_a_value_error(data: bytes) -> None:
    """Rules of other programs may have unknown parts: they are described nevertheless."""
    try:
        description = binary.describe(data)
    except ValueError:
        return
    assert description.startswith(("-a ", "-w "))


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        max_size=64,
    ),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_any_fields_are_described(
    fields: list[tuple[int, int, int]], flags: int, action: int
) -> None:
    """Unknown lists, actions, fields and operators are shown by number, without an exception."""
    rest = [0] * (libaudit.MAX_FIELDS - len(fields))
    columns = [word for n in range(3) for word in [*(field[n] for field in fields), *rest]]
    words = [flags, action, len(fields), *[0] * libaudit.MASK_WORDS, *columns, 0]
    data = struct.pack(f"={len(words)}I", *words)
    assert binary.describe(data)
    reason = binary.objection(binary.unpack(data))
    assert reason is None or reason


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("-a always,exclude -F msgtype=CONFIG_CHANGE", True),
        ("-a always,exclude -F msgtype=CWD", False),
        ("-a always,exclude -F msgtype!=CWD", True),
        ("-a always,exclude -F msgtype>=1300 -F msgtype<=1310", True),
        ("-a always,exclude -F uid=0", True),
        ("-a never,exclude -F uid=0", False),
        ("-a always,exit -F arch=b64 -S execve", False),
    ],
)
def test_rules_that_may_hide_a_record(line: str, hidden: bool) -> None:
    """Rules of the exclude list count, unless they certainly exclude only another type."""
    assert binary.hides(compiled(line), 1305) == hidden
