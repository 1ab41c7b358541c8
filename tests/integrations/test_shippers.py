"""Configurations of shippers: their formats and names, and that the pages say what was tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.manager import PROJECT

SHIPPERS = PROJECT / "integrations" / "shippers"
TESTED = {"fluent-bit.yaml"}  # by tests/engines/test_shippers.py


@pytest.mark.parametrize("path", sorted(SHIPPERS.glob("*.y*ml")), ids=lambda path: path.name)
def test_each_is_yaml_and_leads_from_the_file_to_the_data_stream(path: Path) -> None:
    """They use the names of sessiond and its setup."""
    text = path.read_text("utf-8")
    assert isinstance(yaml.safe_load(text), dict)
    assert "/var/log/sessiond/events.ndjson" in text
    assert "logs-sessiond.process-default" in text
    assert ("Not tested" in text) == (path.name not in TESTED)


def test_the_page_says_which_are_not_tested() -> None:
    """The page says so first, and names each file."""
    page = (SHIPPERS / "README.md").read_text("utf-8")
    assert page.index("were not tested with these configurations") < 100
    for path in SHIPPERS.iterdir():
        assert path.name == "README.md" or f"]({path.name})" in page
