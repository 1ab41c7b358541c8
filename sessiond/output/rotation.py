"""The names of rotated files, as logrotate gives them: events.ndjson.1, events.ndjson.2.gz, ...

The newest rotated file stays as it is for one more round, because a reader may still be at its
end; older ones are compressed, by a thread of low priority.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable
from typing import NamedTuple

from sessiond.output.background import Background


class _Rotated(NamedTuple):
    number: int
    suffix: str  # "" or ".gz"
    name: str


class Rotation:
    """Moves a file out of the way and keeps the last ``keep`` of those moved.

    Those whose last line is younger than ``min_age`` seconds are kept in any case: who writes many
    lines must not push out the lines of others.
    """

    _CHUNK = 256 * 1024
    _GZIP = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's header and trailer

    def __init__(
        self, name: str, *, keep: int, compress: bool, min_age: float, wall: Callable[[], float]
    ) -> None:
        """Take the current file's name (no directory); ``wall`` gives seconds since the epoch."""
        self.compress_failures = 0
        self._name = name
        self._keep = keep
        self._compress = compress
        self._min_age = min_age
        self._wall = wall
        self._pattern = re.compile(re.escape(name) + r"\.([1-9][0-9]{0,8})(\.gz)?")
        self._temporary = f"{name}.gz.tmp"
        self._background = Background("gzip")
        # Held while names are read or changed, never while a file is compressed. Two listings at
        # once would each miss what the other has read: they share the directory's offset.
        self._names = threading.RLock()
        self._stopping = threading.Event()

    def shift(self, directory: int) -> None:
        """Move the current file to .1, .1 to .2 and so on; remove what is not kept any longer.

        A crash on the way leaves a number unused, never two files on one. Raises OSError.
        """
        with self._names:
            for rotated in self._rotated(directory):
                if rotated.number >= self._keep and self._is_old(rotated.name, directory):
                    os.unlink(rotated.name, dir_fd=directory)
                else:
                    moved = f"{self._name}.{rotated.number + 1}{rotated.suffix}"
                    os.rename(rotated.name, moved, src_dir_fd=directory, dst_dir_fd=directory)
            if self._keep or not self._is_old(self._name, directory):
                os.rename(self._name, f"{self._name}.1", src_dir_fd=directory, dst_dir_fd=directory)
            else:
                os.unlink(self._name, dir_fd=directory)

    def _is_old(self, name: str, directory: int) -> bool:
        written = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
        return abs(self._wall() - written) >= self._min_age

    def compress(self, directory: int) -> None:
        """Begin to compress what waits for it; returns at once."""
        if self._compress and any(
            rotated.number > 1 and not rotated.suffix for rotated in self._rotated(directory)
        ):
            ours = os.dup(directory)
            self._background.submit(lambda: self._compress_all(ours))

    def close(self) -> None:
        """Give up what is being compressed: the next start begins it anew."""
        self._stopping.set()
        self._background.close(timeout=2.0)

    def _rotated(self, directory: int) -> list[_Rotated]:
        """Return the rotated files, the oldest first."""
        with self._names:
            names = os.listdir(directory)
        found = [
            _Rotated(int(match[1]), match[2] or "", match[0])
            for match in map(self._pattern.fullmatch, names)
            if match
        ]
        return sorted(found, reverse=True)

    def _compress_all(self, directory: int) -> None:
        try:
            self._remove(self._temporary, directory)  # of a run that was killed
            for rotated in self._rotated(directory):
                if rotated.number > 1 and not rotated.suffix:
                    self._compress_one(rotated, directory)
        except OSError:  # a full disk: the file stays as it is, the next rotation tries again
            self.compress_failures += 1
            with contextlib.suppress(OSError):
                self._remove(self._temporary, directory)
        finally:
            os.close(directory)

    def _compress_one(self, rotated: _Rotated, directory: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            source = os.open(rotated.name, flags, dir_fd=directory)
        except FileNotFoundError:  # moved on by a rotation meanwhile, which asks for it again
            return
        try:
            status = os.fstat(source)
            if stat.S_ISREG(status.st_mode) and self._write_compressed(source, status, directory):
                self._replace(status, directory)
        finally:
            os.close(source)

    def _write_compressed(self, source: int, status: os.stat_result, directory: int) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(self._temporary, flags, 0o600, dir_fd=directory)
        with os.fdopen(target, "wb") as file:
            with contextlib.suppress(PermissionError):
                os.fchown(target, status.st_uid, status.st_gid)
            os.fchmod(target, stat.S_IMODE(status.st_mode))
            packer = zlib.compressobj(wbits=self._GZIP)
            while chunk := os.read(source, self._CHUNK):
                if self._stopping.is_set():
                    self._remove(self._temporary, directory)
                    return False
                file.write(packer.compress(chunk))
            file.write(packer.flush())
            file.flush()
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(target)  # before the only other copy is removed
        return True

    def _replace(self, source: os.stat_result, directory: int) -> None:
        """Put the compressed file in the place of its source, wherever that has moved to."""
        with self._names:
            for rotated in self._rotated(directory):
                there = os.stat(rotated.name, dir_fd=directory, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino):
                    os.rename(
                        self._temporary,
                        f"{rotated.name}.gz",
                        src_dir_fd=directory,
                        dst_dir_fd=directory,
                    )
                    os.unlink(rotated.name, dir_fd=directory)
                    return
            self._remove(self._temporary, directory)  # too old to keep by now

    @staticmethod
    def _remove(name: str, directory: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
