"""The file output: whole lines, despite full disks, kills and other processes."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.output import Clock, fill, line, lines, numbers, tmpfs

from sessiond.errors import OutputError
from sessiond.output.file import FileOutput
from sessiond.output.rotation import Compression
from sessiond.viewer import files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "events.ndjson"


@pytest.fixture
def make(path: Path) -> Iterator[Callable[..., FileOutput]]:
    """Opens file outputs on ``path``, and closes them."""
    made: list[FileOutput] = []

    def open_output(**settings: Any) -> FileOutput:
        output = FileOutput(str(path), **settings)
        made.append(output)
        output.open()
        return output

    yield open_output
    for output in made:
        output.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for the result of a thread."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_appends_lines(path: Path, make: Callable[..., FileOutput]) -> None:
    """The content of the file stays, and new lines are appended."""
    path.write_bytes(line(1))
    output = make()
    assert output.write(lines(2, 20)) == 20
    assert numbers(path.read_bytes()) == list(range(1, 22))


def test_a_batch_is_one_system_call(tmp_path: Path) -> None:
    """Twenty lines cost one write(2) and no other call."""
    script = (
        "import os\n"
        "from sessiond.output.file import FileOutput\n"
        f"output = FileOutput({str(tmp_path / 'out')!r})\n"
        "output.open()\n"
        "batch = [b'{}\\n'] * 20\n"
        "os.write(1, b'begin')\n"
        "for _ in range(10): output.write(batch)\n"
        "os.write(1, b'end')\n"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-o", str(trace), sys.executable, "-c", script]
    subprocess.run(command, check=True, capture_output=True)
    calls = trace.read_text().splitlines()
    begin = next(i for i, call in enumerate(calls) if 'write(1, "begin' in call)
    end = next(i for i, call in enumerate(calls) if 'write(1, "end' in call)
    between = calls[begin + 1 : end]
    assert len(between) == 10
    assert all(call.startswith("write(") for call in between)


def test_a_new_file_is_for_its_owner_alone(path: Path, make: Callable[..., FileOutput]) -> None:
    """The mode is 0600 unless configured, whatever the umask is."""
    make()
    assert path.stat().st_mode & 0o7777 == 0o600


def test_mode_owner_and_group_are_set(path: Path, make: Callable[..., FileOutput]) -> None:
    """A file made by us gets the configured mode, owner and group."""
    if os.geteuid():
        pytest.skip("needs root to give a file away")
    make(mode=0o640, owner=1, group=4)
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1, 4)


# Links and other people's directories


def test_a_symbolic_link_is_refused(path: Path, make: Callable[..., FileOutput]) -> None:
    """The target of a link is neither written nor created."""
    target = path.with_name("target")
    path.symlink_to(target)
    with pytest.raises(OutputError, match="symbolic link"):
        make()
    assert not target.exists()


def test_a_hard_link_is_refused(path: Path, make: Callable[..., FileOutput]) -> None:
    """A file with a second name may belong to anyone."""
    path.with_name("passwd").write_bytes(b"root\n")
    path.hardlink_to(path.with_name("passwd"))
    with pytest.raises(OutputError, match=r"2 names \(hard links\)"):
        make()


def test_what_is_no_regular_file_is_refused(path: Path, make: Callable[..., FileOutput]) -> None:
    """A FIFO or a directory is refused at once; opening the FIFO does not wait for a reader."""
    os.mkfifo(path)
    with pytest.raises(OutputError, match="not a regular file"):
        make()
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="not a regular file"):
        make()


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_directory_that_others_can_write_is_refused(
    path: Path, make: Callable[..., FileOutput], mode: int
) -> None:
    """A user who can write the directory can swap the file."""
    path.parent.chmod(mode)
    with pytest.raises(OutputError, match="others can write into the directory"):
        make()


def test_a_directory_on_the_way_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """A safe last directory is not enough."""
    inner = tmp_path / "open" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OutputError, match="a directory above it"):
        FileOutput(str(inner / "out")).open()


def test_a_sticky_directory_is_good_enough(path: Path, make: Callable[..., FileOutput]) -> None:
    """In a directory like /tmp other users can't rename or remove our files."""
    path.parent.chmod(0o1777)
    assert make().write([line(1)]) == 1


def test_a_file_of_another_user_is_refused(path: Path, make: Callable[..., FileOutput]) -> None:
    """Another user may have put it into a sticky directory, to read or change it."""
    if os.geteuid():
        pytest.skip("needs root to give a file away")
    path.write_bytes(b"")
    os.chown(path, 65534, 65534)
    with pytest.raises(OutputError, match="belongs to uid 65534"):
        make()


def test_links_of_the_administrator_are_followed(tmp_path: Path) -> None:
    """/var/log may be a link to another disk: root's links in root's directories are safe."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "log").symlink_to("disk")
    (tmp_path / "absolute").symlink_to(tmp_path / "log")
    output = FileOutput(str(tmp_path / "absolute" / "out"))
    output.open()
    output.write([line(1)])
    output.close()
    assert numbers((tmp_path / "disk" / "out").read_bytes()) == [1]


def test_links_of_other_users_are_not_followed(tmp_path: Path) -> None:
    """A link of another user in a sticky directory leads where that user wants."""
    if os.geteuid():
        pytest.skip("needs root to give a link away")
    (tmp_path / "target").mkdir()
    (tmp_path / "log").symlink_to("target")
    os.chown(tmp_path / "log", 65534, 65534, follow_symlinks=False)
    tmp_path.chmod(0o1777)
    with pytest.raises(OutputError, match="log belongs to uid 65534"):
        FileOutput(str(tmp_path / "log" / "out")).open()


# Half lines


@pytest.mark.parametrize("half", [b'{"event"', b"{", b"\0" * 5000, b'{"' + b"x" * 200_000])
def test_half_a_line_at_the_end_is_cut_off(
    path: Path, make: Callable[..., FileOutput], half: bytes
) -> None:
    """The rest of an interrupted write is removed when the file is opened next."""
    path.write_bytes(line(1) + half)
    output = make()
    output.write([line(2)])
    assert numbers(path.read_bytes()) == [1, 2]
    assert output.status()["repaired_lines"] == 1


def test_half_a_line_alone_is_cut_off(path: Path, make: Callable[..., FileOutput]) -> None:
    """The first line can be torn, too."""
    path.write_bytes(b'{"event":')
    make().write([line(1)])
    assert numbers(path.read_bytes()) == [1]


def test_a_file_of_something_else_is_left_alone(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """A wrong path in the configuration must not damage another file."""
    path.write_bytes(b"PASSWORD=1\nno newline")
    with pytest.raises(OutputError, match="not a file of events"):
        make()
    assert path.read_bytes() == b"PASSWORD=1\nno newline"


@pytest.mark.kernel
def test_a_full_disk_leaves_no_half_line_behind(tmp_path: Path) -> None:
    """The cut line is completed first when there is space again."""
    with tmpfs(tmp_path / "disk") as disk:
        output = FileOutput(str(disk / "out"), clock=(clock := Clock()))
        output.open()
        output.write(lines(1, 100, 100))
        filler = fill(disk)
        written = 100
        while taken := output.write(lines(written + 1, 50, 1000)):
            written += taken
        assert "No space left on device" in str(output.trouble)
        torn = (disk / "out").read_bytes()
        assert not torn.endswith(b"\n"), "the test is to cut a line"
        assert numbers(torn[: torn.rindex(b"\n") + 1]) == list(range(1, written + 1))

        filler.unlink()
        clock.now += 1
        assert output.write(lines(written + 1, 50, 1000)) == 50
        assert output.trouble is None
        assert numbers((disk / "out").read_bytes()) == list(range(1, written + 51))
        output.close()


@pytest.mark.kernel
@pytest.mark.parametrize("end", ["given up", "closed", "renamed"])
def test_a_cut_line_that_is_not_finished_is_removed(tmp_path: Path, end: str) -> None:
    """If the line is dropped, or goes to another file, its first part is removed."""
    with tmpfs(tmp_path / "disk") as disk:
        output = FileOutput(str(disk / "out"), clock=(clock := Clock()))
        output.open()
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - 4096)
        assert output.write(lines(1, 10, 1000)) == 4
        assert not (disk / "out").read_bytes().endswith(b"\n")
        if end == "given up":
            filler.unlink()
            assert output.write(lines(8, 2, 1000)) == 2
            assert numbers((disk / "out").read_bytes()) == [1, 2, 3, 4, 8, 9]
        elif end == "renamed":
            (disk / "out").rename(disk / "renamed")
            filler.unlink()
            clock.now += 1
            assert output.write(lines(5, 6, 1000)) == 6
            assert numbers((disk / "renamed").read_bytes()) == [1, 2, 3, 4]
            assert numbers((disk / "out").read_bytes()) == [5, 6, 7, 8, 9, 10]
        output.close()
        if end == "closed":
            assert numbers((disk / "out").read_bytes()) == [1, 2, 3, 4]


@pytest.mark.kernel
def test_an_append_only_file_is_written_to(path: Path) -> None:
    """With chattr +a nothing can be removed: the partial line is completed with a newline."""
    path.write_bytes(line(1) + b'{"half')
    if subprocess.run(["chattr", "+a", path], check=False).returncode:
        pytest.skip("the file system has no such attribute")
    try:
        output = FileOutput(str(path))
        output.open()
        assert output.write([line(2)]) == 1
        output.close()
    finally:
        subprocess.run(["chattr", "-a", path], check=True)
    first, half, second = path.read_bytes().splitlines(keepends=True)
    assert (first, half, second) == (line(1), b'{"half\n', line(2))


# Changes by other processes


def test_a_renamed_file_is_left_within_a_second(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """logrotate needs no signal: the next lines go to a new file of that name."""
    output = make(clock=(clock := Clock()))
    output.write([line(1)])
    path.rename(path.with_name("old"))
    output.write([line(2)])
    clock.now += 1
    output.write([line(3)])
    assert numbers(path.with_name("old").read_bytes()) == [1, 2]
    assert numbers(path.read_bytes()) == [3]


def test_lines_written_into_a_deleted_file_are_not_lost(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """Lines since the last check are written to the new file, before any other."""
    output = make(clock=(clock := Clock()))
    output.write([line(1)])
    clock.now += 1
    output.write([line(2)])
    path.unlink()
    output.write([line(3)])
    clock.now += 1
    output.write([line(4)])
    assert numbers(path.read_bytes()) == [2, 3, 4]


def test_a_deleted_file_is_noticed_before_the_end(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """A stop right after the deletion loses nothing either."""
    output = make()
    path.unlink()
    output.write([line(1)])
    output.sync()
    output.close()
    assert numbers(path.read_bytes()) == [1]


def test_a_deleted_directory_is_waited_for(path: Path) -> None:
    """Without the directory no line is accepted; lines of the deleted file are written later."""
    directory = path.parent / "log"
    directory.mkdir()
    output = FileOutput(str(directory / "out"), clock=(clock := Clock()))
    output.open()
    output.write([line(1)])
    (directory / "out").unlink()
    directory.rmdir()
    clock.now += 1
    assert output.write([line(2)]) == 0
    assert "No such file or directory" in str(output.trouble)
    assert output.unconfirmed == 1
    directory.mkdir()
    clock.now += 1
    assert output.write([line(2)]) == 1
    assert (output.trouble, output.unconfirmed) == (None, 0)
    output.close()
    assert numbers((directory / "out").read_bytes()) == [1, 2]


def test_copytruncate_is_survived(path: Path, make: Callable[..., FileOutput]) -> None:
    """A truncated file is appended to at its new end, and its size is known."""
    output = make(clock=(clock := Clock()))
    output.write(lines(1, 10))
    os.truncate(path, 0)
    clock.now += 1
    output.write([line(11)])
    assert numbers(path.read_bytes()) == [11]
    assert output.status()["size"] == path.stat().st_size
    assert (output.status()["truncated"], output.status()["deleted"]) == (1, 0)


@pytest.mark.parametrize(
    ("done", "counter"),
    [
        (lambda path: path.unlink(), "deleted"),
        (lambda path: os.truncate(path, 0), "truncated"),
        (lambda path: path.open("ab").write(b"{}\n"), "extended"),
        (lambda path: path.chmod(0o666), "exposed"),
    ],
)
def test_changes_by_others_are_counted_without_a_further_line(
    path: Path, make: Callable[..., FileOutput], done: Callable[[Path], object], counter: str
) -> None:
    """An idle host writes no line; the file is checked every second nevertheless."""
    output = make(clock=(clock := Clock()))
    output.write(lines(1, 10))
    done(path)
    for _ in range(3):
        clock.now += 1
        due = output.tick(clock.now)
        assert due is not None
        assert due <= clock.now + output.CHECK_EVERY
    counters = ("deleted", "truncated", "extended", "exposed")
    assert {name for name in counters if output.status()[name]} == {counter}
    assert output.status()[counter] == 1


def test_own_writes_and_rotations_are_no_changes_by_others(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """Neither are a rename and a reopening, as logrotate does them."""
    output = make(rotate_size=300, clock=(clock := Clock()), mode=0o640)
    for number in range(50):
        output.write(lines(number, 2))
        clock.now += 0.7
        output.tick(clock.now)
    path.rename(path.with_name("elsewhere"))
    output.reopen()
    clock.now += 1
    output.tick(clock.now)
    assert not any(
        output.status()[name] for name in ("deleted", "truncated", "extended", "exposed")
    )


def test_reopen_goes_on_in_the_file_of_that_name(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """As after SIGHUP, when logrotate has created the new file."""
    output = make()
    output.write([line(1)])
    path.rename(path.with_name("old"))
    path.touch(mode=0o640)
    output.reopen()
    output.write([line(2)])
    assert numbers(path.with_name("old").read_bytes()) == [1]
    assert numbers(path.read_bytes()) == [2]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_put_in_the_place_of_the_file_is_not_followed(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """The checks apply to every later opening."""
    output = make(clock=(clock := Clock()))
    path.unlink()
    path.symlink_to(path.with_name("target"))
    clock.now += 1
    assert output.write([line(1)]) == 0
    assert "symbolic link" in str(output.trouble)
    assert not path.with_name("target").exists()


# Rotation


def test_rotates_before_the_size_is_exceeded(path: Path, make: Callable[..., FileOutput]) -> None:
    """No file exceeds the limit, and all lines are in one of them, in order."""
    output = make(rotate_size=1000, keep=100, compress="none")
    for number in range(1, 101):
        output.write([line(number, 90)])
    files = sorted(
        path.parent.glob("events.ndjson*"),
        key=lambda file: -int(file.suffix[1:] or 0) if file.suffix[1:].isdigit() else 0,
    )
    assert len(files) > 5
    assert all(file.stat().st_size <= 1000 for file in files)
    assert numbers(b"".join(file.read_bytes() for file in files)) == list(range(1, 101))


def test_keeps_as_many_as_configured(path: Path, make: Callable[..., FileOutput]) -> None:
    """The oldest rotated file is removed; files with other names stay."""
    path.with_name("events.ndjson.bak").write_bytes(b"")
    output = make(rotate_size=1, keep=2, compress="none")
    for number in range(1, 6):
        output.write([line(number)])
    contents = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert contents == {
        "events.ndjson": line(5),
        "events.ndjson.1": line(4),
        "events.ndjson.2": line(3),
        "events.ndjson.bak": b"",
    }


def test_young_files_are_kept_despite_a_flood(path: Path, make: Callable[..., FileOutput]) -> None:
    """A flood of lines removes older files only when these are old enough."""
    now = [time.time()]
    output = make(rotate_size=1, keep=2, min_age=3600, compress="none", wall=lambda: now[0])
    for number in range(1, 8):
        output.write([line(number)])
    files = sorted(path.parent.iterdir())
    assert len(files) == 7
    assert path.with_name("events.ndjson.6").read_bytes() == line(1)
    now[0] += 3601
    output.write([line(8)])
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "events.ndjson",
        "events.ndjson.1",
        "events.ndjson.2",
    ]


@pytest.mark.parametrize("keep", [0, 1])
def test_keeping_none_or_one(path: Path, make: Callable[..., FileOutput], keep: int) -> None:
    """With 0 only the current file is there."""
    output = make(rotate_size=1, keep=keep)
    for number in range(1, 6):
        assert output.write([line(number)]) == 1
    assert len(list(path.parent.iterdir())) == 1 + keep
    assert numbers(path.read_bytes()) == [5]


def test_rotates_when_an_interval_has_passed(path: Path, make: Callable[..., FileOutput]) -> None:
    """It rotates at a multiple of the interval since 1970 (UTC), with the first line after it."""
    clock, wall = Clock(), Clock(86400 * 20000 - 10)
    output = make(rotate_interval=86400, keep=5, compress="none", clock=clock, wall=wall)
    output.write([line(1)])
    wall.now += 11
    clock.now += 11
    output.write([line(2)])
    clock.now += 11
    wall.now += 11
    output.write([line(3)])
    assert numbers(path.with_name("events.ndjson.1").read_bytes()) == [1]
    assert numbers(path.read_bytes()) == [2, 3]


def test_an_old_file_is_rotated_at_the_first_line(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """The time of a file is that of its last line, even before a restart."""
    path.write_bytes(line(1))
    os.utime(path, (0, 0))
    output = make(rotate_interval=3600, clock=(clock := Clock()))
    clock.now += 1
    output.write([line(2)])
    assert numbers(path.with_name("events.ndjson.1").read_bytes()) == [1]
    assert numbers(path.read_bytes()) == [2]


def unpacked(file: Path) -> bytes:
    """Return the content of a file in any compression."""
    return b"".join(files.read(str(file)))


def everything(path: Path) -> list[int]:
    """Return the numbers of all lines, oldest first, as the commands read them."""
    found = map(Path, files.with_rotated(path))
    oldest_first = sorted(found, key=lambda file: -int(f"{file.name}.0".split(".")[2]))
    return numbers(b"".join(map(unpacked, oldest_first)))


@pytest.mark.parametrize(("compress", "suffix"), [("zstd", ".zst"), ("gzip", ".gz")])
def test_compresses_all_but_the_newest_rotated_file(
    path: Path, make: Callable[..., FileOutput], compress: str, suffix: str
) -> None:
    """The newest stays uncompressed for its readers; the others keep mode and time."""
    output = make(rotate_size=100_000, keep=10, mode=0o640, compress=compress)
    assert output.status()["compression"] == compress
    for number in range(5):
        output.write(lines(number * 1000, 1000, 100))
    compressed = [path.with_name(f"events.ndjson.{number}{suffix}") for number in (4, 3, 2)]
    until(lambda: all(file.exists() for file in compressed))
    until(lambda: not path.with_name("events.ndjson.2").exists())
    assert numbers(b"".join(map(unpacked, compressed))) == list(range(3000))
    assert numbers(path.with_name("events.ndjson.1").read_bytes()) == list(range(3000, 4000))
    assert compressed[0].stat().st_mode & 0o777 == 0o640
    assert len(list(path.parent.iterdir())) == 5


def test_compression_leaves_half_of_a_processor_to_others(
    path: Path, make: Callable[..., FileOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each part it waits for as long as it has computed, unless the output is closed."""
    rests: list[float] = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is None:  # for the start of the thread
                return super().wait()
            rests.append(timeout)
            return False

    monkeypatch.setattr("sessiond.output.rotation.threading.Event", Stopping)
    path.with_name("events.ndjson.2").write_bytes(os.urandom(1_000_000))  # four parts
    before = time.process_time()
    make(compress="gzip")
    until(lambda: not path.with_name("events.ndjson.2").exists())
    assert len(rests) == 4
    assert 0 < sum(rests) <= time.process_time() - before


def test_without_a_library_for_zstd_it_is_gzip(
    path: Path, make: Callable[..., FileOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status shows that; otherwise nothing changes."""
    monkeypatch.setattr("sessiond.system.zstd.implementation", lambda: None)
    path.with_name("events.ndjson.2").write_bytes(line(1))
    output = make(compress="zstd")
    assert output.status()["compression"] == "gzip"
    until(lambda: not path.with_name("events.ndjson.2").exists())
    assert gzip.decompress(path.with_name("events.ndjson.2.gz").read_bytes()) == line(1)


def test_rotation_while_compressing_mixes_nothing_up(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """Threads and rotations may interleave in any way: each line is in one file."""
    output = make(rotate_size=30_000, keep=1000, compress="zstd")
    for number in range(200):
        output.write(lines(number * 100, 100, 300))
    rotated = [path.with_name(f"events.ndjson.{number}.zst") for number in range(199, 1, -1)]
    until(lambda: all(file.exists() for file in rotated))
    assert everything(path) == list(range(20_000))


def test_another_compression_leaves_what_is_there(
    path: Path, make: Callable[..., FileOutput]
) -> None:
    """Files of either compression are renumbered, read, and removed."""
    for number, compress in enumerate(("gzip", "zstd", "none")):
        output = make(rotate_size=1, keep=8, compress=compress)
        for each in range(3 * number, 3 * number + 3):
            output.write([line(each)])
        if compress != "none":
            until(lambda: not list(path.parent.glob("events.ndjson.[2-9]")))
        output.close()
    names = ["", ".1", ".2", ".3", ".4", ".5.zst", ".6.zst", ".7.zst", ".8.gz"]
    assert sorted(file.name for file in path.parent.iterdir()) == [f"{path.name}{n}" for n in names]
    assert everything(path) == list(range(9))
    make(rotate_size=1, keep=6, compress="none").write([line(9)])
    assert everything(path) == list(range(3, 10))


_STEPS = {  # the last call of a compression, and the number of the omitted call
    "it packs": ("read", 2),
    "it gives the file its name": ("rename", 1),
    "it removes the source": ("unlink", 3),  # after two missing files of earlier runs
}


@pytest.mark.parametrize("after", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("step", _STEPS)
@pytest.mark.parametrize("compress", ["zstd", "gzip"])
def test_a_kill_while_compressing_loses_and_doubles_nothing(
    path: Path, make: Callable[..., FileOutput], compress: Compression, step: str, after: str
) -> None:
    """SIGKILL before any step: before and after the next start, each line can be read once."""
    path.with_name("events.ndjson.3").write_bytes(b"".join(lines(0, 2000, 300)))
    path.with_name("events.ndjson.1").write_bytes(line(2000))
    path.write_bytes(line(2001))
    call, number = _STEPS[step]

    def compress_until_the_kill() -> None:
        real, calls = getattr(os, call), iter(range(1, 1000))

        def killed_or_done(*arguments: Any, **named: Any) -> Any:
            if threading.current_thread() is not threading.main_thread() and next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        setattr(os, call, killed_or_done)
        FileOutput(str(path), compress=compress).open()
        time.sleep(10)

    child = os.fork()
    if not child:
        try:
            compress_until_the_kill()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 4
    assert everything(path) == list(range(2002))

    make(compress=after, rotate_size=1, keep=9).write([line(2002)])
    suffix = {"zstd": ".zst", "gzip": ".gz", "none": ""}[after]
    expected = {f"events.ndjson{each}" for each in ("", ".1", f".2{suffix}", f".4{suffix}")}
    until(lambda: {file.name for file in path.parent.iterdir()} == expected)
    assert everything(path) == list(range(2003))


def as_nobody(work: Callable[[], None]) -> None:
    """Run ``work`` in a child without privileges; it must not fail."""
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 (the child tells, the parent fails)
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.kernel
def test_a_directory_that_becomes_unwritable_stops_rotation_only() -> None:
    """Lines still go to the open file; the problem is reported until its cause is removed."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(directory, 65534, 65534)
    directory.chmod(0o755)

    def work() -> None:
        path = directory / "out"
        output = FileOutput(str(path), rotate_size=100, compress="none", clock=(clock := Clock()))
        output.open()
        output.write(lines(1, 2, 90))
        directory.chmod(0o555)
        assert output.write(lines(3, 2, 90)) == 2
        assert "can't rotate" in str(output.trouble)
        assert "Permission denied" in str(output.trouble)
        output.reopen()
        assert output.write(lines(5, 2, 90)) == 2, "the file itself can still be opened"
        directory.chmod(0o755)
        clock.now += FileOutput.ROTATION_RETRY
        assert output.write(lines(7, 2, 90)) == 2
        assert output.trouble is None
        assert numbers((directory / "out.1").read_bytes()) == [1, 2, 3, 4, 5, 6]
        assert numbers(path.read_bytes()) == [7, 8]
        output.close()

    try:
        as_nobody(work)
    finally:
        shutil.rmtree(directory)
