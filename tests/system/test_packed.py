"""Files are read by lines, also compressed; damage is reported in one line."""

import gzip
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sessiond.system import packed
from sessiond.system.packed import UnreadableFileError


def read(path: Path) -> list[bytes]:
    with packed.opened(str(path), "sessiond replay -") as (source, _):
        return list(packed.lines(str(path), source))


@pytest.fixture
def zst(tmp_path: Path) -> Path:
    """A file of 1000 lines, compressed by the program zstd."""
    path = tmp_path / "log.zst"
    path.write_bytes(subprocess.run(["zstd", "-qc"], input=b"one\n" * 1000, stdout=-1).stdout)
    return path


def no_library() -> None:
    """This Python has no library for zstd."""
    return


@pytest.fixture(params=["library", "program"])
def unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decompressor of zstd: a library of this Python, or the program without one."""
    if request.param == "program":
        monkeypatch.setattr("sessiond.system.zstd.implementation", no_library)


needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")


@needs_zstd
@pytest.mark.usefixtures("unpacker")
def test_what_zstd_packed_is_read(zst: Path) -> None:
    """The reader may also stop early."""
    assert read(zst) == [b"one\n"] * 1000
    with packed.opened(str(zst), "sessiond replay -") as (source, _):
        assert packed.peek(source, 3) == b"one"
        assert source.readline() == b"one\n"


@needs_zstd
@pytest.mark.usefixtures("unpacker")
def test_a_damaged_file_of_zstd_is_reported(zst: Path) -> None:
    """Its lines end with an error, not like a complete file."""
    zst.write_bytes(zst.read_bytes()[:-5])
    with pytest.raises(UnreadableFileError, match="damaged"):
        read(zst)


def test_without_a_library_for_zstd_the_way_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some Pythons have no library for it, and some hosts no program."""
    path = tmp_path / "audit.log.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    monkeypatch.setattr("sessiond.system.zstd.implementation", no_library)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnreadableFileError, match=f"zstd -dc {path} [|] sessiond replay -"):
        read(path)


def test_damage_is_reported(tmp_path: Path) -> None:
    """A compressed file that ends too early yields its lines, then an error."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"one\n" * 1000)[:-9])
    with pytest.raises(UnreadableFileError, match="damaged"):
        read(path)


def test_a_long_line_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can fill the memory."""
    monkeypatch.setattr(packed, "MAX_LINE", 4)
    path = tmp_path / "log"
    path.write_bytes(b"\xef\xbb\xbf123456\n")
    assert read(path) == [b"1", b"2345", b"6\n"]


def test_a_stream_says_where_no_more_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line may arrive in parts, and the last one may have no end."""
    reading, writing = os.pipe()
    monkeypatch.setattr(packed, "MAX_LINE", 8)
    with os.fdopen(reading, "rb") as source:
        found = packed.arriving_lines("-", source)
        os.write(writing, b"\xef\xbb\xbfone\ntwo\nthr")
        assert [next(found) for _ in range(3)] == [b"one\n", b"two\n", b""]
        os.write(writing, b"ee\n")
        assert [next(found), next(found)] == [b"three\n", b""]
        os.write(writing, b"longer than a line")
        assert [next(found), next(found)] == [b"longer than a line", b""]
        os.write(writing, b"end")
        os.close(writing)
        assert list(found) == [b"end"]


def test_a_packed_stream_is_read_like_a_file(tmp_path: Path) -> None:
    """Whether more arrives can't be known of every stream."""
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b"one\n\ntwo") + gzip.compress(b"\nthree\n"))
    with packed.opened(str(path), "sessiond replay -") as (source, _):
        found = packed.arriving_lines(str(path), source)
        assert [line for line in found if line] == [b"one\n", b"\n", b"two\n", b"three\n"]
    assert list(packed.arriving_lines("-", io.BytesIO(b"one\n"))) == [b"one\n"]
    assert list(packed.arriving_lines("-", io.BytesIO())) == []
