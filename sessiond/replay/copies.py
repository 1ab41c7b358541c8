"""Finds logs that are given twice: by two names, as a copy, or as an earlier state of a log.

Evidence is often collected more than once. Read twice, the same records would count as another
boot, and each event would be written twice.
"""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO, Final

from sessiond.errors import SessiondError
from sessiond.replay import files
from sessiond.system.packed import DAMAGES, is_stream

# Bytes of a log that are compared at once, and those in which its first line is looked for.
_BLOCK: Final = 1 << 18
_HEAD: Final = 1 << 12


def copies(names: list[str]) -> dict[str, str]:
    """Return the logs that add nothing to another one, each with the name of that one.

    Such a log has the same bytes when decompressed, or is the beginning of the other.
    """
    found: dict[str, str] = {}
    kept: dict[bytes, list[str]] = {}  # by their first lines
    seen: dict[tuple[int, int], str] = {}
    for name in names:
        if is_stream(name):
            continue
        with contextlib.suppress(OSError):
            status = os.stat(name)  # noqa: PTH116 -- a link stands for its target
            place = status.st_dev, status.st_ino
            if place in seen:
                found[name] = seen[place]
                continue
            seen[place] = name
        line, end, _ = files.head(name, _HEAD).partition(b"\n")
        if not end:
            continue
        others = kept.setdefault(line, [])
        for other in others:
            shorter = _contained(name, other)
            if shorter is not None:
                longer = other if shorter == name else name
                found = {n: longer if o == shorter else o for n, o in found.items()}
                found[shorter] = longer
                if shorter == other:
                    others[others.index(other)] = name
                break
        else:
            others.append(name)
    return found


def _contained(one: str, other: str) -> str | None:
    """Return which of two logs is the beginning of the other; ``one`` if they are equal."""
    with (
        contextlib.suppress(*DAMAGES, SessiondError),
        files.opened(one) as (first, _),
        files.opened(other) as (second, _),
    ):
        while True:
            here, there = _read(first), _read(second)
            size = min(len(here), len(there))
            if here[:size] != there[:size]:
                return None
            if size < _BLOCK:
                return one if len(here) <= len(there) else other
    return None


def _read(source: BinaryIO) -> bytes:
    """Return a whole block, or what is left of the log."""
    parts: list[bytes] = []
    missing = _BLOCK
    while missing and (part := source.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
