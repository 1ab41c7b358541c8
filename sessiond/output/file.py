"""Appends lines to a file, and keeps lines whole despite full disks, crashes and other writers."""

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

# After a full disk the file is still usable; after any other error it is reopened.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAX_WRITE = 0x7FFFF000  # limit of one write(2), in bytes


class FileOutput:
    """A file of lines, with one write(2) for each batch.

    *Half lines.* If only part of a batch fits, the cut line is completed before anything else is
    written. A partial line left by a kill or a power cut is removed when the file is opened next.
    Lines are in the page cache when ``write`` returns: they survive the death of this process, but
    after a power cut the last seconds may be missing.

    *Changes by others.* Once a second the open file is compared with the file of its name, its size
    and its permissions with those it should have. After a rename (logrotate) the sink switches to a
    new file; lines written to a deleted file since the last check are written again to the new one.

    *Rotation.* By size before the batch that would exceed it, and by time when a multiple of the
    interval since 1970 (UTC) has passed since the file was last written: never into empty files.
    """

    CHECK_EVERY = 1.0  # seconds between checks whether the path still names the open file
    ROTATION_RETRY = 30.0  # seconds after a failed rotation

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
        """Take the absolute path, and mode, uid and gid for a new file.

        ``rotate_size`` is in bytes, ``rotate_interval`` in seconds, ``keep`` counts rotated files,
        of which those younger than ``min_age`` seconds are always kept; ``compress`` says how all
        but the newest of them are compressed. ``clock`` and ``wall`` return seconds, monotonic and
        since the epoch.
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
        self._due = 0.0  # the next check of the file, or the next attempt to open or write it
        self._rotate_due = 0.0
        self._size = 0
        self._size_seen = 0  # at the last check
        self._period = 0
        self._cut_line = b""  # the partially written line
        self._cut_at = 0  # the number of its bytes in the file
        self._salvaged: list[bytes] = []  # from a deleted file, to be written again
        self._rotations = 0
        self._access = (0, 0, 0)  # mode, owner and group
        self._truncated = 0  # by others, like the next three
        self._deleted = 0
        self._extended = 0
        self._exposed = 0
        self._reopened = 0
        self._repaired = 0

    @property
    def compression(self) -> Compression:
        """How rotated files are compressed; gzip if zstd is configured but has no library."""
        return self._rotation.compression

    @property
    def unconfirmed(self) -> int:
        """The number of accepted lines that are currently in no file."""
        return len(self._salvaged)

    def in_flight(self) -> list[bytes]:
        """Return those lines, oldest first."""
        return list(self._salvaged)

    def open(self) -> None:
        """Open the file. Raises OutputError if it is refused, OSError for a temporary failure."""
        self._open()
        self._ready = True
        self._due = self._clock() + self.CHECK_EVERY

    def write(self, lines: list[bytes]) -> int:
        """Write ``lines`` (each with its newline); return how many are completely in the file."""
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
            elif self._size and (self._size + len(data) > self._rotate_size or self._is_old()):
                self._rotate(now)
            written = os.write(self._file, data)
        except (OSError, OutputError) as error:
            self._fail(error, now)
            return 0
        self._size += written
        self._cut_at = 0
        if self._write_trouble is not None:
            self._write_trouble = None
            self._set_trouble()
            self._backoff.reset()
        if written == len(data):
            return len(lines)
        return self._cut(lines, already + written)

    def tick(self, now: float) -> float | None:
        """Check the file, or retry failed work; return when (monotonic seconds) that is due."""
        if now >= self._due:
            self._prepare(now)
        return self._due

    def flush(self) -> None:
        """Do nothing: lines do not wait for others."""

    def reopen(self) -> None:
        """Continue in the file that now has the name, as after logrotate."""
        self._leave()
        self._ready = False
        self._prepare(self._clock())
        self._reopened += 1

    def sync(self) -> None:
        """Check that the file still exists, and sync it to the disk. May block."""
        self._prepare(self._clock())
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._file)

    def close(self) -> None:
        """Close the file, after removing a partial line, which the caller still has."""
        self._leave()
        self._ready = False
        self._due = float("inf")
        self._rotation.close()

    def status(self) -> dict[str, Any]:
        """Return the counters: bytes in the file, rotations, reopened, repaired, ...

        ``truncated``, ``deleted``, ``extended`` and ``exposed`` count how often other processes did
        that to the file; exposed means that its mode, owner or group changed.
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
            "extended": self._extended,
            "exposed": self._exposed,
        }

    def _prepare(self, now: float) -> None:
        """Prepare for a write: reopen a replaced file."""
        try:
            if self._file < 0:
                self._open()
                self._write_trouble = None
                self._set_trouble()
            else:
                self._look()
            if self._salvaged:
                self._write_salvaged()
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
        self._access = _access(status)
        self._cut_at = 0
        self._period = self._period_of(status.st_mtime) if status.st_size else self._period_now()
        with contextlib.suppress(OSError):
            self._rotation.compress(directory)  # files of an earlier run

    def _give_away(self, file: int) -> None:
        if self._owner is None and self._group is None:
            return
        owner = -1 if self._owner is None else self._owner
        group = -1 if self._group is None else self._group
        try:
            os.fchown(file, owner, group)
        except PermissionError:
            Path(self._path).unlink()  # otherwise the next start would accept its owner
            raise OutputError(
                f"{self._path}: can't be given to uid {owner}, gid {group} (-1: unchanged); "
                "that takes CAP_CHOWN, or a group that this user is in"
            ) from None

    def _repair(self, file: int) -> None:
        """Remove a partial line after a kill or a power cut."""
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
        # Zeros: a power cut between writing the size and the data.
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
            # An append-only file (chattr +a): complete the partial line with a newline.
            os.write(file, b"\n")

    def _look(self) -> None:
        """Check whether the path still names the open file."""
        ours = os.fstat(self._file)
        there: os.stat_result | None = None
        try:
            there = Path(self._path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:  # the path is no longer accessible, but the file is open: continue
            return
        if there and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            if ours.st_size < self._size:  # truncated (logrotate's copytruncate)
                self._truncated += 1
                self._cut_at = 0
            self._extended += ours.st_size > self._size
            self._exposed += _access(ours) != self._access
            self._size, self._access = ours.st_size, _access(ours)
            return
        if not ours.st_nlink:
            self._deleted += 1
            self._salvage()
        self._leave()
        self._open()
        self._reopened += 1

    def _salvage(self) -> None:
        """Save the lines written to the file since the last successful check."""
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
        """Return how many bytes of the line ``first`` are already in the file."""
        if first == self._cut_line:
            return self._cut_at
        # The partial line was dropped: it was the oldest, and the queue is bounded.
        self._truncate(self._file, self._size - self._cut_at)
        self._size = os.fstat(self._file).st_size
        self._cut_at = 0
        return 0

    def _cut(self, lines: list[bytes], written: int) -> int:
        """Note where a short write ended; return the number of complete lines."""
        whole = 0
        for line in lines:
            if written < len(line):
                break
            written -= len(line)
            whole += 1
        self._cut_line, self._cut_at = lines[whole], written
        return whole

    def _is_old(self) -> bool:
        return bool(self._rotate_interval) and self._period != self._period_now()

    def _period_of(self, seconds: float) -> int:
        return int(seconds // self._rotate_interval) if self._rotate_interval else 0

    def _period_now(self) -> int:
        return self._period_of(self._wall())

    def _rotate(self, now: float) -> None:
        """Rotate. If that fails, report it and continue with the old file."""
        if now < self._rotate_due:
            return
        try:
            self._rotation.shift(self._directory)
        except OSError as error:
            self._rotate_due = now + self.ROTATION_RETRY
            self._rotation_trouble = f"can't rotate {self._path}: {error.strerror}"
            self._set_trouble()
            return
        self._rotations += 1
        self._rotation_trouble = None
        self._set_trouble()
        self._leave()
        self._open()

    def _leave(self) -> None:
        """Close the file, after removing a partial line."""
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
        self._set_trouble()

    def _set_trouble(self) -> None:
        self.trouble = self._write_trouble or self._rotation_trouble


def _access(status: os.stat_result) -> tuple[int, int, int]:
    """Return what determines who may use a file: mode, owner and group."""
    return status.st_mode, status.st_uid, status.st_gid
