"""The section ``instructions``: instructions per process, counted by callgrind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.builds import ROOT
from bench.consumers import Sessiond
from bench.host import BenchError
from bench.load import built
from bench.plan import Plan, Row, note, python_path, work

_SOURCE: Final = Path(__file__).with_name("callgrind.c")
_TABLE: Final = 1_000
_LIVES: Final = 500


def instructions(plan: Plan) -> list[Row]:
    """Count the instructions for a process (fork, exec, end), audited and traced only."""
    if shutil.which("valgrind") is None:
        plan.left_out.append("instructions: valgrind is not installed")
        return []
    rows = []
    with work(plan) as directory:
        library = built(_SOURCE, directory, "-shared", "-fPIC")
        for ours in plan.ours:
            count = _counted(ours, directory, library)
            rows.append({"consumer": ours.name, "instructions": count})
            note(f"{ours.name}: {count:,.0f} instructions for a process")
    return rows


def _counted(ours: Sessiond, directory: Path, library: Path) -> float:
    told = directory / "callgrind.out"
    done = subprocess.run(
        [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={told}",
            "--instr-atstart=no", "--collect-atstart=no", sys.executable, "-m", "bench.paper",
            "instructions", str(library), str(_TABLE), str(_LIVES),
            "audited" if ours.audit else "traced",
        ],
        env={**python_path(ours.packages, ROOT), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    found = re.search(r"^totals: (\d+)", told.read_text(), re.MULTILINE) if told.exists() else None
    if done.returncode or found is None:
        raise BenchError(f"{ours.name}: {(done.stderr.strip() or 'no count').splitlines()[-1]}")
    return int(found[1]) / _LIVES
