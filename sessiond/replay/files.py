"""Finds, sorts and opens the logs named on the command line."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from sessiond.errors import SessiondError
from sessiond.system import packed
from sessiond.system.packed import DAMAGES, STANDARD_INPUT, UnreadableFileError, peek

_STAMP: Final = re.compile(rb'audit\((\d{1,10}\.\d{1,3}):|"ID":"(\d{1,10}\.\d{1,3}):')
_JOURNAL_TIME: Final = re.compile(rb'__REALTIME_TIMESTAMP(?:"\s*:\s*")?=?(\d{10})(\d{6})')
# The beginnings of output of journalctl that is not a record in each line.
_JOURNAL_FORMS: Final = (
    (re.compile(rb"\{\s*\n"), "json-pretty"),
    (re.compile(rb'data: \{"'), "json-sse"),
    (re.compile(rb"[A-Z][a-z]{2} \d{4}-\d\d-\d\d [^\n]* \[s=\w+;i="), "verbose"),
)
# What aureport begins with: "Executable Report", "<no events of interest ...>" below a ruler.
_REPORT: Final = re.compile(rb"\s*[A-Z][\w /-]{2,60} (?:Report|Summary)\r?\n={5,}\r?\n")


def expand(names: list[str]) -> list[str]:
    """Return the files of names, patterns and directories, each once, oldest first.

    In a directory it selects files named like audit's logs (``audit.log``, ``audit.log.3.gz``), or
    all regular files if there are none. The age is that of the first record, because rotation
    changes the files' times; a file without records keeps its place, and so do all if one is a
    stream, which can be read only once. Raises UnreadableFileError.
    """
    found: dict[str, None] = {}
    for name in names:
        for file in _expanded(name):
            found.setdefault(file)
    if any(map(packed.is_stream, found)):
        return list(found)
    stamps_of = {name: _first_stamp(name) for name in found}
    places = {name: place for place, name in enumerate(found)}
    dated = {name: stamp for name, stamp in stamps_of.items() if stamp is not None}
    oldest = iter(sorted(dated, key=lambda name: (dated[name], -places[name])))
    return [next(oldest) if name in dated else name for name in found]


def _expanded(name: str) -> list[str]:
    if name == STANDARD_INPUT:
        return [name]
    path = Path(name)
    if path.is_dir():
        inside = sorted(str(entry) for entry in path.iterdir() if entry.is_file())
        logs = [file for file in inside if "audit" in Path(file).name and ".log" in file]
        if not inside:
            below = path / "*" / "audit.log*"
            raise UnreadableFileError(
                f"{name}: no file in this directory; for those of its directories name '{below}'"
            )
        return logs or inside
    if not path.exists() and glob.has_magic(name):
        matching = sorted(file for file in glob.glob(name) if Path(file).is_file())  # noqa: PTH207
        if not matching:
            raise UnreadableFileError(f"{name}: no file has such a name")
        return matching
    return [name]


def _first_stamp(name: str) -> float | None:
    """Return the time of the first record, in s since the epoch; None if it is not found."""
    return next(iter(stamps(head(name, 1 << 16))), None)


def is_log(name: str) -> bool:
    """Return whether a file exists and has records, and not the lines of a replay."""
    if not Path(name).is_file():
        return False
    data = head(name, 1 << 16)
    return not data.startswith(b'{"@timestamp"') and bool(stamps(data))


def head(name: str, size: int) -> bytes:
    """Return the first bytes of a log, decompressed; those before a damage, if it has one.

    The error is reported when the file is read.
    """
    data = b""
    with contextlib.suppress(*DAMAGES, SessiondError), opened(name) as (source, _):
        # A read of more bytes than are intact returns none of them.
        while len(data) < size and (more := _read_some(source, size - len(data))):
            data += more
    return data


def tail(name: str, size: int) -> bytes:
    """Return the last bytes of a log, decompressed; those before a damage, if it has one.

    A compressed log is read from its beginning.
    """
    data = b""
    with contextlib.suppress(*DAMAGES, SessiondError), opened(name) as (source, _):
        with Path(name).open("rb") as file:
            if not file.read(6).startswith(packed.MAGICS):
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                return file.read()
        while more := _read_some(source, 1 << 20):
            data = (data + more)[-size:]
    return data


def _read_some(source: BinaryIO, size: int) -> bytes:
    read: Callable[[int], bytes] = getattr(source, "read1", source.read)
    return read(size)


def stamps(data: bytes) -> list[float]:
    """Return the times of all records in a part of a log, in s since the epoch."""
    found = [float(match[1] or match[2]) for match in _STAMP.finditer(data)]
    return found or [float(match[1] + b"." + match[2]) for match in _JOURNAL_TIME.finditer(data)]


@contextmanager
def opened(name: str) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Open a log, decompressed; the second value returns the number of bytes read of the file.

    Raises UnreadableFileError, also for a file that is not a text of lines.
    """
    with packed.opened(name, "sessiond replay -") as (source, position):
        for head in packed.guarded(name, (peek(source, 512) for _ in range(1))):
            _check(name, head)
        yield source, position


def _check(name: str, head: bytes) -> None:
    """Raise UnreadableFileError for a file that is not a text of lines."""
    little = head[1:40:2] == b"\0" * 20 and head[0] != 0
    if little or head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFileError(
            f"{name}: UTF-16 text; run iconv -f UTF-16 -t UTF-8 FILE | sessiond replay -"
        )
    if head[:8] == b"LPKSHHRH":
        raise UnreadableFileError(
            f"{name}: a journal; run journalctl --file {name} -o json _TRANSPORT=audit"
            " | sessiond replay -"
        )
    if head[257:262] == b"ustar" or head[:4] == b"PK\x03\x04":
        raise UnreadableFileError(f"{name}: an archive; unpack it first")
    form = next((form for begin, form in _JOURNAL_FORMS if begin.match(head)), None)
    if form is not None:
        raise UnreadableFileError(
            f"{name}: as journalctl -o {form} writes it; run journalctl -o json _TRANSPORT=audit"
        )
    if _REPORT.match(head):
        raise UnreadableFileError(
            f"{name}: a report of aureport, which counts and lists records; run ausearch --raw"
        )
    if head.removeprefix(b"\xef\xbb\xbf").startswith(b"NODE,EVENT,DATE,TIME"):
        raise UnreadableFileError(
            f"{name}: as ausearch --format csv writes it, which leaves most of a record out; "
            "run ausearch --raw"
        )
