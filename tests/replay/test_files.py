"""Logs are found, sorted and decompressed; other files cause a one-line error."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from sessiond.replay import files
from sessiond.replay.files import expand
from sessiond.system import packed
from sessiond.system.packed import UnreadableFileError


def log(path: Path, time: int) -> str:
    path.write_bytes(b'type=CWD msg=audit(%d.100:1): cwd="/"\n' % time)
    return str(path)


def read(path: Path) -> list[bytes]:
    with files.opened(str(path)) as (source, _):
        return list(packed.lines(str(path), source))


def test_the_logs_of_a_directory_come_oldest_first(tmp_path: Path) -> None:
    """The order is that of their first records: copies have other dates, and 10 sorts before 2."""
    names = [log(tmp_path / f"audit.log.{n}", 1000 - n) for n in (2, 10, 1)]
    names.append(log(tmp_path / "audit.log", 1000))
    (tmp_path / "notes.txt").write_text("not a log")
    assert expand([str(tmp_path)]) == [names[1], names[0], names[2], names[3]]


def test_a_directory_of_directories_says_what_to_name(tmp_path: Path) -> None:
    """They are not searched: their files may be of several hosts, or no logs."""
    (tmp_path / "web7").mkdir()
    with pytest.raises(UnreadableFileError, match=r"no file .* name '.*/\*/audit\.log\*'"):
        expand([str(tmp_path)])


def test_patterns_name_files_once(tmp_path: Path) -> None:
    """The shell has not expanded them."""
    one, two = log(tmp_path / "a.log", 1), log(tmp_path / "b.log", 2)
    assert expand([f"{tmp_path}/*.log", two]) == [one, two]
    with pytest.raises(UnreadableFileError, match="no file has such a name"):
        expand([f"{tmp_path}/*.gz"])


def test_files_without_a_time_stay_where_they_were_named(tmp_path: Path) -> None:
    """This includes standard input."""
    late = log(tmp_path / "b.log", 2)
    early = log(tmp_path / "a.log", 1)
    assert expand([late, "-", early]) == [late, "-", early]


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_files_without_records_and_cut_files_do_not_change_the_order(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """A cut file has its first records; the others are sorted around a file without any."""
    new, empty, old = (str(tmp_path / f"audit.log{n}") for n in ("", ".1", ".3"))
    log(Path(new), 3)
    Path(empty).touch()
    log(Path(old), 1)
    cut = tmp_path / "audit.log.2.gz"
    line = b"type=CWD msg=audit(2.100:%d): cwd=x%064x\n"
    text = b"".join(line % (n, pow(3, n, 2**255)) for n in range(19_999))
    cut.write_bytes(pack(text)[:-9999])
    assert expand([str(tmp_path)]) == [old, empty, str(cut), new]
    assert files.head(str(cut), 1 << 20).startswith(text[:9999])
    assert files.tail(str(cut), 100) in text


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
def test_what_a_file_is_packed_with_shows_in_it(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """The name does not matter."""
    path = tmp_path / "audit.log"
    path.write_bytes(pack(b"one\ntwo\n"))
    assert read(path) == [b"one\n", b"two\n"]


def test_a_packed_file_that_is_cut_is_told(tmp_path: Path) -> None:
    """The error is one line."""
    path = tmp_path / "audit.log.gz"
    path.write_bytes(gzip.compress(b"one\n" * 1000)[:-9])
    with pytest.raises(UnreadableFileError, match="damaged"):
        read(path)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("type=CWD msg=audit(1.1:1): cwd=1".encode("utf-16"), "iconv -f UTF-16"),
        ("type=CWD msg=audit(1.1:1): cwd=1".encode("utf-16-le"), "iconv -f UTF-16"),
        (b"LPKSHHRH" + bytes(100), "journalctl --file"),
        (b"PK\x03\x04" + bytes(100), "unpack it"),
        (b'{\n\t"__CURSOR" : "1",\n', "json-pretty writes it; run journalctl -o json "),
        (b'data: {"__CURSOR":"1"}\n', "json-sse"),
        (b"Fri 2024-04-05 19:33:20.123456 CEST [s=1a;i=2]\n", "verbose"),
        (b"\nSummary Report\n======================\nRange of time in logs: ", "of aureport"),
        (b"\r\nExecutable Report\r\n====================\r\n# date time", "ausearch --raw"),
        (b"NODE,EVENT,DATE,TIME,SERIAL_NUM\n", "ausearch --raw"),
    ],
)
def test_what_can_not_be_read_says_what_to_run(tmp_path: Path, data: bytes, hint: str) -> None:
    """No content is guessed."""
    path = tmp_path / "log"
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match=hint):
        read(path)


def test_a_log_may_begin_with_nuls(tmp_path: Path) -> None:
    """A crash of the host leaves them; it is no UTF-16."""
    path = tmp_path / "log"
    path.write_bytes(bytes(4096) + b"one\n")
    assert read(path) == [bytes(4096) + b"one\n"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "log"
    path.write_bytes(b"\xef\xbb\xbfone\n")
    assert read(path) == [b"one\n"]
