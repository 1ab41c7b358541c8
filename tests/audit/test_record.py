"""Records: the kernel's values are restored exactly, whatever a user put into them."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond import text
from sessiond.audit import record
from sessiond.audit.record import EXECVE, Record
from sessiond.errors import RecordError
from sessiond.process.argv import join_args

EXEC = (
    b"audit(1777630272.123:8972): arch=c000003e syscall=59 success=yes exit=0 ppid=10027 pid=10043"
    b' auid=1000 tty=pts0 ses=11 comm="uname" exe="/usr/bin/uname" key=(null)'
)


def execve(text: bytes) -> Record:
    return Record(EXECVE, text)


def as_the_kernel_writes(value: bytes) -> bytes:
    """Encode like audit_log_n_untrustedstring in kernel/audit.c: hex if a byte is not printable."""
    if any(byte in (0x22, 0x7F) or byte < 0x21 or byte > 0x7E for byte in value):
        return value.hex().upper().encode()
    return b'"' + value + b'"'


def test_a_record_has_a_stamp_in_milliseconds_and_a_serial() -> None:
    """The stamp, time and serial, identifies the event."""
    time, serial, begin = record.parse_stamp(EXEC)
    assert (time, serial) == (1777630272123, 8972)
    assert EXEC[begin:].startswith(b"arch=c000003e syscall=59")


def test_the_fields_are_found_in_order_with_their_quotes() -> None:
    """Quotes are kept: they distinguish text from hex."""
    fields = record.fields(EXEC)
    assert list(fields)[:3] == ["arch", "syscall", "success"]
    assert fields["exe"] == b'"/usr/bin/uname"'


@pytest.mark.parametrize(
    "payload", [b"", b"audit(", b"audit(1.2:3)", b"audit(x.123:1): a=1", b"\xff" * 30]
)
def test_what_is_no_record_is_refused(payload: bytes) -> None:
    """Text without a stamp raises RecordError and no other exception."""
    with pytest.raises(RecordError):
        record.parse_stamp(payload)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_an_error(payload: bytes) -> None:
    """No input causes another exception."""
    record.fields(payload)
    with contextlib.suppress(RecordError):
        record.parse_stamp(payload)


@given(st.binary(min_size=1, max_size=200).filter(lambda value: b"\0" not in value))
def test_a_value_that_a_user_controls_comes_back_byte_for_byte(value: bytes) -> None:
    """What the kernel encodes is decoded to the same bytes, hex-looking text included."""
    text = b"pid=1 comm=" + as_the_kernel_writes(value) + b" exe=(null) pid=2"
    fields = record.fields(text)
    assert record.decode(fields["comm"]) == value
    assert fields["pid"] == b"1"  # no value can precede the kernel's own fields


def test_hex_looking_text_stays_text_and_words_for_nothing_are_nothing() -> None:
    """Quoted values are text, unquoted ones hex; (null), (none) and ? are no values."""
    assert record.decode(b'"3005"') == b"3005"
    assert record.decode(b"3005") == b"0\x05"
    assert [record.decode(word) for word in (b"(null)", b"(none)", b"?", b"")] == [None] * 4


def test_a_user_message_is_one_value() -> None:
    """The content of msg='...' of user space can't imitate the kernel's fields."""
    text = b"pid=7 uid=0 msg='op=login acct=\"root\" pid=999 res=success'"
    fields = record.fields(text)
    assert fields["pid"] == b"7"
    assert list(fields) == ["pid", "uid", "msg"]


def test_the_text_of_an_argv_is_the_kernels() -> None:
    """The text of each recorded argv equals the kernel's record."""
    log = Path(__file__).parents[1] / "data" / "debian-12-linux-6.18-stig-raw.log"
    found = re.findall(rb"^type=EXECVE msg=audit\(.*\): (argc=.*)$", log.read_bytes(), re.MULTILINE)
    read = [(written, record.arguments([execve(written)])) for written in found]
    whole = [(written, argv.values) for written, argv in read if argv.whole]
    assert len(whole) > 30
    for written, argv in whole:
        assert record.execve_text(join_args(argv)) == written


@given(st.lists(st.binary().filter(lambda value: b"\0" not in value), min_size=1))
def test_the_text_of_any_argv_says_that_argv(argv: list[bytes]) -> None:
    """The text of an argv stands for no other argv."""
    text = record.execve_text(join_args(argv))
    assert record.arguments([execve(text)]) == (argv, True, len(argv))


def test_arguments_of_one_record() -> None:
    """Quoted, hex and empty arguments; the flag says that the argv is complete."""
    assert record.arguments([execve(b'argc=4 a0="ls" a1=2D6C2061 a2="" a3="3005"')]) == (
        [b"ls", b"-l a", b"", b"3005"],
        True,
        4,
    )


def test_a_long_argument_is_joined_from_its_pieces() -> None:
    """A long argv spans records; a long argument is split into pieces that follow its length."""
    records = [
        execve(b'argc=3 a0="x" a1_len=8 a1[0]=61206220'),
        execve(b'a1[1]="cdef" a2="end"'),
    ]
    assert record.arguments(records) == ([b"x", b"a b cdef", b"end"], True, 3)


def test_of_a_long_argv_the_beginning_is_read() -> None:
    """Of a hundred thousand short arguments only some are parsed; their number is known."""
    records = [execve(b'argc=100000 a0="a"')]
    for first in range(1, 9_001, 100):
        more = [b'a%d="a"' % number for number in range(first, first + 100)]
        records.append(execve(b" ".join(more)))
    found = record.arguments(records, limit=5_000)
    assert (found.whole, found.number) == (False, 100_000)
    assert 500 <= len(found.values) <= 700


def test_a_lost_execve_record_is_not_hidden() -> None:
    """Missing arguments or pieces make the argv incomplete."""
    assert record.arguments([execve(b'argc=3 a0="x" a1="y"')]) == ([b"x", b"y"], False, 3)
    assert record.arguments([execve(b'argc=2 a0="x" a1_len=9 a1[1]="cdef"')])[1] is False
    assert record.arguments([]) == ([], False, 0)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        (b'a1="/etc/sha', b"/etc/sha"),
        (b'a1="', b""),
        (b"a1=", b""),
        (b"a1=2F65746", b"/et"),
        (b"a1=2", b""),
    ],
)
def test_an_argv_that_a_limit_cut_is_not_whole(text: bytes, last: bytes) -> None:
    """Syslog limits lines: the last argument has no quote, or half of a byte."""
    assert record.arguments([execve(b'argc=2 a0="x" ' + text)]) == ([b"x", last], False, 2)
    pieces = [execve(b'argc=2 a0="x" a1_len=8 a1[0]="cd"'), execve(b"a1[1]" + text[2:])]
    assert record.arguments(pieces)[1] is False


@given(st.lists(st.binary(max_size=40).filter(lambda value: b"\0" not in value), max_size=8))
def test_any_argv_comes_back(argv: list[bytes]) -> None:
    """Any list of arguments survives encoding and parsing."""
    text = b"argc=%d" % len(argv)
    for index, value in enumerate(argv):
        text += b" a%d=" % index + (as_the_kernel_writes(value) if value else b'""')
    assert record.arguments([execve(text)]) == (argv, True, len(argv))


@given(st.binary(max_size=60))
def test_shown_bytes_are_valid_text_and_tell_what_they_were(raw: bytes) -> None:
    r"""Valid UTF-8 is shown as it is, any other byte as \xNN."""
    shown = text.display(raw)
    shown.encode("utf-8")
    try:
        assert shown == raw.decode("utf-8")
    except UnicodeDecodeError:
        assert "\\x" in shown


def test_a_message_that_is_cut_off_is_still_a_message() -> None:
    """Without the last quote, its fields could be taken for the kernel's."""
    text = b'pid=7 uid=0 msg=\'op=login acct="root" subj=unconfined_u:x:y res=succ'
    assert list(record.fields(text)) == ["pid", "uid", "msg"]


def test_values_of_a_call_may_be_in_quotes() -> None:
    """Some programs quote all words; those that would be in hex without quotes keep them."""
    found = record.syscall_fields(b'arch=c000003e success="yes" tty="(none)" comm="java" key=6162')
    assert (found["success"], found["tty"]) == (b"yes", b"(none)")
    assert (found["comm"], found["key"]) == (b'"java"', b"6162")


def test_the_colon_behind_the_stamp_may_be_missing() -> None:
    """auditd of RHEL 5 to 7 writes DAEMON_CONFIG without it."""
    payload = b"audit(1490239800.477:34) config changed, auid=0 pid=1512 res=success"
    time, serial, end = record.parse_stamp(payload)
    assert (time, serial, payload[end:][:7]) == (1490239800477, 34, b"config ")
    with pytest.raises(RecordError):
        record.parse_stamp(b"audit(1490239800.477:34)config changed")
