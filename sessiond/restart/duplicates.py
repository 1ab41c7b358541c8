"""Leaves out lines that an output file has already."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from pathlib import Path
from typing import Final

# The event's own id: what stands before it in the line are members of "event" that we chose.
_ID: Final = re.compile(rb'"event":\{[^{}]*?"id":"([^"]+)","sequence":([0-9]+)')


class DuplicateFilter:
    """Leaves out the lines that an output file has at its end already.

    ``sequence`` is the ``event.sequence`` of the last line there, or what was given.
    """

    def __init__(self, output: Path, after: int, most: int = 256 << 20) -> None:
        """Read the lines with a sequence above ``after``, of the last ``most`` bytes.

        The file may have been rotated since they were written: then some are in the one before.
        """
        self.skipped = 0
        self.sequence = after
        self._ids: set[bytes] = set()
        lowest = self._read(output, after, most, None)
        if lowest is None or lowest > after + 1:
            self._read(output.with_name(f"{output.name}.1"), after, most, lowest)

    def _read(self, path: Path, after: int, most: int, lowest: int | None) -> int | None:
        """Read a file from its end, up to the lines that follow ``lowest``; return the new one."""
        with contextlib.suppress(OSError), path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            if not end:
                return lowest
            with mmap.mmap(file.fileno(), end, prot=mmap.PROT_READ) as data:
                least = max(0, end - most)
                while end > least:
                    begin = data.rfind(b"\n", 0, end - 1) + 1
                    found = _ID.search(data, begin, end)
                    end = begin
                    if found is None:
                        continue
                    number = int(found[2])
                    # A number that is not lower is of the time before the counting began anew.
                    if number <= after or (lowest is not None and number >= lowest):
                        break
                    lowest = number
                    self.sequence = max(self.sequence, number)
                    self._ids.add(found[1])
        return lowest

    def without(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines that are not in the file."""
        fresh = []
        for line in lines:
            found = _ID.search(line)
            if found is None or found[1] not in self._ids:
                fresh.append(line)
        self.skipped += len(lines) - len(fresh)
        return fresh
