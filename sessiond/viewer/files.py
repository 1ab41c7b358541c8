"""Finds, sorts, reads and follows event files, through rotations."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sessiond.system import packed
from sessiond.system.packed import DAMAGES, STANDARD_INPUT, UnreadableFileError

# The names that sessiond record gives to its files, unless told otherwise.
RECORDINGS: Final = "sessiond-*.ndjson"
# Seconds between two reads of a followed file.
INTERVAL: Final = 0.5

_STAMP: Final = re.compile(rb'"@timestamp":\s*"([^"]{10,40})"')
_ROTATED: Final = re.compile(r"\.[1-9][0-9]{0,8}(\.\w{1,5})?|-\d{8}(-\d+)?(\.\w{1,5})?")


def with_rotated(path: Path) -> list[str]:
    """Return a file and its rotated predecessors: events.ndjson.1, events.ndjson.2.gz.

    Raises UnreadableFileError if none of them exists.
    """
    try:
        beside = [
            str(each)
            for each in path.parent.iterdir()
            if each == path
            or (each.name.startswith(path.name) and _ROTATED.fullmatch(each.name[len(path.name) :]))
        ]
    except FileNotFoundError:
        beside = []
    except PermissionError:
        raise UnreadableFileError(
            f"{path.parent}: permission denied; run this as root, or name a file with events"
        ) from None
    except OSError as error:
        raise UnreadableFileError(f"{path.parent}: {(error.strerror or '').lower()}") from None
    if not beside:
        raise UnreadableFileError(
            f"{path}: no such file; start sessiond, record a command (sessiond record), or name a "
            "file with events"
        )
    return _by_age(_each_once(beside))


def newest_recording(directory: Path) -> Path | None:
    """Return the newest file of ``sessiond record`` in a directory, None without one."""
    found = [each for each in directory.glob(RECORDINGS) if each.is_file()]
    return max(found, key=lambda each: each.stat().st_mtime_ns, default=None)


def expand(names: list[str]) -> list[str]:
    """Return the files of names, patterns and directories, each once, oldest first.

    The age is that of the first event. Raises UnreadableFileError.
    """
    found: dict[str, None] = {}
    for name in names:
        try:
            found |= dict.fromkeys([name] if name == STANDARD_INPUT else _expanded(name))
        except OSError as error:
            raise UnreadableFileError(f"{name}: {(error.strerror or '').lower()}") from None
    return _by_age(list(found))


def _expanded(name: str) -> list[str]:
    """Return the files of a name, a pattern or a directory. Raises OSError as well."""
    path = Path(name)
    if path.is_dir():
        inside = sorted(str(each) for each in path.iterdir() if each.is_file())
        events = [each for each in inside if ".ndjson" in each or ".json" in each]
        if not inside:
            raise UnreadableFileError(f"{name}: no file in this directory")
        return _each_once(events or inside)
    if glob.has_magic(name) and not path.exists():
        matching = sorted(each for each in glob.glob(name) if Path(each).is_file())  # noqa: PTH207
        if not matching:
            raise UnreadableFileError(f"{name}: no file has such a name")
        return _each_once(matching)
    return [name]


def _each_once(names: list[str]) -> list[str]:
    """Skip files that a killed compression left beside their source.

    These are incomplete files, and complete ones with the modification time of their source.
    """
    kept = []
    for name in names:
        source = name.removesuffix(".zst").removesuffix(".gz")
        is_second = source != name and source in names and _written(source) == _written(name)
        if not is_second and not name.endswith((".zst.tmp", ".gz.tmp")):
            kept.append(name)
    return kept


def _written(name: str) -> int | None:
    """Return a file's modification time in ns since the epoch; None if it no longer exists."""
    try:
        return Path(name).stat().st_mtime_ns
    except OSError:
        return None


def _by_age(names: list[str]) -> list[str]:
    if len(names) < 2:
        return names
    return sorted(names, key=_first_stamp)


def _first_stamp(name: str) -> bytes:
    """Return the time of the first event; empty without one: reading reports the error."""
    if packed.is_stream(name):
        return b""
    try:
        with packed.opened(name, "sessiond sessions -") as (source, _):
            match = _STAMP.search(source.read(1 << 16))
    except (*DAMAGES, UnreadableFileError):
        return b""
    return match[1] if match else b""


def read(name: str) -> Iterator[bytes]:
    """Yield the lines of a file, decompressed, without an incomplete last one.

    Raises UnreadableFileError if reading fails.
    """
    with packed.opened(name, "sessiond sessions -") as (source, _):
        for line in packed.lines(name, source):
            if line.endswith((b"\n", b"}")) or line.rstrip().endswith(b"}"):
                yield line


class Follower:
    """Reads a file as it grows, through its rotations."""

    def __init__(self, path: Path) -> None:
        """Take the file's path; it need not exist yet."""
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines added since the last call."""
        if self._file is None and not self._open():
            return
        while True:
            yield from self._read()
            if not self._is_replaced():
                return
            yield from self._read()  # lines between the last read and the rotation
            self.close()
            if not self._open():
                return

    def skip(self) -> None:
        """Skip what the file has by now; the rest of a line that is being written counts as one."""
        if self._file is not None or self._open():
            assert self._file is not None  # noqa: S101 -- narrows the type
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._rest = b""

    def _open(self) -> bool:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            return False
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UnreadableFileError(f"{self._path}: {reason}") from None
        return True

    def _read(self) -> Iterator[bytes]:
        assert self._file is not None  # noqa: S101 -- narrows the type
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # it was truncated
            self._file.seek(0)
            self._rest = b""
        while chunk := self._file.read(1 << 20):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole

    def _is_replaced(self) -> bool:
        assert self._file is not None  # noqa: S101 -- narrows the type
        try:
            there = self._path.stat()
        except OSError:
            return False  # between two names
        ours = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)


def grows(name: str) -> bool:
    """Return whether a file can grow: a compressed file, or a stream, is read only once."""
    if name == STANDARD_INPUT:
        return False
    path = Path(name)
    if not path.exists():
        return True
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return not file.read(6).startswith(packed.MAGICS)
    except OSError as error:
        raise UnreadableFileError(f"{name}: {(error.strerror or '').lower()}") from None


def followed(
    path: Path, sleep: Callable[[float], None] = time.sleep, *, new: bool = False
) -> Iterator[list[bytes]]:
    """Yield the new lines of a file at each read, forever; an empty list without new lines.

    ``new``: without those that it has at the beginning.
    """
    follower = Follower(path)
    try:
        if new:
            follower.skip()
        while True:
            yield list(follower.lines())
            sleep(INTERVAL)
    finally:
        follower.close()
