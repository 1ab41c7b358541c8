"""Rotates files, with names like logrotate's: events.ndjson.1, events.ndjson.2.zst, ...

The newest rotated file stays uncompressed, because a reader may not have finished it; a
thread compresses older ones, with at most half of a processor.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from sessiond.output.background import Background
from sessiond.system import zstd

Compression = Literal["zstd", "gzip", "none"]

# The warning if zstd is configured and gzip is used instead.
NO_ZSTD: Final = "this Python has no library for zstd: old files are compressed with gzip"
NO_ZSTD_FIX: Final = "install python3-zstandard, or set output.file.rotate.compress: gzip"


class _Rotated(NamedTuple):
    number: int
    suffix: str  # "" if it is not compressed
    name: str


class _Format(NamedTuple):
    name: Compression
    suffix: str
    packer: Callable[[], zstd.Packer]


_SUFFIXES: Final = (".gz", ".zst")
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's header and trailer


def _format(compression: Compression) -> _Format | None:
    """Return the format of compression, None for none; gzip if zstd is not available."""
    if compression == "none":
        return None
    library = zstd.implementation() if compression == "zstd" else None
    if library is None:
        return _Format("gzip", ".gz", lambda: zlib.compressobj(wbits=_GZIP_FORMAT))
    return _Format("zstd", ".zst", library.packer)


class Rotation:
    """Rotates a file and keeps the last ``keep`` rotated ones.

    Files whose last line is younger than ``min_age`` seconds are always kept, so that a flood of
    lines does not push out older ones.
    """

    _CHUNK = 256 * 1024

    def __init__(
        self,
        name: str,
        *,
        keep: int,
        compress: Compression,
        min_age: float,
        wall: Callable[[], float],
    ) -> None:
        """Take the current file's name (no directory); ``wall`` gives seconds since the epoch."""
        self.compress_failures = 0
        self._name = name
        self._keep = keep
        self._format = _format(compress)
        self._min_age = min_age
        self._wall = wall
        suffixes = "|".join(map(re.escape, _SUFFIXES))
        self._pattern = re.compile(rf"{re.escape(name)}\.([1-9][0-9]{{0,8}})({suffixes})?")
        self._temporaries = {suffix: f"{name}{suffix}.tmp" for suffix in _SUFFIXES}
        self._background = Background("compress")
        # Held while names are read or changed, never during compression. Simultaneous listings
        # would miss entries, because they share the directory's offset.
        self._names = threading.RLock()
        self._stopping = threading.Event()

    def shift(self, directory: int) -> None:
        """Move the current file to .1, .1 to .2 and so on; remove files beyond the limit.

        A crash during this leaves a gap in the numbers, never two files with one number. Raises
        OSError.
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

    @property
    def compression(self) -> Compression:
        """How files are compressed."""
        return "none" if self._format is None else self._format.name

    def compress(self, directory: int) -> None:
        """Start to compress pending files, and clean up after a killed run.

        Returns at once.
        """
        waiting = any(
            rotated.number > 1 and not rotated.suffix for rotated in self._rotated(directory)
        )
        if waiting and (used := self._format):
            ours = os.dup(directory)
            self._background.submit(lambda: self._compress_all(used, ours))
        else:
            self._remove_temporaries(directory)

    def close(self) -> None:
        """Abort the current compression: the next start repeats it."""
        self._stopping.set()
        self._background.close(timeout=2.0)

    def _rotated(self, directory: int) -> list[_Rotated]:
        """Return the rotated files, oldest first, without duplicates."""
        with self._names:
            names = os.listdir(directory)
            found = [
                _Rotated(int(match[1]), match[2] or "", match[0])
                for match in map(self._pattern.fullmatch, names)
                if match
            ]
            plain = {rotated.number: rotated for rotated in found if not rotated.suffix}
            for rotated in [each for each in found if each.suffix and each.number in plain]:
                if self._is_twin(rotated, plain[rotated.number], directory):
                    os.unlink(rotated.name, dir_fd=directory)
                    found.remove(rotated)
        return sorted(found, reverse=True)

    @staticmethod
    def _is_twin(packed: _Rotated, plain: _Rotated, directory: int) -> bool:
        """Return whether a kill came between naming the compressed file and removing its source."""
        one, other = (os.stat(each.name, dir_fd=directory) for each in (packed, plain))
        return one.st_mtime_ns == other.st_mtime_ns

    def _compress_all(self, used: _Format, directory: int) -> None:
        try:
            self._remove_temporaries(directory)
            for rotated in self._rotated(directory):
                if rotated.number > 1 and not rotated.suffix:
                    self._compress_one(used, rotated, directory)
        except OSError:  # a full disk: the file stays as it is, the next rotation tries again
            self.compress_failures += 1
            with contextlib.suppress(OSError):
                self._remove_temporaries(directory)
        finally:
            os.close(directory)

    def _compress_one(self, used: _Format, rotated: _Rotated, directory: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            source = os.open(rotated.name, flags, dir_fd=directory)
        except FileNotFoundError:  # renamed by a rotation, which requests compression again
            return
        try:
            status = os.fstat(source)
            if stat.S_ISREG(status.st_mode):
                if self._write_compressed(used, source, status, directory):
                    self._replace(used, status, directory)
                else:
                    self._remove_temporaries(directory)
        finally:
            os.close(source)

    def _write_compressed(
        self, used: _Format, source: int, status: os.stat_result, directory: int
    ) -> bool:
        """Write the temporary file; return False if that was aborted."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(self._temporaries[used.suffix], flags, 0o600, dir_fd=directory)
        with os.fdopen(target, "wb") as file:
            with contextlib.suppress(PermissionError):
                os.fchown(target, status.st_uid, status.st_gid)
            os.fchmod(target, stat.S_IMODE(status.st_mode))
            packer = used.packer()
            while chunk := os.read(source, self._CHUNK):
                before = time.thread_time()
                file.write(packer.compress(chunk))
                # Leaves the processor to others for as long as it has used it.
                if self._stopping.wait(time.thread_time() - before):
                    return False
            file.write(packer.flush())
            file.flush()
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(target)  # before the only other copy is removed
        # After close another process may have created a file of the same name.
        return not self._stopping.is_set()

    def _replace(self, used: _Format, source: os.stat_result, directory: int) -> None:
        """Replace the source, under its current name, by the compressed file."""
        with self._names:
            for rotated in self._rotated(directory):
                there = os.stat(rotated.name, dir_fd=directory, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino):
                    os.rename(
                        self._temporaries[used.suffix],
                        f"{rotated.name}{used.suffix}",
                        src_dir_fd=directory,
                        dst_dir_fd=directory,
                    )
                    os.unlink(rotated.name, dir_fd=directory)
                    return
            self._remove_temporaries(directory)  # the source no longer exists

    def _remove_temporaries(self, directory: int) -> None:
        for name in self._temporaries.values():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
