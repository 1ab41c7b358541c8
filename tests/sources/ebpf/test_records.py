"""The records of the eBPF programs, decoded to events."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.events import (
    CgroupSeen,
    Changed,
    Executed,
    Exited,
    Facts,
    Forked,
    Observed,
    Program,
)
from sessiond.sources.ebpf import records
from sessiond.sources.ebpf.records import LOSS_KINDS, Decoder, MalformedRecordError

FORK, EXEC, EXIT, SESSION, GROUP, IDS, CGROUP, SNAPSHOT = range(8)
CWD_KNOWN, EXECUTABLE_KNOWN, DELETED, TRUNCATED = 1, 2, 4, 8
ARGS_KNOWN, GROUP_EXIT, AUDIT_STAMP, UNKNOWNS = 16, 32, 64, 128
OWNER_KNOWN = 256

FACTS = Facts._make([*range(100, 126), False])


def record(
    kind: int,
    flags: int = 0,
    *,
    facts: Facts = FACTS,
    other_start: int = 0,
    other: int = 0,
    args_size: int = 0,
    file: tuple[int, int] = (0, 0),
    parts: tuple[bytes, bytes, bytes, bytes] = (b"", b"", b"", b""),
) -> bytes:
    """Encode a record like struct event of programs.c; parts: executable, cwd, filename, args.

    ``file``: the owner of the executable and its mount namespace.
    """
    data = b"".join(parts)
    head = struct.pack("=IIQ26Q?7x", kind, flags, 7, *facts)
    tail = (other_start, other, args_size, len(data), *map(len, parts), *file, b"name\0rubbish")
    return head + struct.pack("=QIIIHHHHII16s", *tail) + data


def decoded(data: bytes) -> Any:
    """Decode one record and check that all of it was used."""
    event, behind = Decoder().decode(data, 0, len(data))
    assert behind == len(data)
    return event


def test_fork() -> None:
    """A fork has its creator, its name and the directory, which was walked from its end."""
    data = record(FORK, CWD_KNOWN, other=9, other_start=8, parts=(b"", b"log\0var\0", b"", b""))
    assert decoded(data) == Forked(7, FACTS, 9, 8, b"name", b"/var/log", inherited=True)


def test_exec() -> None:
    """An exec has path, arguments (empty ones too) and the stamp of its audit event."""
    parts = (b"ls\0bin\0", b"", b"./ls\0", b"ls\0\0-l\0")
    flags = EXECUTABLE_KNOWN | CWD_KNOWN | ARGS_KNOWN | AUDIT_STAMP | OWNER_KNOWN
    assert decoded(
        record(EXEC, flags, other_start=5, args_size=7, file=(42, 43), parts=parts)
    ) == Executed(
        7, FACTS, Program(b"name", b"/bin/ls", b"ls\0\0-l\0", 7, False, 110, 42, 43), b"/", 5
    )


def test_what_is_not_known_is_none() -> None:
    """Without the corresponding flags, path, arguments and stamp are None."""
    assert decoded(record(EXEC)) == Executed(
        7, FACTS, Program(b"name", None, None, None, euid=FACTS.euid), None, None
    )


def test_cut_argument_is_the_last() -> None:
    """Arguments that are cut in the middle end with the remaining part; their size is the whole."""
    program = decoded(
        record(EXEC, ARGS_KNOWN, args_size=99, parts=(b"", b"", b"", b"a\0bc"))
    ).program
    assert (program.argv, program.args_size, program.args_cut) == ((b"a", b"bc"), 99, True)


def test_path_without_its_beginning() -> None:
    """A path without its beginning does not start with a slash, and is marked."""
    flags = EXECUTABLE_KNOWN | TRUNCATED | DELETED
    program = decoded(record(EXEC, flags, parts=(b"c\0b\0", b"", b"", b""))).program
    assert program.executable == b"b/c"
    assert program.deleted


def test_exit() -> None:
    """An exit has the status of wait(2)."""
    assert decoded(record(EXIT, GROUP_EXIT, other=0x8B)) == Exited(7, FACTS, 0x8B, True)


@pytest.mark.parametrize(("kind", "what"), [(SESSION, "session"), (GROUP, "group"), (IDS, "ids")])
def test_change(kind: int, what: str) -> None:
    """A change has its kind."""
    assert decoded(record(kind)) == Changed(7, FACTS, what)


def test_cgroup() -> None:
    """A cgroup has its id and its path."""
    data = record(CGROUP, parts=(b"/a/b\0", b"", b"", b""))
    assert decoded(data) == CgroupSeen(125, b"/a/b")


def test_zeros_that_mean_unknown() -> None:
    """A missing parent, namespace and cgroup is None; a uid of 0 is root."""
    nothing = FACTS._replace(
        ppid=0, parent_start=0, uid=0, mount_namespace=0, network_namespace=0, cgroup_id=0
    )
    facts = decoded(record(SNAPSHOT, UNKNOWNS, facts=nothing)).facts
    assert (facts.ppid, facts.parent_start, facts.uid) == (0, None, 0)
    assert (facts.mount_namespace, facts.network_namespace, facts.cgroup_id) == (None,) * 3


def test_unknown_kind_is_malformed() -> None:
    """An unknown kind of record is an error."""
    data = record(SNAPSHOT + 1)
    with pytest.raises(MalformedRecordError):
        Decoder().decode(data, 0, len(data))


@given(st.binary(max_size=600))
def test_any_bytes_are_an_event_or_malformed(data: bytes) -> None:
    """Any bytes yield an event or MalformedRecordError."""
    try:
        _, behind = Decoder().decode(data, 0, len(data))
    except MalformedRecordError:
        return
    assert behind <= len(data)


@given(
    kind=st.integers(0, SNAPSHOT),
    flags=st.integers(0, 255),
    parts=st.tuples(*[st.binary(max_size=40)] * 4),
    cut=st.integers(0, 500),
)
def test_records_with_any_content(
    kind: int, flags: int, parts: tuple[bytes, bytes, bytes, bytes], cut: int
) -> None:
    """A complete record is an event, with any paths and arguments; a cut one is malformed."""
    data = record(kind, flags, parts=parts)
    event, behind = Decoder().decode(data, 0, len(data))
    assert behind == len(data)
    assert isinstance(event, (Forked, Executed, Exited, Changed, CgroupSeen, Observed))
    with pytest.raises(MalformedRecordError):
        Decoder().decode(data, 0, min(cut, len(data) - 1))


def test_paths_are_remembered_up_to_a_limit() -> None:
    """The cache of paths is bounded, and a path is the same before and after its removal."""
    decoder = Decoder()
    for number in range(10_000):
        data = record(FORK, CWD_KNOWN, parts=(b"", b"%d\0" % number, b"", b""))
        event = decoder.decode(data, 0, len(data))[0]
        assert isinstance(event, Forked)
        assert event.working_directory == b"/%d" % number
    assert len(decoder._paths) <= 4096


def test_each_kind_that_can_be_lost_has_a_name() -> None:
    """The counters' names are in the order of the kinds."""
    assert LOSS_KINDS[EXEC] == "exec"
    assert LOSS_KINDS[CGROUP] == "cgroup"
    assert len(LOSS_KINDS) == SNAPSHOT


# The layout is defined in programs.c, in records.py and, for the facts, in events.py.

PROGRAMS = Path(records.__file__).with_name("programs.c").read_text()
SHORT = {"_ns": "_namespace", "mnt_": "mount_", "net_": "network_"}


def members(struct_name: str) -> list[tuple[str, str]]:
    """Return the (type, name) of the members of a struct of programs.c, in order."""
    found = re.search(rf"struct {struct_name} {{\n(.*?)\n}};", PROGRAMS, re.DOTALL)
    assert found is not None
    text = re.sub(r"/\*.*?\*/", "", found[1], flags=re.DOTALL)
    declared = []
    for declaration in filter(None, map(str.strip, text.split(";"))):
        kind, names = re.fullmatch(r"((?:struct )?\w+) (.*)", declaration, re.DOTALL).groups()  # type: ignore[union-attr]
        declared += [(kind, name.strip()) for name in names.split(",")]
    return declared


def test_facts_are_the_same_in_c_and_here() -> None:
    """Member by member, in the same order, each of 64 bits."""
    declared = members("facts")
    names = [name for _, name in declared]
    for short, long in SHORT.items():
        names = [name.replace(short, long) for name in names]
    assert names == list(Facts._fields)
    assert {kind for kind, _ in declared} == {"u64"}
    assert len(declared) * 8 == records._FACTS.size


def test_the_head_of_a_record_is_the_same_in_c_and_here() -> None:
    """The widths of all members up to the data equal those that are unpacked."""
    widths = {"u64": "Q", "u32": "I", "u16": "H", "struct facts": f"{records._FACTS.size}s"}
    *head, comm, data = members("event")
    assert comm == ("char", "comm[16]")
    assert data == ("char", "data[DATA_SIZE]")
    expected = "=" + "".join(widths[kind] for kind, _ in head) + "16s"
    assert records._HEAD.format == expected


def test_flags_and_kinds_are_the_same_in_c_and_here() -> None:
    """Names and values are equal."""
    here = {"EXECUTABLE_DELETED": "_DELETED", "EXECUTABLE_TRUNCATED": "_TRUNCATED"}
    (flags,) = re.findall(r"/\* Flags of a record. \*/\n((?:#define .*\n)+)", PROGRAMS)
    defined = re.findall(r"^#define (\w+) (\d+)\b", flags, re.MULTILINE)
    assert len(defined) == 9
    for name, value in defined:
        assert getattr(records, here.get(name, f"_{name}")) == int(value), name
    (kinds,) = re.findall(r"enum kind { (.*), KINDS }", PROGRAMS)
    assert [getattr(records, f"_{kind}") for kind in kinds.split(", ")] == list(range(8))
    assert [kind.lower() for kind in kinds.split(", ")][:-1] == list(LOSS_KINDS)
