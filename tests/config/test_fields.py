"""The fields that conditions can use are those of docs/output.md."""

from __future__ import annotations

import re
from pathlib import Path

from sessiond.config.fields import ANCESTOR_FIELDS, FIELDS, full_name, kind_of

OUTPUT = Path(__file__).parents[2] / "docs" / "output.md"


def test_the_fields_are_those_of_the_documentation() -> None:
    """Names and types agree; the page lists members of relatives once, marked r."""
    documented = {}
    for line in OUTPUT.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not re.match(r"`[@a-z]+", cells[0]) or len(cells) < 4:
            continue
        for name in re.findall(r"`([^`]+)`", cells[0]):
            if "." not in name and name[0] not in "@mt":
                continue
            documented[name] = cells[1]
            if cells[2] == "r":
                for relative in ("parent", "group_leader", "session_leader", "entry_leader"):
                    documented[name.replace("process.", f"process.{relative}.", 1)] = cells[1]
    assert documented == FIELDS


def test_open_fields_have_any_member() -> None:
    """Members of auditd.data are not checked: the kernel names them."""
    assert kind_of("auditd.data.whatever") == "keyword"
    assert kind_of("labels.env") == "keyword"
    assert kind_of("process.whatever") is None
    assert kind_of("auditd") is None


def test_relatives_have_short_names() -> None:
    """Common abbreviations of fields are accepted."""
    assert full_name("parent.executable") == "process.parent.executable"
    assert full_name("entry_leader.entry_meta.type") == "process.entry_leader.entry_meta.type"
    assert full_name("process.name") == "process.name"
    assert all(kind_of(f"ancestor.{name}") for name in ANCESTOR_FIELDS)
