"""The section ``slowdown``: how much a consumer slows down other work of the host."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from bench.consumers import Consumer
from bench.host import BenchError, audit_lent
from bench.plan import FAILURES, Plan, Row, note, started, work

UNDISTURBED: Final = "undisturbed"
_LOOP_SECONDS: Final = 3.0
_FILES: Final = 100
_COMMANDS: Final = 1_000
_MAKEFILE: Final = """\
objects := $(patsubst %.c,%.o,$(wildcard *.c))
all: $(objects)
%.o: %.c
\tgcc -O2 -c -o $@ $<
"""


def slowdown(plan: Plan) -> list[Row]:
    """Measure an exec loop, a build and a script without a consumer and with each."""
    if shutil.which("make") is None:
        raise BenchError("no make here; it is in the Debian package make")
    rows = []
    failed: set[str] = set()
    consumers: list[Consumer | None] = [None, *plan.peers, *plan.installed]
    for number in range(1, plan.rounds + 1):
        for consumer in consumers:
            if consumer is not None and consumer.name in failed:
                continue
            try:
                row = _measured(plan, consumer)
            except FAILURES as error:
                if consumer is None:
                    raise
                failed.add(consumer.name)
                plan.failed(consumer, error)
                continue
            rows.append(row)
            note(
                f"round {number}: {row['consumer']}: {row['execs_per_s']:.0f} execs/s, "
                f"build {row['build_s']:.2f} s, script {row['script_s']:.2f} s"
            )
    return rows


def _measured(plan: Plan, consumer: Consumer | None) -> Row:
    assert plan.spawner is not None
    beside: AbstractContextManager[object] = (
        audit_lent() if consumer is None else started(plan, consumer)
    )
    with beside, work(plan) as directory:
        truth = plan.spawner.run(rate=0, seconds=plan.length(_LOOP_SECONDS, 1), number=1)
        return {
            "consumer": UNDISTURBED if consumer is None else consumer.name,
            "execs_per_s": truth.number / truth.seconds,
            "build_s": _build(directory, 10 if plan.quick else _FILES),
            "script_s": _script(directory, 100 if plan.quick else _COMMANDS),
        }


def _build(directory: Path, files: int) -> float:
    """Return the seconds of a build of that many small C files with ``make -j2``."""
    for number in range(files):
        (directory / f"part{number}.c").write_text(
            f"int part{number}(int x) {{ return x * {number + 3} + x / 7; }}\n"
        )
    (directory / "Makefile").write_text(_MAKEFILE)
    return _seconds(["make", "-s", "-j2", "-C", str(directory)])


def _script(directory: Path, commands: int) -> float:
    """Return the seconds of a shell script that runs so many commands."""
    script = directory / "script.sh"
    script.write_text("".join(f"/bin/true {number}\n" for number in range(commands)))
    return _seconds(["/bin/sh", str(script)])


def _seconds(command: list[str]) -> float:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    begin = time.monotonic()
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    took = time.monotonic() - begin
    if done.returncode:
        raise BenchError(f"{command[0]} failed: {done.stderr.strip()}")
    return took
