"""The journal of what is in flight, through ends of every kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sessiond.journal import MOST, PERIOD, Journal, Repeats

FIRST = [(1300, b"audit(1.000:1): first"), (1, b"ring")]
SECOND = [(1320, b"audit(1.000:1): ")]


def journal(directory: Path, now: float = 0.0, identity: str = "boot 1") -> Journal:
    return Journal(directory, identity, now)


def test_what_was_added_is_left_to_the_next(tmp_path: Path) -> None:
    """Whoever opens the journal next, as after SIGKILL, finds everything in its order."""
    one = journal(tmp_path)
    assert one.left == []
    one.add(FIRST, 0.1)
    one.add(SECOND, 0.2)
    assert journal(tmp_path).left == FIRST + SECOND


def test_nothing_is_forgotten_by_starts_that_follow_each_other_fast(tmp_path: Path) -> None:
    """What one start has read is there for the next, however often it is killed at once."""
    journal(tmp_path).add(FIRST, 0.1)
    journal(tmp_path, 1.0)
    journal(tmp_path, 2.0).add(SECOND, 2.1)
    assert journal(tmp_path, 3.0).left == FIRST + SECOND


def test_the_last_seconds_are_kept_and_no_more(tmp_path: Path) -> None:
    """After two periods the first entries are gone, those of the last period never are."""
    one = journal(tmp_path)
    one.add(FIRST, 0.1)
    one.add(SECOND, PERIOD)
    assert journal(tmp_path).left == FIRST + SECOND
    one.add(SECOND, 2 * PERIOD)
    assert journal(tmp_path).left == SECOND + SECOND


def test_starts_do_not_make_it_keep_more(tmp_path: Path) -> None:
    """Who is restarted again and again within a period forgets as fast as who runs on."""
    for second in range(20):
        journal(tmp_path, second * PERIOD / 4).add(FIRST, second * PERIOD / 4)
    assert len(journal(tmp_path).left) <= 2 * 4 * len(FIRST) + len(FIRST)


def test_its_size_is_bounded(tmp_path: Path) -> None:
    """Who makes more than fits has less of it kept."""
    one = journal(tmp_path)
    for _ in range(5):
        one.add([(1300, bytes(MOST // 2))], 0.1)
    assert sum(path.stat().st_size for path in tmp_path.glob("in-flight*")) <= 2 * MOST


def test_an_emptied_journal_leaves_nothing(tmp_path: Path) -> None:
    """After a stop for good there is nothing to go on with."""
    one = journal(tmp_path)
    one.add(FIRST, 0.1)
    one.empty()
    assert journal(tmp_path).left == []


@given(cut=st.integers(min_value=0, max_value=60))
def test_a_cut_entry_is_left_out(cut: int) -> None:
    """A write that SIGKILL cut short costs its own last entry, and the journal goes on."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        journal(directory).add(FIRST + SECOND, 0.1)
        (written,) = (path for path in directory.glob("in-flight*") if path.stat().st_size)
        whole = written.read_bytes()
        written.write_bytes(whole[: len(whole) - min(cut, len(whole))])
        after = journal(directory)
        assert after.left == (FIRST + SECOND)[: len(after.left)]
        after.add(SECOND, 0.2)
        assert journal(directory).left == after.left + SECOND


def test_another_boot_or_version_is_set_aside(tmp_path: Path) -> None:
    """What means nothing any more is not read, and one line says so."""
    journal(tmp_path).add(FIRST, 0.1)
    other = journal(tmp_path, identity="boot 2")
    assert other.left == []
    assert other.problem.endswith("is of another boot or version, or damaged")
    other.add(SECOND, 0.2)
    assert journal(tmp_path, identity="boot 2").left == SECOND


def test_others_cannot_read_it(tmp_path: Path) -> None:
    """Only the owner may read what audit told."""
    journal(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_lines_that_are_in_the_file_are_not_written_again(tmp_path: Path) -> None:
    """Lines are known by their event.id, whatever else differs."""
    line = b'{"@timestamp":"x","event":{"kind":"event","id":"%b","sequence":%d},"a":{"id":"z"}}\n'
    output = tmp_path / "events"
    output.write_bytes(line % (b"a", 1) + line % (b"b", 2))
    repeats = Repeats(output)
    assert repeats.without([line % (b"b", 7), line % (b"c", 8)]) == [line % (b"c", 8)]
    assert repeats.skipped == 1
    assert Repeats(tmp_path / "none").without([line % (b"a", 1)]) == [line % (b"a", 1)]
