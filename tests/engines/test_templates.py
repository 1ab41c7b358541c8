"""The templates have exactly the fields of the output, and documents fit them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ecs_schema.validate import _CHECKS
from support.engines import lines
from support.manager import PROJECT

from sessiond.config.fields import FIELDS
from sessiond.engines import templates

MAPPINGS = templates.mappings(opensearch=False)
FLAT = {"flattened", "flat_object"}


def mapped(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return each field of a mapping with its type."""
    for name, mapping in properties.items():
        if "properties" in mapping:
            yield from mapped(mapping["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, mapping["type"]


def misfits(properties: dict[str, Any], document: dict[str, Any], prefix: str = "") -> list[str]:
    """Yield fields of a document that the mapping lacks or has with another type."""
    found = []
    for name, value in document.items():
        where, mapping = f"{prefix}{name}", properties.get(name, {})
        for each in value if isinstance(value, list) else [value]:
            if "properties" in mapping and isinstance(each, dict):
                found += misfits(mapping["properties"], each, f"{where}.")
            elif mapping.get("type") in FLAT and isinstance(each, dict):
                continue
            elif mapping.get("type") not in _CHECKS or not _CHECKS[mapping["type"]](each):
                found.append(f"{where}: {each!r} in {mapping.get('type')}")
    return found


@pytest.mark.parametrize("opensearch", [False, True])
def test_the_mapping_has_exactly_the_fields_of_the_output(opensearch: bool) -> None:
    """FIELDS is docs/output.md (tests/config/test_fields.py); an open object is one flat field."""
    found = dict(mapped(templates.mappings(opensearch=opensearch)["properties"]))
    flat = {name for name, kind in found.items() if kind in FLAT}
    assert flat == {name.removesuffix(".*") for name in FIELDS if name.endswith(".*")}
    assert {name: kind for name, kind in found.items() if name not in flat} == {
        name: kind.removesuffix("[]")
        for name, kind in FIELDS.items()
        if not name.startswith(tuple(f"{each}." for each in flat))
    }


def test_real_lines_fit() -> None:
    """Every field is indexed, and every value has its field's type."""
    documents = lines()
    assert len(documents) > 300
    assert [misfit for each in documents for misfit in misfits(MAPPINGS["properties"], each)] == []


def test_what_does_not_fit_is_found() -> None:
    """The check above fails for an unknown field, a wrong type, a scalar instead of an object."""
    wrong = {"event": {"sequence": "7"}, "strange": 1, "process": {"parent": "x"}, "labels": "y"}
    assert [line.partition(":")[0] for line in misfits(MAPPINGS["properties"], wrong)] == [
        "event.sequence",
        "strange",
        "process.parent",
        "labels",
    ]


def test_the_files_are_those_that_are_installed() -> None:
    """python -m sessiond.engines.templates writes integrations/elastic/."""
    directory = PROJECT / "integrations" / "elastic"
    help_ = "python -m sessiond.engines.templates integrations/elastic writes it anew"
    for name, content in templates.files().items():
        assert json.loads((directory / name).read_text("utf-8")) == content, f"{name}: {help_}"
    assert {path.name for path in directory.glob("*.json")} >= set(templates.files())


def test_files_are_written(tmp_path: Path) -> None:
    """All files are JSON."""
    templates.write(tmp_path)
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert found == templates.files()


def test_a_changed_template_has_another_checksum() -> None:
    """The checksum reveals outdated templates, and templates of other origin."""
    sums = {templates.checksum(content) for content in templates.files().values()} - {None}
    assert len(sums) == 5
    assert templates.checksum({}) is None


def test_the_policy_deletes_at_the_age_that_was_asked_for() -> None:
    """Both engines delete at that age."""
    elastic = templates.lifecycle(30)["policy"]["phases"]
    assert elastic["delete"]["min_age"] == "30d"
    transition = templates.state_policy(30)["policy"]["states"][0]["transitions"][0]
    assert transition["conditions"] == {"min_rollover_age": "30d"}
