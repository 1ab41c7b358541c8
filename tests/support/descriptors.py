"""The descriptors of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_left_open() -> Iterator[None]:
    """Check that the block closes every descriptor that it opens."""
    before = _targets()
    yield
    left = {number: target for number, target in _targets().items() if number not in before}
    assert left == {}


def _targets() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # the listing's own
    return found
