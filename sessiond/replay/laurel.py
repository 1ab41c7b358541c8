"""Converts audit events of LAUREL, one JSON object per line, back to records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from sessiond.audit.auditd_log import LogRecord, TypeNumber
from sessiond.audit.kernel_names import numbers_of
from sessiond.errors import RecordError
from sessiond.units import UNSET_ID

_ID: Final = re.compile(r"\d{1,10}\.\d{1,3}:\d{1,19}$")
_CONTAINER: Final = re.compile(r"[0-9a-f]{12,64}$")
_UNKNOWN_ID: Final = re.compile(r"unknown\((\d{1,10})\)$")
_PLAIN: Final = re.compile(rb"[!#-~]*$")


def is_laurel(event: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is an event of LAUREL."""
    return isinstance(event.get("ID"), str) and _ID.match(event["ID"]) is not None


def laurel_records(event: Mapping[str, Any], type_number: TypeNumber) -> list[LogRecord]:
    """Return the records of an event, without LAUREL's additions.

    Raises RecordError for an object without known records.
    """
    if not is_laurel(event):
        raise RecordError(
            "a JSON object that is neither the journal's nor LAUREL's; if a field of it has the "
            "line of a log, run jq -r .FIELD LOG | sessiond replay -"
        )
    node = event.get("NODE")
    records = []
    for kind, value in event.items():
        number = _number(kind, type_number)
        if number is None:
            continue
        for members in value if isinstance(value, list) else [value]:
            if isinstance(members, dict):
                text, names = _text(kind, members if kind != "SYSCALL" else _call(members, event))
                payload = b"audit(%s): %b" % (event["ID"].encode(), text)
                host = node if isinstance(node, str) else ""
                records.append(LogRecord(host, number, payload, names))
    if not records:
        raise RecordError("an event of LAUREL's without a record that is known")
    # The SYSCALL record comes first, as from the kernel.
    return sorted(records, key=lambda record: record.type != 1300)


def _call(members: Mapping[str, Any], event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the members of a SYSCALL record with numbers that LAUREL has only as names.

    With ``drop-raw`` it leaves out what it has translated. ``container`` is the id of the
    container, which the kernel does not write.
    """
    found = dict(members)
    machine, name = members.get("ARCH"), members.get("SYSCALL")
    if "syscall" not in members and isinstance(machine, str) and isinstance(name, str):
        numbers = numbers_of(machine, name)
        if numbers is not None:
            found = {"arch": f"0x{numbers[0]:x}", "syscall": numbers[1]} | found
    process, info = members.get("PID"), event.get("CONTAINER_INFO")
    inside = process.get("container") if isinstance(process, dict) else None
    container = inside.get("id") if isinstance(inside, dict) else None
    if container is None and isinstance(info, dict):
        container = info.get("ID")
    if isinstance(container, str) and _CONTAINER.match(container):
        found["container"] = container
    return found


def _id_of(name: str) -> int | None:
    """Return the number of a user or a group that needs no list of them."""
    unknown = _UNKNOWN_ID.match(name)
    return int(unknown[1]) if unknown else {"root": 0, "unset": UNSET_ID}.get(name)


def _number(kind: str, type_number: TypeNumber) -> int | None:
    unknown = re.fullmatch(r"UNKNOWN\[(\d{1,9})\]", kind)
    if unknown is not None:
        return int(unknown[1])
    return type_number(kind) if kind.isupper() and "INFO" not in kind else None


def _text(kind: str, members: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return a record's text, and the names that ENRICHED records have."""
    found: list[bytes] = []
    names: list[bytes] = []
    claims: list[bytes] = []
    from_user = _is_message(members)
    for name, value in members.items():
        if name == "ARGV" and isinstance(value, list):
            found += _arguments(kind, value)
        elif isinstance(value, dict | list) or value is None:
            continue
        elif name.isupper():
            names.append(b'%s="%b"' % (name.encode(), _bytes(value)))
            if name.endswith("ID") and name.lower() not in members and isinstance(value, str):
                number = _id_of(value)
                if number is not None:
                    found.append(b"%s=%d" % (name.lower().encode(), number))
                else:
                    found.append(b'%s="%b"' % (name.encode(), _bytes(value)))
        elif from_user and name not in ("pid", "uid", "auid", "ses", "subj"):
            claims.append(b"%s=%b" % (name.encode(), _value(name, value)))
        else:
            found.append(b"%s=%b" % (name.encode(), _value(name, value)))
    if claims:
        found.append(b"msg='%b'" % b" ".join(claims))
    return b" ".join(found), b" ".join(names)


def _is_message(members: Mapping[str, Any]) -> bool:
    """Return whether these are the fields of a user-space message, which always has res=."""
    return "res" in members and "exe" in members and "syscall" not in members


def _arguments(kind: str, argv: list[Any]) -> Iterator[bytes]:
    values = [_bytes(value) for value in argv if isinstance(value, str | int)]
    if kind == "PROCTITLE":
        yield b"proctitle=" + b"\0".join(values).hex().upper().encode()
    elif kind == "SYSCALL":
        for index, value in enumerate(values):
            yield b"a%d=%b" % (index, value.removeprefix(b"0x"))
    else:
        yield b"argc=%d" % len(values)
        for index, value in enumerate(values):
            yield b"a%d=%b" % (index, _encoded(value))


def _value(name: str, value: str | float) -> bytes:
    raw = _bytes(value)
    if isinstance(value, str) and raw[:2] == b"0x":
        return raw[2:]
    if isinstance(value, str) and raw[:2] == b"0o":
        return b"0" + raw[2:]
    if isinstance(value, str) and name in _QUOTED:
        return _encoded(raw)
    if _PLAIN.match(raw) and raw:
        return raw
    # Only the fields above are decoded if they are in hex.
    text = raw.decode("utf-8", "replace")
    readable = text.isprintable() and '"' not in text and "\ufffd" not in text
    return b'"%b"' % raw if readable else _encoded(raw)


_QUOTED: Final = frozenset(
    "acct cmd comm cwd data exe file grp key name ocomm path proctitle sw unit vm op".split()
)


def _encoded(raw: bytes) -> bytes:
    """Encode a value as the kernel does: quoted, or in hex if quoting would be unsafe."""
    if raw and all(0x21 <= byte < 0x7F and byte != 0x22 for byte in raw):
        return b'"%b"' % raw
    return raw.hex().upper().encode() if raw else b'""'


def _bytes(value: object) -> bytes:
    # Control characters, "%", "+" and bytes beyond ASCII are percent-encoded.
    if isinstance(value, str):
        return unquote_to_bytes(value) if "%" in value else value.encode("utf-8", "surrogatepass")
    return str(value).encode()
