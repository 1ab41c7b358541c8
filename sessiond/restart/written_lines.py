"""The end of an output file: the number of its last line, and the ids of its last lines.

The file is the authority at a start: the numbering continues after its last line, and an event
whose id it contains is not written again.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sessiond.ecs.chain import seal_of
from sessiond.ecs.line import identity
from sessiond.output import spool

# Maximum number of bytes read from the end of a file.
MAX_READ: Final = 256 << 20


class WrittenLines:
    """The last lines of an output file, its spool included.

    ``sequence`` is the ``event.sequence`` of the last one, 0 without lines, ``seal`` its seal
    (event.chain); ``ids`` are the ``event.id`` of the requested lines; ``tail`` are the last
    of these, in order.
    """

    def __init__(
        self,
        file: Path,
        spool_directory: Path | None = None,
        *,
        after: int | None = None,
        max_tail: int = 0,
    ) -> None:
        """Read the lines whose number is above ``after``; without it only the last line.

        ``max_tail`` bounds ``tail``, in bytes. After a rotation some lines are in the previous
        file, which is read as well. An unreadable file counts as empty.
        """
        self.sequence = 0
        self.seal = b""
        self.ids: set[str] = set()
        self._tail: deque[bytes] = deque()
        self._room = max_tail
        self._after = after
        lines = [_spooled(spool_directory)] if spool_directory is not None else []
        for line in (*lines, _backwards(file), _backwards(file.with_name(f"{file.name}.1"))):
            if not self._take(line):
                break

    @property
    def tail(self) -> list[bytes]:
        """The last of the requested lines, each with its newline."""
        return list(self._tail)

    def _take(self, lines: Iterator[bytes]) -> bool:
        """Take lines in reverse order; return whether earlier ones are needed too."""
        for line in lines:
            found = identity(line)
            if found is None:
                continue  # a line of another program
            name, number = found
            if number > self.sequence:
                self.sequence, self.seal = number, seal_of(line)
            if self._after is None or number <= self._after:
                return False
            self.ids.add(name.decode())
            if len(line) <= self._room:
                self._room -= len(line)
                self._tail.appendleft(line)
            else:
                self._room = 0
        return True


def _backwards(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a file in reverse order."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        if not end:
            return
        least = max(0, end - MAX_READ)
        with mmap.mmap(file.fileno(), end, prot=mmap.PROT_READ) as data:
            end = data.rfind(b"\n") + 1
            while end > least:
                begin = data.rfind(b"\n", 0, end - 1) + 1
                yield data[begin:end]
                end = begin


def _spooled(directory: Path) -> Iterator[bytes]:
    """Yield the lines of a spool in reverse order."""
    with contextlib.suppress(OSError):
        for segment in sorted(directory.glob("*.spool"), reverse=True):
            for frame in reversed(list(spool.decode(segment.read_bytes()))):
                yield frame.line
