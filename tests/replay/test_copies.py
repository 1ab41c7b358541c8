"""Logs that are given twice are read once."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sessiond.replay.copies import copies

LINES = [b'type=CWD msg=audit(1.100:%d): cwd="/"\n' % number for number in range(20_000)]
LOG = b"".join(LINES)


@pytest.fixture(name="log")
def _log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    path.write_bytes(LOG)
    return path


def put(log: Path, name: str, data: bytes) -> str:
    path = log.parent / name
    path.write_bytes(data)
    return str(path)


def test_a_file_has_many_names(log: Path) -> None:
    """A link, and a path with a detour."""
    link = log.parent / "current"
    link.symlink_to(log)
    detour = f"{log.parent}/../{log.parent.name}/audit.log"
    assert copies([str(log), detour, str(link)]) == {detour: str(log), str(link): str(log)}


def test_a_copy_may_be_packed(log: Path) -> None:
    """The bytes in it count."""
    packed = put(log, "audit.log.1.gz", gzip.compress(LOG))
    assert copies([str(log), packed]) == {packed: str(log)}


def test_a_log_that_grew_has_all_of_its_earlier_copy(log: Path) -> None:
    """In either order, and through several copies."""
    early = put(log, "early", LOG[:300_001])
    middle = put(log, "middle", LOG[:600_000])
    whole = str(log)
    expected = {early: whole, middle: whole}
    assert copies([early, middle, whole]) == copies([whole, early, middle]) == expected


def test_other_logs_are_no_copies(log: Path) -> None:
    """Also if they begin alike, are damaged, empty, missing or a stream."""
    others = [
        put(log, "other", LOG[:500_000] + b"x" + LOG[500_001:]),
        put(log, "damaged", gzip.compress(LOG)[:-100]),
        put(log, "later", b"".join(LINES[1:])),
        put(log, "empty", b""),
        put(log, "empty too", b""),
        str(log.parent / "missing"),
        "/dev/null",
        "-",
    ]
    assert copies([str(log), *others]) == {}
