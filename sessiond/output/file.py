"""Appends lines to a file: whole lines, whatever happens to the disk, the file or this process."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sessiond.errors import OutputError
from sessiond.output.backoff import Backoff
from sessiond.output.rotation import Compression, Rotation
from sessiond.system.files import open_directory, open_file, trusted_users

# A full disk leaves a usable file behind; after any other error the file is opened anew.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAX_WRITE = 0x7FFFF000  # what one write(2) takes at most


class FileOutput:
    """A file of lines, with one write(2) for each batch.

    *Half lines.* Where only a part of a batch fits, the line that was cut is finished before
    anything else is written. What a kill or a power cut leaves of a line is cut off when the file
    is opened next. Lines are in the kernel's cache when ``write`` returns: they survive the death
    of this process; after a power cut the last seconds may be missing.

    *Changes by others.* Once a second the file is compared with what has its name. A renamed
    file (logrotate) is left for a new one; what was written into a deleted one since the last look
    is written again into the new one.

    *Rotation.* By size before the batch that would exceed it, and by time when a multiple of the
    interval since 1970 (UTC) has passed since the file was last written: never into empty files.
    """

    CHECK_EVERY = 1.0  # seconds between looks at whether the file is still the one with its name
    ROTATION_RETRY = 30.0  # seconds after a rotation that failed

    def __init__(
        self,
        path: str,
        *,
        mode: int = 0o600,
        owner: int | None = None,
        group: int | None = None,
        rotate_size: int | None = None,
        rotate_interval: float | None = None,
        keep: int = 7,
        min_age: float = 0.0,
        compress: Compression = "gzip",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the absolute path, and mode, uid and gid of a file that the sink makes.

        ``rotate_size`` is in bytes, ``rotate_interval`` in seconds, ``keep`` counts rotated
        files, of which those younger than ``min_age`` seconds stay in any case; ``compress`` says
        how all but the newest of them are compressed.
        ``clock`` and ``wall`` give seconds, monotonic and since the epoch.
        """
        self.name = f"file:{path}"
        self._path = path
        self._parent, self._base = os.path.split(path)
        self._mode = mode
        self._owner = owner
        self._group = group
        self._rotate_size = rotate_size or _MAX_WRITE << 20
        self._rotate_interval = rotate_interval
        self._rotation = Rotation(
            self._base, keep=keep, compress=compress, min_age=min_age, wall=wall
        )
        self._clock = clock
        self._wall = wall

        self.trouble: str | None = None
        self.rejected = 0  # every line fits into a file
        self.volatile = 0
        self.gone = False
        self._write_trouble: str | None = None
        self._rotation_trouble: str | None = None
        self._backoff = Backoff(0.25, 10.0)
        self._file = -1
        self._directory = -1
        self._ready = False
        self._due = 0.0  # the next look at the file, or the next attempt to open or write it
        self._rotate_due = 0.0
        self._size = 0
        self._size_seen = 0  # at the last look
        self._period = 0
        self._cut_line = b""  # the line that only a part of is in the file,
        self._cut_at = 0  # and how much of it
        self._salvaged: list[bytes] = []  # from a deleted file, to be written again
        self._rotations = 0
        self._truncated = 0  # by others, like the next one
        self._deleted = 0
        self._reopened = 0
        self._repaired = 0

    @property
    def compression(self) -> Compression:
        """How old files are compressed; gzip where zstd was asked for and there is no library."""
        return self._rotation.compression

    @property
    def unconfirmed(self) -> int:
        """How many lines were taken but are in no file now."""
        return len(self._salvaged)

    def in_flight(self) -> list[bytes]:
        """Return those lines, the oldest first."""
        return list(self._salvaged)

    def open(self) -> None:
        """Open the file. Raises OutputError when that is refused, OSError when it fails now."""
        self._open()
        self._ready = True
        self._due = self._clock() + self.CHECK_EVERY

    def write(self, lines: list[bytes]) -> int:
        """Write ``lines`` (each with its newline) and return how many are in the file whole."""
        now = self._clock()
        if now >= self._due:
            self._prepare(now)
        if not self._ready:
            return 0
        data = b"".join(lines)
        already = 0
        try:
            if self._cut_at:
                already = self._resume(lines[0])
                data = data[already:]
            elif self._size + len(data) > self._rotate_size and self._size:
                self._rotate(now)
            written = os.write(self._file, data)
        except (OSError, OutputError) as error:
            self._fail(error, now)
            return 0
        self._size += written
        self._cut_at = 0
        if self._write_trouble is not None:
            self._write_trouble = None
            self._tell()
            self._backoff.reset()
        if written == len(data):
            return len(lines)
        return self._cut(lines, already + written)

    def tick(self, now: float) -> float | None:
        """Try again what failed; return when (monotonic seconds) that is due, None for never."""
        if self._ready and not self._salvaged:
            return None
        if now >= self._due:
            self._prepare(now)
        return None if self._ready else self._due

    def flush(self) -> None:
        """Do nothing: no line waits for others."""

    def reopen(self) -> None:
        """Go on in the file that has the name now, as logrotate's postrotate script asks for."""
        self._leave()
        self._ready = False
        self._prepare(self._clock())
        self._reopened += 1

    def sync(self) -> None:
        """Look whether the file is still there, and have it written to the disk. May block."""
        self._prepare(self._clock())
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._file)

    def close(self) -> None:
        """Close the file; a cut line is removed from it first, its writer still has it."""
        self._leave()
        self._ready = False
        self._due = float("inf")
        self._rotation.close()

    def status(self) -> dict[str, Any]:
        """Return the counters: bytes in the file, rotations, reopened, repaired, ...

        ``truncated`` and ``deleted`` are how often others did that to the file.
        """
        return {
            "path": self._path,
            "size": self._size,
            "rotations": self._rotations,
            "reopened": self._reopened,
            "repaired_lines": self._repaired,
            "compression": self.compression,
            "compress_failures": self._rotation.compress_failures,
            "truncated": self._truncated,
            "deleted": self._deleted,
        }

    def _prepare(self, now: float) -> None:
        """Make the file ready for a write: open, the one with its name, of this period."""
        try:
            if self._file < 0:
                self._open()
                self._write_trouble = None
                self._tell()
            else:
                self._look()
            if self._salvaged:
                self._write_salvaged()
            if self._rotate_interval and self._size and self._period != self._period_now():
                self._rotate(now)
        except (OSError, OutputError) as error:
            self._fail(error, now)
            return
        self._size_seen = self._size - self._cut_at
        self._ready = True
        self._due = now + self.CHECK_EVERY

    def _open(self) -> None:
        trusted = trusted_users(self._owner)
        directory = open_directory(self._parent, trusted=trusted)
        file = -1
        try:
            file, new = open_file(
                self._base,
                os.O_RDWR | os.O_APPEND,
                directory=directory,
                path=self._path,
                mode=self._mode,
                trusted=trusted,
            )
            if new:
                self._give_away(file)
            self._repair(file)
            status = os.fstat(file)
        except BaseException:
            os.close(directory)
            if file >= 0:
                os.close(file)
            raise
        self._file, self._directory = file, directory
        self._size = self._size_seen = status.st_size
        self._cut_at = 0
        self._period = self._period_of(status.st_mtime) if status.st_size else self._period_now()
        with contextlib.suppress(OSError):
            self._rotation.compress(directory)  # what an earlier run has left

    def _give_away(self, file: int) -> None:
        if self._owner is None and self._group is None:
            return
        owner = -1 if self._owner is None else self._owner
        group = -1 if self._group is None else self._group
        try:
            os.fchown(file, owner, group)
        except PermissionError:
            Path(
                self._path
            ).unlink()  # else the next start would take it for one of the right owner
            raise OutputError(
                f"{self._path}: can't be given to uid {owner}, gid {group} (-1: unchanged); "
                "that takes CAP_CHOWN, or a group that this user is in"
            ) from None

    def _repair(self, file: int) -> None:
        """Cut off what a kill or a power cut has left after the last newline."""
        size = os.fstat(file).st_size
        if not size or os.pread(file, 1, size - 1) == b"\n":
            return
        whole, block = size, 64 * 1024
        while whole:
            start = max(0, whole - block)
            newline = os.pread(file, whole - start, start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
        # Zeros: a power cut after the size was written and before the data.
        if os.pread(file, 1, whole) not in {b"{", b"\0"}:
            raise OutputError(
                f"{self._path}: ends in the middle of a line that isn't JSON; "
                "this is not a file of events, name another one"
            )
        self._truncate(file, whole)
        self._repaired += 1

    @staticmethod
    def _truncate(file: int, size: int) -> None:
        try:
            os.ftruncate(file, size)
        except PermissionError:
            # A file that may only be appended to (chattr +a): then the half line gets an end.
            os.write(file, b"\n")

    def _look(self) -> None:
        """See whether the file that is open is still the one that has its name."""
        ours = os.fstat(self._file)
        there: os.stat_result | None = None
        try:
            there = Path(self._path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:  # the way there can't be seen any more, but the file is open: go on
            return
        if there and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            if ours.st_size < self._size:  # truncated (logrotate's copytruncate)
                self._truncated += 1
                self._cut_at = 0
            self._size = ours.st_size
            return
        if not ours.st_nlink:
            self._deleted += 1
            self._salvage()
        self._leave()
        self._open()
        self._reopened += 1

    def _salvage(self) -> None:
        """Keep the lines that were written into the file since it was last seen to be there."""
        whole = self._size - self._cut_at
        wanted = whole - self._size_seen
        if wanted > 0:
            tail = os.pread(self._file, wanted, self._size_seen)
            self._salvaged += tail.splitlines(keepends=True)

    def _write_salvaged(self) -> None:
        lines = self._salvaged
        written = os.write(self._file, b"".join(lines))
        self._size += written
        while lines and written >= len(lines[0]):
            written -= len(lines.pop(0))
        if lines:
            os.ftruncate(self._file, self._size - written)
            self._size -= written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _resume(self, first: bytes) -> int:
        """Return how much of the line ``first`` is in the file already; it is to be finished."""
        if first == self._cut_line:
            return self._cut_at
        # The cut line was given up: it was the oldest, and what waits for the disk is bounded.
        self._truncate(self._file, self._size - self._cut_at)
        self._size = os.fstat(self._file).st_size
        self._cut_at = 0
        return 0

    def _cut(self, lines: list[bytes], written: int) -> int:
        """Note where a short write has ended; return how many lines are whole."""
        whole = 0
        for line in lines:
            if written < len(line):
                break
            written -= len(line)
            whole += 1
        self._cut_line, self._cut_at = lines[whole], written
        return whole

    def _period_of(self, seconds: float) -> int:
        return int(seconds // self._rotate_interval) if self._rotate_interval else 0

    def _period_now(self) -> int:
        return self._period_of(self._wall())

    def _rotate(self, now: float) -> None:
        """Begin a new file. If that fails, the sink reports it and goes on with the old one."""
        if now < self._rotate_due:
            return
        try:
            self._rotation.shift(self._directory)
        except OSError as error:
            self._rotate_due = now + self.ROTATION_RETRY
            self._rotation_trouble = f"can't rotate {self._path}: {error.strerror}"
            self._tell()
            return
        self._rotations += 1
        self._rotation_trouble = None
        self._tell()
        self._leave()
        self._open()

    def _leave(self) -> None:
        """Close the file, without the part of a line that it may end with."""
        if self._file < 0:
            return
        if self._cut_at:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size - self._cut_at)
        os.close(self._file)
        os.close(self._directory)
        self._file = self._directory = -1
        self._cut_at = 0

    def _fail(self, error: OSError | OutputError, now: float) -> None:
        if isinstance(error, OSError):
            self._write_trouble = f"can't write {self._path}: {error.strerror}"
            if error.errno not in _FULL:
                self._leave()
        else:
            self._write_trouble = str(error)
            self._leave()
        self._ready = False
        self._due = now + self._backoff.delay()
        self._tell()

    def _tell(self) -> None:
        self.trouble = self._write_trouble or self._rotation_trouble
