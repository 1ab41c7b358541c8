"""What the tests of outputs share: numbered lines, a clock to turn, file systems that fill up."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_EXT4_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN of fs/ext4/ext4.h: _IOR('X', 125, __u32)
_WITHOUT_LOG_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time now."""
        return self.now


def line(number: int, size: int = 0) -> bytes:
    """An event's line with its number, at least ``size`` bytes long."""
    text = json.dumps({"event": {"sequence": number}, "message": ""})
    return (text[:-2] + "x" * (size - len(text) - 1) + text[-2:] + "\n").encode()


def lines(first: int, count: int, size: int = 0) -> list[bytes]:
    """``count`` lines, numbered from ``first``."""
    return [line(number, size) for number in range(first, first + count)]


def numbers(data: bytes) -> list[int]:
    """The numbers of the lines in ``data``; fails if one of them isn't whole."""
    assert not data or data.endswith(b"\n"), data[-100:]
    return [json.loads(text)["event"]["sequence"] for text in data.splitlines()]


def firsts(received: Iterable[int]) -> list[int]:
    """``received`` without the repeats."""
    return list(dict.fromkeys(received))


@contextmanager
def tmpfs(path: Path, size: str = "1M") -> Iterator[Path]:
    """A file system in memory that is full after ``size``."""
    path.mkdir(exist_ok=True)
    options = f"size={size},mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "sessiond-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


class Ext4:
    """A small ext4 file system in an image, that a test can break and mend."""

    def __init__(self, image: Path, path: Path, size: int) -> None:
        self.path = path
        self._image = image
        path.mkdir()
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        self.mount()

    def mount(self) -> None:
        """Mount the image read-write."""
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True)

    def unmount(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", self.path], check=True)

    def make_read_only(self) -> None:
        """Have the kernel treat it as after an error on the disk: read-only from now on."""
        subprocess.run(["mount", "-o", "remount,abort", self.path], check=True)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Have every write to it wait, as on a disk that doesn't answer."""
        subprocess.run(["fsfreeze", "--freeze", self.path], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self.path], check=True)

    def take_away(self) -> None:
        """Have every operation on it fail with EIO, as when the disk is pulled out."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _EXT4_SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(directory)


@contextmanager
def ext4(image: Path, path: Path, size: int = 16 << 20) -> Iterator[Ext4]:
    """An ``Ext4`` of ``size`` bytes, gone afterwards."""
    disk = Ext4(image, path, size)
    try:
        yield disk
    finally:
        disk.unmount()


def fill(directory: Path) -> Path:
    """Leave no room on ``directory``'s file system; return the file that holds it."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler
