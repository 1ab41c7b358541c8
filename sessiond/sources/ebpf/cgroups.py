"""Lists the directories of the cgroup file systems, by the ids that the tracer reports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sessiond.process.events import CgroupSeen

VERSION_1 = 1 << 63  # set in ids of the version 1 hierarchy, which has its own numbering


class _Mount(NamedTuple):
    point: str
    root: str  # the directory of the hierarchy that is mounted there
    mark: int


def snapshot(mountinfo: Path, controller: str | None) -> Iterator[CgroupSeen]:
    """Yield every cgroup of version 2, and of the version 1 hierarchy of ``controller``.

    ``mountinfo`` is /proc/self/mountinfo (proc(5)). Unreadable directories are skipped.
    """
    done: set[int] = set()
    for mount in _mounts(mountinfo, controller):
        if mount.mark in done:
            continue
        done.add(mount.mark)
        yield from _walk(mount)


def _mounts(mountinfo: Path, controller: str | None) -> Iterator[_Mount]:
    for line in mountinfo.read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            yield _Mount(point, root, 0)
        elif kind == "cgroup" and controller in options.split(","):
            yield _Mount(point, root, VERSION_1)


def _walk(mount: _Mount) -> Iterator[CgroupSeen]:
    prefix = "" if mount.root == "/" else mount.root
    try:
        yield CgroupSeen(Path(mount.point).stat().st_ino | mount.mark, os.fsencode(prefix or "/"))
    except OSError:
        return
    for folder, names, _files in os.walk(mount.point):
        for name in names:
            path = f"{folder}/{name}"
            try:
                number = os.lstat(path).st_ino
            except OSError:
                continue  # it has just been removed
            inside = path[len(mount.point) :]
            yield CgroupSeen(number | mount.mark, os.fsencode(prefix + inside))
