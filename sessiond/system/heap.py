"""Returns free memory to the kernel.

After a stall, or a storm of events, the C library keeps the space of thousands of records and
lines: it gives back only what is at the end of its heap.
"""

from __future__ import annotations

import ctypes
from typing import Final

_malloc_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> None:
    """Give back all free pages, within some milliseconds; does nothing without glibc."""
    if _malloc_trim is not None:
        _malloc_trim(0)
