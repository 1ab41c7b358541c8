"""LAUREL's objects are converted back to records."""

import pytest
from support.auditlog import record_type

from sessiond.audit.record import Record, arguments
from sessiond.errors import RecordError
from sessiond.replay.laurel import laurel_records

ID = "1712345600.100:40"


def test_values_are_encoded_as_the_kernel_does() -> None:
    """Numbers with a prefix, percent-encoded bytes, blanks."""
    (call,) = laurel_records(
        {"ID": ID, "SYSCALL": {"arch": "0xc000003e", "pid": 7, "comm": "a b", "exe": "/%c3%a4"}},
        record_type,
    )
    text = b"audit(1712345600.100:40): arch=c000003e pid=7 comm=612062 exe=2FC3A4"
    assert (call.type, call.payload) == (1300, text)


def test_any_argument_comes_back() -> None:
    """This includes empty arguments, blanks, quotes and bytes that are not text."""
    argv = ["sh", "-c", "echo 'a b'", "", "100%25", '%ff"']
    (record,) = laurel_records({"ID": ID, "EXECVE": {"argc": 6, "ARGV": argv}}, record_type)
    found = arguments([Record(1309, record.payload.partition(b": ")[2])])
    assert found == ([b"sh", b"-c", b"echo 'a b'", b"", b"100%", b'\xff"'], True, 6)


def test_a_text_stays_a_text() -> None:
    """The kernel encodes only some fields; an address is bytes in hex."""
    members = {"info": "same profile, skipping", "saddr": "%02%00"}
    (record,) = laurel_records({"ID": ID, "AVC": [members]}, record_type)
    assert record.payload.endswith(b': info="same profile, skipping" saddr=0200')


def test_a_message_is_restored() -> None:
    """The kernel's data about the sender stays outside of the message."""
    said = {"pid": 7, "uid": 0, "auid": 5, "ses": 1, "op": "login", "exe": "/bin/x", "res": "1"}
    (record,) = laurel_records({"ID": ID, "USER_LOGIN": [said]}, record_type)
    assert record.payload.endswith(
        b': pid=7 uid=0 auid=5 ses=1 msg=\'op="login" exe="/bin/x" res=1\''
    )


def test_names_are_kept_apart() -> None:
    """Translated names are not fields, as in an ENRICHED record."""
    (record,) = laurel_records({"ID": ID, "SYSCALL": {"uid": 5, "UID": "eve"}}, record_type)
    assert record.names == b'UID="eve"'


@pytest.mark.parametrize("event", [{}, {"ID": "x"}, {"ID": ID}, {"ID": ID, "X_INFO": {}}])
def test_other_objects_are_refused(event: dict[str, object]) -> None:
    """Auditbeat's documents, for example, can't be converted."""
    with pytest.raises(RecordError):
        laurel_records(event, record_type)
