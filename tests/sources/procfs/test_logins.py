"""Login records: parsed as written, and trusted only from their owners."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.process.events import Login
from sessiond.sources.procfs.logins import (
    LoginRecords,
    Session,
    Utmp,
    login_of,
    parse_session,
    parse_utmp,
)
from sessiond.units import SECOND, UNSET_ID

# As logind writes it (session_save of src/login/logind-session.c).
SSH_SESSION = b"""# This is private data. Do not parse.
UID=1000
USER=alice
ACTIVE=1
IS_DISPLAY=1
STATE=closing
REMOTE=1
TYPE=tty
ORIGINAL_TYPE=tty
CLASS=user
SCOPE=session-7.scope
FIFO=/run/systemd/sessions/7.ref
TTY=pts/0
REMOTE_HOST=192.0.2.7
SERVICE=sshd
LEADER=1234
AUDIT=7
REALTIME=1777629700000000
MONOTONIC=100000000
"""
MADE = Session(b"sshd", b"192.0.2.7", b"pts/0", 7, 100_000_000)


def test_a_session_is_read() -> None:
    """The file is one of logind's in /run/systemd/sessions."""
    assert parse_session(SSH_SESSION) == MADE


@pytest.mark.parametrize(
    ("text", "member", "value"),
    [
        (b"REMOTE=0\nREMOTE_HOST=192.0.2.7\n", "host", None),
        (b'REMOTE=1\nREMOTE_HOST="192.0.2.7"\n', "host", b"192.0.2.7"),
        (b"AUDIT=\n", "audit", None),
        (b"AUDIT=-1\n", "audit", None),
        (b"AUDIT=" + b"9" * 80 + b"\n", "audit", None),
        (b"MONOTONIC=soon\n", "started", None),
        (b"SERVICE=cron", "service", b"cron"),
        (b"#SERVICE=cron\n", "service", None),
    ],
)
def test_a_member_in_another_form(text: bytes, member: str, value: object) -> None:
    """Invalid lines are skipped, and the last line needs no newline."""
    assert getattr(parse_session(text), member) == value


@given(
    st.binary() | st.builds(lambda text, at: SSH_SESSION[:at] + text, st.binary(), st.integers())
)
def test_any_bytes_are_no_error(data: bytes) -> None:
    """Any bytes can be a session's file, or wtmp of any machine."""
    parse_session(data)
    for machine in ("x86_64", "aarch64"):
        list(parse_utmp(data, machine))


@given(
    st.integers(1, 2**31 - 1),
    st.from_regex(rb"\A[a-z/0-9]{0,32}\Z"),
    st.from_regex(rb"\A[a-z.0-9]{0,255}\Z"),
    st.integers(0, 2**31 - 1),
    st.integers(0, 999_999),
    st.sampled_from(["x86_64", "aarch64"]),
)
def test_a_login_comes_back_as_it_was_written(
    pid: int, line: bytes, host: bytes, seconds: int, micros: int, machine: str
) -> None:
    """The format is the struct of <utmp.h>; a record of another kind precedes it."""
    data = record(8, pid, line, machine=machine) + record(
        7, pid, line, host, seconds, micros, machine=machine
    )
    assert list(parse_utmp(data + b"cut off", machine)) == [
        Utmp(pid, line, host, seconds * SECOND + micros * 1000)
    ]


def record(
    kind: int,
    pid: int,
    line: bytes,
    host: bytes = b"",
    seconds: int = 0,
    micros: int = 0,
    address: bytes = b"",
    machine: str = "x86_64",
) -> bytes:
    times = "iii" if machine == "x86_64" else "qqq"
    padding = 20 if machine == "x86_64" else 24
    return struct.pack(
        f"=hxxi32s4s32s256shh{times}16s{padding}x",
        *(kind, pid, line, b"ts/0", b"alice", host, 0, 0, 0, seconds, micros, address),
    )


def test_an_address_is_better_than_a_name() -> None:
    """The first of four words is an IPv4 address."""
    four = record(7, 1, b"pts/0", b"example", address=bytes([192, 0, 2, 7]))
    six = record(7, 1, b"pts/0", b"example", address=bytes([0x20, 1, 0xD, 0xB8, *[0] * 11, 1]))
    assert [each.host for each in parse_utmp(four + six, "x86_64")] == [
        b"192.0.2.7",
        b"2001:db8::1",
    ]


LOGINS = [
    Utmp(10, b"pts/0", b"192.0.2.1", 100 * SECOND),
    Utmp(20, b"pts/1", b"192.0.2.2", 200 * SECOND),
    Utmp(30, b"pts/0", b"192.0.2.3", 300 * SECOND),
]


@pytest.mark.parametrize(
    ("pids", "line", "until", "expected"),
    [
        ({10}, None, 400, b"192.0.2.1"),
        ({10}, b"pts/1", 400, b"192.0.2.1"),
        ({99}, b"pts/0", 400, b"192.0.2.3"),
        ({99}, b"pts/0", 250, b"192.0.2.1"),
        ({30}, None, 250, None),
        ({99}, None, 400, None),
    ],
)
def test_the_last_login_before_a_process_began(
    pids: set[int], line: bytes | None, until: int, expected: bytes | None
) -> None:
    """The pid counts before the terminal; logins of another boot or later ones are ignored."""
    found = login_of(LOGINS, pids, line, 50 * SECOND, until * SECOND)
    assert (found.host if found else None) == expected
    assert login_of(LOGINS, pids, line, 350 * SECOND, until * SECOND) is None


@pytest.fixture
def records(tmp_path: Path) -> LoginRecords:
    """Records with session 7, and a wtmp of one login."""
    (tmp_path / "sessions").mkdir()
    write(tmp_path, "7", SSH_SESSION)
    wtmp = tmp_path / "wtmp"
    wtmp.write_bytes(record(7, 10, b"pts/0", b"192.0.2.1", int(time.time()), machine=MACHINE))
    return LoginRecords(tmp_path / "sessions", [wtmp, tmp_path / "none"], owner=os.getuid())


MACHINE = os.uname().machine


def write(directory: Path, name: str, data: bytes) -> Path:
    path = directory / "sessions" / name
    path.write_bytes(data)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(
    ("audit_session", "cgroup", "is_found"),
    [
        (7, None, True),
        (7, b"/user.slice/user-1000.slice/session-8.scope", True),
        (UNSET_ID, b"/user.slice/user-1000.slice/session-7.scope", True),
        (8, None, False),
        (None, b"/system.slice/cron.service", False),
        (None, None, False),
    ],
)
def test_a_session_is_found(
    records: LoginRecords, audit_session: int | None, cgroup: bytes | None, is_found: bool
) -> None:
    """It is found by the audit session, else by the scope."""
    login = records.of_session(audit_session, cgroup)
    assert (login is not None) is is_found
    if login is not None:
        assert login[:4] == ("logind", b"sshd", b"192.0.2.7", b"pts/0")
        assert login.start is not None
        assert login.start >= 100 * SECOND


def test_the_session_of_another_audit_session_is_not_taken(
    records: LoginRecords, tmp_path: Path
) -> None:
    """Without audit, logind uses its own numbers."""
    write(tmp_path, "9", SSH_SESSION)
    assert records.of_session(9, None) is None


@pytest.mark.parametrize("what", ["writable", "link", "fifo", "directory"])
def test_only_what_its_owner_alone_can_write_is_believed(
    records: LoginRecords, tmp_path: Path, what: str
) -> None:
    """A file that others can write, a link, a pipe and a directory are ignored."""
    path = write(tmp_path, "9", SSH_SESSION.replace(b"AUDIT=7", b"AUDIT=9"))
    assert records.of_session(9, None) is not None
    if what == "writable":
        path.chmod(0o666)
    else:
        path.unlink()
        if what == "link":
            path.symlink_to(tmp_path / "sessions" / "7")
        elif what == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
    assert records.of_session(9, None) is None


def test_another_users_file_is_not_believed(records: LoginRecords, tmp_path: Path) -> None:
    """Sessions' files belong to root."""
    others = LoginRecords(tmp_path / "sessions", [], owner=os.getuid() + 1)
    assert records.of_session(7, None) is not None
    assert others.of_session(7, None) is None


def test_wtmp_is_read_anew_when_it_grows(records: LoginRecords, tmp_path: Path) -> None:
    """By pid or by terminal; dates are converted to boot time."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    login = records.of_terminal([10], None, now)
    assert login is not None
    assert login[:4] == Login("wtmp", None, b"192.0.2.1", b"pts/0", None)[:4]
    assert abs((login.start or 0) - now) < 60 * SECOND
    assert records.of_terminal([11], b"pts/9", now) is None
    with (tmp_path / "wtmp").open("ab") as file:
        file.write(record(7, 11, b"pts/9", b"", int(time.time()), machine=MACHINE))
    found = records.of_terminal([11], None, now)
    assert found is not None
    assert (found.host, found.terminal) == (None, b"pts/9")
