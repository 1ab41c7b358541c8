"""The state and the log of input, after ends of every kind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.descriptors import none_left_open

from sessiond.restart.write_ahead import (
    MAX_LOG_SIZE,
    PERIOD,
    RING,
    SHARE,
    KernelReading,
    WriteAheadLog,
)

FIRST = [(1300, b"audit(1.000:1): first"), (RING, b"ring")]
SECOND = [(1320, b"audit(1.000:1): ")]


OPEN: list[WriteAheadLog] = []


def journal(directory: Path, boot: str = "boot 1", layout: str = "7") -> WriteAheadLog:
    OPEN.append(WriteAheadLog(directory, boot, layout, 0.0))
    return OPEN[-1]


def close_all() -> None:
    while OPEN:
        OPEN.pop().close()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close logs that a test left open as if it was killed."""
    yield
    close_all()


def test_added_input_is_available_to_the_next_run(tmp_path: Path) -> None:
    """The next one to open the log, as after SIGKILL, finds everything in order."""
    one = journal(tmp_path)
    assert (one.state, one.entries) == (None, [])
    one.add(FIRST)
    one.add(SECOND)
    assert journal(tmp_path).entries == FIRST + SECOND


def test_a_closed_log_has_no_descriptor(tmp_path: Path) -> None:
    """This includes the memory that is mapped from a file."""
    with none_left_open():
        journal(tmp_path)
        close_all()


def test_a_state_stands_for_what_was_added_before_it(tmp_path: Path) -> None:
    """The next start gets the state, and later input."""
    one = journal(tmp_path)
    one.add(FIRST)
    one.begin(b"known", 0.0, 1.0)
    after = journal(tmp_path)
    assert (after.state, after.entries) == (b"known", [])
    one.add(SECOND)
    after = journal(tmp_path)
    assert (after.state, after.entries) == (b"known", SECOND)


def test_quick_restarts_lose_nothing(tmp_path: Path) -> None:
    """The input read by one start is available to the next, however quickly it is killed."""
    journal(tmp_path).begin(b"known", 0.0, 1.0)
    journal(tmp_path).add(FIRST)
    journal(tmp_path)
    journal(tmp_path).add(SECOND)
    after = journal(tmp_path)
    assert (after.state, after.entries) == (b"known", FIRST + SECOND)


def test_a_kill_while_the_state_is_being_replaced(tmp_path: Path) -> None:
    """Until the new state is complete, the old one and its log are whole."""
    one = journal(tmp_path)
    one.begin(b"old", 0.0, 1.0)
    one.add(FIRST)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    one.begin(b"new", 0.0, 2.0)
    for name in ("log.0", "log.1"):  # either log may be written already
        fresh = (tmp_path / name).read_bytes()
        with tempfile.TemporaryDirectory() as directory:
            for other, data in old.items():
                path = Path(directory) / other
                path.write_bytes(data)
                path.chmod(0o600)
            if name == "log.0":  # the new number is 2; the state was not replaced
                (Path(directory) / name).write_bytes(fresh)
            after = journal(Path(directory))
            assert (after.state, after.entries) == (b"old", FIRST)


def test_a_state_is_due_after_a_while_or_when_the_log_is_full(tmp_path: Path) -> None:
    """Not while no input arrives, and not so often that making it costs much."""
    one = journal(tmp_path)
    assert not one.due(1e9), "nothing was read"
    one.add(FIRST)
    assert one.due(0.0)
    one.begin(b"known", 0.0, 100.0)
    one.add(FIRST)
    assert (one.due(100.0 + PERIOD - 1), one.due(100.0 + PERIOD)) == (False, True)
    one.begin(b"known", PERIOD, 200.0)
    one.add(FIRST)
    assert (one.due(200.0 + PERIOD), one.due(200.0 + PERIOD / SHARE)) == (False, True)
    one.add([(1300, bytes(MAX_LOG_SIZE))])
    assert one.due(200.0)
    assert one.full


def test_its_size_is_bounded(tmp_path: Path) -> None:
    """With each state the log is emptied."""
    one = journal(tmp_path)
    for number in range(5):
        one.add([(1300, bytes(MAX_LOG_SIZE))])
        one.begin(b"known", 0.0, float(number))
    assert sum(path.stat().st_size for path in tmp_path.glob("log.*")) < 1000


def test_a_permanent_stop_leaves_nothing(tmp_path: Path) -> None:
    """The next start begins without state."""
    one = journal(tmp_path)
    one.begin(b"known", 0.0, 1.0)
    one.add(FIRST)
    one.clear()
    after = journal(tmp_path)
    assert (after.state, after.entries, after.problem) == (None, [], "")


@given(cut=st.integers(min_value=0, max_value=60))
def test_a_cut_entry_is_left_out(cut: int) -> None:
    """A write that SIGKILL cut short costs only its own last entry, and the log continues."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        journal(directory).add(FIRST + SECOND)
        (written,) = (path for path in directory.glob("log.*") if path.stat().st_size)
        whole = written.read_bytes()
        written.write_bytes(whole[: len(whole) - min(cut, len(whole))])
        after = journal(directory)
        assert after.entries == (FIRST + SECOND)[: len(after.entries)]
        after.add(SECOND)
        assert journal(directory).entries == after.entries + SECOND
        close_all()


@given(place=st.integers(min_value=0, max_value=40), value=st.integers(1, 255))
def test_a_damaged_state_is_set_aside(place: int, value: int) -> None:
    """One line reports it, and the input is still there."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        one = journal(directory)
        one.begin(b"known", 0.0, 1.0)
        one.add(FIRST)
        state = bytearray((directory / "state").read_bytes())
        state[place % len(state)] ^= value
        (directory / "state").write_bytes(state)
        after = journal(directory)
        assert (after.state, after.entries) in ((None, FIRST), (b"known", []))
        if after.state is None:
            assert "damaged" in after.problem or "another boot or version" in after.problem
        close_all()


def test_another_boot_is_set_aside(tmp_path: Path) -> None:
    """Data without meaning is not used, and one line reports it."""
    one = journal(tmp_path)
    one.begin(b"known", 0.0, 1.0)
    one.add(FIRST)
    other = journal(tmp_path, boot="boot 2")
    assert (other.state, other.entries) == (None, [])
    assert "of another boot" in other.problem
    other.add(SECOND)
    assert journal(tmp_path, boot="boot 2").entries == SECOND


def test_another_version_takes_the_log_alone(tmp_path: Path) -> None:
    """An upgrade with another layout of the state still loses no record."""
    one = journal(tmp_path)
    one.begin(b"known", 0.0, 1.0)
    one.add(FIRST)
    upgraded = journal(tmp_path, layout="8")
    assert (upgraded.state, upgraded.entries) == (None, FIRST)
    assert upgraded.problem.endswith("is of another boot or version")


def test_others_cannot_read_it(tmp_path: Path) -> None:
    """Only the owner can read the file."""
    journal(tmp_path).begin(b"known", 0.0, 1.0)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_events_of_another_tracer_are_set_aside(tmp_path: Path) -> None:
    """Its records have another layout; audit's records are still usable."""
    one = journal(tmp_path)
    one.add([*FIRST, (RING ^ 1, b"of another layout"), (1, b"of the first version")])
    upgraded = journal(tmp_path)
    assert upgraded.entries == FIRST
    assert "source of another version" in upgraded.problem


def test_the_last_kernel_reading_is_kept(tmp_path: Path) -> None:
    """The next run of this boot has it, until a permanent stop."""
    one = journal(tmp_path)
    assert one.kernel_reading is None
    one.save_reading(KernelReading(5, 100))
    one.save_reading(KernelReading(7, 200))
    assert journal(tmp_path).kernel_reading == KernelReading(7, 200)
    assert journal(tmp_path, boot="boot 2").kernel_reading is None
    one.clear()
    assert journal(tmp_path).kernel_reading is None


def test_a_run_is_unfinished_until_a_permanent_stop(tmp_path: Path) -> None:
    """Also without any input: it may have written lines."""
    one = journal(tmp_path)
    assert not one.unfinished
    assert journal(tmp_path).unfinished
    one.clear()
    assert not journal(tmp_path).unfinished


@pytest.mark.parametrize("name", ["log.0", "log.1", "last-batch", "kernel"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_another_process_takes_away_is_missed(
    tmp_path: Path, name: str, *, replaced: bool
) -> None:
    """What is written from then on reaches no later run."""
    one = journal(tmp_path)
    one.begin(b"known", 0.0, 1.0)
    one.begin(b"known", 0.0, 20.0)
    one.check()
    assert one.problem == ""
    (tmp_path / name).rename(tmp_path / "elsewhere")
    if replaced:
        (tmp_path / name).touch()
    one.check()
    assert name in one.problem
