"""Any record is parsed without an exception, and the result is part of its text.

An argv in the kernel's own encoding is restored exactly.
"""

from __future__ import annotations

import contextlib

from fuzz.seeds import EVENTS

from sessiond.audit.record import (
    EXECVE,
    Record,
    arguments,
    decode,
    fields,
    parse_stamp,
    syscall_fields,
)
from sessiond.errors import RecordError
from sessiond.text import display

SEEDS = [payload for event in EVENTS for _, payload in event]


def one(data: bytes) -> None:
    """Read ``data`` as a record, as values, and as an argv."""
    text = data
    with contextlib.suppress(RecordError):
        text = data[parse_stamp(data)[2] :]
    record = Record(1300, text)
    found = fields(record.text)
    for name, value in found.items():
        assert f"{name}=".encode() + value in record.text
        decoded = decode(value)
        assert decoded is None or len(decoded) <= len(value)
    if record.text[:5] != b"arch=":  # else values are not searched but expected in their order
        bare = {name: value.strip(b'"') for name, value in found.items()}
        unquoted = syscall_fields(record.text)
        assert {name: value.strip(b'"') for name, value in unquoted.items()} == bare
    display(data).encode()
    values, whole, _ = arguments([Record(EXECVE, data)])
    assert sum(map(len, values)) <= len(data)
    assert not whole or data.startswith(b"argc=")
    _argv(data.split(b"\0"))


def _argv(argv: list[bytes]) -> None:
    """Write an argv like audit_log_execve_info of kernel/auditsc.c, and parse it."""
    text = f"argc={len(argv)}".encode()
    for number, argument in enumerate(argv):
        plain = all(0x20 < byte < 0x7F and byte != 0x22 for byte in argument)
        value = b'"%b"' % argument if plain else argument.hex().upper().encode()
        text += b" a%d=%b" % (number, value)
    assert arguments([Record(EXECVE, text)]) == (argv, True, len(argv))
