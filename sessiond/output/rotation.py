"""The names of rotated files, as logrotate gives them: events.ndjson.1, events.ndjson.2.zst, ...

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
from typing import Final, Literal, NamedTuple

from sessiond.output.background import Background
from sessiond.system import zstd

Compression = Literal["zstd", "gzip", "none"]

# What is said where zstd is wanted and gzip is used.
NO_ZSTD: Final = "this Python has no library for zstd: old files are compressed with gzip"
NO_ZSTD_FIX: Final = "install python3-zstandard, or set output.file.rotate.compress: gzip"


class _Rotated(NamedTuple):
    number: int
    suffix: str  # "" where it is not compressed
    name: str


class _Format(NamedTuple):
    name: Compression
    suffix: str
    packer: Callable[[], zstd.Packer]


_SUFFIXES: Final = (".gz", ".zst")
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's header and trailer


def _format(compression: Compression) -> _Format | None:
    """Return how files are compressed, None for not at all; with gzip where there is no zstd."""
    if compression == "none":
        return None
    library = zstd.library() if compression == "zstd" else None
    if library is None:
        return _Format("gzip", ".gz", lambda: zlib.compressobj(wbits=_GZIP_FORMAT))
    return _Format("zstd", ".zst", library.packer)


class Rotation:
    """Moves a file out of the way and keeps the last ``keep`` of those moved.

    Those whose last line is younger than ``min_age`` seconds are kept in any case: who writes many
    lines must not push out the lines of others.
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

    @property
    def compression(self) -> Compression:
        """How files are compressed."""
        return "none" if self._format is None else self._format.name

    def compress(self, directory: int) -> None:
        """Begin to compress what waits for it, and clear up after a run that was killed.

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
        """Give up what is being compressed: the next start begins it anew."""
        self._stopping.set()
        self._background.close(timeout=2.0)

    def _rotated(self, directory: int) -> list[_Rotated]:
        """Return the rotated files, the oldest first; each is there once."""
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
        """Tell whether a kill came after the one had its name and before the other was removed."""
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
        except FileNotFoundError:  # moved on by a rotation meanwhile, which asks for it again
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
        """Write the temporary file; return False where that was given up."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(self._temporaries[used.suffix], flags, 0o600, dir_fd=directory)
        with os.fdopen(target, "wb") as file:
            with contextlib.suppress(PermissionError):
                os.fchown(target, status.st_uid, status.st_gid)
            os.fchmod(target, stat.S_IMODE(status.st_mode))
            packer = used.packer()
            while chunk := os.read(source, self._CHUNK):
                if self._stopping.is_set():
                    return False
                file.write(packer.compress(chunk))
            file.write(packer.flush())
            file.flush()
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(target)  # before the only other copy is removed
        # Whoever comes after close may have begun a file of the same name.
        return not self._stopping.is_set()

    def _replace(self, used: _Format, source: os.stat_result, directory: int) -> None:
        """Put the compressed file in the place of its source, wherever that has moved to."""
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
            self._remove_temporaries(directory)  # too old to keep by now

    def _remove_temporaries(self, directory: int) -> None:
        for name in self._temporaries.values():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
