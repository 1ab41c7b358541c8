"""Tests of what mypyc does not keep: names of slots, and constants that a test replaces."""

from __future__ import annotations

import pytest

from sessiond.process import table

interpreted = pytest.mark.skipif(
    not (table.__file__ or "").endswith(".py"), reason="needs modules that are not compiled"
)
