"""The list of cgroups, from simulated mounts and directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.sources.ebpf.cgroups import VERSION_1, snapshot


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    """A mountinfo with a version 2 hierarchy, two of version 1, and one directory in each."""
    lines = []
    for number, (name, kind, options) in enumerate(
        (
            ("unified", "cgroup2", "rw"),
            ("memory", "cgroup", "rw,memory"),
            ("cpu", "cgroup", "rw,cpu,cpuacct"),
        )
    ):
        (tmp_path / name / "docker" / "abc").mkdir(parents=True)
        lines.append(
            f"{number} 1 0:{number} / {tmp_path / name} rw shared:1 - {kind} {kind} {options}"
        )
    lines.append("9 1 8:1 / / rw - ext4 /dev/sda1 rw,memory")
    path = tmp_path / "mountinfo"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_version_2_alone(hybrid: Path, tmp_path: Path) -> None:
    """Without a version 1 controller only the version 2 hierarchy is listed, with inode numbers."""
    told = {(seen.cgroup_id, seen.path) for seen in snapshot(hybrid, None)}
    unified = tmp_path / "unified"
    assert told == {
        (unified.stat().st_ino, b"/"),
        ((unified / "docker").stat().st_ino, b"/docker"),
        ((unified / "docker/abc").stat().st_ino, b"/docker/abc"),
    }


def test_version_1_is_marked(hybrid: Path, tmp_path: Path) -> None:
    """The ids of the version 1 hierarchy differ from those of version 2."""
    told = {seen.cgroup_id: seen.path for seen in snapshot(hybrid, "memory")}
    inode = (tmp_path / "memory/docker").stat().st_ino
    assert told[inode | VERSION_1] == b"/docker"
    assert len(told) == 6


def test_path_of_a_mount_inside_the_hierarchy(tmp_path: Path) -> None:
    """If only a part of the hierarchy is mounted, paths still start at its root."""
    (tmp_path / "b").mkdir()
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"1 1 0:1 /a {tmp_path} rw - cgroup2 none rw\n")
    assert {seen.path for seen in snapshot(mountinfo, None)} == {b"/a", b"/a/b"}


def test_mount_that_is_gone(tmp_path: Path) -> None:
    """An unreadable mount is skipped."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"1 1 0:1 / {tmp_path / 'gone'} rw - cgroup2 none rw\n")
    assert list(snapshot(mountinfo, None)) == []
