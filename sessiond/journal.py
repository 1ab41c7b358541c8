"""What has been read and may not be written yet, kept where SIGKILL does not take it away.

Audit records and the tracer's records are appended to a file in the runtime directory before they
are worked on: memory of the kernel's, as that directory is a tmpfs. The next start reads them again
before anything else. There are two files, of which the older one is emptied and begun anew every
few seconds: together they always hold the last PERIOD seconds, longer than anything is in flight.
What was written before it is read again has the same event.id, see ``Repeats``.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sessiond.audit.batch import MEMORY, last_batch
from sessiond.errors import OutputError
from sessiond.output.safe import open_directory, open_file, read_file, trusted_users

# In seconds. An audit event can be open for two seconds, and an exit_group wait for three more.
PERIOD: Final = 5.0
# Of one file, in bytes; who makes more in PERIOD seconds has less of it kept.
MOST: Final = 32 << 20
# The kind of an entry that is a piece of the tracer's ring; those of audit records are above it.
RING: Final = 1
_FIRST_RECORD: Final = 1005  # linux/audit.h: what is below it on the socket is control
_PING: Final = 1329

_ENTRY: Final = struct.Struct("=II")  # kind, bytes
_NUMBER: Final = struct.Struct("=Qd")  # rises with each beginning of a file; when that was
_NAMES: Final = ("in-flight.0", "in-flight.1")
# The event's own id: what stands before it in the line are members of "event" that we chose.
_ID: Final = re.compile(rb'"event":\{[^{}]*?"id":"([^"]+)","sequence":')

Entry = tuple[int, bytes]


class Journal:
    """The two files; ``left`` is what an earlier run of this boot read last, in its order."""

    def __init__(self, directory: Path, identity: str, now: float) -> None:
        """Read what is there, and go on behind it.

        ``identity`` is what must be the same for that to mean anything: the boot and the version.
        ``now`` is in seconds of a clock that goes on from start to start. Raises OutputError when
        the files can't be had.
        """
        self.problem = ""
        self.size = 0
        self._head = f"sessiond in flight {identity}\n".encode()
        self._files: list[int] = []
        found = sorted((*self._read(directory / name), name) for name in _NAMES)
        self.left: list[Entry] = []
        for number, since, entries, name in found:  # the older one first
            self._number = number
            self._since = since
            self.left += entries
            self._files.append(_open(directory, name))
        # The batch that is being read: a kill may come before it is added. The file is shared
        # memory that recvmmsg(2) writes into.
        file = _open(directory, "last-batch", os.O_RDWR)
        os.ftruncate(file, MEMORY)
        self.memory = mmap.mmap(file, MEMORY)
        os.close(file)
        last = self._missing(last_batch(self.memory)) if self._number else []
        if not self._number:
            self._begin(now)
            return
        # The newer file goes on: what is in it has not been worked on yet.
        self.size = len(self._head) + _NUMBER.size
        self.size += sum(_ENTRY.size + len(text) for _, text in entries)
        os.ftruncate(self._files[-1], self.size)
        self.add(last, now)
        self.left += last

    def _missing(self, batch: list[Entry]) -> list[Entry]:
        """Return what of the last batch had not been added any more."""
        batch = [entry for entry in batch if entry[0] >= _FIRST_RECORD and entry[0] != _PING]
        records = [entry for entry in self.left if entry[0] != RING]
        for number in range(len(batch), 0, -1):
            if records[-number:] == batch[:number]:
                return batch[number:]
        return batch

    def _read(self, path: Path) -> tuple[int, float, list[Entry]]:
        try:
            data = read_file(path, 2 * MOST)
        except FileNotFoundError:
            return 0, 0.0, []
        except (OSError, OutputError) as error:
            self.problem = str(error)
            return 0, 0.0, []
        if not data:
            return 0, 0.0, []
        offset = len(self._head) + _NUMBER.size
        if not data.startswith(self._head) or len(data) < offset:
            self.problem = f"{path} is of another boot or version, or damaged"
            return 0, 0.0, []
        number, since = _NUMBER.unpack_from(data, offset - _NUMBER.size)
        return number, since, list(_entries(data, offset))

    def _begin(self, now: float) -> None:
        """Empty the older file and go on there."""
        self._files.reverse()
        self._number += 1
        file = self._files[-1]
        os.ftruncate(file, 0)
        head = self._head + _NUMBER.pack(self._number, now)
        os.write(file, head)
        self.size, self._since = len(head), now

    def add(self, entries: Iterable[Entry], now: float) -> None:
        """Append what has just been read; ``now`` is in seconds. Never raises."""
        data = b"".join(
            [part for kind, text in entries for part in (_ENTRY.pack(kind, len(text)), text)]
        )
        try:
            if now - self._since >= PERIOD or self.size + len(data) > MOST:
                self._begin(now)
            if data:
                self.size += os.write(self._files[-1], data)
        except OSError as error:
            self.problem = f"the journal can't be written: {error.strerror}"

    def empty(self) -> None:
        """Forget everything: all of it is written."""
        self.memory[:] = bytes(MEMORY)
        for file in self._files:
            with contextlib.suppress(OSError):
                os.ftruncate(file, 0)

    def close(self) -> None:
        """Close the files; what is in them stays."""
        for file in self._files:
            os.close(file)


class Repeats:
    """Leaves out the lines that an output file has at its end already."""

    def __init__(self, output: Path, most: int = 256 << 20) -> None:
        """Read the last ``most`` bytes of the file; no file, no repeats."""
        self.skipped = 0
        self._ids: set[bytes] = set()
        with contextlib.suppress(OSError), output.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = max(0, size - most) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            if size:
                with mmap.mmap(
                    file.fileno(), size - begin, prot=mmap.PROT_READ, offset=begin
                ) as tail:
                    self._ids = set(_ID.findall(tail))

    def without(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines that are not in the file."""
        fresh = []
        for line in lines:
            found = _ID.search(line)
            if found is None or found[1] not in self._ids:
                fresh.append(line)
        self.skipped += len(lines) - len(fresh)
        return fresh


def _open(directory: Path, name: str, flags: int = os.O_WRONLY | os.O_APPEND) -> int:
    opened = open_directory(str(directory), trusted=trusted_users())
    try:
        file, _ = open_file(
            name,
            flags,
            directory=opened,
            path=str(directory / name),
            mode=0o600,
            trusted=trusted_users(),
        )
    finally:
        os.close(opened)
    return file


def _entries(data: bytes, offset: int) -> Iterator[Entry]:
    """Take a file apart; an entry that was cut by the end of the process is left out."""
    while offset + _ENTRY.size <= len(data):
        kind, size = _ENTRY.unpack_from(data, offset)
        offset += _ENTRY.size
        if offset + size > len(data):
            return
        yield kind, data[offset : offset + size]
        offset += size
