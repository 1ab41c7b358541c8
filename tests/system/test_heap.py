"""Free memory is returned to the kernel."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from sessiond.system import heap

# Blocks of the C library's heap, smaller than those that are mapped one by one. Only the last of
# them, which is at the end of the heap, stays.
PROGRAM = """
from sessiond.system import heap, proc
blocks = [bytearray(5000) for _ in range(10_000)]
del blocks[:-1]
before = proc.resident_bytes()
heap.trim()
print(before - proc.resident_bytes())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this libc has no trim")
def test_the_space_of_freed_blocks_is_returned() -> None:
    """It is in the middle of the heap, where the C library keeps it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 40_000_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl has no such function."""
    monkeypatch.setattr(heap, "_malloc_trim", None)
    heap.trim()
