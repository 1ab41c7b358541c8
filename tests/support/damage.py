"""Logs made of real events: one of each kind, intact and damaged in every possible way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from support.auditlog import record_type

_LINE: Final = re.compile(rb"(?:node=(\S+) )?(type=.*(audit\([\d.]+:\d+\)).*)")
_STAMP: Final = re.compile(rb"audit\([\d.]+:\d+\)")
_TYPE: Final = re.compile(rb"type=(\S+)")
_SYSCALL: Final = re.compile(rb"syscall=(\d+)")

FORMS: Final = ("raw", "enriched", "node")


class Damaged(NamedTuple):
    """The lines of one event, and their state: intact, missing, doubled, reordered, cut."""

    serial: int
    damage: str
    lines: list[bytes]


def kinds_of_events(logs: Iterable[Path]) -> list[list[bytes]]:
    """Return the lines of one event of each kind: with the same record types and system call.

    Lines that are not auditd's are left out, and so are the names of nodes.
    """
    found: dict[tuple[bytes, ...], list[bytes]] = {}
    for log in logs:
        events: dict[tuple[bytes, bytes], list[bytes]] = {}
        for line in log.read_bytes().splitlines():
            match = _LINE.fullmatch(line)
            if match is not None:
                events.setdefault((match[1], match[3]), []).append(match[2])
        for lines in events.values():
            joined = b"".join(lines)
            found.setdefault((*_TYPE.findall(joined), *_SYSCALL.findall(joined)[:1]), lines)
    return list(found.values())


def damaged(events: Iterable[list[bytes]]) -> Iterator[Damaged]:
    """Yield each event intact and in all damaged forms, each with its own stamp."""
    serial = 1000
    for event in events:
        for damage, lines in _damages(event):
            serial += 1
            stamp = b"audit(%d.%03d:%d)" % (1_700_000_000 + serial // 10, serial % 1000, serial)
            made = [_STAMP.sub(stamp, line, count=1) for line in lines]
            yield Damaged(serial, damage, made)


def _damages(event: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    yield "whole", event
    for index, line in enumerate(event):
        before, after = event[:index], event[index + 1 :]
        if len(event) > 1:
            yield "missing", [*before, *after]
            yield "reordered", [line, *after, *before]
        yield "doubled", [*before, line, line, *after]
        head, _, text = line.partition(b"\x1d")[0].partition(b"): ")
        for tenths in (2, 4, 6, 8, 9):
            yield "cut", [*before, head + b"): " + text[: len(text) * tenths // 10], *after]
    if len(event) > 1:
        yield "reordered", event[::-1]


def forwarded(lines: Iterable[bytes], form: str) -> bytes:
    """Return a log, with the line of each record, as another program writes or forwards it."""
    return b"".join(_FORWARDED[form](line) for line in lines)


def _journal_fields(line: bytes) -> dict[str, str]:
    kind, time, fraction, serial, text = _parts(line)
    return {
        "__CURSOR": "s=1;i=1",
        "_TRANSPORT": "audit",
        "_HOSTNAME": "web1",
        "_AUDIT_TYPE": str(_number(kind)),
        "_AUDIT_ID": serial,
        "_SOURCE_REALTIME_TIMESTAMP": f"{time}{fraction}000",
        "MESSAGE": f"{kind} {text}",
    }


def _parts(line: bytes) -> tuple[str, str, str, str, str]:
    match = _RECORD.fullmatch(line.partition(b"\x1d")[0])
    assert match is not None, line
    kind, time, fraction, serial, text = (part.decode("latin-1") for part in match.groups())
    return kind, time, fraction, serial, text


def _number(kind: str) -> int:
    unknown = re.fullmatch(r"UNKNOWN\[(\d+)\]", kind)
    number = int(unknown[1]) if unknown else record_type(kind)
    assert number is not None, kind
    return number


def _export(line: bytes) -> bytes:
    made = b""
    for name, value in _journal_fields(line).items():
        raw = value.encode("latin-1")
        size = len(raw).to_bytes(8, "little")
        text = raw.isascii() and raw.decode().isprintable()
        made += name.encode() + (b"=" if text else b"\n" + size) + raw + b"\n"
    return made + b"\n"


def _journal(line: bytes) -> bytes:
    entry: dict[str, object] = dict(_journal_fields(line))
    raw = str(entry["MESSAGE"]).encode("latin-1")
    if not raw.isascii():
        entry["MESSAGE"] = list(raw)
    return json.dumps(entry).encode() + b"\n"


def _kernel_log(line: bytes) -> bytes:
    kind, time, fraction, serial, text = _parts(line)
    stamp = f"audit({time}.{fraction}:{serial})"
    raw = f"[   12.345678] audit: type={_number(kind)} {stamp}: {text}\n"
    return raw.encode("latin-1")


_RECORD: Final = re.compile(rb"type=(\S+) msg=audit\((\d+)\.(\d+):(\d+)\): (.*)", re.DOTALL)
# The forms of a line of auditd, and those that lose the names of an ENRICHED one.
_FORWARDED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "as it is": lambda line: line + b"\n",
    "glued": lambda line: line.replace(b"\x1d", b"") + b"\n",
    "blanks": lambda line: line.replace(b"\x1d", b" ") + b"\n",
    "crlf": lambda line: line + b"\r\n",
    "ausearch": lambda line: b"----\ntime->Fri Apr  5 19:33:20 2024\n" + line + b"\n",
    "node": lambda line: b"node=web1 " + line + b"\n",
    "audispd": lambda line: b"Apr  5 19:33:20 web1 audispd: node=web1 " + line + b"\n",
    "rfc5424": lambda line: (
        b"<14>1 2024-04-05T19:33:20.100+00:00 web1 audisp-syslog 9 - - " + line + b"\n"
    ),
    "escaped": lambda line: (
        b"2024-04-05T19:33:20+00:00 web1 audisp-syslog: " + line.replace(b"\x1d", b"#035") + b"\n"
    ),
    "without names": lambda line: line.partition(b"\x1d")[0] + b"\n",
    "kernel": _kernel_log,
    "journal": _journal,
    "export": _export,
}


def in_form(line: bytes, form: str) -> bytes:
    """Return a line in one of auditd's formats: raw, ENRICHED, or with its node."""
    if form == "enriched":
        return line if b"\x1d" in line else line + b'\x1dUID="root"'
    raw = line.partition(b"\x1d")[0]
    return b"node=web1 " + raw if form == "node" else raw
