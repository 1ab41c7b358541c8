"""The logs that are named on the command line: found, put in order, unpacked, read by lines."""

from __future__ import annotations

import bz2
import glob
import gzip
import importlib
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, cast

from sessiond.errors import SessiondError

STANDARD_INPUT: Final = "-"
_STAMP: Final = re.compile(rb'audit\((\d{1,10}\.\d{1,3}):|"ID":"(\d{1,10}\.\d{1,3}):')
_JOURNAL_TIME: Final = re.compile(rb'__REALTIME_TIMESTAMP(?:"\s*:\s*")?=?(\d{10})(\d{6})')
# Longer than any record: a line is refused in pieces of it, not taken into memory whole.
MAX_LINE: Final = 64 << 20

_DAMAGES: Final = (OSError, EOFError, lzma.LZMAError, zlib.error)
_Item = TypeVar("_Item")

_ZSTD: Final = ("compression.zstd", "zstandard", "pyzstd")


class UnreadableLogError(SessiondError):
    """A file is no log that can be read; the message says what to run instead."""


def expand(names: list[str]) -> list[str]:
    """Return the files that names, patterns and directories stand for, each once, oldest first.

    Of a directory it takes what looks like audit's logs (``audit.log``, ``audit.log.3.gz``), or all
    regular files where none does. The age is that of the first record, for logs that are rotated
    are touched later; a file without one stays where it was named. Raises UnreadableLogError.
    """
    found: dict[str, None] = {}
    for name in names:
        for one in _expanded(name):
            found.setdefault(one)
    dated = [(_first_stamp(name), index, name) for index, name in enumerate(found)]
    if any(stamp is None for stamp, _, _ in dated):
        return list(found)
    return [name for _, _, name in sorted(dated, key=lambda each: (each[0] or 0, -each[1]))]


def _expanded(name: str) -> list[str]:
    if name == STANDARD_INPUT:
        return [name]
    path = Path(name)
    if path.is_dir():
        inside = sorted(str(each) for each in path.iterdir() if each.is_file())
        logs = [each for each in inside if "audit" in Path(each).name and ".log" in each]
        if not inside:
            raise UnreadableLogError(f"{name}: no file in this directory")
        return logs or inside
    if not path.exists() and glob.has_magic(name):
        matching = sorted(each for each in glob.glob(name) if Path(each).is_file())  # noqa: PTH207
        if not matching:
            raise UnreadableLogError(f"{name}: no file has such a name")
        return matching
    return [name]


def _first_stamp(name: str) -> float | None:
    """The time of the first record, in s since the epoch; None where the beginning has none."""
    if name == STANDARD_INPUT:
        return None
    try:
        with opened(name) as (source, _):
            head = source.read(1 << 16)
    except (*_DAMAGES, SessiondError):
        return None  # what is wrong with it is told when its turn comes
    match = _STAMP.search(head)
    if match is not None:
        return float(match[1] or match[2])
    match = _JOURNAL_TIME.search(head)
    return float(match[1] + b"." + match[2]) if match is not None else None


@contextmanager
def opened(name: str) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Open a log, unpacked; the second value tells how many bytes of the file were read.

    What a file is packed with is seen by its first bytes, whatever its name. Raises
    UnreadableLogError.
    """
    if name == STANDARD_INPUT:
        raw: BinaryIO = sys.stdin.buffer
        yield _unpacked(name, raw), lambda: 0
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 -- closed below
    except OSError as error:
        raise UnreadableLogError(_reason(name, error)) from None
    with file:
        yield next(guarded(name, (_unpacked(name, file) for _ in range(1)))), file.tell


def _unpacked(name: str, raw: BinaryIO) -> BinaryIO:
    """Return a stream of what a stream holds packed, or the stream itself."""
    head = _peek(raw, 512)
    if head[:2] == b"\x1f\x8b":
        raw = cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    elif head[:6] == b"\xfd7zXZ\0":
        raw = cast("BinaryIO", lzma.LZMAFile(raw))  # noqa: SIM115
    elif head[:3] == b"BZh":
        raw = cast("BinaryIO", bz2.BZ2File(raw))
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        raw = _unpack_zstd(name, raw)
    _check(name, _peek(raw, 512))
    return raw


def _peek(raw: BinaryIO, size: int) -> bytes:
    peek = getattr(raw, "peek", None)
    if peek is not None:
        return bytes(peek(size))[:size]
    head = raw.read(size)
    raw.seek(0)
    return head


def _unpack_zstd(name: str, raw: BinaryIO) -> BinaryIO:
    for module in _ZSTD:
        try:
            library = importlib.import_module(module)
        except ImportError:
            continue
        open_ = getattr(library, "open", None)
        if open_ is not None:
            return cast("BinaryIO", io.BufferedReader(open_(raw, "rb")))
    quoted = name if name != STANDARD_INPUT else "FILE"
    raise UnreadableLogError(
        f"{name}: packed with zstd, which this Python has no library for; run "
        f"zstd -dc {quoted} | sessiond replay -"
    )


def _check(name: str, head: bytes) -> None:
    """Raise UnreadableLogError for what is no text of lines."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[1:40:2] == b"\0" * 20:
        raise UnreadableLogError(
            f"{name}: UTF-16 text; run iconv -f UTF-16 -t UTF-8 FILE | sessiond replay -"
        )
    if head[:8] == b"LPKSHHRH":
        raise UnreadableLogError(
            f"{name}: a journal; run journalctl --file {name} -o json _TRANSPORT=audit"
            " | sessiond replay -"
        )
    if head[257:262] == b"ustar" or head[:4] == b"PK\x03\x04":
        raise UnreadableLogError(f"{name}: an archive; unpack it first")
    if head.removeprefix(b"\xef\xbb\xbf").startswith(b"NODE,EVENT,DATE,TIME"):
        raise UnreadableLogError(
            f"{name}: as ausearch --format csv writes it, which leaves most of a record out; "
            "run ausearch --raw"
        )


def guarded(name: str, items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield what is read of a file; raise UnreadableLogError where it can't be read further."""
    try:
        yield from items
    except _DAMAGES as error:
        raise UnreadableLogError(_reason(name, error)) from None


def _reason(name: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror.lower()}"
    return f"{name}: damaged: {str(error) or 'it ends too early'}"


def lines(name: str, source: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a log without a byte order mark; one beyond MAX_LINE comes in pieces.

    Raises UnreadableLogError where the file can't be read further.
    """
    return guarded(name, _lines(source))


def _lines(source: BinaryIO) -> Iterator[bytes]:
    first = source.readline(MAX_LINE).removeprefix(b"\xef\xbb\xbf")
    if first:
        yield first
    yield from iter(partial(source.readline, MAX_LINE), b"")
