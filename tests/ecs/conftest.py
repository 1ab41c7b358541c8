"""The option of these tests: ``pytest tests/ecs --update-golden`` rewrites the golden files."""

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
    """Whether to rewrite the golden files."""
    # A run of all tests parses its options before it loads this file.
    return bool(request.config.getoption("--update-golden", default=False))
