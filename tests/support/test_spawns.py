"""The program that measures spawns."""

from __future__ import annotations

import pytest
from support.spawns import Spawns

pytestmark = pytest.mark.kernel


def test_it_measures_every_spawn(spawns: Spawns) -> None:
    """The records are in order, and no duration is zero."""
    took = spawns.run(100)
    assert 10 < took.p50 <= took.p99 <= took.max
