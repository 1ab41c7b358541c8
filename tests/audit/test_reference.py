"""The same log parsed by sessiond and by the audit project's libauparse and ausearch.

The logs are real: the rules of Debian's 30-stig.rules and some more, while users were created and
deleted, logged in, accessed files, and made successful and failed connections; while a package was
upgraded, the clock was set, file systems were mounted, and Landlock refused an exec.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.auditlog import DATA, FixedNames, events, record_type
from support.damage import FORMS, Damaged, damaged, in_form, kinds_of_events

from sessiond.audit.auditd_log import parse_line
from sessiond.audit.reassembler import AuditEvent, Reassembler
from sessiond.audit.record import CWD, EOE, EXECVE, PATH, PROCTITLE, SYSCALL, Record, fields
from sessiond.audit.rules import libaudit
from sessiond.ecs.audit_event import AuditEventEncoder, Options
from sessiond.ecs.audit_fields import SOCKADDR, URINGOP

LOGS = sorted(DATA.glob("*.log"))
GOLDEN = Path(__file__).parent.parent / "ecs" / "golden"

# The binding raises for a value that is not UTF-8, which then can't be compared.
SOCKETCALL, IPC_SET_PERM = 1304, 1311
NOT_UTF_8 = "(not UTF-8)"
# The prefix of a record is a field for libauparse.
HEAD = ("node", "type")

Stamp = tuple[int, int]  # ms since the epoch, serial


class Field(NamedTuple):
    """A field from libauparse: as written, and interpreted."""

    name: str
    raw: str
    shown: str


class Reference(NamedTuple):
    """A record from libauparse."""

    type: int
    fields: list[Field]


@pytest.fixture(scope="module", params=LOGS, ids=lambda path: path.stem)
def log(request: pytest.FixtureRequest) -> Path:
    """A log, raw or ENRICHED."""
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def reference(log: Path) -> dict[Stamp, list[Reference]]:
    """All events of the log, parsed by libauparse."""
    return read_reference(log)


def read_reference(log: Path) -> dict[Stamp, list[Reference]]:
    """Parse a log with libauparse."""
    auparse = pytest.importorskip("auparse", reason="needs python3-audit")
    parser = auparse.AuParser(auparse.AUSOURCE_FILE, str(log))
    parser.set_escape_mode(auparse.AUPARSE_ESC_RAW)
    found: dict[Stamp, list[Reference]] = {}
    while parser.parse_next_event():
        stamp = parser.get_timestamp()
        records = found.setdefault((stamp.sec * 1000 + stamp.milli, stamp.serial), [])
        parser.first_record()
        records += _each(parser, lambda: _record(parser), parser.next_record)
    return found


@pytest.fixture(scope="module")
def ours(log: Path) -> dict[Stamp, AuditEvent]:
    """All events of the log, parsed by sessiond."""
    return {(event.time, event.serial): event for event in events(log)}


def _each(parser: Any, read: Any, step: Any) -> Iterator[Any]:
    yield read()
    while step():
        yield read()


def _record(parser: Any) -> Reference:
    number = parser.get_type()
    parser.first_field()

    def field() -> Field:
        try:
            shown = parser.interpret_field()
        except UnicodeDecodeError:
            shown = NOT_UTF_8
        return Field(parser.get_field_name(), parser.get_field_str(), shown)

    return Reference(number, list(_each(parser, field, parser.next_field)))


def test_the_same_records_belong_together(
    ours: dict[Stamp, AuditEvent], reference: dict[Stamp, list[Reference]]
) -> None:
    """Every event has the same stamp, serial and records in the same order."""
    assert {stamp: [record.type for record in event.records] for stamp, event in ours.items()} == {
        stamp: [record.type for record in records] for stamp, records in reference.items()
    }


def test_every_field_of_every_record_is_the_same(
    ours: dict[Stamp, AuditEvent], reference: dict[Stamp, list[Reference]]
) -> None:
    """Names and values are equal, as written, except for the differences listed in _expected."""
    for stamp, event in ours.items():
        for mine, theirs in zip(event.records, reference[stamp], strict=True):
            found = _flattened(mine)
            for name, raw in _expected(theirs):
                assert found.pop(name, None) == raw, f"{mine}: {name}"
            assert not found, f"{mine}: libauparse doesn't have {found}"


def _flattened(record: Record) -> dict[str, str]:
    """Return sessiond's fields like libauparse: those of a user message beside the kernel's."""
    found = fields(record.text)
    message = found.pop("msg", b"")
    inside = fields(message.strip(b"'"))
    # libauparse takes type= and msg= in a message for the head of a record, and drops fields
    # without a value.
    inside.pop("type", None)
    inside.pop("msg", None)
    return {name: raw.decode() for name, raw in {**inside, **found}.items() if raw}


def _expected(record: Reference) -> Iterator[tuple[str, str]]:
    """Yield the fields as written, with libauparse's changes."""
    keys = [field.shown for field in record.fields if field.name == "key"]
    seen = set()
    for name, raw, _ in record.fields:
        # libauparse has fields for the record's head. It also adds the fields of a user message; of
        # two fields with one name the first counts.
        if name not in HEAD and name not in seen and (name != "key" or len(keys) == 1):
            yield name, raw
        seen.add(name)
    if len(keys) > 1:
        # It makes each of several keys a field; the kernel writes them as one field in hex.
        yield "key", "\x01".join(keys).encode().hex().upper()


def test_numbers_get_the_same_names(
    log: Path, ours: dict[Stamp, AuditEvent], reference: dict[Stamp, list[Reference]]
) -> None:
    """Names of machines, syscalls, errors, addresses, titles and keys equal those of libauparse."""
    describe = AuditEventEncoder(FixedNames(), libaudit).describe
    compared: set[str] = set()
    for stamp, event in ours.items():
        document, warnings = describe(event)
        assert warnings == []
        for name, mine, theirs in _named(document, reference[stamp]):
            assert mine == theirs or theirs == NOT_UTF_8, f"{event}: {name}"
            compared.add(name)
    others = {"flags", "signal", "crash"} if "stig" in log.stem else set()
    assert compared == others | {
        *("arch", "syscall", "exit", "tags", "title", "address", "port", "path"),
        *("executable", "cwd", "file"),
    }


def _named(
    document: dict[str, Any], records: list[Reference]
) -> Iterator[tuple[str, object, object]]:
    data, process = document["auditd"].get("data", {}), document.get("process", {})
    named = document["auditd"].get("arguments", {})
    for record in records:
        shown = {field.name: field.shown for field in record.fields}
        if record.type == 1300:
            yield "arch", data["arch"], shown["arch"]
            yield "syscall", data["syscall"], shown["syscall"]
            yield "executable", process["executable"], shown["exe"]
            # libauparse adds strerror(3): "EACCES(Permission denied)"
            yield "exit", data.get("exit", ""), shown.get("exit", "").partition("(")[0]
            # ... and makes each of several keys a field; the key of a changed rule is also a tag.
            keys = [
                field.shown
                for one in sorted(records, key=lambda one: one.type != SYSCALL)
                for field in one.fields
                if field.name == "key" and field.shown != "(null)"
            ]
            yield "tags", document.get("tags", []), list(dict.fromkeys(keys))
            if shown["syscall"] == "openat":
                yield "flags", named["flags"], shown["a2"]
            if shown["syscall"] == "kill":
                yield "signal", named["signal"], shown["a1"]
        elif record.type == 1327:
            yield "title", process["title"], shown["proctitle"]
        elif record.type == 1307:
            yield "cwd", process["working_directory"], shown["cwd"]
        elif record.type == 1306:
            yield from _address(data["socket"], shown["saddr"])
        elif record.type == 1701:
            yield "crash", data["sig"], shown["sig"]
        elif record.type == 1302:
            paths = [path.get("name", "(null)") for path in document["auditd"]["paths"]]
            yield "file", True, shown["name"] in (NOT_UTF_8, *paths)


def _address(socket: dict[str, str], shown: str) -> Iterator[tuple[str, object, object]]:
    if "saddr_fam=inet" in shown:
        yield "address", socket["addr"], re.findall(r" laddr=(\S+)", shown)[0]
        yield "port", socket["port"], re.findall(r" lport=(\S+)", shown)[0]
    elif "saddr_fam=local" in shown and "too short" not in shown:
        # sessiond shows the leading NUL of the abstract namespace as "@"; libauparse omits it.
        yield (
            "path",
            socket["path"].removeprefix("@"),
            re.findall(r" path=(.*?)(?:\0| })", shown)[0],
        )


def test_ausearch_tells_the_same_of_every_syscall(log: Path, ours: dict[Stamp, AuditEvent]) -> None:
    """``ausearch -i`` names the same syscalls, results and errors for the same serials."""
    ausearch = shutil.which("ausearch")
    if ausearch is None:
        pytest.skip("needs ausearch of Debian's package auditd")
    done = subprocess.run(
        [ausearch, "-i", "-if", str(log), "-m", "SYSCALL"],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    line = re.compile(rb"type=SYSCALL msg=audit\(.*:(\d+)\) : arch=\S+ syscall=(\S+)(.*) a0=")
    theirs = {
        int(serial): (name.decode(), _told(rest.decode()))
        for serial, name, rest in line.findall(done.stdout)
    }
    describe = AuditEventEncoder(FixedNames(), libaudit).describe
    mine = {}
    for event in ours.values():
        if event.syscall:
            document, _ = describe(event)
            data = document["auditd"]["data"]
            told = document["event"]["outcome"], data.get("exit", "")
            mine[event.serial] = (data["syscall"], told)
    assert mine == theirs


def _told(rest: str) -> tuple[str, str]:
    found = re.search(r"success=(\S+) exit=([^(\s]+)", rest)
    if found is None:
        return "unknown", ""
    return {"yes": "success", "no": "failure"}[found[1]], found[2]


# Damaged events, in every form

# Logs in formats, or with types, that libauparse 3.0 does not support.
NOT_READ = ("as-", "ausearch", "companions")
CORPUS = kinds_of_events(
    log
    for log in (*LOGS, *sorted(GOLDEN.glob("*.log")), *sorted((DATA / "replay").glob("*.log")))
    if not log.name.startswith(NOT_READ)
)


def test_every_record_type_is_in_a_log() -> None:
    """EOE has no fields."""
    found = {parse_line(line, record_type).type for event in CORPUS for line in event}
    known = {kind for kind in range(1100, 2600) if libaudit.message_type_name(kind)}
    assert known - found == {EOE}


class Pair(NamedTuple):
    """A damaged event, as parsed by both."""

    event: Damaged
    ours: AuditEvent
    theirs: list[Reference]


@pytest.fixture(scope="module", params=FORMS)
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """All kinds of events in the logs, intact and damaged, in one format."""
    made = list(damaged(CORPUS))
    lines = [in_form(line, request.param) for each in made for line in each.lines]
    log = tmp_path_factory.mktemp("reference") / "audit.log"
    log.write_bytes(b"\n".join(lines) + b"\n")
    theirs = {serial: records for (_, serial), records in read_reference(log).items()}
    assembler = Reassembler(timeout=1, of_log=True)
    records = [parse_line(line, record_type) for line in lines]
    found = assembler.feed([(each.type, each.payload) for each in records], 0)
    ours = {event.serial: event for event in [*found, *assembler.flush()]}
    assert ours.keys() == theirs.keys() == {each.serial for each in made}
    return [Pair(each, ours[each.serial], theirs[each.serial]) for each in made]


def test_damaged_events_have_the_same_records(pairs: list[Pair]) -> None:
    """A repeated record counts once for sessiond; libauparse starts a new event after PROCTITLE.

    Since version 4 libauparse has records of programs (1100 to 1199) after those of the kernel.
    """
    for event, ours, theirs in pairs:
        types = [each.type for each in _once(theirs)]
        mine = [each.type for each in ours.records]
        assert sorted(mine) == sorted(types), event
        if PROCTITLE not in mine[:-1] and event.damage not in ("reordered", "doubled"):
            assert [t for t in mine if t // 100 != 11] == [t for t in types if t // 100 != 11], (
                event
            )


def test_damaged_records_have_the_same_fields(pairs: list[Pair]) -> None:
    """Fields are compared one by one, as written."""
    for event, ours, theirs in pairs:
        rest = _once(theirs)
        for record in ours.records:
            found = _flattened(record)
            options = [dict(_expected(each)) for each in rest if each.type == record.type]
            assert any(_alike(found, each, event.damage) for each in options), (event, found)


def _once(records: list[Reference]) -> list[Reference]:
    return [each for index, each in enumerate(records) if each not in records[:index]]


def _alike(mine: dict[str, str], theirs: dict[str, str], damage: str) -> bool:
    """Compare the fields of a record, allowing for libauparse's changes."""
    if "seresult" not in mine:
        # libauparse adds fields for SELinux's text.
        theirs = {n: v for n, v in theirs.items() if n not in ("seresult", "seperms")}
    for name in mine.keys() | theirs.keys():
        here, there = mine.get(name, ""), theirs.get(name, "")
        # libauparse cuts a quoted value at a blank, and punctuation at the end of a value.
        same = here == there or (" " in here and here.startswith(there))
        same = same or here.rstrip("),") == there
        if damage == "cut" and name == list(mine)[-1]:
            same = same or here.rstrip(":,") == there or name == "key"
        if not same:
            return False
    return True


def test_every_field_has_its_place_in_the_document(pairs: list[Pair]) -> None:
    """Every value that libauparse finds in a record is also in the document."""
    describe = AuditEventEncoder(FixedNames(), libaudit, Options(resolve_ids=False)).describe
    compared = 0
    for event, ours, theirs in pairs:
        if event.damage == "cut":
            continue
        document, _ = describe(ours)
        for record in theirs:
            for field in _once_named(record.fields):
                told = _told_as(document, record, field.name)
                if told is not None and field.shown != NOT_UTF_8:
                    assert _values(field) & told or _continued(field, told), (event, field, told)
                    compared += 1
    assert compared > 100_000


def _once_named(found: list[Field]) -> Iterator[Field]:
    seen = set(HEAD)
    for field in found:
        if field.name not in seen:
            yield field
        seen.add(field.name)


def _continued(field: Field, told: set[str]) -> bool:
    """Return whether libauparse has cut a value at its first blank, or a bracket at its end."""
    value = field.raw.strip('"')
    return any(each.startswith(value + " ") or each == value + ")" for each in told)


_UNSET = frozenset(("4294967295", "-1", "unset", "?", "(null)", "(none)", ""))
_RESULTS = {"yes": "success", "1": "success", "no": "fail", "0": "fail", "failed": "fail"}
# Fields that other tests compare, or that have other names.
_COMPARED_ELSEWHERE = frozenset("key arch syscall items code uring_op data".split())
# Operations of io_uring have their own results; LOGIN has the account as the effective user.
_OF_ANOTHER = {"exit": ("uringop",), "success": ("uringop",), "euid": ("login",)}
# Fields that have another name in auditd.data, by the type of their record.
_OTHER_NAMES = {
    SOCKETCALL: {f"a{number}": f"socketcall_a{number}" for number in range(6)},
    IPC_SET_PERM: {name: f"new_{name}" for name in ("ouid", "ogid", "mode")},
}
# The places of the acting process's fields, and of its result, in a document.
_PLACES = {
    "pid": ("process.pid",),
    "ppid": ("process.parent.pid",),
    "comm": ("process.name",),
    "exe": ("process.executable",),
    "ses": ("auditd.session",),
    "auid": ("user.audit.id",),
    "uid": ("user.id", "process.real_user.id"),
    "gid": ("user.group.id",),
    "euid": ("user.effective.id", "user.id"),
    "egid": ("user.effective.group.id", "user.group.id"),
    "suid": ("user.saved.id",),
    "sgid": ("user.saved.group.id",),
    "fsuid": ("user.filesystem.id",),
    "fsgid": ("user.filesystem.group.id",),
    "success": ("auditd.result",),
    "res": ("auditd.result",),
    "result": ("auditd.result",),
}


def _values(field: Field) -> set[str]:
    """Return the values that a document may have for a field: as written, interpreted, or none."""
    shown = field.shown.partition("(")[0] if field.name == "exit" else field.shown
    values = {field.raw, field.raw.strip('"'), shown, _RESULTS.get(field.raw.strip('"'), "")}
    nothing = field.raw.strip('"') in _UNSET or (field.name, field.raw) == ("ppid", "0")
    return values | {""} if nothing else values


def _told_as(document: dict[str, Any], record: Reference, name: str) -> set[str] | None:
    """Return a document's value of a field; None if it is compared elsewhere or absent."""
    auditd, process = document["auditd"], document.get("process", {})
    data = auditd.get("data", {})
    if name in _COMPARED_ELSEWHERE or record.type == SOCKADDR:
        return None
    if auditd["message_type"] in _OF_ANOTHER.get(name, ()) and record.type in (SYSCALL, URINGOP):
        return None
    if name in ("obj", "subj"):
        label = "file" if name == "obj" else "user"
        parts = _at(document, f"{label}.selinux") or {}
        assert isinstance(parts, dict)
        whole = {data.get(name, ""), *(path.get(name, "") for path in auditd.get("paths", ()))}
        return whole | {":".join(parts.values())}
    if record.type == SYSCALL or ("syscall" not in data and name in _PLACES):
        # Ids that a message claims for its sender are in auditd.data.
        places = (*_PLACES.get(name, ()), f"auditd.data.{name}")
        return {str(_at(document, place)) for place in places}
    if name in _PLACES:
        return None
    if record.type == PATH:
        return {path.get(name, "") for path in auditd["paths"]}
    if record.type == CWD:
        return {process.get("working_directory", "")}
    if record.type == PROCTITLE:
        return {process["title"]}
    if record.type == EXECVE and name != "argc":
        return set(process["args"]) if name[1:].isdigit() else None
    told = data.get(_OTHER_NAMES.get(record.type, {}).get(name, name), "")
    return set(told) if isinstance(told, list) else {told}


def _at(document: dict[str, Any], path: str) -> object:
    found: Any = document
    for name in path.split("."):
        found = found.get(name, {})
    return found or ""
