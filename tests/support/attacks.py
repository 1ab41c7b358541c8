"""Runs attacks.c as a user without any privilege."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("attacks.c")
USER = 4242


class Attacks:
    """The attacker's program, built in ``directory``, which other users must be able to enter."""

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
        """Start an attack of attacks.c as a user without capabilities, in a separate group."""
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
    """Return the peak of a process's resident memory in bytes (VmHWM of proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    raise AssertionError(f"{pid} has no memory")
