"""Reads the lines of plain and of compressed files: gzip, xz, bzip2, zstd."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import select
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, cast

from sessiond.errors import SessiondError
from sessiond.system import zstd

STANDARD_INPUT: Final = "-"
# Longer than any record or event: a longer line is returned in pieces, to bound memory.
MAX_LINE: Final = 64 << 20

# Bytes read at once: lines of events are a few KB long.
_BUFFER: Final = 1 << 18

# Seconds without data after which a stream pauses: a program that writes all it has is faster.
_PAUSE: Final = 0.2
DAMAGES: Final = (OSError, EOFError, lzma.LZMAError, zlib.error)
# Magic bytes of gzip, xz, bzip2, zstd.
MAGICS: Final = (b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd")
_Item = TypeVar("_Item")


class UnreadableFileError(SessiondError):
    """A file can't be read; the message says why, and may name an alternative command."""


def is_stream(name: str) -> bool:
    """Return whether a name is of a pipe or a device, which can be read only once."""
    path = Path(name)
    return name == STANDARD_INPUT or (path.exists() and not path.is_file())


@contextmanager
def opened(name: str, command: str) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Open a file, decompressed; the second value returns the number of bytes read of the file.

    ``name`` is a path, or - for standard input; ``command`` is the command for a pipe, in messages.
    Raises UnreadableFileError.
    """
    with ExitStack() as stack:
        if name == STANDARD_INPUT:
            yield _unpacked(name, sys.stdin.buffer, command, stack), lambda: 0
            return
        try:
            file = stack.enter_context(Path(name).open("rb", buffering=_BUFFER))
        except OSError as error:
            raise UnreadableFileError(_reason(name, error)) from None
        unpacked = (_unpacked(name, file, command, stack) for _ in range(1))
        yield next(guarded(name, unpacked)), (lambda: 0) if is_stream(name) else file.tell


def peek(raw: BinaryIO, size: int) -> bytes:
    """Return the first bytes of a newly opened stream without consuming them."""
    look = getattr(raw, "peek", None)
    if look is not None:
        return bytes(look(size))[:size]
    head = raw.read(size)
    raw.seek(0)
    return head


def guarded(name: str, items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items of a file; raises UnreadableFileError where reading fails."""
    try:
        yield from items
    except DAMAGES as error:
        raise UnreadableFileError(_reason(name, error)) from None


def lines(name: str, source: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file without a byte order mark; lines over MAX_LINE come in pieces.

    Raises UnreadableFileError where reading fails.
    """
    return guarded(name, _lines(source))


def arriving_lines(name: str, source: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream as ``lines`` does, and b"" where no more has arrived yet.

    Nothing is read ahead of the first line.
    """
    return guarded(name, _arriving_lines(source))


def _arriving_lines(source: BinaryIO) -> Iterator[bytes]:
    first = source.readline(MAX_LINE).removeprefix(b"\xef\xbb\xbf")
    if not first:
        return
    yield first
    begun: list[bytes] = []  # of a line
    size = 0
    while data := source.read1(_BUFFER):  # type: ignore[attr-defined]
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = b"".join((*begun, whole[0]))
            begun, size = [], 0
            for line in whole:
                yield line + b"\n"
        begun.append(rest)
        size += len(rest)
        if size >= MAX_LINE:
            yield b"".join(begun)
            begun, size = [], 0
        if not _has_more(source):
            yield b""
    if size:
        yield b"".join(begun)


def _has_more(source: BinaryIO) -> bool:
    """Return whether a stream can be read without waiting long; True if that can't be known."""
    try:
        return bool(select.select([source], [], [], _PAUSE)[0])
    except (OSError, ValueError):  # no descriptor, or one that select does not take
        return True


def _lines(source: BinaryIO) -> Iterator[bytes]:
    first = source.readline(MAX_LINE).removeprefix(b"\xef\xbb\xbf")
    if first:
        yield first
    yield from iter(partial(source.readline, MAX_LINE), b"")


def _unpacked(name: str, raw: BinaryIO, command: str, stack: ExitStack) -> BinaryIO:
    """Return a decompressing stream, or the stream itself if it is not compressed."""
    head = peek(raw, 6)
    if head.startswith(MAGICS[0]):
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    if head.startswith(MAGICS[1]):
        return cast("BinaryIO", lzma.LZMAFile(raw))
    if head.startswith(MAGICS[2]):
        return cast("BinaryIO", bz2.BZ2File(raw))
    if head.startswith(MAGICS[3]):
        return _unpack_zstd(name, raw, command, stack)
    return raw


def _unpack_zstd(name: str, raw: BinaryIO, command: str, stack: ExitStack) -> BinaryIO:
    """Decompress with a library of this Python, else with the program zstd."""
    library = zstd.implementation()
    if library is not None:
        return cast("BinaryIO", io.BufferedReader(zstd.Reader(raw, library), 1 << 18))
    program = shutil.which("zstd")
    if program is None or is_stream(name):
        quoted = name if name != STANDARD_INPUT else "FILE"
        raise UnreadableFileError(
            f"{name}: packed with zstd, which this Python has no library for; run "
            f"zstd -dc {quoted} | {command}"
        )
    running = subprocess.Popen([program, "-dcq", "--", name], stdout=subprocess.PIPE)
    stack.enter_context(running)
    stack.callback(running.terminate)  # if the caller does not read to the end
    assert running.stdout is not None  # noqa: S101 -- a pipe was asked for
    return cast("BinaryIO", _Checked(name, running))


class _Checked(io.BufferedReader):
    """The output of a program; reading raises EOFError if the program fails."""

    def __init__(self, name: str, running: subprocess.Popen[bytes]) -> None:
        assert running.stdout is not None  # noqa: S101 -- a pipe was asked for
        super().__init__(cast("io.RawIOBase", running.stdout))
        self._name = name
        self._running = running

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line; raises EOFError at the end of damaged data."""
        line = super().readline(size)
        if not line and self._running.wait():
            raise EOFError
        return line


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror.lower()}"
    return f"{name}: damaged: {str(error) or 'it ends too early'}"
