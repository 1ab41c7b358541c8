"""The file with the settings of the wall clock."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sessiond.system.clock_file import ClockFile

BOOT = "2027b659-f0c3-42f0-9138-b2eae5a16b06"
SETTINGS = [(0, 0, 1_777_629_600_000_000_000), (5, 7, 1_777_629_603_000_000_000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the file."""
    return tmp_path / "boot_time"


def saved(path: Path) -> list[tuple[int, int, int]]:
    return ClockFile(path, BOOT).read()


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    """The directory is created, and no other file remains in it."""
    path = tmp_path / "run/boot_time"
    ClockFile(path, BOOT).write(SETTINGS)
    assert saved(path) == SETTINGS
    assert [each.name for each in path.parent.iterdir()] == ["boot_time"]


def test_another_boot_is_another_time(path: Path) -> None:
    """Its settings are not used."""
    ClockFile(path, "another").write(SETTINGS)
    assert saved(path) == []


def test_a_file_of_an_older_version_has_one_setting(path: Path) -> None:
    """It has no steps."""
    path.write_text(json.dumps({"boot_id": BOOT, "boot_time": SETTINGS[0][2]}))
    assert saved(path) == SETTINGS[:1]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[]",
        "1",
        "[" * 100_000,
        '{"boot_id": "BOOT"}',
        '{"boot_id": "BOOT", "boot_time": "1"}',
        '{"boot_id": "BOOT", "boot_time": true}',
        '{"boot_id": "BOOT", "boot_time": -5}',
        '{"boot_id": "BOOT", "boot_time": 5, "steps": 1}',
        '{"boot_id": "BOOT", "boot_time": 5, "steps": [1]}',
        '{"boot_id": "BOOT", "boot_time": 5, "steps": [[1, 2]]}',
        '{"boot_id": "BOOT", "boot_time": 5, "steps": [[3, 2, 5]]}',
        '{"boot_id": "BOOT", "boot_time": 5, "steps": [[3, 4, 5], [2, 4, 5]]}',
    ],
)
def test_a_damaged_file_says_nothing(path: Path, content: str) -> None:
    """It was cut by a crash, or written by another program."""
    path.write_text(content.replace("BOOT", BOOT))
    assert saved(path) == []


def test_a_link_is_neither_followed_nor_written_through(path: Path) -> None:
    """The target of the link stays as it is."""
    target = path.with_name("target")
    ClockFile(target, BOOT).write(SETTINGS)
    before = target.read_text()
    path.symlink_to(target)
    assert saved(path) == []
    ClockFile(path, BOOT).write(SETTINGS[:1])
    assert target.read_text() == before
    assert not path.is_symlink()


def test_a_fifo_does_not_hang(path: Path) -> None:
    """Other types of files are replaced."""
    os.mkfifo(path)
    start = time.monotonic()
    assert saved(path) == []
    assert time.monotonic() - start < 1
    ClockFile(path, BOOT).write(SETTINGS)
    assert path.is_file()


def test_a_file_that_others_can_write_is_not_believed(path: Path) -> None:
    """Its mode shows that."""
    ClockFile(path, BOOT).write(SETTINGS)
    path.chmod(0o666)
    assert saved(path) == []


@pytest.mark.kernel
def test_a_file_of_another_user_is_not_believed(path: Path) -> None:
    """Only files of root and of the daemon's user are trusted."""
    ClockFile(path, BOOT).write(SETTINGS)
    os.chown(path, 65534, 65534)
    assert saved(path) == []


def test_where_it_cannot_be_saved_the_log_says_so(tmp_path: Path) -> None:
    """The daemon continues; a restart measures again."""
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        ClockFile(tmp_path / "file/boot_time", BOOT).write(SETTINGS)
    assert [line["event"] for line in logs] == ["boot_time_not_saved"]
