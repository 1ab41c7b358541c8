"""Lines of auditd's log: the prefix before a record, and the names behind it (ENRICHED)."""

from __future__ import annotations

import re
from collections.abc import Callable

from sessiond.audit.record import decode, fields
from sessiond.errors import RecordError
from sessiond.text import display


class EnrichedNames:
    """Users and groups by what an ENRICHED log says of them: the host that wrote it knew."""

    _USERS = ("auid", "uid", "euid", "suid", "fsuid", "ouid")
    _GROUPS = ("gid", "egid", "sgid", "fsgid", "ogid")
    _MAX_SEEN = 65_536

    def __init__(self) -> None:
        """Start without a name."""
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._seen: set[bytes] = set()

    def user(self, uid: int) -> str | None:
        """The name of a user id, if a line so far has given it."""
        return self._users.get(uid)

    def group(self, gid: int) -> str | None:
        """The name of a group id, if a line so far has given it."""
        return self._groups.get(gid)

    def learn(self, text: bytes, names: bytes) -> None:
        """Take a record's text and the names behind it, ``UID="ann" GID="users"``."""
        # The same names come with the same ids again and again.
        if names in self._seen:
            return
        if len(self._seen) >= self._MAX_SEEN:
            self._seen.clear()
        self._seen.add(names)
        ids, told = fields(text), fields(names)
        for known, wanted in ((self._users, self._USERS), (self._groups, self._GROUPS)):
            for name in wanted:
                shown, value = decode(told.get(name.upper(), b"")), ids.get(name, b"")
                # auditd writes unset and unknown(1000) where there is no name.
                if shown and value.isdigit() and shown != b"unset" and b"(" not in shown:
                    known[int(value)] = display(shown)


def split_log_line(line: bytes, type_number: Callable[[str], int | None]) -> tuple[int, bytes]:
    """Split a line of auditd's log, raw or ENRICHED, into (record type, payload as of netlink).

    ``type_number`` gives the number of a record type's name, None for a name it doesn't know.
    Raises RecordError when the line isn't a record or its type is unknown.
    """
    match = LOG_LINE.match(line)
    if match is None:
        raise RecordError(f"not an audit record: {line[:60]!r}")
    name = match[1]
    unknown = UNKNOWN_TYPE.match(name)
    number = int(unknown[1]) if unknown else type_number(name.decode("ascii", "replace"))
    if number is None:
        raise RecordError(f"unknown record type {name[:40]!r}")
    text, _, _ = line[match.end() :].partition(ENRICHMENT)
    return number, text.rstrip(b"\r\n")


def enrichment(line: bytes) -> bytes:
    """Return the names that auditd's ENRICHED format adds to a record; empty without any."""
    return line.partition(ENRICHMENT)[2].rstrip(b"\r\n")


LOG_LINE = re.compile(rb"(?:node=\S+ )?type=(\S+) msg=")


UNKNOWN_TYPE = re.compile(rb"UNKNOWN\[(\d{1,9})\]$")


# What ausearch writes between events.
SEPARATOR = re.compile(rb"(?:----|time->.*)\s*$")


ENRICHMENT = b"\x1d"
