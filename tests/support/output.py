"""Helpers for tests of outputs: numbered lines, a manual clock, file systems that fill up."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sessiond.output.delivery import Delivery

_EXT4_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN of fs/ext4/ext4.h: _IOR('X', 125, __u32)
_WITHOUT_LOG_FLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH


class Clock:
    """A clock in seconds that the test advances."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def line(number: int, size: int = 0) -> bytes:
    """Return an event's line with its number, at least ``size`` bytes long."""
    text = json.dumps({"event": {"sequence": number}, "message": ""})
    return (text[:-2] + "x" * (size - len(text) - 1) + text[-2:] + "\n").encode()


def lines(first: int, count: int, size: int = 0) -> list[bytes]:
    """Return ``count`` lines, numbered from ``first``."""
    return [line(number, size) for number in range(first, first + count)]


def numbers(data: bytes) -> list[int]:
    """Return the numbers of the lines in ``data``; fails if one of them is incomplete."""
    assert not data or data.endswith(b"\n"), data[-100:]
    return [json.loads(text)["event"]["sequence"] for text in data.splitlines()]


def balanced(delivery: Delivery) -> dict[str, Any]:
    """Return the status, whose account must be balanced."""
    status = delivery.status()
    parts = [status[name] for name in ("delivered", "queued", "spooled", "dropped")]
    assert min(parts) >= 0, status
    assert status["accepted"] == sum(parts), status
    return status


def firsts(received: Iterable[int]) -> list[int]:
    """Return ``received`` without repetitions."""
    return list(dict.fromkeys(received))


@contextmanager
def tmpfs(path: Path, size: str = "1M") -> Iterator[Path]:
    """Mount a file system in memory with a limit of ``size``."""
    path.mkdir(exist_ok=True)
    options = f"size={size},mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "sessiond-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


class Ext4:
    """A small ext4 file system in an image, which a test can break and repair."""

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
        """Make the kernel treat it as after a disk error: read-only."""
        subprocess.run(["mount", "-o", "remount,abort", self.path], check=True)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Make every write to it wait, as on a disk that does not answer."""
        subprocess.run(["fsfreeze", "--freeze", self.path], check=True)
        try:
            yield
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", self.path], check=True)

    def take_away(self) -> None:
        """Make every operation fail with EIO, as if the disk was removed."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _EXT4_SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(directory)


@contextmanager
def ext4(image: Path, path: Path, size: int = 16 << 20) -> Iterator[Ext4]:
    """Create an ``Ext4`` of ``size`` bytes, removed afterwards."""
    disk = Ext4(image, path, size)
    try:
        yield disk
    finally:
        disk.unmount()


def fill(directory: Path) -> Path:
    """Fill the file system of ``directory``; return the file that does it."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler
