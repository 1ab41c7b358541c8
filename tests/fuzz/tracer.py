"""Data of the ring is an event or malformed, and is never read beyond its end."""

from __future__ import annotations

import struct

from sessiond.sources.ebpf.records import Decoder, MalformedRecordError


def laid_out(
    kind: int,
    flags: int,
    *,
    pid: int = 100,
    ppid: int = 1,
    time: int = 10**9,
    other: int = 0,
    parts: tuple[bytes, bytes, bytes, bytes] = (b"", b"", b"", b""),
) -> bytes:
    """Encode a record like struct event of programs.c; parts: executable, cwd, filename, args."""
    facts = (pid, time // 2, ppid, 1, pid, pid, pid, *(0,) * 12, 7, 7, 1, 2, 3, 4, 5)
    data = b"".join(parts)
    head = struct.pack("=IIQ26Q?7x", kind, flags, time, *facts, False)
    sizes = (0, other, len(parts[3]), len(data), *map(len, parts))
    return head + struct.pack("=QIIIHHHHII16s", *sizes, 0, 0, b"name") + data


PARTS = (b"ls\0bin\0", b"log\0var\0", b"./ls\0", b"ls\0\0-l\0")
SEEDS = [laid_out(kind, flags, parts=PARTS) for kind in range(8) for flags in (0, 0xFF)]


def one(data: bytes) -> None:
    """Decode all of ``data``, like a ring."""
    decoder, at = Decoder(), 0
    while at < len(data):
        try:
            _, behind = decoder.decode(data, at, len(data))
        except MalformedRecordError:
            return
        assert at < behind <= len(data)
        at = behind
