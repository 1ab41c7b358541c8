"""Runs attacks.c as a user without any privilege."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("attacks.c")
USER = 4242


class Attacks:
    """The attacker's program, built into ``directory``, which others must be able to enter."""

    def __init__(self, directory: Path) -> None:
        self.program = directory / "attacks"
        self.preload = directory / "attacks.so"
        for target, how in ((self.program, "-g0"), (self.preload, "-shared")):
            command = [
                "gcc",
                "-O2",
                "-Wall",
                "-fPIC",
                "-pthread",
                how,
                "-o",
                str(target),
                str(SOURCE),
            ]
            subprocess.run(command, check=True)

    def start(self, way: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start one way of attacks.c, by a user without capabilities, in a group of its own."""
        return self.execute([self.program, way, *map(str, arguments)])

    def execute(self, command: Sequence[str | Path], **environment: str) -> subprocess.Popen[bytes]:
        """Start any program as that user."""
        return subprocess.Popen(
            command,
            user=USER,
            group=USER,
            extra_groups=[],
            process_group=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={"PATH": os.defpath, **environment},
        )


def peak_memory(pid: int) -> int:
    """The most memory that a process has had resident so far, in bytes (VmHWM of proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    raise AssertionError(f"{pid} has no memory")
