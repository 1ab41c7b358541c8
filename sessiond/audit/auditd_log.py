"""Parses log lines with audit records: the prefix of a record, and the names behind it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, cast

from sessiond.audit.record import decode, fields
from sessiond.errors import RecordError
from sessiond.text import display

# type=SYSCALL msg=audit(...): auditd. type=1400 audit(...): the kernel's own log.
LOG_LINE: Final = re.compile(rb"(?:node=(\S+) )?type=(\S+) (?:msg=)?(?=audit\(\d+\.\d+:\d)")
# The same anywhere in a text, which does not make it a record.
RECORD: Final = re.compile(rb"\btype=\S+ (?:msg=)?audit\(\d+\.\d+:\d")
UNKNOWN_TYPE: Final = re.compile(rb"UNKNOWN\[(\d{1,9})\]$")
# Lines between records: those of ausearch, of grep -A, of tail and head, and of journalctl.
SEPARATOR: Final = re.compile(rb"(?:--(?:--)?|time->.*|==> .* <==|-- .* --)\s*$")

ENRICHMENT: Final = b"\x1d"
# Escapes of it: rsyslog's, that of less and cat -v, and those of JSON and C. No text of the kernel
# can end like this.
_ESCAPED_ENRICHMENT: Final = re.compile(
    rb"(?:#035|\^\]|\\u001[dD]|\\x1[dD]|\\035)"
    rb'((?:[A-Z_-]+=(?:"[^"]*"|[^ "{][^ "]*|) ?)+|SADDR=\{.*\})$'
)
_ESCAPES: Final = (b"#035", b"^]", b"\\")
# The same without any mark, as terminals and many exports leave it: 'key="x"ARCH=... UID="ann"'.
# The kernel and libaudit end each field with a blank, so that nothing else is glued to a value.
# Other exports have a blank instead; then a name counts only if its field is in the record.
_UNMARKED_ENRICHMENT: Final = re.compile(
    rb"(?<!\n)(?:(?:ARCH=\S+ SYSCALL=\S+ )?"
    rb"(?:(?:(?:O|A|E|S|FS|OA|SA|OLD[_-]A|I|INODE_|OBJ_|NEW_)?[UG]ID|ID)="
    rb'(?:"[^"]*"|[0-9A-F]+) ?){1,24}(?:ARCH=\S+ SYSCALL=\S+)?|SADDR=\{.*\})$'
)
_FIELD_NAME: Final = re.compile(rb"(?:^|[ '])([A-Za-z_-]+)=")

# RFC 3164 (with classic or ISO dates) and RFC 5424: host, program, message; RFC 6587 counts bytes
# before them. Some relays write no colon behind the program.
_SYSLOG: Final = re.compile(
    rb"(?:(?:\d{1,5} )?<\d{1,3}>)?"
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ]\S+) (\S*[^\s:]) "
    rb"([^ :\[]+)(?:\[[^\]]*\])?(?:: ?| )(.*)",
    re.DOTALL,
)
_SYSLOG_5424: Final = re.compile(
    rb"(?:(?:\d{1,5} )?<\d{1,3}>)?1 \d{4}-\d\d-\d\dT\S+ (\S+) (\S+) \S+ \S+ "
    rb"(?:-|(?:\[(?:\\.|[^\]\\])*\])+)(?: *\xef\xbb\xbf)? *(.*)",
    re.DOTALL,
)
# Programs that forward audit records. Users can make other programs imitate records.
_RELAY: Final = re.compile(rb"kernel|[\w./-]*audi[\w./-]*")
_KERNEL_LOG: Final = re.compile(
    rb" *(?:<\d{1,3}>)?(?:\w+ *:\w+ *: |\d+,\d+,\d+,[^;\s]*;)?"
    rb"(?:\[[^\]]{1,40}\](?:\[ *[TC]?\d+\])? |\d{4}-\d\d-\d\dT[\d:,+-]{15,24} )?"
    rb"(?:audit: (?=type=\S+ (?:msg=)?audit\()|(?=type=\d+ audit\())"
)
_KERNEL_WORD: Final = re.compile(
    rb"(?:<\d{1,3}>)?(?:\w+ *:\w+ *: )?(?:\[ *\d+\.\d+\]|\d{4}-\d\d-\d\dT[\d:,+-]{15,24}) "
)
# What stands before a record that is quoted: blanks, a relay's name, or a file name and a line
# number of grep or cat; the time at which a program such as docker logs passed it on, which no
# syslog writes without a host; a byte order mark in joined files; NULs that a crash of the host
# leaves.
_QUOTED: Final = re.compile(
    rb"[\0 \t]*(?:\xef\xbb\xbf)? *"
    rb"(?:audispd: |(?:(?:[A-Za-z]:\\)?[^\s:=]*audit[^\s:=]*[:-])?(?:\d+[:\t-])?"
    rb"|\d{4}-\d\d-\d\d[T ][\d:.,+Z-]+ (?:std(?:out|err) [FP] )?)"
    rb"(?=(?:node=\S+ )?type=\S+ msg=audit\()"
)
# archives.log of OSSEC and Wazuh: the agent, and the log that it read.
_ARCHIVED: Final = re.compile(
    rb"\d{4} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d "
    rb"(?:\(([^)]*)\) )?(\S+?)->\S*audit\S* +(?=(?:node=\S+ )?type=)"
)
# Records of one event in a line, as Wazuh joins them.
_STAMPED: Final = re.compile(rb"msg=(audit\(\d+\.\d+:\d+\))")
_NEXT: Final = re.compile(rb" +(?=type=[\w\[\]]+ msg=(audit\(\d+\.\d+:\d+\)):)")
# The kernel's own count of records that its log or audit has lost.
_UNWRITTEN: Final = re.compile(rb"kauditd_printk_skb: (\d{1,9}) callbacks suppressed")
_AUDIT_LOST: Final = re.compile(rb"audit: audit_lost=(\d{1,9}) ")
# Records in journalctl's short output, without time and serial.
_SHORT: Final = re.compile(
    rb"(?:(?:[A-Z][a-z]{2} \d{4}-\d\d-\d\d [\d:.]+ \S+|\d+\.\d+|\[ *\d+\.\d+\]) \S+ "
    rb"audit(?:\[\d+\])?: )?"
    rb"[A-Z][A-Z_]+(?:\[\d+\])? [\w-]+="
)
_TOLD: Final = re.compile(rb"(?:On \S+ )?[Aa]t \d\d:\d\d:\d\d \d\d/\d\d/\d{4} ")
_INTERPRETED: Final = re.compile(rb"(?:node=\S+ )?type=\S+ msg=audit\([^)]*[/ ][^)]*\) ?:")


class LogRecord(NamedTuple):
    """A record in a log: ``node`` is the host that wrote it, "" if the log does not contain it.

    ``payload`` is the record as from netlink, ``names`` the additions of auditd's ENRICHED format.
    ``boot`` and ``machine`` are ids from journald, "" in other logs.
    """

    node: str
    type: int
    payload: bytes
    names: bytes
    boot: str = ""
    machine: str = ""


class _NewRecord(Protocol):
    def __call__(
        self, kind: type[LogRecord], values: tuple[str, int, bytes, bytes, str, str], /
    ) -> LogRecord: ...


_new_record = cast("_NewRecord", tuple.__new__)  # a named tuple's own is Python, and slower


class OtherLineError(RecordError):
    """A line of another program in a mixed log, which is not an error."""


class PosingError(OtherLineError):
    """A line of a program that may not pass records on, with what looks like one."""

    def __init__(self, program: str) -> None:
        """Take the name of the program."""
        super().__init__("a line of another program, with a record")
        self.program = program


class LossError(OtherLineError):
    """A line of the kernel about lost records: that many, or so many since its boot."""

    def __init__(self, lost: int, *, since_boot: bool) -> None:
        """Take the number."""
        super().__init__("the kernel has lost records")
        self.lost = lost
        self.since_boot = since_boot


class LostFormError(RecordError):
    """A record in a format that has lost a part; the message names the command to use instead."""


INTERPRETED: Final = "interpreted for people, as ausearch -i writes it; run ausearch --raw instead"
TOLD: Final = "in words, as ausearch --format text writes it; run ausearch --raw instead"
SHORT: Final = (
    "a record without its time and serial; run journalctl -o json _TRANSPORT=audit instead"
)

TypeNumber = Callable[[str], int | None]


def parse_line(line: bytes, type_number: TypeNumber) -> LogRecord:
    """Parse a line of a log of auditd, ausearch, syslog or the kernel.

    ``type_number`` returns the number of a record type's name, None for an unknown name. Raises
    RecordError if the line is not a record or its type is unknown, OtherLineError for a line of
    another program, PosingError if such a line looks like a record, LossError for the kernel's
    about a loss, LostFormError if the format has lost a part.
    """
    match = LOG_LINE.match(line)
    if match is not None:
        return _record(line, match, "", type_number)
    line = line.rstrip(b"\r\n")
    host = b""
    quoted = _ARCHIVED.match(line)
    if quoted is not None:
        host = quoted[1] or quoted[2]
    else:
        quoted = _QUOTED.match(line)
    if quoted is not None and (match := LOG_LINE.match(line := line[quoted.end() :])):
        return _record(line, match, display(host), type_number)
    found = _SYSLOG.match(line) or _SYSLOG_5424.match(line)
    if found is not None:
        host, program, said = found.groups()
        if not _RELAY.fullmatch(program):
            if RECORD.search(said):
                raise PosingError(display(program))
            raise OtherLineError("a line of another program")
        kernel = _KERNEL_LOG.match(said)
        line = said[kernel.end() :] if kernel is not None else said
    else:
        kernel = _KERNEL_LOG.match(line)
        line = line[kernel.end() :] if kernel is not None else line
    match = LOG_LINE.match(line)
    if match is not None and (found is not None or kernel is not None):
        return _record(line, match, display(host), type_number)
    if _INTERPRETED.match(line):
        raise LostFormError(INTERPRETED)
    if _TOLD.match(line):
        raise LostFormError(TOLD)
    if _SHORT.match(line):
        raise LostFormError(SHORT)
    for pattern, since_boot in ((_UNWRITTEN, False), (_AUDIT_LOST, True)):
        if loss := pattern.search(line):
            raise LossError(int(loss[1]), since_boot=since_boot)
    if found is not None or _KERNEL_WORD.match(line):
        raise OtherLineError("no audit record")
    raise RecordError(f"not an audit record: {line[:60]!r}")


def joined(line: bytes) -> list[bytes]:
    """Return the records in a line that has several of one event, else the line."""
    first = _STAMPED.search(line)
    parts: list[bytes] = []
    start = 0
    for after in _NEXT.finditer(line, first.end()) if first is not None else ():
        part = line[start : after.start()]
        # Not in the text of a message, which has both quotes.
        if first is not None and after[1] == first[1] and part.count(b"'") != 1:
            parts.append(part)
            start = after.end()
    return [*parts, line[start:]]


def _record(line: bytes, match: re.Match[bytes], host: str, type_number: TypeNumber) -> LogRecord:
    node, name = match.groups()
    if name[:1].isdigit() and name.isdigit() and len(name) < 10:
        number: int | None = int(name)
    else:
        unknown = UNKNOWN_TYPE.match(name) if name.startswith(b"UNKNOWN[") else None
        number = int(unknown[1]) if unknown else type_number(name.decode("ascii", "replace"))
    if number is None:
        raise RecordError(f"unknown record type {name[:40]!r}")
    text, enriched, names = line[match.end() :].rstrip(b"\r\n").partition(ENRICHMENT)
    if enriched:
        text = text.rstrip(b"\r\n")
    elif text.find(b"ID=") >= 0 or text.find(b"SADDR={") >= 0:  # quicker than ``in``
        text, names = _unmarked(text)
    if node is not None:
        host = display(node)
    return _new_record(LogRecord, (host, number, text, names, "", ""))


def _unmarked(text: bytes) -> tuple[bytes, bytes]:
    """Split a record's text from names behind it that 0x1D does not separate."""
    if any(escape in text for escape in _ESCAPES):
        escaped = _ESCAPED_ENRICHMENT.search(text)
        if escaped is not None:
            return text[: escaped.start()], escaped[1]
    found = _UNMARKED_ENRICHMENT.search(text)
    if found is None:
        return text, b""
    before, names = text[: found.start()], found[0]
    if before[-1:] == b" ":
        before = before.rstrip(b" ")
        known = {name.upper() for name in _FIELD_NAME.findall(before)}
        is_added = known.issuperset(_FIELD_NAME.findall(names))
    else:
        is_added = before[-1:] in (b'"', b"'") or b"=" in before.rpartition(b" ")[2]
    return (before, names) if is_added else (text, b"")


class EnrichedNames:
    """Names of users and groups from an ENRICHED log.

    A name is valid from its event on, until another event names the id differently. ``note`` takes
    the names of a record when it is read, ``learn`` those of an event when it is written.
    """

    _USERS = tuple(
        "auid uid euid suid fsuid ouid old-auid oauid id sauid iuid inode_uid obj_uid".split()
    )
    _GROUPS = tuple("gid egid sgid fsgid ogid igid inode_gid obj_gid new_gid".split())
    # ADD_GROUP, DEL_GROUP and GRP_MGMT: the record types in which id= is a group.
    _OF_GROUPS = frozenset((1116, 1117, 1132))
    _MAX_SEEN = 65_536

    def __init__(self) -> None:
        """Start without a name."""
        self._users: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._groups: dict[int, str] = {}
        self._seen: set[bytes] = set()
        self._noted: dict[bytes, list[tuple[int, bytes, bytes]]] = {}

    @property
    def waiting(self) -> bool:
        """Whether an unwritten event has names."""
        return bool(self._noted)

    def user(self, uid: int) -> str | None:
        """Return the name of a user id, if known from an event so far."""
        return self._users.get(uid)

    def group(self, gid: int) -> str | None:
        """Return the name of a group id, if known from an event so far."""
        return self._groups.get(gid)

    def user_id(self, name: str) -> int | None:
        """Return the id of a user name, if known from an event so far."""
        return self._ids.get(name)

    def note(self, record_type: int, payload: bytes, names: bytes) -> None:
        """Keep the names behind a record, ``UID="ann" GID="users"``, until its event is written."""
        if len(self._noted) >= self._MAX_SEEN:
            self._noted.clear()  # stamps without events: the log is broken
        self._noted.setdefault(payload[: payload.find(b")") + 1], []).append(
            (record_type, payload, names)
        )

    def learn(self, stamp: bytes) -> bool:
        """Take the names of the event with that stamp; return whether an id's name changed.

        ``stamp`` is the beginning of its records, up to the bracket.
        """
        changed = False
        for record_type, payload, names in self._noted.pop(stamp, ()):
            # The same names and ids recur, except for the account of a message.
            if names not in self._seen or b' ID="' in names:
                changed = self._take(record_type, payload, names) or changed
                if changed or len(self._seen) >= self._MAX_SEEN:
                    self._seen.clear()
                self._seen.add(names)
        return changed

    def _take(self, record_type: int, payload: bytes, names: bytes) -> bool:
        ids, shown_names = fields(payload), fields(names)
        message = ids.get("msg")
        if message is not None and message[:1] == b"'":
            ids = fields(message[1:-1]) | ids
        changed = False
        users, groups = self._USERS, self._GROUPS
        if record_type in self._OF_GROUPS:
            users, groups = tuple(name for name in users if name != "id"), (*groups, "id")
        for known, wanted in ((self._users, users), (self._groups, groups)):
            for name in wanted:
                value = ids.get(name, b"")
                shown = decode(shown_names.get(name.upper(), b""))
                if not shown or not value.isdigit():
                    continue
                number = int(value)
                before = known.get(number)
                # auditd writes unset and unknown(1000) for missing names.
                if shown == b"unset" or b"(" in shown:
                    known.pop(number, None)
                else:
                    known[number] = display(shown)
                    if known is self._users:
                        self._ids[known[number]] = number
                changed = changed or known.get(number) != before
        return changed
