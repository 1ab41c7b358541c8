"""Control groups as systemd makes them for units, in the hierarchies that sessiond reads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.manager import CGROUPS
from support.truth import until

_ENTER = 'for file in $0; do echo $$ >"$file" || exit; done; exec "$@"'


class ControlGroups:
    """Groups that are removed at the end, with what others made in them."""

    def __init__(self) -> None:
        places = (CGROUPS / "memory", CGROUPS / "unified", CGROUPS)
        self._hierarchies = [each for each in places if (each / "cgroup.procs").exists()]
        self._made: list[Path] = []

    def make(self, path: str, owner: int = 0) -> str:
        """Make a group that belongs to a user; return the files that a pid written to enters."""
        files = []
        for hierarchy in self._hierarchies:
            group = hierarchy
            for part in path.strip("/").split("/"):
                group /= part
                if not group.exists():
                    group.mkdir()
                    self._made.append(group)
            for each in (group, group / "cgroup.procs"):
                os.chown(each, owner, owner)
            files.append(str(group / "cgroup.procs"))
        return " ".join(files)

    @staticmethod
    def inside(files: str, *command: str) -> list[str]:
        """Return a command that enters the groups and then runs another one."""
        return ["/bin/sh", "-c", _ENTER, files, *command]

    @staticmethod
    def move(files: str, pid: int) -> None:
        """Move a process into the groups."""
        for file in files.split():
            Path(file).write_text(str(pid))

    def remove(self) -> None:
        """Remove all of them, once they are empty."""
        for group in reversed(self._made):
            for below in sorted(group.glob("**/"), reverse=True):
                until(lambda one=below: not _members(one), 10, f"an empty {below}")
                below.rmdir()


def _members(group: Path) -> str:
    return (group / "cgroup.procs").read_text()


def as_user(uid: int, command: Sequence[str]) -> list[str]:
    """Return a command that runs another one as a user without any privilege."""
    ids = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=-all", "--", *command]


def run(command: Sequence[str]) -> int:
    """Run a command with an empty environment; return its exit code."""
    return subprocess.run(command, env={"PATH": os.defpath}, check=False).returncode
