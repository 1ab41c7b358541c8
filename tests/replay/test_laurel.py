"""LAUREL's objects are converted back to records."""

import orjson
import pytest
from support.auditlog import record_type
from support.replayed import documents

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


@pytest.mark.parametrize(
    ("machine", "arch", "number"),
    [("x86_64", "0xc000003e", 59), ("aarch64", "0xc00000b7", 221), ("mips", "0x8", 4011)],
)
def test_names_replace_numbers_that_are_left_out(machine: str, arch: str, number: int) -> None:
    """``drop-raw`` of LAUREL's configuration leaves out what is translated."""
    call = {"exit": 0, "pid": 7, "ARCH": machine, "SYSCALL": "execve"}
    users = {"AUID": "unset", "UID": "root", "GID": "unknown(77)", "EUID": "eve"}
    (record,) = laurel_records({"ID": ID, "SYSCALL": call | users}, record_type)
    assert record.payload.partition(b": ")[2].decode() == (
        f'arch={arch[2:]} syscall={number} exit=0 pid=7 auid=4294967295 uid=0 gid=77 EUID="eve"'
    )
    odd = {"ARCH": "pdp11", "SYSCALL": "execve"}
    (record,) = laurel_records({"ID": ID, "SYSCALL": odd}, record_type)
    assert b"syscall" not in record.payload


@pytest.mark.parametrize(
    ("process", "info"), [({"container": {"id": "ab" * 32}}, None), ({}, {"ID": "ab" * 32})]
)
def test_a_container_is_known(process: dict[str, object], info: dict[str, str] | None) -> None:
    """LAUREL writes its id beside the pid, or as a record."""
    call = {"arch": "0xc000003e", "syscall": 59, "success": "yes", "exit": 0, "pid": 7}
    event: dict[str, object] = {
        "ID": ID,
        "SYSCALL": call | {"PID": process},
        "CONTAINER_INFO": info,
    }
    (document,) = documents([orjson.dumps(event)])
    assert document["container"] == {"id": "ab" * 32}
    assert "container" not in document["auditd"]["data"]
    for other in ("x" * 64, 7, None, "ab"):
        event["SYSCALL"] = call | {"PID": {"container": {"id": other}}}
        event["CONTAINER_INFO"] = other
        (document,) = documents([orjson.dumps(event)])
        assert "container" not in document


@pytest.mark.parametrize("event", [{}, {"ID": "x"}, {"ID": ID}, {"ID": ID, "X_INFO": {}}])
def test_other_objects_are_refused(event: dict[str, object]) -> None:
    """Auditbeat's documents, for example, can't be converted."""
    with pytest.raises(RecordError):
        laurel_records(event, record_type)
