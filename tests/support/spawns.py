"""Builds and runs ``spawns.c``: sequential processes, and the duration of each."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("spawns.c")
# Only these tests use this user: rules with -F uid=... match only their processes.
USER = 54321


@dataclass(frozen=True, slots=True)
class Took:
    """The duration of a process from its start to its end, in microseconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Spawns:
    """The built program."""

    program: Path

    @classmethod
    def build(cls, directory: Path) -> Spawns:
        """Compile ``spawns.c`` into ``directory``, statically, so that an image is small."""
        program = directory / "spawns"
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Werror", "-static", "-o", program, SOURCE], check=True
        )
        return cls(program)

    def start(self, count: int) -> subprocess.Popen[str]:
        """Start ``count`` processes in the background, as USER and in a separate session."""
        return subprocess.Popen(
            [str(self.program), str(count)],
            stdout=subprocess.PIPE,
            text=True,
            user=USER,
            start_new_session=True,
        )

    def run(self, count: int, seconds: float = 60) -> Took:
        """Run ``count`` processes and return their durations."""
        return finished(self.start(count), seconds)


def finished(process: subprocess.Popen[str], seconds: float = 60) -> Took:
    """Wait for a run and return the durations of its processes."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0
    return Took(**json.loads(output))
