"""Parses audit records in the output of journalctl ``-o json`` and ``-o export``.

journald stores a record's type, serial and time in separate fields; it sets fields whose names
start with an underscore itself, so that no program can forge them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final

from sessiond.audit.auditd_log import (
    RECORD,
    LogRecord,
    OtherLineError,
    PosingError,
    TypeNumber,
    parse_line,
)
from sessiond.errors import RecordError
from sessiond.text import display

_MAX_FIELD: Final = 64 << 20
# Processes of auditd that pass records on to syslog, by the names that the kernel knows.
_RELAYS: Final = ("audisp-syslog", "audispd", "auditd")
# Messages of the kernel with these words are records, or about lost ones.
_OF_AUDIT: Final = (b"type=", b"kauditd_printk_skb: ", b"audit: audit_lost=")


def journal_record(entry: Mapping[str, Any], type_number: TypeNumber) -> LogRecord:
    """Return the audit record of a journal entry.

    Raises OtherLineError for an entry without an audit record, RecordError for an incomplete one.
    """
    node, boot, machine = (_text(entry, n) for n in ("_HOSTNAME", "_BOOT_ID", "_MACHINE_ID"))
    transport = _text(entry, "_TRANSPORT")
    message = _bytes(entry.get("MESSAGE"))
    if transport == "kernel" and any(word in message for word in _OF_AUDIT):
        found = parse_line(message, type_number)
        return found._replace(node=found.node or node, boot=boot, machine=machine)
    if transport != "audit" or "_AUDIT_TYPE" not in entry:
        if RECORD.search(message) is None:
            raise OtherLineError("a journal entry of another program")
        # The plugin of auditd that writes to syslog, as journald knows it.
        if not (_text(entry, "_UID") == "0" and _text(entry, "_COMM") in _RELAYS):
            raise PosingError(_text(entry, "_COMM") or "an unknown program")
        found = parse_line(message.lstrip(), type_number)
        return found._replace(node=found.node or node, boot=boot, machine=machine)
    number, serial, time = (
        _text(entry, name) for name in ("_AUDIT_TYPE", "_AUDIT_ID", "_SOURCE_REALTIME_TIMESTAMP")
    )
    if not (number.isdecimal() and serial.isdecimal() and time.isdecimal()):
        raise RecordError("a journal entry without the type, the serial or the time of its record")
    if entry.get("MESSAGE") is None:
        raise RecordError("a journal entry without its message; run journalctl with --all")
    # journald prepends the name of the type, which is not part of the record.
    _, _, text = message.partition(b" ")
    seconds, rest = divmod(int(time), 1_000_000)
    payload = b"audit(%d.%03d:%s): %b" % (seconds, rest // 1000, serial.encode(), text)
    return LogRecord(node, int(number), payload.rstrip(b"\n"), b"", boot, machine)


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name, "")
    if isinstance(value, list) and value and isinstance(value[0], str):
        value = value[0]  # a repeated field
    return value if isinstance(value, str) else display(_bytes(value))


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list) and all(isinstance(n, int) and 0 <= n < 256 for n in value):
        return bytes(value)  # not UTF-8: -o json writes the bytes as numbers
    return b""


def export_entries(first: Iterable[bytes], source: BinaryIO) -> Iterator[dict[str, bytes]]:
    """Yield the entries of ``journalctl -o export``, which empty lines separate.

    A field is a line. A binary value is written with its length: name, newline, 64 bits
    little-endian, bytes, newline. ``first`` are lines that were already read of ``source``. Raises
    EOFError where the export is damaged.
    """
    entry: dict[str, bytes] = {}
    lines = iter(first)
    while line := next(lines, b"") or source.readline():
        line = line.rstrip(b"\r\n")  # no text field ends with a carriage return
        name, equals, value = line.partition(b"=")
        if not line:
            if entry:
                yield entry
            entry = {}
        elif equals:
            entry.setdefault(display(name), value)
        else:
            size = int.from_bytes(source.read(8), "little")
            if size > _MAX_FIELD:
                raise EOFError("a field of the journal's export is longer than any")
            entry.setdefault(display(name), source.read(size))
            source.read(1)
    if entry:
        yield entry
