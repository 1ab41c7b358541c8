"""The fields of the records of one event, as text for a document.

The content of a record is only data: it can't imitate a field that the kernel wrote.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal

from sessiond.audit.record import (
    CONFIG_CHANGE,
    CWD,
    EXECVE,
    LOGIN,
    PATH,
    PROCTITLE,
    SYSCALL,
    Record,
    arguments,
    decode,
    fields,
    login_fields,
)
from sessiond.ecs import decoders
from sessiond.ecs.normalizations import AUXILIARY, RECORD_TYPES, record_type
from sessiond.ecs.redaction import Redactor
from sessiond.text import display

SOCKADDR: Final = 1306
OBJ_PID: Final = 1318
URINGOP: Final = 1336
USER_CMD: Final = 1123
# Records whose key= is the key of an audit rule, as in SYSCALL.
_KEYED: Final = frozenset((CONFIG_CHANGE, URINGOP))

# Fields whose values the kernel and libaudit encode: quoted, or hex digits if they hold a blank,
# a quote, a control character or a byte that isn't ASCII.
ENCODED: Final = frozenset(
    "acct cgroup cmd comm cwd data device device_rule dir exe file grp key name new-chardev "
    "new-disk new-fs new-rng ocomm old-chardev old-disk old-fs old-rng path proctitle profile "
    "root_dir sw target vm watch invalid_context".split()
)

# Fields with their own place in the document, not repeated in auditd.data.
_RECORD_PLACED: Final = frozenset(
    "pid ppid uid auid ses msg res result success exe comm gid euid suid fsuid egid sgid "
    "fsgid items".split()
)
# Fields that a message can have about its sender; the others come from the kernel.
_PLACED_CLAIMS: Final = frozenset(("exe", "comm", "res", "result", "success"))

_NOTHING: Final = frozenset((b"", b"?", b"(null)"))
_UNSET_FIELDS: Final = frozenset(
    "auid ses old-auid old_auid new-auid old-ses old_ses new-ses oauid oses ouid ogid".split()
)
UNSET: Final = frozenset((b"4294967295", b"-1", b"unset", b"?", b"", b"(null)"))

# In a user message an unquoted value may contain blanks ("op=adding user id=1000"); it ends where
# the next name starts.
_MESSAGE_FIELD: Final = re.compile(
    rb"(?:^|(?<=[ ,]))([A-Za-z0-9_][A-Za-z0-9_\-]*)="
    rb"(\"[^\"]*\"|(?:(?! [A-Za-z0-9_][A-Za-z0-9_\-]*=)[^\n])*)"
)
_OLD_COLON: Final = re.compile(rb" ?: +exe=")
_AVC: Final = re.compile(rb"avc: +(denied|granted) +\{ ([^}]*) \}")

# MAX_PROCTITLE_AUDIT_LEN of kernel/audit.h, including the NUL: the kernel cuts longer titles.
_MAX_TITLE: Final = 127

# The maximum of the type long. The kernel's serial has 32 bits.
MAX_SEQUENCE: Final = (1 << 63) - 1

# Maximum number of fields of an event in auditd.data: an index limits its total.
DATA_LIMIT: Final = 128
CACHE_LIMIT: Final = 1024
_CACHED_SIZE: Final = 512


class EventFields:
    """The fields of the records of one event so far.

    ``subject`` is the record that defines the event, None if it is the syscall itself; ``main`` has
    the fields of the acting process, only from the kernel; ``claims`` are the fields of a
    user-space message. ``more`` are the values of further records of a kind, by name; ``socket`` is
    the decoded SOCKADDR record, ``keys`` are those of the rules that the event is about.
    """

    __slots__ = (
        "address",
        "args",
        "claims",
        "cwd",
        "data",
        "keys",
        "main",
        "more",
        "own",
        "paths",
        "socket",
        "subject",
        "target",
        "title",
        "warnings",
    )

    def __init__(self) -> None:
        self.subject: Record | None = None
        self.main: Mapping[str, bytes] = {}
        self.own: Mapping[str, bytes] = {}
        self.claims: Mapping[str, bytes] = {}
        self.data: dict[str, str] = {}
        self.more: dict[str, list[str]] = {}
        self.keys: list[bytes | None] = []
        self.paths: list[dict[str, str]] = []
        self.socket: dict[str, str] = {}
        self.warnings: list[str] = []
        self.args: list[bytes] = []
        self.cwd: str | None = None
        self.title: str | None = None
        self.address: decoders.Address | None = None
        self.target: dict[str, str] | None = None

    def add(self, name: str, value: str | None) -> None:
        """Add a value to auditd.data: the first one of a name counts."""
        if not value or name in self.data:
            return
        if len(self.data) < DATA_LIMIT:
            self.data[name] = value
        elif len(self.data) == DATA_LIMIT:
            self.warnings.append(f"more than {DATA_LIMIT} fields, the rest is left out")
            self.data["truncated"] = "yes"

    def merge(self, found: Mapping[str, str]) -> None:
        """Add a whole record to auditd.data."""
        if self.data or len(found) > DATA_LIMIT:
            for name, value in found.items():
                self.add(name, value)
        else:
            self.data.update(found)

    def repeat(self, found: Mapping[str, str]) -> None:
        """Add a further record of a kind: its values are appended to the earlier ones."""
        for name, value in found.items():
            if name not in self.data:
                self.add(name, value)
            elif sum(map(len, self.more.values())) < DATA_LIMIT:
                self.more.setdefault(name, []).append(value)

    def all_data(self) -> dict[str, str | list[str] | dict[str, str]]:
        """Return auditd.data: a value, or a list if several records of a kind have one.

        Only ``socket`` is an object: a field with this name becomes ``socket_``, because an index
        allows only one type per field.
        """
        data: dict[str, str | list[str] | dict[str, str]] = {**self.data}
        for name, values in self.more.items():
            # The first value may have become a field of its own, such as user.selinux.
            all_values = [self.data[name], *values] if name in self.data else values
            data[name] = all_values if len(all_values) > 1 else all_values[0]
        if "socket" in data:
            data["socket_"] = data.pop("socket")
        if self.socket:
            data["socket"] = self.socket
        return data

    def field(self, name: str) -> str | None:
        """Return a field from any of the records."""
        found = self.data.get(name)
        return self.acting(name) if found is None else found

    def acting(self, name: str) -> str | None:
        """Return a field of the subject or the system call."""
        raw = self.own.get(name) or self.claims.get(name) or self.main.get(name)
        return None if raw is None else text_of(name, raw)

    def first(self, names: Iterable[str]) -> str | None:
        """Return the first of these fields that is present."""
        for name in names:
            found = self.field(name)
            if found:
                return found
        return None


class FieldReader:
    """Parses records, with a cache for recurring ones."""

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._texts: dict[bytes, dict[str, str]] = {}

    def read(
        self, records: Iterable[Record], *, enriched: bool, arch: bytes | None = None
    ) -> EventFields:
        """Return the fields of an event's records.

        ``enriched`` omits the argument list, which the caller has. ``arch`` is that of its SYSCALL
        record, None without one: with it, a record of an unknown type accompanies the call, and is
        not the subject of the event.
        """
        parts = EventFields()
        kinds: set[int] = set()
        for record in records:
            kind = record_type(record.type, record.text)
            if kind == SYSCALL:
                continue
            if kind in _KEYED:
                parts.keys.append(fields(record.text).get("key"))
            if kind == PATH:
                path = self._fields(record.text)
                if path:
                    parts.paths.append(path)
                else:
                    parts.warnings.append("PATH: no fields")
            elif kind == EXECVE:
                if "argc" not in parts.data:
                    self._execve(records, record, parts, enriched=enriched)
            elif kind == CWD:
                parts.cwd = self._fields(record.text).get("cwd")
            elif kind == PROCTITLE:
                parts.title = title_of(record.text)
            elif kind == SOCKADDR:
                _socket(record.text, parts, arch)
            elif kind in kinds:
                parts.repeat(self._values(record))
            elif kind == OBJ_PID:
                # The first of several (a signal to a process group) is the object.
                parts.target = self._fields(record.text)
                parts.merge(parts.target)
            elif parts.subject is None and _can_be_subject(kind, arch):
                parts.subject = record
                self._subject(record, parts)
            else:
                parts.merge(self._values(record))
            kinds.add(kind)
        return parts

    def _values(self, record: Record) -> dict[str, str]:
        """Return the fields of an accompanying record for auditd.data."""
        found = self._fields(record.text)
        renamed = _RENAMED.get(record.type)
        if renamed:
            found = {renamed.get(name, name): value for name, value in found.items()}
        if record.type in AUXILIARY:
            return found
        found = {
            name: _SPECIAL[record.type, name](value.encode())
            if (record.type, name) in _SPECIAL
            else value
            for name, value in found.items()
            if name not in _RECORD_PLACED and (name != "key" or record.type not in _KEYED)
        }
        avc = _AVC.search(record.text)
        if avc:
            found["seresult"], found["seperms"] = display(avc[1]), _permissions(avc)
        if not found and record.text:
            found["msg"] = display(record.text)
        return found

    def _fields(self, text: bytes) -> dict[str, str]:
        """Return a record's fields as text, without those whose value means "none"."""
        found = self._texts.get(text)
        if found is None:
            found = {
                name: value
                for name, raw in fields(text).items()
                if (value := text_of(name, raw)) is not None
            }
            if "objtype" in found:
                # The name in PATH records of RHEL 7.
                found.setdefault("nametype", found["objtype"])
            if len(self._texts) >= CACHE_LIMIT:
                self._texts.clear()
            if len(text) < _CACHED_SIZE:
                self._texts[text] = found
        return found

    def _execve(
        self, records: Iterable[Record], record: Record, parts: EventFields, *, enriched: bool
    ) -> None:
        head = record.text.partition(b" ")[0]
        if head.startswith(b"argc="):
            parts.add("argc", display(head[5:]))
        if not enriched:
            parts.args, whole, _ = arguments(records)
            if not whole:
                parts.warnings.append("EXECVE: the argument list isn't whole")

    def _subject(self, record: Record, parts: EventFields) -> None:
        own = login_fields(record.text) if record.type == LOGIN else fields(record.text)
        parts.own = own
        message = own.get("msg")
        if message is not None:
            self._message(message, parts)
        avc = _AVC.search(record.text)
        if avc:
            parts.add("seresult", display(avc[1]))
            parts.add("seperms", _permissions(avc))
        for name, raw in own.items():
            if name not in _RECORD_PLACED and (name != "key" or record.type not in _KEYED):
                decoder = _SPECIAL.get((record.type, name))
                parts.add(name, decoder(raw) if decoder else text_of(name, raw))
        if not own and record.text:
            parts.add("msg", display(record.text))

    def _message(self, message: bytes, parts: EventFields) -> None:
        """Read what user space says: fields, or any text; none of it can stand for the kernel's."""
        inside = decode(message) if message[:1] in b"'\"" else message
        if not inside:
            return
        claims: dict[str, bytes] = {}
        pairs = _MESSAGE_FIELD.findall(_without_punctuation(inside))
        for name, raw in pairs:
            claims.setdefault(name.decode("ascii"), _without_comma(raw.rstrip()))
        parts.claims = claims
        posing = claims.keys() & parts.own.keys()
        if (
            posing
            or len(claims) < len(pairs)
            or b" " in inside.lstrip().partition(b"=")[0]
            or not claims
        ):
            # Keep the whole text, because it has more than the fields, or fields that don't count.
            parts.add("msg", display(inside))
        for name, raw in claims.items():
            if name not in posing and name not in _PLACED_CLAIMS:
                parts.add(name, text_of(name, raw))


def _permissions(avc: re.Match[bytes]) -> str:
    return ",".join(display(avc[2]).split())


def _without_comma(value: bytes) -> bytes:
    """Return a value without the comma between it and the next field (``state=2, type=esp``)."""
    return value.removesuffix(b",") if len(value) > 1 else value


def _without_punctuation(message: bytes) -> bytes:
    """Convert an old message of libaudit or PAM to the current format.

    Before 2007 it was ``PAM: setcred acct=root : exe="x" (hostname=?, addr=?, terminal=t res=y)``;
    sshd wrote ``uid=500: exe="x" (hostname=``, and useradd no colon.
    """
    head, bracket, rest = message.partition(b" (hostname=")
    if not bracket or not rest.endswith(b")"):
        return message.replace(b" : exe=", b" exe=", 1)
    rest = rest.removesuffix(b")").replace(b", ", b" ")
    return _OLD_COLON.sub(b" exe=", head, count=1) + b" hostname=" + rest


def _can_be_subject(kind: int, arch: bytes | None) -> bool:
    return kind not in AUXILIARY and (arch is None or kind in RECORD_TYPES)


def integer(raw: bytes | None, base: int = 10) -> int | None:
    """Parse a number of only digits; None if it is invalid or too long."""
    if not raw or len(raw) > 20 or not raw.isalnum():
        return None
    try:
        return int(raw, base)
    except ValueError:
        return None


def text_of(name: str, raw: bytes) -> str | None:
    """Return a field's value as text; None if it means "none"."""
    if raw[:1] in b"\"'" or name in ENCODED:
        found = decode(raw)
        return display(found) if found and found != b"?" else None
    if raw in _NOTHING or (raw in UNSET and name in _UNSET_FIELDS):
        return None
    return display(raw)


# Cached: the end of a process has the same title as its exec.
@lru_cache(maxsize=CACHE_LIMIT)
def title_of(text: bytes, redact: Redactor | None = None) -> str | None:
    """Return the command line of a PROCTITLE record, with spaces between the arguments."""
    title = decode(text.partition(b"proctitle=")[2])
    if not title:
        return None
    shown = display(title.rstrip(b"\0"))
    if redact is not None:
        shown = redact.text(shown, cut=len(title) >= _MAX_TITLE)
    return shown.replace("\0", " ") or None


# linux/audit.h: this bit of arch= is set for little-endian machines.
_LITTLE_ENDIAN: Final = 0x40000000


def _byte_order(arch: bytes | None) -> Literal["little", "big"]:
    """Return the byte order of a record's machine; this host's if it is unknown."""
    number = integer(arch, 16)
    if number is None:
        return sys.byteorder
    return "little" if number & _LITTLE_ENDIAN else "big"


def _socket(text: bytes, parts: EventFields, arch: bytes | None) -> None:
    """Parse a SOCKADDR record; for unknown families keep the raw bytes."""
    raw = fields(text).get("saddr", b"")
    try:
        found = bytes.fromhex(raw.decode("ascii"))
        address = decoders.socket_address(found, _byte_order(arch))
    except ValueError:
        address = None
    if address is None:
        parts.warnings.append("SOCKADDR: saddr is no socket address")
        parts.add("saddr", display(raw))
        return
    parts.address = address
    described = {
        "family": address.family,
        "addr": address.ip,
        "port": None if address.port is None else str(address.port),
        "path": address.path,
        "flow": address.flow,
        "saddr": display(raw) if address.ip is None and address.family != "unix" else None,
    }
    parts.socket = {name: value for name, value in described.items() if value}


def _in_hex(decoder: Callable[[int], str]) -> Callable[[bytes], str]:
    def decoded(raw: bytes) -> str:
        number = integer(raw.removeprefix(b"0x"), 16)
        return display(raw) if number is None else decoder(number)

    return decoded


def _in_decimal(decoder: Callable[[int], str]) -> Callable[[bytes], str]:
    def decoded(raw: bytes) -> str:
        number = integer(raw)
        return display(raw) if number is None else decoder(number)

    return decoded


# Fields that another record of the event has with another meaning: the arguments of socketcall(2)
# beside those of the system call, and new permissions beside those of the object.
_RENAMED: Final[Mapping[int, Mapping[str, str]]] = {
    1304: {
        "a0": "socketcall_a0",
        "a1": "socketcall_a1",
        "a2": "socketcall_a2",
        "a3": "socketcall_a3",
        "a4": "socketcall_a4",
        "a5": "socketcall_a5",
    },
    1311: {"ouid": "new_ouid", "ogid": "new_ogid", "mode": "new_mode"},
}

# Fields whose numbers have names only in one record type.
_SPECIAL: Final[dict[tuple[int, str], Callable[[bytes], str]]] = {
    (1305, "list"): _in_decimal(decoders.rule_list),
    (1326, "code"): _in_hex(decoders.seccomp_action),
    (1326, "sig"): _in_decimal(decoders.signal_name),
    (1701, "sig"): _in_decimal(decoders.signal_name),
    (URINGOP, "uring_op"): _in_decimal(decoders.ring_operation),
}
