"""The spool: lines on the disk are returned in order, despite kills and damage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.descriptors import none_left_open
from support.output import Clock, fill, line, lines, numbers, tmpfs

from sessiond.errors import OutputError
from sessiond.output.spool import Spool, decode, encode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def make(path: Path) -> Iterator[Callable[..., Spool]]:
    """Opens spools in ``path``, and closes them."""
    made: list[Spool] = []

    def open_spool(**options: Any) -> Spool:
        spool = Spool(str(path), **options)
        spool.open()
        made.append(spool)
        return spool

    yield open_spool
    for spool in made:
        spool.close()


def take_all(spool: Spool) -> list[int]:
    """Take all lines and confirm them."""
    found = []
    while batch := spool.peek(10_000):
        found += numbers(b"".join(batch))
        spool.advance(len(batch))
        spool.confirm(0)
    return found


def kill(spool: Spool) -> None:
    """Release the spool as a kill does: nothing more is saved."""
    for descriptor in {spool._directory, spool._position, *spool._unsynced.values()} - {-1}:
        os.close(descriptor)
    spool._unsynced.clear()
    spool._directory = spool._position = -1


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.spool"))


def test_lines_come_out_in_order(make: Callable[..., Spool]) -> None:
    """First in, first out, while lines are added; no file remains afterwards."""
    spool = make(max_size=1 << 20)
    found: list[int] = []
    for number in range(0, 1000, 10):
        assert spool.append(lines(number, 10, 100)) == 10
        batch = spool.peek(500)[:3]
        found += numbers(b"".join(batch))
        spool.advance(len(batch))
        spool.confirm(1)
    found += take_all(spool)
    assert found == list(range(1000))
    assert spool.pending == 0
    assert spool.status()["size"] == 0


def test_survives_a_kill(path: Path, make: Callable[..., Spool]) -> None:
    """Appended lines are present again, and the numbering continues."""
    first = make()
    first.append(lines(1, 100))
    kill(first)
    second = make()
    assert second.inherited == 100
    second.append(lines(101, 100))
    assert take_all(second) == list(range(1, 201))


def test_repeats_only_what_was_not_confirmed_and_saved(make: Callable[..., Spool]) -> None:
    """The position is saved every half second; lines returned since then are repeated."""
    first = make(clock=(clock := Clock()))
    first.append(lines(1, 100))
    first.peek(1 << 20)
    first.advance(60)
    first.confirm(10)
    first.tick(clock.now)
    clock.now += 0.5
    first.tick(clock.now)
    first.advance(20)
    first.confirm(0)
    kill(first)
    assert take_all(make()) == list(range(51, 101))


def test_a_graceful_end_repeats_nothing(make: Callable[..., Spool]) -> None:
    """Closing saves the position."""
    first = make()
    first.append(lines(1, 100))
    first.peek(1 << 20)
    first.advance(60)
    first.confirm(0)
    first.close()
    assert take_all(make()) == list(range(61, 101))


@pytest.mark.parametrize("content", [b"", b"damaged!", b"\xff" * 12, None])
def test_a_lost_position_makes_lines_come_again(
    path: Path, make: Callable[..., Spool], content: bytes | None
) -> None:
    """A damaged or missing position repeats lines, but loses none."""
    first = make()
    first.append(lines(1, 10))
    first.peek(1 << 20)
    first.advance(5)
    first.confirm(0)
    first.close()
    if content is None:
        (path / "position").unlink()
    else:
        (path / "position").write_bytes(content)
    assert take_all(make()) == list(range(1, 11))


def test_the_oldest_lines_go_when_it_is_full(path: Path, make: Callable[..., Spool]) -> None:
    """The limit always holds; dropped lines are counted, and the newest remain."""
    spool = make(max_size=16_384, drop="oldest")
    for number in range(1000):
        assert spool.append([line(number, 100)]) == 1
        assert sum(file.stat().st_size for file in segments(path)) <= 16_384
    assert 0.8 < spool.fill <= 1.0
    found = take_all(spool)
    assert spool.fill < 0.25  # the segment that is written to stays
    assert found == list(range(1000 - len(found), 1000))
    assert len(found) > 100
    assert spool.dropped == 1000 - len(found)


def test_the_newest_lines_go_when_it_is_full(path: Path, make: Callable[..., Spool]) -> None:
    """With the other policy the oldest remain."""
    spool = make(max_size=16_384, drop="newest")
    for number in range(1000):
        assert spool.append([line(number, 100)]) == 1
        assert sum(file.stat().st_size for file in segments(path)) <= 16_384
    found = take_all(spool)
    assert found == list(range(len(found)))
    assert len(found) > 100
    assert spool.dropped == 1000 - len(found)


def test_a_line_that_is_larger_than_the_bound_is_dropped(make: Callable[..., Spool]) -> None:
    """Only this line is dropped; its neighbours are kept."""
    spool = make(max_size=4096)
    assert spool.append([line(1), line(2, 5000), line(3)]) == 3
    assert take_all(spool) == [1, 3]
    assert spool.dropped == 1


def test_lines_dropped_just_before_a_kill_are_counted_by_the_next_run(
    make: Callable[..., Spool],
) -> None:
    """The killed run may not have reported them; the numbers show the loss."""
    first = make(max_size=16_384)
    first.append(lines(0, 1000, 100))
    dropped = first.dropped
    kill(first)
    second = make(max_size=16_384)
    assert second.dropped == dropped
    assert second.inherited == 1000
    assert len(take_all(second)) == 1000 - dropped


def test_what_was_delivered_before_a_kill_is_not_counted_as_dropped(
    make: Callable[..., Spool],
) -> None:
    """Segments removed after delivery are not a loss."""
    first = make(max_size=16_384)
    first.append(lines(0, 100, 100))
    first.peek(8000)
    first.advance(80)
    first.confirm(0)
    kill(first)
    assert make(max_size=16_384).dropped == 0


def test_a_torn_end_is_ignored_and_counted(path: Path, make: Callable[..., Spool]) -> None:
    """The last frame of a killed run may be incomplete; all frames before it are read."""
    first = make()
    first.append(lines(1, 10))
    kill(first)
    (segment,) = segments(path)
    os.truncate(segment, segment.stat().st_size - 5)
    second = make()
    second.append(lines(11, 5))
    assert take_all(second) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]
    assert second.damaged == 1


def test_an_empty_segment_is_no_matter(path: Path, make: Callable[..., Spool]) -> None:
    """A kill between creating a segment and writing to it leaves an empty file."""
    first = make()
    first.append(lines(1, 3))
    kill(first)
    (path / f"{4:020d}.spool").touch()
    second = make()
    second.append(lines(4, 3))
    assert take_all(second) == [1, 2, 3, 4, 5, 6]
    assert second.damaged == 0


def test_a_segment_that_was_removed_is_counted(path: Path, make: Callable[..., Spool]) -> None:
    """A deleted file leaves a visible gap."""
    spool = make(max_size=80_000)
    spool.append(lines(0, 500, 100))
    removed = segments(path)[1]
    count = int(segments(path)[2].stem) - int(removed.stem)
    removed.unlink()
    assert len(take_all(spool)) == 500 - count
    assert spool.damaged == count


def test_a_link_in_the_place_of_a_segment_is_not_read(
    path: Path, make: Callable[..., Spool]
) -> None:
    """The target of a link is not sent."""
    first = make()
    first.append(lines(1, 3))
    kill(first)
    (segment,) = segments(path)
    segment.rename(path / "elsewhere")
    segment.symlink_to(path / "elsewhere")
    second = make()
    assert take_all(second) == []
    assert (path / "elsewhere").exists()


def test_a_directory_in_the_place_of_a_segment_is_not_read(
    path: Path, make: Callable[..., Spool]
) -> None:
    """Its lines count as damaged, and no descriptor of it remains."""
    spool = make()
    spool.append(lines(1, 3))
    (segment,) = segments(path)
    segment.unlink()
    segment.mkdir()
    with none_left_open():
        assert take_all(spool) == []
    assert spool.damaged == 3


@pytest.mark.parametrize("mode", [0o777, 0o707])
def test_a_directory_that_others_can_write_is_refused(
    path: Path, make: Callable[..., Spool], mode: int
) -> None:
    """Lines in it could be anyone's."""
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(OutputError, match="others can write"):
        make()


def test_the_directory_and_its_files_are_for_their_owner_alone(
    path: Path, make: Callable[..., Spool]
) -> None:
    """Directories have mode 0700, files 0600."""
    make().append([line(1)])
    assert path.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}


def test_two_processes_cannot_share_it(make: Callable[..., Spool]) -> None:
    """The second process gets an error."""
    make()
    with pytest.raises(OutputError, match="in use by another process"):
        make()


@pytest.mark.kernel
def test_a_full_disk_takes_what_fits_and_goes_on_later(tmp_path: Path) -> None:
    """The rest is left to the caller; no line is written twice or torn."""
    with tmpfs(tmp_path / "disk") as disk:
        spool = Spool(str(disk / "spool"), clock=(clock := Clock()))
        spool.open()
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - 40_000)
        done = spool.append(lines(0, 100, 1000))
        assert 30 <= done <= 40
        assert "No space left" in str(spool.trouble)
        assert spool.append(lines(done, 1)) == 0
        filler.unlink()
        clock.now += 5
        assert spool.append(lines(done, 100 - done, 1000)) == 100 - done
        assert spool.trouble is None
        assert take_all(spool) == list(range(100))
        assert spool.damaged == 0
        spool.close()


def test_positions_are_saved_and_data_synchronised_when_due(make: Callable[..., Spool]) -> None:
    """An empty, saved spool has nothing due; a write and a delivery do."""
    spool = make(clock=(clock := Clock()), sync_interval=1.0)
    assert spool.deadline() is None
    spool.append(lines(1, 2))
    assert spool.deadline() == clock.now + 1.0
    spool.peek(100)
    spool.advance(1)
    spool.confirm(0)
    assert spool.deadline() == clock.now + 0.5
    clock.now += 2
    spool.tick(clock.now)
    assert spool.deadline() is None


# Damage of any kind

some_lines = st.lists(
    st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"") + b"\n"), max_size=20
)


@given(some_lines)
def test_frames_are_read_as_they_were_written(content: list[bytes]) -> None:
    """Lines may have any bytes, including the magic ones."""
    content = [*content, b"\xffSPL\n"]
    data = b"".join(encode(number, text) for number, text in enumerate(content))
    assert [(frame.number, frame.line) for frame in decode(data)] == list(enumerate(content))


@given(some_lines, st.data())
def test_a_cut_segment_loses_its_end_alone(content: list[bytes], data: st.DataObject) -> None:
    """All complete frames are read, and nothing else."""
    frames = [encode(number, text) for number, text in enumerate(content)]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    expected, size = 0, 0
    while expected < len(frames) and size + len(frames[expected]) <= cut:
        size += len(frames[expected])
        expected += 1
    assert [frame.line for frame in decode(whole[:cut])] == content[:expected]


@given(some_lines.filter(bool), st.data())
def test_a_flipped_bit_costs_one_line(content: list[bytes], data: st.DataObject) -> None:
    """Its frame is skipped, all others are read."""
    frames = [encode(number, text) for number, text in enumerate(content)]
    damaged = bytearray(b"".join(frames))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    hit, size = 0, len(frames[0])
    while size <= bit // 8:
        hit += 1
        size += len(frames[hit])
    expected = [(number, text) for number, text in enumerate(content) if number != hit]
    assert [(frame.number, frame.line) for frame in decode(bytes(damaged))] == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_any_damage_is_counted_exactly(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes are changed or cut anywhere: returned and counted lines add up to all lines."""
    path = tmp_path_factory.mktemp("damaged") / "spool"
    first = Spool(str(path), max_size=20_000)
    first.open()
    first.append(lines(0, 60, 100))
    kill(first)
    for segment in data.draw(st.lists(st.sampled_from(segments(path)), max_size=3)):
        content = bytearray(segment.read_bytes())
        at = data.draw(st.integers(0, len(content)))
        if data.draw(st.booleans()) and segment != segments(path)[-1]:
            del content[at:]
        else:
            noise = data.draw(st.binary(max_size=150))
            content[at : at + len(noise)] = noise[: len(content) - at]
        segment.write_bytes(content)
    second = Spool(str(path), max_size=20_000)
    second.open()
    found = take_all(second)
    second.append(lines(60, 5))
    found += take_all(second)
    assert found == sorted(set(found))
    assert found[-5:] == [60, 61, 62, 63, 64]
    assert len(found) + second.damaged + second.dropped == second.inherited + 5
    assert second.inherited <= 60
    second.close()
