"""Files of events are found, put in order, read and followed."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from support.recording import at

from sessiond.system.packed import UnreadableFileError
from sessiond.viewer import files


def write(path: Path, second: float) -> str:
    path.write_bytes(b'{"@timestamp":"%s"}\n' % at(second).encode())
    return str(path)


def test_rotated_files_belong_to_the_configured_one(tmp_path: Path) -> None:
    """Oldest first, packed ones too; what another program keeps beside them does not."""
    current = tmp_path / "events.ndjson"
    newest = write(current, 9)
    older = write(tmp_path / "events.ndjson.1", 5)
    dated = write(tmp_path / "events.ndjson-20260501", 3)
    oldest = tmp_path / "events.ndjson.2.gz"
    oldest.write_bytes(gzip.compress(b'{"@timestamp":"%s"}\n' % at(1).encode()))
    write(tmp_path / "events.ndjson.bak", 2)
    write(tmp_path / "other.ndjson", 2)
    assert files.with_rotated(current) == [str(oldest), dated, older, newest]


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """The error is one line."""
    with pytest.raises(UnreadableFileError, match="or name a file with events"):
        files.with_rotated(tmp_path / "events.ndjson")


def test_directories_and_patterns(tmp_path: Path) -> None:
    """They yield each file once, oldest first."""
    second, first = write(tmp_path / "a.ndjson", 2), write(tmp_path / "b.ndjson", 1)
    write(tmp_path / "notes.txt", 0)
    assert files.expand([str(tmp_path), str(tmp_path / "*.ndjson"), first]) == [first, second]
    with pytest.raises(UnreadableFileError, match="no file has such a name"):
        files.expand([str(tmp_path / "*.gz")])


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_a_kill_left_of_a_compression_is_not_read(tmp_path: Path, suffix: str) -> None:
    """Neither a file that is not whole, nor one whose source is there still."""
    current = tmp_path / "events.ndjson"
    newest = write(current, 9)
    source = write(tmp_path / "events.ndjson.2", 5)
    twin = Path(write(tmp_path / f"events.ndjson.2{suffix}", 5))
    other = write(tmp_path / f"events.ndjson.1{suffix}", 6)
    half = Path(write(tmp_path / f"events.ndjson{suffix}.tmp", 5))
    os.utime(twin, ns=(0, Path(source).stat().st_mtime_ns))
    for names in ([str(tmp_path)], [str(tmp_path / "*")]):
        assert files.expand(names) == [source, other, newest]
    assert files.with_rotated(current) == [source, other, newest]
    assert files.expand([str(twin), str(half)]) == [str(twin), str(half)]
    os.utime(twin, (0, 0))  # of another program
    assert str(twin) in files.with_rotated(current)


def test_a_name_that_can_not_be_is_told() -> None:
    """In one line, as every file that can't be read."""
    with pytest.raises(UnreadableFileError, match="file name too long"):
        files.expand(["x" * 300])


def test_a_line_that_is_being_written_is_left(tmp_path: Path) -> None:
    """The daemon may be in the middle of it."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(b'{"a":1}\n{"b":')
    assert list(files.read(str(path))) == [b'{"a":1}\n']


def test_a_file_is_followed_through_rotation_and_truncation(tmp_path: Path) -> None:
    """No line is missed, torn or given twice."""
    path = tmp_path / "events.ndjson"
    follower = files.Follower(path)
    assert list(follower.lines()) == []
    path.write_bytes(b"1\n2")
    assert list(follower.lines()) == [b"1"]
    with path.open("ab") as file:
        file.write(b"2\n3\n")
    path.rename(tmp_path / "events.ndjson.1")
    path.write_bytes(b"4\n")
    assert list(follower.lines()) == [b"22", b"3", b"4"]
    path.write_bytes(b"5\n")
    path.write_bytes(b"")
    assert list(follower.lines()) == []
    path.write_bytes(b"6\n")
    assert list(follower.lines()) == [b"6"]
    follower.close()


def test_a_look_gives_what_has_come(tmp_path: Path) -> None:
    """The loop waits between two turns."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"1\n")
    waited: list[float] = []
    looks = files.followed(path, waited.append)
    assert next(looks) == [b"1"]
    assert next(looks) == []
    assert waited == [files.INTERVAL]


def test_a_file_is_followed_from_its_end(tmp_path: Path) -> None:
    """Only the lines that it has before the first reading are skipped."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"1\n2\n3\n")
    looks = files.followed(path, lambda _: None, new=True)
    assert next(looks) == []
    with path.open("ab") as file:
        file.write(b"4\n5\n")
    assert next(looks) == [b"4", b"5"]
    absent = files.followed(tmp_path / "later.ndjson", lambda _: None, new=True)
    assert next(absent) == []
    (tmp_path / "later.ndjson").write_bytes(b"1\n")
    assert next(absent) == [b"1"]
