"""The host's login records: logind's sessions, and wtmp.

When a login has ended, /proc no longer has the process that accepted it. logind keeps a file for
each session as long as one of its processes lives; only root can write it. wtmp(5) has the logins
with a terminal; the group utmp can write it, and its helpers write to it for any user.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import re
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from sessiond.process.events import Login
from sessiond.units import SECOND, UNSET_ID

SESSIONS: Final = Path("/run/systemd/sessions")
WTMP: Final = (Path("/var/log/wtmp"), Path("/run/utmp"))

_MAX_SESSION: Final = 16 * 1024  # bytes of a session's file
# Bytes read from the end of wtmp: about 2,700 logins.
_MAX_WTMP: Final = 1 << 20

_SCOPE: Final = re.compile(rb"/session-([A-Za-z0-9]+)\.scope(?:/|\Z)")

# <utmp.h>, bits/utmp.h: where programs of 32 and of 64 bits share the file, times have 32 bits.
_SHARED: Final = ("x86_64", "i686", "ppc64", "ppc64le")
_SHORT: Final = struct.Struct("=hxxi32s4s32s256shhiii16s20x")
_LONG: Final = struct.Struct("=hxxi32s4s32s256shhqqq16s20x4x")
_USER_PROCESS: Final = 7
# A login is recorded after its process was created, in whole seconds of the wall clock.
_SLACK: Final = 2 * SECOND


class Session(NamedTuple):
    """The used members of logind's session file; None if it lacks one.

    ``started`` is CLOCK_MONOTONIC in us, ``audit`` the id of the audit session.
    """

    service: bytes | None
    host: bytes | None
    terminal: bytes | None
    audit: int | None
    started: int | None


class Utmp(NamedTuple):
    """A login of utmp(5); ``time`` is in ns since the epoch, ``host`` an address or a name."""

    pid: int
    line: bytes
    host: bytes
    time: int


def parse_session(data: bytes) -> Session:
    """Parse the assignments of a session's file; invalid ones are skipped."""
    found: dict[bytes, bytes] = {}
    for line in data.split(b"\n"):
        key, equals, value = line.partition(b"=")
        if equals and value:
            found[key] = (
                value[1:-1] if len(value) > 1 and value[:1] + value[-1:] == b'""' else value
            )
    return Session(
        service=found.get(b"SERVICE"),
        host=found.get(b"REMOTE_HOST") if found.get(b"REMOTE") == b"1" else None,
        terminal=found.get(b"TTY"),
        audit=_number(found.get(b"AUDIT")),
        started=_number(found.get(b"MONOTONIC")),
    )


def _number(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and len(text) < 20 else None


def parse_utmp(data: bytes, machine: str = "") -> Iterator[Utmp]:
    """Yield the logins of a file, oldest first; ``machine`` (this one) determines its layout.

    An incomplete record at the end is skipped.
    """
    layout = _SHORT if (machine or platform.machine()) in _SHARED else _LONG
    whole = len(data) - len(data) % layout.size
    for kind, pid, line, _, _, host, _, _, _, seconds, micros, address in layout.iter_unpack(
        data[:whole]
    ):
        if kind == _USER_PROCESS and pid > 0:
            # IPv4 is in the first of four words.
            packed = address if any(address[4:]) else address[:4]
            client = str(ipaddress.ip_address(packed)).encode() if any(address) else _text(host)
            yield Utmp(pid, _text(line), client, seconds * SECOND + micros * 1000)


def _text(padded: bytes) -> bytes:
    return padded.partition(b"\0")[0]


def login_of(
    logins: Iterable[Utmp], pids: Iterable[int], line: bytes | None, since: int, until: int
) -> Utmp | None:
    """Choose the last login by one of the processes, or else on the terminal ``line``.

    ``since`` and ``until`` are ns since the epoch: the host's boot, and the start of the process
    that came from the login.
    """
    owners = frozenset(pids)
    by_pid = by_line = None
    for login in logins:
        if since <= login.time <= until + _SLACK:
            if login.pid in owners:
                by_pid = login
            if line is not None and login.line == line:
                by_line = login
    return by_pid or by_line


class LoginRecords:
    """The records of this host; only files of ``owner`` are trusted."""

    def __init__(
        self, sessions: Path = SESSIONS, wtmp: Iterable[Path] = WTMP, *, owner: int = 0
    ) -> None:
        """Take the options; nothing is opened yet."""
        self._sessions = sessions
        self._wtmp = tuple(wtmp)
        self._owner = owner
        self._read_of: list[tuple[int, int]] = []  # size and time of the cached files
        self._logins: list[Utmp] = []

    def of_session(self, audit_session: int | None, cgroup: bytes | None) -> Login | None:
        """Return logind's login of an audit session, else of a session's scope.

        Reading does not block: the files are in memory, and belong to root.
        """
        if audit_session not in (None, UNSET_ID):
            session = self._session(b"%d" % audit_session)
            if session is not None and session.audit in (None, audit_session):
                return _by_logind(session)
        scope = _SCOPE.search(cgroup or b"")
        session = self._session(scope[1]) if scope else None
        return None if session is None else _by_logind(session)

    def _session(self, name: bytes) -> Session | None:
        data = self._read(self._sessions / name.decode("ascii"), _MAX_SESSION, trusted=True)
        return None if data is None else parse_session(data)

    def of_terminal(self, pids: Iterable[int], line: bytes | None, start: int) -> Login | None:
        """Return wtmp's login of one of the processes, else of the terminal ``line``.

        ``start`` is the start of the process that came from it, in ns since boot. A hanging disk
        blocks the reader.
        """
        offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(
            time.CLOCK_BOOTTIME
        )
        found = login_of(self._all_logins(), pids, line, offset, offset + start)
        if found is None:
            return None
        return Login("wtmp", None, found.host or None, found.line or None, found.time - offset)

    def _all_logins(self) -> list[Utmp]:
        """Return the logins of all files by time; reread after a change of a file."""
        found: list[tuple[int, int]] = []
        for path in self._wtmp:
            with contextlib.suppress(OSError):
                file = path.stat()
                found.append((file.st_size, file.st_mtime_ns))
        if found != self._read_of:
            read = [self._read(path, _MAX_WTMP, trusted=False) or b"" for path in self._wtmp]
            logins = [login for data in read for login in parse_utmp(data)]
            self._logins = sorted(logins, key=lambda login: login.time)
            self._read_of = found
        return self._logins

    def _read(self, path: Path, limit: int, *, trusted: bool) -> bytes | None:
        """Return the last ``limit`` bytes; ``trusted``: only if nobody but the owner can write."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            file = os.fstat(descriptor)
            if not stat.S_ISREG(file.st_mode):
                return None
            if trusted and (file.st_uid != self._owner or file.st_mode & 0o022):
                return None
            # A part of wtmp must start with a complete record.
            record = _SHORT.size if platform.machine() in _SHARED else _LONG.size
            begin = max(0, file.st_size - limit)
            return os.pread(descriptor, limit, 0 if trusted else begin + -begin % record)
        except OSError:
            return None
        finally:
            os.close(descriptor)


def _by_logind(session: Session) -> Login:
    start = None
    if session.started is not None:
        # After a suspend the time is too late, never too early.
        monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        suspended = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - monotonic
        start = session.started * 1000 + suspended
    return Login("logind", session.service, session.host, session.terminal, start)
