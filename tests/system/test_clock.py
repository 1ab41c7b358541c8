"""The clocks of the host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sessiond.system.clock import measure_offset


def test_the_boot_is_as_long_ago_as_the_kernel_says() -> None:
    """/proc/stat has it in whole seconds."""
    (btime,) = (
        int(line.split()[1])
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime")
    )
    assert abs(measure_offset() / 1e9 - btime) < 2


def test_two_measurements_agree_to_the_millisecond() -> None:
    """The fastest of several readings counts, so that interruptions do not matter."""
    assert abs(measure_offset() - measure_offset()) < 1_000_000


def test_the_helper_that_reads_procfs_loads_no_log() -> None:
    """structlog and what it imports would add 8 MB."""
    program = "import sys, sessiond.sources.procfs.worker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert {"structlog", "asyncio", "logging"}.isdisjoint(done.stdout.split())
