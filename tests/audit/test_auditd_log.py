"""Lines of logs: the parts before and after a record, and lines without a record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.audit import auditd_log
from sessiond.audit.auditd_log import (
    SEPARATOR,
    EnrichedNames,
    LostFormError,
    OtherLineError,
    PosingError,
    parse_line,
)
from sessiond.errors import RecordError

EXEC = b"audit(1777630272.123:8972): arch=c000003e syscall=59 success=yes exit=0"
STAMP = b"audit(1777630272.123:8972)"
TYPES = {"SYSCALL": 1300}


def test_a_line_of_an_enriched_log_is_the_same_record() -> None:
    """The names that auditd adds after 0x1D do not belong to the record."""
    line = b"node=web1 type=SYSCALL msg=" + EXEC + b'\x1dARCH=x86_64 SYSCALL=execve AUID="ann"\n'
    record = parse_line(line, TYPES.get)
    assert (record.type, record.payload) == (1300, EXEC)


def test_unknown_types_are_read_by_number_or_refused() -> None:
    """auditd writes an unknown type as UNKNOWN[n]."""
    assert parse_line(b"type=UNKNOWN[1334] msg=" + EXEC, lambda _: None).type == 1334
    with pytest.raises(RecordError, match="unknown record type"):
        parse_line(b"type=NEVER msg=" + EXEC, lambda _: None)


def test_what_stands_behind_rsyslogs_mark_must_be_names() -> None:
    """A user may put the mark into an argument: the text after it is then not a list of names."""
    text = EXEC + b' comm="a#035UID=b" exe="/bin/a" key="x#035UID=b"'
    found = parse_line(b"type=SYSCALL msg=" + text, TYPES.get)
    assert (found.payload, found.names) == (text, b"")
    found = parse_line(b"type=SYSCALL msg=" + text + b'#035UID="b" GID="c"', TYPES.get)
    assert (found.payload, found.names) == (text, b'UID="b" GID="c"')
    address = b"SADDR={ saddr_fam=inet laddr=192.0.2.1 lport=9 }"
    found = parse_line(b"type=SYSCALL msg=" + EXEC + b"#035" + address, TYPES.get)
    assert (found.payload, found.names) == (EXEC, address)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b' comm="id" key=(null)', b'ARCH=x86_64 SYSCALL=execve AUID="ann" UID="root"'),
        (b" nametype=NORMAL", b'OUID="root" OGID="root"'),
        (b" cap_frootid=0", b'OUID="root" OGID="root"'),
        (b" msg='op=login acct=\"ann\" res=success'", b'UID="root" AUID="ann"'),
        (b" saddr=0100", b"SADDR={ saddr_fam=local path=/run/x }"),
        (b" uid=7 gid=8 exe=(null)", b'UID="eve" GID=646F6D61696E207573657273'),
        (b" uid=7 arch=c000003e syscall=41 code=0x0", b'UID="eve" ARCH=x86_64 SYSCALL=socket'),
    ],
)
def test_names_may_follow_without_a_mark(text: bytes, names: bytes) -> None:
    """Terminals and many exports leave out 0x1D; a name is glued to the last value then."""
    found = parse_line(b"type=SYSCALL msg=" + EXEC + text + names, TYPES.get)
    assert (found.payload, found.names) == (EXEC + text, names)


@pytest.mark.parametrize("mark", [b"#035", b"^]", b"\\u001d", b"\\x1d", b"\\035", b" "])
def test_an_export_may_write_the_mark_in_its_own_way(mark: bytes) -> None:
    """rsyslog, less, JSON and C escape it; others write a blank."""
    text = EXEC + b' auid=7 uid=0 exe="/bin/id" key=(null)'
    names = b'ARCH=x86_64 SYSCALL=execve AUID="eve" UID="root"'
    found = parse_line(b"type=SYSCALL msg=" + text + mark + names, TYPES.get)
    assert (found.payload, found.names) == (text, names)
    text = STAMP + b": pid=1 uid=0 auid=7 msg='op=login id=7 res=success'"
    names = b'UID="root" AUID="eve" ID="eve"'
    found = parse_line(b"type=1112 msg=" + text + mark + names, TYPES.get)
    assert (found.payload, found.names) == (text, names)


def test_a_field_that_looks_like_a_name_is_a_field() -> None:
    """It has no field of the record that it names, or is in a value that a user wrote."""
    for text in (
        b' VALID="x"',
        b' ID="x" OUID="y"',
        b' key="aUID=b"',
        b" msg='a=bUID=\"c\"'",
        b" uid=7 msg='a=b UID=\"c\"'",
    ):
        found = parse_line(b"type=SYSCALL msg=" + EXEC + text, TYPES.get)
        assert (found.payload, found.names) == (EXEC + text, b"")


@pytest.mark.parametrize(
    ("line", "node"),
    [
        (b"type=1300 " + EXEC, ""),
        (b"node=web7 type=SYSCALL msg=" + EXEC, "web7"),
        (b"Apr  5 19:33:20 web7 kernel: type=1300 " + EXEC, "web7"),
        (b"<5>[   12.345678] audit: type=1300 " + EXEC, ""),
        (b"[   12.345678][  T701] audit: type=1300 " + EXEC, ""),
        (b"2026-05-01T10:11:12,123456+02:00 audit: type=1300 " + EXEC, ""),
        (b"kern  :notice: [   12.345678] audit: type=1300 " + EXEC, ""),
        (b"   [   12.345678][  0] audit: type=1300 " + EXEC, ""),
        (b"Apr  5 19:33:20 web7 kernel: audit: type=SYSCALL msg=" + EXEC, "web7"),
        (b"<13>Apr 15 19:33:20 relay audispd: node=web7 type=SYSCALL msg=" + EXEC, "web7"),
        (b"2026-05-01T10:11:12Z web7 tag_audit_log: type=SYSCALL msg=" + EXEC, "web7"),
        (b"<134>1 2026-05-01T10:11:12Z web7 audisp-syslog 8 - - type=SYSCALL msg=" + EXEC, "web7"),
        (
            b"<134>1 2026-05-01T10:11:12Z relay audispd - - - \xef\xbb\xbftype=1300 msg=" + EXEC,
            "relay",
        ),
        (
            b'<134>1 2026-05-01T10:11:12Z relay audispd - - [at@1 of="a\\]b" to=""]  node=web7 '
            b"type=SYSCALL msg=" + EXEC,
            "web7",
        ),
        (b"2026-05-01T10:11:12+00:00 web7 auditd type=SYSCALL msg=" + EXEC, "web7"),
        (b"May  1 10:11:12 web7 audit type=SYSCALL msg=" + EXEC, "web7"),
        (b"audispd: node=web7 type=SYSCALL msg=" + EXEC, "web7"),
        (b"  type=SYSCALL msg=" + EXEC, ""),
        (b"\xef\xbb\xbftype=SYSCALL msg=" + EXEC, ""),
        (bytes(4096) + b"type=SYSCALL msg=" + EXEC, ""),
        (b"/srv/case/audit.log.1:type=SYSCALL msg=" + EXEC, ""),
        (b"audit.log:17:node=web7 type=SYSCALL msg=" + EXEC, "web7"),
        (b"17:type=SYSCALL msg=" + EXEC, ""),
        (b"audit.log-17-type=SYSCALL msg=" + EXEC, ""),
        (b"C:\\case\\audit.log:type=SYSCALL msg=" + EXEC, ""),
        (b"    17\ttype=SYSCALL msg=" + EXEC, ""),
        (b"5,1234,5678901,-;audit: type=1300 " + EXEC, ""),
        (b"2026-05-01T10:11:12.123456789Z node=web7 type=SYSCALL msg=" + EXEC, "web7"),
        (b"2026-05-01T10:11:12.123456789Z stdout F type=SYSCALL msg=" + EXEC, ""),
        (b"312 <134>1 2026-05-01T10:11:12Z web7 audispd - - - type=1300 msg=" + EXEC, "web7"),
        (b"99 <13>May  1 10:11:12 web7 audispd: type=SYSCALL msg=" + EXEC, "web7"),
        (
            b"2026 May 01 10:11:12 (web7) any->/var/log/audit/audit.log type=1300 msg=" + EXEC,
            "web7",
        ),
        (b"2026 May 01 10:11:12 web7->/var/log/audit/audit.log type=1300 msg=" + EXEC, "web7"),
    ],
)
def test_who_passed_a_record_on_changes_nothing_of_it(line: bytes, node: str) -> None:
    """The host comes from node=, or from syslog's prefix."""
    found = parse_line(line + b"\r\n", TYPES.get)
    assert (found.node, found.type, found.payload) == (node, 1300, EXEC)


@pytest.mark.parametrize(
    "line",
    [b"----", b"--", b"time->Fri Apr  5 19:33:20 2024", b"==> audit.log <==", b"-- Boot 1a2b --"],
)
def test_lines_between_records_are_known(line: bytes) -> None:
    """ausearch, grep, tail and journalctl write them."""
    assert SEPARATOR.match(line + b"\r\n")


def test_other_lines_of_a_system_log_are_nothing_wrong() -> None:
    """Lines of other programs are distinguished from invalid lines."""
    with pytest.raises(OtherLineError):
        parse_line(b"Apr  5 19:33:20 web7 cron[7]: (root) CMD (true)", TYPES.get)
    with pytest.raises(OtherLineError):
        parse_line(b"Apr  5 19:33:20 web7 last message repeated 2 times", TYPES.get)
    with pytest.raises(OtherLineError):
        parse_line(b"Apr  5 19:33:20 web7 eve type=SYSCALL msg=" + EXEC, TYPES.get)
    with pytest.raises(PosingError) as raised:
        parse_line(b"Apr  5 19:33:20 web7 eve[7]: Hi. type=SYSCALL msg=" + EXEC, TYPES.get)
    assert raised.value.program == "eve"
    # A syslog without host names may leave a user's message at the beginning of a line.
    with pytest.raises(RecordError):
        parse_line(b"Apr  5 19:33:20 type=SYSCALL msg=" + EXEC, TYPES.get)
    for kernel in (b"[    0.000000] ", b"2026-05-01T10:11:12,123456+02:00 "):
        for text in (b"Linux version 6.1.0", b"systemd[1]: Started x"):
            with pytest.raises(OtherLineError):
                parse_line(kernel + text, TYPES.get)
    with pytest.raises(RecordError, match="not an audit record"):
        parse_line(b"hello", TYPES.get)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"SYSCALL arch=c000003e syscall=59", "journalctl -o json"),
        (b"Apr 05 19:33:20 web7 audit[7]: SYSCALL arch=c000003e", "journalctl -o json"),
        (b"Fri 2024-04-05 19:33:20 UTC web7 audit[7]: SYSCALL arch=c000003e", "journalctl -o json"),
        (b"1712345600.100 web7 audit[7]: SYSCALL arch=c000003e", "journalctl -o json"),
        (b"[   12.345678] web7 audit[7]: SYSCALL arch=c000003e", "journalctl -o json"),
        (b"type=CWD msg=audit(04/05/2024 19:33:20.100:40) : cwd=/", "ausearch --raw"),
        (b"type=CWD msg=audit(05.04.2024 19:33:20.100:40) : cwd=/", "ausearch --raw"),
        (b"At 19:33:20 04/05/2024 eve successfully executed /bin/id", "ausearch --raw"),
        (b"On web7 at 19:33:20 04/05/2024 eve logged-in", "ausearch --raw"),
    ],
)
def test_a_form_without_the_record_says_what_to_run(line: bytes, command: str) -> None:
    """The record can't be restored from it."""
    with pytest.raises(LostFormError, match=command):
        parse_line(line, TYPES.get)


@given(st.binary(max_size=200))
def test_any_line_is_a_record_or_refused(line: bytes) -> None:
    """No other exception is raised, whatever a log contains."""
    for prefix in (b"", b"type=1300 audit(", b"Apr  5 19:33:20 h audispd: type=SYSCALL msg=audit("):
        try:
            found = parse_line(prefix + line, TYPES.get)
        except RecordError:
            continue
        assert found.payload.startswith(b"audit(")


def test_names_are_those_of_their_event() -> None:
    """Names take effect when their event is written, and learn() reports changed names."""
    names = EnrichedNames()
    names.note(1112, STAMP + b": auid=7 uid=0", b'AUID="eve" UID="root"')
    assert names.user(7) is None
    assert names.learn(STAMP) is True
    assert (names.user(7), names.user(0)) == ("eve", "root")
    assert (names.user_id("eve"), names.user_id("bob")) == (7, None)
    assert names.learn(STAMP) is False


def test_a_message_has_names_for_what_it_says() -> None:
    """ID= is the name of the account in the text of a message."""
    names = EnrichedNames()
    names.note(
        1112, STAMP + b": pid=1 uid=0 msg='op=login id=7 res=success'", b'UID="root" ID="eve"'
    )
    names.learn(STAMP)
    assert names.user(7) == "eve"


def test_the_account_of_a_message_about_a_group_is_a_group() -> None:
    """A new user's group often has the same name, and the names of both records are equal."""
    names = EnrichedNames()
    text = STAMP + b": pid=1 uid=0 auid=7 msg='op=add id=%d res=success'"
    for record_type, number in ((1116, 991), (1114, 990)):
        names.note(record_type, text % number, b'UID="root" AUID="eve" ID="web"')
    names.learn(STAMP)
    assert (names.group(991), names.user(991)) == ("web", None)
    assert (names.group(990), names.user(990)) == (None, "web")


def test_the_login_user_before_a_login_has_its_name() -> None:
    """auditd writes it as OLD-AUID."""
    names = EnrichedNames()
    names.note(1006, STAMP + b": pid=1 uid=0 old-auid=7 auid=8", b'OLD-AUID="eve" AUID="bob"')
    names.learn(STAMP)
    assert (names.user(7), names.user(8)) == ("eve", "bob")


@pytest.mark.parametrize("before", [b"", b"node=web7 ", b"May  1 10:11:12 web7 audispd: "])
def test_records_of_an_event_may_share_a_line(before: bytes) -> None:
    """Wazuh joins them. The text of a message can't begin a record, nor can another event's."""
    parts = [
        before + b"type=USER_CMD msg=" + STAMP + b": pid=1 uid=0 msg='op=x res=success'",
        b"type=SYSCALL msg=" + EXEC + b' key="k"\x1dARCH=x86_64',
        b"type=UNKNOWN[1420] msg=" + STAMP + b": subj=a",
    ]
    assert auditd_log.joined(b" ".join(parts) + b"\n") == [*parts[:-1], parts[-1] + b"\n"]
    for line in (
        b"type=USER_CMD msg=" + STAMP + b": msg='op=x type=SYSCALL msg=" + EXEC + b"'",
        b"type=SYSCALL msg=" + EXEC + b" type=CWD msg=audit(1777630272.123:8973): cwd=x",
    ):
        assert auditd_log.joined(line) == [line]
