"""Every target handles its seeds, earlier findings, and a few seconds of new input."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.run import HERE, TARGETS, inputs

SECONDS = 3


@pytest.mark.parametrize("name", TARGETS)
def test_known_input(name: str) -> None:
    """The invariant holds for the seeds and for earlier findings."""
    target = importlib.import_module(f"fuzz.{name}")
    target.one(b"")
    for data in inputs(name, target):
        target.one(data)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="needs atheris, of the extra dev"
)
@pytest.mark.parametrize("name", TARGETS)
def test_new_input(name: str, tmp_path: Path) -> None:
    """The invariant holds for a few seconds of a fuzzer's input."""
    done = subprocess.run(
        # timeout(1) as the parent: the kernel would count this process's memory as that of its
        # child.
        ["timeout", "100", sys.executable, HERE / "run.py", name, f"-max_total_time={SECONDS}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-4000:].decode("utf-8", "replace")
