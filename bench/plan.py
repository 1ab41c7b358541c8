"""The plan of a run, and what all sections share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.builds import ROOT
from bench.consumers import Consumer, Running, Sessiond, runtime_directory
from bench.host import BenchError, audit_lent
from bench.load import Spawner

SETTLE: Final = 1.0  # seconds between a start and the load
# Seconds after the load that still count: buffered input is processed by then.
AFTERMATH: Final = 3.0

# Errors of a consumer that can't be measured: it is left out, and the others continue.
FAILURES: Final = (BenchError, OSError, LookupError, ValueError, subprocess.SubprocessError)

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The measurements that the command line selects.

    ``consumers`` includes ``ours``, the builds of sessiond. ``seconds`` is None if each section has
    its usual length. ``living`` counts processes. ``left_out`` gets a line for everything that is
    not measured, ``failures`` for each error.
    """

    consumers: Sequence[Consumer]
    ours: Sequence[Sessiond]
    spawner: Spawner | None
    directory: Path
    rounds: int
    seconds: float | None
    flat_seconds: float
    idle_seconds: float
    rate: float
    living: int
    quick: bool
    backend: str
    left_out: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def peers(self) -> list[Consumer]:
        """The consumers that are not sessiond."""
        return [each for each in self.consumers if each not in self.ours]

    @property
    def audited(self) -> list[Sessiond]:
        """Sessiond with audit rules, in each build."""
        return [each for each in self.ours if each.audit]

    @property
    def installed(self) -> list[Sessiond]:
        """Sessiond with rules and traced only, as it is installed: compiled if there is a build."""
        packages = {each.packages for each in self.ours if each.compiled}
        return [each for each in self.ours if not packages or each.packages in packages]

    def length(self, usual: float, quick: float = 3.0) -> float:
        """Return the seconds of a measurement whose usual length is ``usual``."""
        return self.seconds or (quick if self.quick else usual)

    def failed(self, consumer: Consumer, error: Exception) -> None:
        """Note that a consumer can't be measured in a section, which continues without it."""
        self.failures.append(f"{consumer.name}: {error}")
        note(f"{consumer.name}: left out of this section: {error}")


def note(text: str) -> None:
    """Report the progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


@contextmanager
def work(plan: Plan) -> Iterator[Path]:
    """Make a directory that other users can access; remove it at the end."""
    # LAUREL runs as its own user, and needs access to its directory.
    directory = Path(tempfile.mkdtemp(dir=plan.directory))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(runtime_directory(directory), ignore_errors=True)
        shutil.rmtree(directory)


@contextmanager
def started(plan: Plan, consumer: Consumer) -> Iterator[tuple[Running, Path]]:
    """Start a consumer, and wait until it has settled; end it afterwards."""
    with audit_lent(), work(plan) as directory, consumer.running(directory) as running:
        time.sleep(SETTLE)
        yield running, directory


def python_path(*directories: Path) -> dict[str, str]:
    """Return the environment for Python to import from these directories alone."""
    path = os.pathsep.join(map(str, directories))
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def in_build(ours: Sessiond, module: str, *arguments: object) -> str:
    """Run a module of the benchmark with the modules of one build; return what it prints.

    Raises BenchError if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=python_path(ours.packages, ROOT),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{ours.name}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
