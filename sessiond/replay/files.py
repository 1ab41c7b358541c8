"""Finds, sorts and opens the logs named on the command line."""

from __future__ import annotations

import glob
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


def expand(names: list[str]) -> list[str]:
    """Return the files of names, patterns and directories, each once, oldest first.

    In a directory it selects files named like audit's logs (``audit.log``, ``audit.log.3.gz``), or
    all regular files if there are none. The age is that of the first record, because rotation
    changes the files' times; a file without records keeps its place. Raises UnreadableFileError.
    """
    found: dict[str, None] = {}
    for name in names:
        for file in _expanded(name):
            found.setdefault(file)
    dated = [(_first_stamp(name), index, name) for index, name in enumerate(found)]
    if any(stamp is None for stamp, _, _ in dated):
        return list(found)
    return [name for _, _, name in sorted(dated, key=lambda entry: (entry[0] or 0, -entry[1]))]


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
    if packed.is_stream(name):
        return None
    try:
        with opened(name) as (source, _):
            head = source.read(1 << 16)
    except (*DAMAGES, SessiondError):
        return None  # the error is reported when the file is read
    return next(iter(stamps(head)), None)


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
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[1:40:2] == b"\0" * 20:
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
    if head.removeprefix(b"\xef\xbb\xbf").startswith(b"NODE,EVENT,DATE,TIME"):
        raise UnreadableFileError(
            f"{name}: as ausearch --format csv writes it, which leaves most of a record out; "
            "run ausearch --raw"
        )
