"""``spawns.c``, built and run: many processes one after the other, and how long each took."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("spawns.c")
# Nobody else on the host is this user: rules with -F uid=... see these processes alone.
USER = 54321


@dataclass(frozen=True, slots=True)
class Took:
    """How long a process took from its start to its end, in microseconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Spawns:
    """The built program."""

    program: Path

    @classmethod
    def build(cls, directory: Path) -> Spawns:
        """Compile ``spawns.c`` into ``directory``, statically, so that an image costs little."""
        program = directory / "spawns"
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Werror", "-static", "-o", program, SOURCE], check=True
        )
        return cls(program)

    def start(self, count: int) -> subprocess.Popen[str]:
        """Begin to start ``count`` processes, as USER and in a session of their own."""
        return subprocess.Popen(
            [str(self.program), str(count)],
            stdout=subprocess.PIPE,
            text=True,
            user=USER,
            start_new_session=True,
        )

    def run(self, count: int, seconds: float = 60) -> Took:
        """Start ``count`` processes and return how long they took."""
        return finished(self.start(count), seconds)


def finished(process: subprocess.Popen[str], seconds: float = 60) -> Took:
    """Wait for a run and return how long its processes took."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0
    return Took(**json.loads(output))
