"""Requirements from PyPI, each file with its hash, complete lists, and the image's base."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

LISTS = Path("packaging")
# The distribution has its wheels: PyPI has only the source.
OF_THE_DISTRIBUTION = {"systemd-python"}


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Return the requirements of a list and of included lists, with their hashes."""
    file = LISTS / name
    text = re.sub(r"(?m)^#.*\n", "", file.read_text()).replace("\\\n", " ")
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in filter(None, text.splitlines()):
        if line.startswith("-r "):
            found |= locked(str((file.parent / line[3:]).resolve().relative_to(LISTS.resolve())))
            continue
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        parsed = Requirement(requirement)
        found[parsed.name] = parsed, hashes
    return found


@pytest.mark.parametrize(
    "name",
    ["requirements.txt", "compile-requirements.txt", "package/build-requirements.txt"],
)
def test_each_is_one_version_by_its_hashes(name: str) -> None:
    """pip can then only install the files that the list was made from."""
    for requirement, hashes in locked(name).values():
        assert [each.operator for each in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("requirements.txt", lambda project: project["project"]["dependencies"]),
        ("compile-requirements.txt", lambda project: project["build-system"]["requires"]),
    ],
)
def test_no_list_is_out_of_date(name: str, wanted: object) -> None:
    """Each requirement of pyproject.toml is in the list, in an allowed version."""
    assert callable(wanted)
    have = locked(name)
    for text in wanted(tomllib.loads(Path("pyproject.toml").read_text())):
        requirement = Requirement(text)
        if requirement.name in OF_THE_DISTRIBUTION:
            continue
        there, _ = have[requirement.name.lower()]
        (version,) = there.specifier
        assert requirement.specifier.contains(version.version), f"raise {there} in {name}"


def test_the_image_has_one_base_by_its_digest() -> None:
    """A tag could be moved to another image."""
    text = Path("Dockerfile").read_text()
    (base,) = re.findall(r"(?m)^ARG BASE=(\S+)$", text)
    assert re.fullmatch(r"debian:12-slim@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"(?m)^FROM (\S+)", text)) == {"$BASE"}
