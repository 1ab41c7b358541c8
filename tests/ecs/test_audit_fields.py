"""Records as text: decoded, absent if empty, with the claims of user space kept apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.audit.record import PATH, Record
from sessiond.ecs.audit_fields import DATA_LIMIT, EventFields, FieldReader, integer, text_of
from sessiond.text import display


def read(*records: tuple[int, bytes]) -> EventFields:
    """Parse records."""
    return FieldReader().read([Record(number, text) for number, text in records], enriched=False)


@pytest.mark.parametrize(
    ("name", "raw", "text"),
    [
        ("name", b'"/etc/passwd"', "/etc/passwd"),
        ("name", b"2F746D702F6120C3A4", "/tmp/a \u00e4"),
        ("name", b"61FF", "a\\xff"),
        ("inode", b"3005", "3005"),
        ("name", b"(null)", None),
        ("acct", b'"?"', None),
        ("addr", b"?", None),
        ("old-auid", b"4294967295", None),
        ("a0", b"4294967295", "4294967295"),
        ("tty", b"(none)", "(none)"),
        ("hostname", b"\xff", "\\xff"),
    ],
)
def test_a_value_is_decoded_by_its_field(name: str, raw: bytes, text: str | None) -> None:
    """Only values that the kernel encodes are decoded; its words for "none" give no value."""
    assert text_of(name, raw) == text


@pytest.mark.parametrize(
    ("raw", "base", "number"),
    [
        (b"7", 10, 7),
        (b"ff", 16, 255),
        (b"-1", 10, None),
        (b"1_0", 10, None),
        (b" 1", 10, None),
        (b"", 10, None),
        (b"9" * 21, 10, None),
        (None, 10, None),
    ],
)
def test_a_number_is_only_digits(raw: bytes | None, base: int, number: int | None) -> None:
    """The kernel writes no other forms of numbers that Python accepts."""
    assert integer(raw, base) == number


HOSTILE = (
    b"pid=31 uid=4242 auid=4242 ses=3 msg='op=x type=SYSCALL msg=audit(1.0:1): "
    b'pid=1 uid=0 auid=0 subj=a:b:c exe="/bin/x" res=success\''
)


def test_a_message_can_claim_nothing_about_its_sender() -> None:
    """The kernel's fields stay, and the message's claims are kept as data."""
    parts = read((1112, HOSTILE))
    assert parts.own["uid"] == b"4242"
    assert "uid" not in parts.data
    assert parts.data["op"] == "x"
    assert "pid=1 uid=0 auid=0" in parts.data["msg"]


def test_the_fields_of_an_honest_message_are_enough() -> None:
    """No value is repeated."""
    parts = read((1100, b'pid=7 uid=0 msg=\'op=PAM:x acct="ann" exe="/y" res=success\''))
    assert parts.data == {"op": "PAM:x", "acct": "ann"}


def test_free_text_is_kept_whole() -> None:
    """A message need not have fields."""
    parts = read((1005, b"pid=7 uid=0 msg='disk is full, uid=0 did it'"))
    assert parts.data == {"msg": "disk is full, uid=0 did it"}


def test_a_value_with_blanks_is_kept_whole() -> None:
    """shadow-utils does not quote its values."""
    parts = read((1114, b"pid=7 uid=0 msg='op=adding user id=4242 exe=\"/x\" res=success'"))
    assert parts.data == {"op": "adding user", "id": "4242"}


def test_the_title_is_one_line() -> None:
    """The kernel writes the argv with its NULs."""
    assert read((1327, b"proctitle=6C73002D61")).title == "ls -a"
    assert read((1327, b'proctitle="ls"')).title == "ls"
    assert read((1327, b"proctitle=00")).title is None


def test_an_argument_list_that_is_not_whole_is_told() -> None:
    """A record of it is missing."""
    parts = read((1309, b'argc=2 a0="ls"'))
    assert parts.args == [b"ls"]
    assert parts.warnings == ["EXECVE: the argument list isn't whole"]


def test_the_further_values_of_a_field_stay_when_the_first_one_has_moved() -> None:
    """The first value may have become another field, such as user.selinux."""
    parts = read((1305, b"op=x"))
    parts.repeat({"op": "y"})
    del parts.data["op"]
    assert parts.all_data() == {"op": "y"}
    parts.repeat({"other": "1"})
    parts.more["op"].append("z")
    assert parts.all_data() == {"other": "1", "op": ["y", "z"]}


def test_an_event_cannot_bring_fields_without_end() -> None:
    """An index limits the number of fields over all documents."""
    fields = b" ".join(b"f%d=1" % number for number in range(1000))
    parts = read((1305, fields), (1321, fields))
    assert len(parts.data) <= DATA_LIMIT + 1
    assert parts.warnings == [f"more than {DATA_LIMIT} fields, the rest is left out"]


@given(st.binary(max_size=60).filter(lambda raw: raw.strip(b"\0") == raw and raw))
def test_a_path_of_any_bytes_is_shown(name: bytes) -> None:
    """Hex in the record, text in the document."""
    path = read((PATH, b"item=0 name=" + name.hex().encode())).paths[0]
    assert path.get("name") == display(name) or name == b"?"


@pytest.mark.parametrize(
    ("message", "kept"),
    [(b' comm="utmp" res=success', False), (b'changed comm="utmp" res=success', True)],
)
def test_the_text_of_a_message_is_kept_if_it_has_more_than_fields(
    message: bytes, kept: bool
) -> None:
    """systemd begins its messages with a blank."""
    parts = read((1127, b"pid=1 uid=0 msg='" + message + b"'"))
    assert ("msg" in parts.data) is kept
