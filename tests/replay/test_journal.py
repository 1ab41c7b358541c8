"""The journal's formats: only entries that journald vouches for are records."""

import io
from typing import Any

import pytest

from sessiond.audit.auditd_log import OtherLineError, PosingError
from sessiond.errors import RecordError
from sessiond.replay.journal import export_entries, journal_record

ENTRY = {
    "_TRANSPORT": "audit",
    "_AUDIT_TYPE": "1300",
    "_AUDIT_ID": "40",
    "_SOURCE_REALTIME_TIMESTAMP": "1712345600100999",
    "_HOSTNAME": "web7",
    "_BOOT_ID": "b",
    "_MACHINE_ID": "m",
    "MESSAGE": "SYSCALL arch=c000003e syscall=59",
}


def read(**changed: Any) -> Any:
    return journal_record({**ENTRY, **changed}, {"SYSCALL": 1300}.get)


def test_type_time_and_serial_are_the_journals() -> None:
    """The message starts with the name of the type, which is not part of the record."""
    found = read()
    assert found.payload == b"audit(1712345600.100:40): arch=c000003e syscall=59"
    assert (found.type, found.node, found.boot, found.machine) == (1300, "web7", "b", "m")


def test_a_message_may_be_bytes() -> None:
    """journald writes text that is not UTF-8 that way."""
    assert read(MESSAGE=list(b"SYSCALL comm=\xff")).payload.endswith(b": comm=\xff")


def test_the_kernels_own_log_has_records_too() -> None:
    """Without a daemon the kernel prints records to its log."""
    message = "audit: type=1300 audit(1712345600.100:40): arch=c000003e"
    found = read(_TRANSPORT="kernel", MESSAGE=message)
    assert (found.type, found.payload) == (1300, b"audit(1712345600.100:40): arch=c000003e")


def test_only_journald_itself_can_say_that_it_is_a_record() -> None:
    """A program's own message with such a field has another transport."""
    with pytest.raises(OtherLineError):
        read(_TRANSPORT="journal")


def test_the_plugin_of_auditd_passes_records_on() -> None:
    """journald knows the process; a user can give any name to syslog, but runs as that user."""
    message = "node=db3 type=SYSCALL msg=audit(1712345600.100:40): arch=c000003e"
    syslog = {"_TRANSPORT": "syslog", "MESSAGE": message, "SYSLOG_IDENTIFIER": "audisp-syslog"}
    found = read(**syslog, _UID="0", _COMM="audisp-syslog")
    assert (found.node, found.payload) == ("db3", b"audit(1712345600.100:40): arch=c000003e")
    for process in ({"_UID": "7", "_COMM": "audisp-syslog"}, {"_UID": "0", "_COMM": "sshd"}, {}):
        with pytest.raises(PosingError) as raised:
            read(**syslog, **process)
        assert raised.value.program == process.get("_COMM", "an unknown program")


@pytest.mark.parametrize("missing", ["_AUDIT_ID", "_SOURCE_REALTIME_TIMESTAMP", "MESSAGE"])
def test_an_entry_must_be_whole(missing: str) -> None:
    """journalctl omits long messages unless it runs with --all."""
    with pytest.raises(RecordError):
        read(**{missing: None})


def test_an_export_has_binary_fields() -> None:
    """They have their length, and may contain newlines."""
    value = b"two\nlines"
    data = b"A=1\nB\n" + len(value).to_bytes(8, "little") + value + b"\nC=x=y\n\nA=2\n"
    entries = list(export_entries([], io.BytesIO(data)))
    assert entries == [{"A": b"1", "B": value, "C": b"x=y"}, {"A": b"2"}]


def test_an_export_that_is_cut_ends() -> None:
    """A claimed length allocates no memory."""
    with pytest.raises(EOFError):
        list(export_entries([], io.BytesIO(b"B\n" + b"\xff" * 8)))


def test_an_export_may_have_other_line_ends() -> None:
    """An editor or a transfer has changed them; text fields have none themselves."""
    data = b"A=1\r\nB=2\r\n\r\nA=3\r\n"
    assert list(export_entries([], io.BytesIO(data))) == [{"A": b"1", "B": b"2"}, {"A": b"3"}]
