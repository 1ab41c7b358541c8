"""Directories and files that other users can't replace."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from support.descriptors import none_left_open

from sessiond.errors import OutputError
from sessiond.system.files import (
    may_read,
    open_directory,
    open_file,
    publish_file,
    read_file,
    replace_file,
    trusted_users,
)

STRANGER = 54321


def opened(path: Path, name: str = "file") -> int:
    directory = open_directory(str(path), trusted=trusted_users())
    try:
        return open_file(
            name,
            os.O_WRONLY,
            directory=directory,
            path=str(path / name),
            mode=0o640,
            trusted=trusted_users(),
        )[0]
    finally:
        os.close(directory)


def test_a_new_file_has_the_mode_that_is_asked_for(tmp_path: Path) -> None:
    """The umask does not matter."""
    before = os.umask(0o777)
    try:
        os.close(opened(tmp_path))
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o640


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link in place of the file is refused, and named."""
    (tmp_path / "file").symlink_to("/etc/passwd")
    with pytest.raises(OutputError, match="file: is a symbolic link"):
        opened(tmp_path)


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    """It could be a second name of another file."""
    (tmp_path / "other").touch()
    os.link(tmp_path / "other", tmp_path / "file")
    with pytest.raises(OutputError, match="has 2 names"):
        opened(tmp_path)


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    """Opening it would wait for its other end."""
    os.mkfifo(tmp_path / "file")
    with pytest.raises(OutputError, match="not a regular file"):
        opened(tmp_path)


def test_a_directory_that_others_may_write_into_is_refused(tmp_path: Path) -> None:
    """Its writers could replace our file."""
    tmp_path.chmod(0o777)
    with pytest.raises(OutputError, match="others can write into the directory"):
        opened(tmp_path)


def test_a_directory_is_not_read(tmp_path: Path) -> None:
    """No descriptor of it remains."""
    with none_left_open(), pytest.raises(OutputError, match="not a regular file"):
        read_file(tmp_path, 1 << 20)


def test_a_generous_limit_takes_no_memory(tmp_path: Path) -> None:
    """A host may refuse to promise a gigabyte for a file of some bytes."""
    replace_file(tmp_path / "file", b"content", mode=0o600)
    tracemalloc.start()
    try:
        assert read_file(tmp_path / "file", 1 << 30) == b"content"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make files of others")
def test_what_belongs_to_others_is_refused(tmp_path: Path) -> None:
    """A file, a directory of the path, and a symbolic link of the path."""
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", STRANGER, -1)
    with pytest.raises(OutputError, match="belongs to uid 54321"):
        opened(tmp_path)
    with pytest.raises(OutputError, match="belongs to uid 54321"):
        read_file(tmp_path / "file", 10)
    (tmp_path / "theirs" / "below").mkdir(parents=True)
    os.chown(tmp_path / "theirs", STRANGER, -1)
    with pytest.raises(OutputError, match="theirs belongs to uid 54321"):
        opened(tmp_path / "theirs" / "below")
    (tmp_path / "link").symlink_to(tmp_path)
    os.chown(tmp_path / "link", STRANGER, -1, follow_symlinks=False)
    with pytest.raises(OutputError, match="link belongs to uid 54321"):
        opened(tmp_path / "link")


def test_links_of_our_own_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    """The limit is the kernel's."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.close(opened(tmp_path / "link"))
    assert (tmp_path / "real" / "file").exists()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels"):
        opened(tmp_path / "loop")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """Any file in its place is replaced; no temporary file remains."""
    (tmp_path / "file").symlink_to("/etc/passwd")
    replace_file(tmp_path / "file", b"new", mode=0o600)
    assert not (tmp_path / "file").is_symlink()
    assert read_file(tmp_path / "file", 10) == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "directory" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "directory", b"new", mode=0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files away")
@pytest.mark.parametrize(
    ("directory_mode", "mode", "uid", "groups", "may"),
    [
        (0o755, 0o600, STRANGER, [], False),
        (0o755, 0o604, STRANGER, [], True),
        (0o750, 0o604, STRANGER, [], False),
        (0o750, 0o640, STRANGER, [4242], True),
        (0o700, 0o640, STRANGER, [4242], False),
        (0o755, 0o640, STRANGER, [4243], False),
        (0o755, 0o604, STRANGER, [4242], False),  # the group's bits apply, not those of others
        (0o755, 0o400, 4711, [], True),
        (0o755, 0o044, 4711, [4242], False),
    ],
)
def test_the_permission_bits_say_who_may_read(
    directory_mode: int, mode: int, uid: int, groups: list[int], may: bool
) -> None:
    """The bits of the file, and of every directory of its path."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        directory = Path(name) / "log"
        directory.mkdir()
        file = directory / "events"
        file.touch()
        os.chown(file, 4711, 4242)
        os.chown(directory, 0, 4242)
        directory.chmod(directory_mode)
        file.chmod(mode)
        assert may_read(file, uid, groups) is may
        assert not may_read(directory / "none", uid, groups)


def test_a_published_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """A link in its place is replaced, not followed; on failure no file remains."""
    secret, place = tmp_path / "secret", tmp_path / "place"
    secret.write_text("mine")
    place.symlink_to(secret)
    publish_file(place, b"new")
    assert (place.read_bytes(), place.is_symlink(), secret.read_text()) == (b"new", False, "mine")
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        publish_file(tmp_path / "directory", b"new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["directory", "place", "secret"]
