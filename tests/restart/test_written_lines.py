"""The lines of the output at a start: the last number, and the ids of events."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.output.spool import encode
from sessiond.restart.written_lines import WrittenLines

LINE = b'{"@timestamp":"x","event":{"kind":"event","id":"%b","sequence":%d},"a":{"id":"z"}}\n'


def lines(*numbers: int) -> bytes:
    """Return lines with these numbers, which are also their ids."""
    return b"".join(LINE % (b"%d" % number, number) for number in numbers)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_the_last_line_says_how_many_there_are(tmp_path: Path) -> None:
    """Earlier lines are neither used nor read."""
    assert WrittenLines(write(tmp_path / "events", lines(7, 8))).sequence == 8
    assert WrittenLines(tmp_path / "none").sequence == 0
    assert WrittenLines(write(tmp_path / "empty", b"")).ids == set()


def test_only_lines_after_the_number_are_read(tmp_path: Path) -> None:
    """Lines before the saved state are not made again."""
    found = WrittenLines(write(tmp_path / "events", lines(1, 2, 3)), after=1, max_tail=1000)
    assert (found.sequence, found.ids) == (3, {"2", "3"})
    assert found.tail == [lines(2), lines(3)]


@pytest.mark.parametrize(("room", "kept"), [(len(lines(3)), (3,)), (2 * len(lines(3)), (2, 3))])
def test_the_tail_is_bounded(tmp_path: Path, room: int, kept: tuple[int, ...]) -> None:
    """Other outputs may lack the last lines."""
    found = WrittenLines(write(tmp_path / "events", lines(1, 2, 3)), after=0, max_tail=room)
    assert found.tail == [lines(number) for number in kept]
    assert found.ids == {"1", "2", "3"}


def test_a_raw_message_does_not_hide_a_line(tmp_path: Path) -> None:
    """It precedes the id, and may contain text like the end of an object."""
    raw = LINE.replace(b'"kind":"event"', b'"kind":"event","original":"a3={} \\\\\\" }"')
    assert WrittenLines(write(tmp_path / "events", raw % (b"1", 1)), after=0).ids == {"1"}


def test_lines_are_found_across_a_rotation(tmp_path: Path) -> None:
    """The file may have been rotated between the state and the end."""
    write(tmp_path / "events.1", lines(1, 2, 3))
    file = write(tmp_path / "events", lines(4))
    assert WrittenLines(file, after=1).ids == {"2", "3", "4"}
    file.write_bytes(b"")
    assert WrittenLines(file).sequence == 3


def test_lines_in_the_spool_are_as_good_as_written(tmp_path: Path) -> None:
    """They wait for the file, and follow its content."""
    spool = tmp_path / "spool"
    spool.mkdir()
    write(spool / f"{9:020d}.spool", encode(9, lines(3)) + encode(10, lines(4)))
    found = WrittenLines(write(tmp_path / "events", lines(1, 2)), spool, after=1)
    assert (found.sequence, found.ids) == (4, {"2", "3", "4"})


def test_a_torn_line_and_lines_of_others_do_not_count(tmp_path: Path) -> None:
    """A kill can cut the last line, which is then made again."""
    file = write(tmp_path / "events", lines(1) + b"not ours\n" + lines(2)[:-3])
    assert WrittenLines(file, after=0).ids == {"1"}
