"""Audit events for tests: from logs and synthetic, with names independent of this host."""

from __future__ import annotations

from pathlib import Path

from sessiond.audit.auditd_log import TypeNumber, parse_line
from sessiond.audit.reassembler import AuditEvent, Reassembler
from sessiond.audit.record import SYSCALL, Record
from sessiond.audit.rules import libaudit
from sessiond.ecs.normalizations import NUMBERS
from sessiond.units import AuditStamp


def record_type(name: str) -> int | None:
    """Return the number of a record type, as ``sessiond replay`` does."""
    return NUMBERS.get(name) or libaudit.message_type(name)


DATA = Path(__file__).resolve().parent.parent / "data"


def as_received(line: bytes, type_number: TypeNumber) -> tuple[int, bytes]:
    """Return the record of a line as netlink passes it: its type and its payload."""
    record = parse_line(line, type_number)
    return record.type, record.payload


def events(path: Path) -> list[AuditEvent]:
    """Read all events of a log in auditd's raw or ENRICHED format, in the order of the log."""
    lines = path.read_bytes().splitlines()
    assembler = Reassembler(timeout=len(lines), of_log=True)
    found: list[AuditEvent] = []
    for line in lines:
        found += assembler.feed([as_received(line, record_type)], 0)
    found += assembler.flush()
    assert assembler.malformed == 0
    return sorted(found, key=lambda event: (event.time, event.serial))


class FixedNames:
    """Has root, and the user and group of the logs."""

    def user(self, uid: int) -> str | None:
        """The name of a user id."""
        return {0: "root", 4242: "ann"}.get(uid)

    def group(self, gid: int) -> str | None:
        """The name of a group id."""
        return {0: "root", 42: "shadow", 4242: "ann"}.get(gid)

    def user_id(self, name: str) -> int | None:
        """The id of a user's name."""
        return {"root": 0, "ann": 4242}.get(name)


ARCH = 0xC000003E
CALLS = {
    2: "open",
    42: "connect",
    59: "execve",
    62: "kill",
    82: "rename",
    112: "setsid",
    231: "exit_group",
    263: "unlinkat",
}


class SmallTables:
    """A few of the kernel's numbers, so that these tests do not need libaudit."""

    def arch_name(self, value: int, /) -> str | None:
        """The machine's name."""
        return "x86_64" if value == ARCH else None

    def syscall_name(self, number: int, value: int, /) -> str | None:
        """A syscall's name."""
        return CALLS.get(number) if value == ARCH else None

    def message_type_name(self, number: int, /) -> str | None:
        """A record type's name."""
        return {1398: "NEWER_THAN_US"}.get(number)

    def errno_name(self, number: int, /) -> str | None:
        """An error's name."""
        return {2: "ENOENT", 13: "EACCES"}.get(number)


def event(*records: tuple[int, bytes], serial: int = 8972) -> AuditEvent:
    """Return an event of records."""
    made = AuditEvent(AuditStamp(1777630272123), serial, 0)
    made.records = [Record(number, text) for number, text in records]
    return made


def syscall(number: int, **more: str) -> tuple[int, bytes]:
    """Return a SYSCALL record by the user ann; ``more`` replaces or adds fields."""
    fields = {
        "arch": f"{ARCH:x}",
        "syscall": str(number),
        "success": "yes",
        "exit": "0",
        **dict.fromkeys(("a0", "a1", "a2", "a3"), "0"),
        "ppid": "10027",
        "pid": "10043",
        "auid": "4242",
        **dict.fromkeys("uid gid euid suid fsuid egid sgid fsgid".split(), "4242"),
        "tty": "pts0",
        "ses": "11",
        "comm": '"uname"',
        "exe": '"/usr/bin/uname"',
        "key": "(null)",
    } | more
    return SYSCALL, " ".join(f"{name}={value}" for name, value in fields.items()).encode()
