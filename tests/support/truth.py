"""Builds and runs ``truth.c``, whose processes record their own attributes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("truth.c")

# The ways in which truth.c creates processes; the source describes each of them.
WAYS = (
    "spawn", "code", "vfork", "fork", "chain", "thread", "signal", "last_thread", "setsid", "pgid",
    "daemon", "orphan", "failed", "subreaper", "memfd", "arguments", "long", "reuse",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One record: ``event`` is "exec", "fork", "setsid" or "end" (which has a status).

    ``start`` is in clock ticks since boot, as in /proc/PID/stat; ``status`` is as in wait(2).
    """

    event: str
    pid: int
    start: int
    ppid: int | None = None
    pgid: int | None = None
    sid: int | None = None
    tty: int | None = None
    uid: int | None = None
    exe: bytes = b""
    cwd: bytes = b""
    argv: tuple[bytes, ...] = ()
    status: int | None = None

    @property
    def token(self) -> str:
        """The last argument, which identifies one run of one way."""
        return self.argv[-1].decode() if self.argv else ""

    @property
    def exit_code(self) -> int:
        """The exit status as in a shell: 0 to 255, or 128 plus the signal's number."""
        assert self.status is not None
        signal = self.status & 0x7F
        return 128 + signal if signal else self.status >> 8


def _told(line: str) -> Record:
    fields: dict[str, Any] = json.loads(line)
    for name in ("exe", "cwd"):
        if name in fields:
            fields[name] = bytes.fromhex(fields[name])
    if "argv" in fields:
        fields["argv"] = tuple(bytes.fromhex(argument) for argument in fields["argv"])
    return Record(**fields)


@dataclass(slots=True)
class Truth:
    """The built generator, which writes to files of ``directory``, one per run."""

    program: Path
    directory: Path
    _runs: int = field(default=0)

    @classmethod
    def build(cls, directory: Path) -> Truth:
        """Compile ``truth.c`` into ``directory``, statically, so that an image is small."""
        program = directory / "truth"
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Werror", "-static", "-pthread", "-o", program, SOURCE],
            check=True,
        )
        return cls(program, directory)

    def file(self) -> Path:
        """Return a new, empty file for a run that the caller starts itself."""
        self._runs += 1
        path = self.directory / f"run-{self._runs}.json"
        path.touch()
        path.chmod(0o666)
        return path

    def command(self, file: Path, way: str, count: int = 1, rate: float = 0) -> list[str]:
        """Return the command line for ``count`` times ``way``, at ``rate`` per second."""
        return [str(self.program), str(file), way, str(count), str(rate)]

    def run(self, way: str, count: int = 1, rate: float = 0) -> list[Record]:
        """Spawn ``count`` times by ``way`` and return the records, in order."""
        file = self.file()
        self.run_into(file, way, count, rate)
        return read(file)

    def run_into(self, file: Path, way: str, count: int = 1, rate: float = 0) -> None:
        """Spawn ``count`` times by ``way`` with the records in ``file``."""
        subprocess.run(self.command(file, way, count, rate), check=True, timeout=120)


def read(file: Path) -> list[Record]:
    """Read the records of a finished run."""
    return [_told(line) for line in file.read_text().splitlines()]


def images(told: Iterable[Record]) -> list[Record]:
    """Return the records of execs."""
    return [one for one in told if one.event == "exec"]


def ends(told: Iterable[Record]) -> list[Record]:
    """Return the ends that a parent waited for."""
    return [one for one in told if one.event == "end"]


def until(condition: Any, seconds: float, what: str) -> Any:
    """Call ``condition`` until it returns a true value, and return that; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{seconds} s have gone by without {what}"
        time.sleep(0.02)
