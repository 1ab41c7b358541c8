"""Parses audit records from the kernel or from auditd's log.

A record is ``audit(SECONDS.MILLISECONDS:SERIAL): name=value name=value ...``. The kernel quotes a
value that a user controls when it is printable and writes it as hex digits otherwise
(``audit_log_untrustedstring`` in kernel/audit.c), so no value can forge another field.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, cast

from sessiond.errors import RecordError
from sessiond.units import AuditStamp

# include/uapi/linux/audit.h
USER: Final = 1005  # the lowest type of a record; lower types are control messages
LOGIN: Final = 1006
SYSCALL: Final = 1300
PATH: Final = 1302
CONFIG_CHANGE: Final = 1305
CWD: Final = 1307
EXECVE: Final = 1309
EOE: Final = 1320
PROCTITLE: Final = 1327
REPLACE: Final = 1329  # no record: "are you still there?", to the registered socket

# Seconds up to the year 2255, which fit into 63 bits as ns since the epoch.
# auditd of RHEL 5 to 7 leaves out the colon of DAEMON_CONFIG.
_STAMP = re.compile(rb"audit\(([0-8]?\d{1,9})\.(\d{1,3}):(\d{1,19})\)(?::[ ]?|[ ])")
# A user message is in msg='...', with arbitrary content from user space: it is one value, up to the
# record's last quote, or to its end if a limit has cut the quote off.
_FIELD = re.compile(rb"([A-Za-z0-9_][A-Za-z0-9_\-\[\]]*)=('.*'|'.*|\"[^\"]*\"|[^ \n]*)", re.DOTALL)
_ARGUMENT = re.compile(rb"(?:^| )a(\d{1,9})(?:\[(\d{1,9})\])?=(\"[^\"]*\"|[^ \n]*)")
_WHOLE_ARGUMENT = re.compile(rb" a\d+=(\"[^\"]*\"|[^ \n]*)")
# What the kernel quotes (audit_string_contains_control in kernel/audit.c); NULs end arguments.
_UNENCODED = re.compile(rb"[!#-~\0]*")
# Overhead of an argument, in bytes, when a limit applies.
ARGUMENT_COST: Final = 8

_HEX: Final = re.compile(rb"[0-9A-F]*")

_ARGC = re.compile(rb"^argc=(\d{1,9})")
_ABSENT = frozenset((b"", b"?", b"(null)", b"(none)"))


class Record(NamedTuple):
    """One record of an event: its type, and its text after the stamp.

    Names that auditd's ENRICHED format adds after 0x1D are not part of ``text``: they would look
    like fields.
    """

    type: int
    text: bytes


def parse_stamp(payload: bytes) -> tuple[AuditStamp, int, int]:
    """Return (time in ms since the epoch, serial, offset of the text).

    The time is a coarse clock's value at the syscall's entry; all records of one event have the
    same time and serial. Raises RecordError if the payload does not start with a stamp.
    """
    match = _STAMP.match(payload)
    if match is None:
        raise RecordError(f"no audit stamp in {payload[:40]!r}")
    seconds, fraction, serial = match.groups()
    stamp = AuditStamp(int(seconds + fraction.ljust(3, b"0")))
    return stamp, int(serial), match.end()


def from_user_space(record_type: int) -> bool:
    """Return whether records of this type are messages of user space, such as USER_LOGIN.

    The kernel writes pid=, uid=, auid=, ses= of the sender before them. Each is an event by itself.
    """
    return record_type == USER or 1100 <= record_type <= 1299 or 2100 <= record_type <= 2999


def fields(text: bytes) -> dict[str, bytes]:
    """Return the fields of a record's text, in order, with their values as written.

    The first one of a repeated name counts: the kernel writes its own fields first.
    """
    pairs: list[tuple[bytes, bytes]] = _FIELD.findall(text)
    found = {name.decode("ascii"): value for name, value in pairs}
    if len(found) != len(pairs):
        found = {name.decode("ascii"): value for name, value in reversed(pairs)}
        found = dict(reversed(found.items()))
    return found


# audit_log_exit and audit_log_task_info in kernel/auditsc.c write SYSCALL in this order. Matching
# it with one pattern costs a third of parsing field by field, and nearly every event has this
# record. LSMs insert their own fields before key=.
_SYSCALL_NAMES: Final = (
    "arch syscall success exit a0 a1 a2 a3 items ppid pid auid uid gid euid suid fsuid egid sgid "
    "fsgid tty ses comm exe subj key"
).split()
_SYSCALL: Final = re.compile(
    rb"arch=(\w+) syscall=(\d+)(?: success=(\w+) exit=(-?\d+))? a0=(\w+) a1=(\w+) a2=(\w+)"
    rb" a3=(\w+) items=(\d+) ppid=(\d+) pid=(\d+) auid=(\d+) uid=(\d+) gid=(\d+) euid=(\d+)"
    rb" suid=(\d+) fsuid=(\d+) egid=(\d+) sgid=(\d+) fsgid=(\d+) tty=([^ =]+) ses=(\d+)"
    rb' comm=("[^"]*"|\w+|\(null\)) exe=("[^"]*"|\w+|\(null\))(?: subj=([^ =]+))?'
    rb' key=("[^"]*"|\w+|\(null\))$'
)


class Call(NamedTuple):
    """The head of a SYSCALL record: the call and its caller. Raw values; b"" for none."""

    arch: bytes
    syscall: bytes
    success: bytes
    exit: bytes
    a0: bytes
    a1: bytes
    a2: bytes
    a3: bytes
    ppid: bytes
    pid: bytes


NO_CALL: Final = Call(b"", b"", b"", b"", b"", b"", b"", b"", b"", b"")


class _NewCall(Protocol):
    def __call__(self, kind: type[Call], values: tuple[bytes | Any, ...], /) -> Call: ...


_new_call = cast("_NewCall", tuple.__new__)  # a named tuple's own is Python, and slower

_CALL: Final = re.compile(
    rb"arch=(\w+) syscall=(\d+)(?: success=(\w+) exit=(-?\d+))? a0=(\w+) a1=(\w+) a2=(\w+)"
    rb" a3=(\w+) items=\d+ ppid=(\d+) pid=(\d+) "
)


def call(text: bytes) -> Call:
    """Return the head of a SYSCALL record's text; most events need nothing else."""
    match = _CALL.match(text)
    if match is not None:
        return _new_call(Call, match.groups(b""))
    found = _unquoted(fields(text))
    return Call._make(found.get(name, b"") for name in Call._fields)


def syscall_fields(text: bytes) -> dict[str, bytes]:
    """Return the fields of a SYSCALL record, like ``fields`` but faster."""
    match = _SYSCALL.match(text)
    if match is None:
        return _unquoted(fields(text))
    found: dict[str, Any] = dict(zip(_SYSCALL_NAMES, match.groups(), strict=True))
    # Optional fields.
    for name in ("success", "exit", "subj"):
        if found[name] is None:
            del found[name]
    return found


_OLD_LOGIN: Final = re.compile(rb"\b(?:(old)|new) (auid|ses)=")


def login_fields(text: bytes) -> dict[str, bytes]:
    """Return the fields of a LOGIN record: ``old-auid``, ``auid``, ``old-ses``, ``ses``, ...

    Kernels before 3.14 wrote "login pid=1 uid=0 old auid=2 new auid=3 old ses=4 new ses=5".
    """
    named = _OLD_LOGIN.sub(lambda match: (b"old-" if match[1] else b"") + match[2] + b"=", text)
    return fields(named)


def _unquoted(found: dict[str, bytes]) -> dict[str, bytes]:
    """Remove the quotes that some programs put around values that need none, such as success=."""
    for name, value in found.items():
        if value[:1] == b'"' and name not in _QUOTED:
            found[name] = value.strip(b'"')
    return found


# The fields of a SYSCALL record that are in hex if they are not in quotes.
_QUOTED: Final = frozenset(("comm", "exe", "key"))


def decode(value: bytes) -> bytes | None:
    """Decode a value that the kernel encodes because a user controls it.

    Quoted text is unquoted, an even number of hex digits is decoded; the words for "no value" give
    None. Anything else is returned unchanged. Only for encoded fields: an inode of 3005 is not the
    bytes 30 05.
    """
    if value[:1] in (b'"', b"'"):
        return value[1:-1] if len(value) > 1 and value[-1:] == value[:1] else value[1:]
    if value in _ABSENT:
        return None
    try:
        # bytes.fromhex would skip blanks, but a value has none.
        return bytes.fromhex(value.decode("ascii"))
    except ValueError:
        return value


def number(value: bytes | None) -> int:
    """Return a decimal field's value; 0 if it is absent, invalid, or exceeds 64 bits."""
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else 0


def hex_number(value: bytes | None) -> int:
    """Return the value of a field in hex digits, such as a0=; 0 if it is absent or invalid."""
    if not value or len(value) > 16 or not value.isalnum():
        return 0
    try:
        return int(value, 16)
    except ValueError:
        return 0


class Arguments(NamedTuple):
    """An argv, or its beginning if not ``whole``; ``number`` is the number of arguments."""

    values: list[bytes]
    whole: bool
    number: int


def execve_text(args: bytes) -> bytes:
    """Return the text of the kernel's EXECVE record of an argv, each argument with its NUL.

    Comparing it is cheaper than parsing the record. A long argv is written in another way.
    """
    values = args.split(b"\0")[:-1]
    if _UNENCODED.fullmatch(args):
        values = [b'"%b"' % value for value in values]
    else:
        values = [
            b'"%b"' % value if _UNENCODED.fullmatch(value) else value.hex().upper().encode()
            for value in values
        ]
    argv = b"".join([b" a%d=%b" % numbered for numbered in enumerate(values)])
    return b"argc=%d%b" % (len(values), argv)


NO_ARGUMENTS: Final = Arguments([], whole=False, number=0)


def arguments(records: Iterable[Record], limit: int = sys.maxsize) -> Arguments:
    """Join the argv of an event's EXECVE records, up to about ``limit`` bytes.

    A long argv comes in several records, a long argument in pieces (``a1_len=9000 a1[0]=...
    a1[1]=...``); see audit_log_execve_info in kernel/auditsc.c. An argument counts as its bytes
    plus ARGUMENT_COST, because many short ones also take long to parse.
    """
    texts = [record.text for record in records if record.type == EXECVE]
    if not texts:
        return NO_ARGUMENTS
    if len(texts) == 1 and texts[0].find(b"[") < 0:
        values, whole, number = _whole_arguments(texts[0])
        return Arguments(list(values), whole, number)
    argc = _ARGC.match(texts[0])
    return _joined_arguments(texts, int(argc[1]) if argc else -1, limit)


# Cached: the same record is parsed for the table and for the line.
@lru_cache(maxsize=64)
def _whole_arguments(text: bytes) -> tuple[tuple[bytes, ...], bool, int]:
    argc = _ARGC.match(text)
    found: list[bytes] = _WHOLE_ARGUMENT.findall(text)
    values = tuple([decode(value) or b"" for value in found])
    count = int(argc[1]) if argc else -1
    if found and _is_cut(found[-1]):
        return (*values[:-1], _begun(found[-1])), False, max(count, len(values))
    return values, len(values) == count, max(count, len(values))


def _is_cut(value: bytes) -> bool:
    """Return whether the last value of a record lacks its end: the quote, or half of a byte."""
    if value[:1] == b'"':
        return len(value) == 1 or value[-1:] != b'"'
    return not value or (len(value) % 2 == 1 and _HEX.fullmatch(value) is not None)


def _begun(value: bytes) -> bytes:
    """Return what is left of a value without its end."""
    return (decode(value if value[:1] == b'"' else value[:-1]) or b"") if len(value) > 1 else b""


def _joined_arguments(texts: list[bytes], count: int, limit: int) -> Arguments:
    pieces: dict[int, list[tuple[int, bytes]]] = {}
    size = 0
    cut = False
    for text in texts:
        if size > limit:
            break  # then there are fewer than ``count``
        found: list[tuple[bytes, bytes, bytes]] = _ARGUMENT.findall(text)
        for index, piece, value in found:
            part = decode(value) or b""
            size += len(part) + ARGUMENT_COST
            pieces.setdefault(int(index), []).append((int(piece or 0), part))
        cut = cut or bool(found and _is_cut(found[-1][2]))
    whole = not cut and count >= 0 and list(pieces) == list(range(count))
    values = []
    for parts in pieces.values():
        whole = whole and [number for number, _ in parts] == list(range(len(parts)))
        values.append(parts[0][1] if len(parts) == 1 else b"".join(value for _, value in parts))
    return Arguments(values, whole, max(count, len(values)))
