"""The helper that compiles and loads the tracer's programs, from its start to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sessiond.sources import ARGS_LIMIT, RING_BYTES, prepare
from sessiond.sources.ebpf.helper import Helper

BEGIN_AND_LEAVE = """
import os, time
from sessiond.sources import prepare
helper = prepare("auto", ring_bytes=1 << 20, args_limit=64)
print(helper._process.pid, flush=True)
os._exit(0)
"""


def test_a_source_that_needs_no_compiler_prepares_nothing() -> None:
    """Only eBPF needs time."""
    assert prepare("procfs", ring_bytes=RING_BYTES, args_limit=ARGS_LIMIT) is None
    assert prepare("proc_connector", ring_bytes=RING_BYTES, args_limit=ARGS_LIMIT) is None


def test_a_helper_that_is_not_needed_is_gone() -> None:
    """Everything that was opened for it is closed."""
    before = os.listdir("/proc/self/fd")
    helper = Helper(RING_BYTES, ARGS_LIMIT)
    helper.close()
    assert not Path(f"/proc/{helper._process.pid}").exists()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.kernel
def test_a_helper_whose_daemon_is_gone_ends(kernel_lock: None) -> None:
    """The helper has compiled by then, and attaches nothing without a request."""
    begun = subprocess.run(
        [sys.executable, "-c", BEGIN_AND_LEAVE], capture_output=True, text=True, check=True
    )
    helper = Path(f"/proc/{int(begun.stdout)}")
    end = time.monotonic() + 60
    while helper.exists() and "Z" not in (helper / "stat").read_text().rpartition(")")[2][:3]:
        assert time.monotonic() < end
        time.sleep(0.01)
