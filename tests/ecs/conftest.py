"""The one option of these tests: ``pytest tests/ecs --update-golden`` writes the golden files."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the golden tests find, then read it",
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Say whether the golden files are to be written anew."""
    # A run of all tests doesn't load this file before it reads its options.
    return bool(request.config.getoption("--update-golden", default=False))
