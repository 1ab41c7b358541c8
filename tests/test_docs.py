"""The documentation agrees with the code: it builds, and its fields are those of the output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ecs_schema.validate import AUDITBEAT, CUSTOM, FIELDS, LISTS_BY_CONTRACT
from support.manager import PROJECT
from support.replayed import replayed
from support.scripted import BOOT, documents
from support.story import Bench, T

from sessiond.cli.main import command_line
from sessiond.cli.pages import commands_of
from sessiond.config.schema import EventSettings
from sessiond.pipeline.losses import UNITS
from sessiond.process.entry import _RULES
from sessiond.system.host import HostFacts
from sessiond.units import SECOND

DOCS = PROJECT / "docs"
OUTPUT = (DOCS / "output.md").read_text("utf-8")
RELATIVE = re.compile(r"^process\.(?:parent|(?:group|session|entry)_leader)\.")
# The page lists special members of these objects, and ".*" for the others.
OPEN = ("auditd.data.", "auditd.arguments.", "auditd.paths.", "sessiond.loss.kinds.")


def _rows() -> dict[str, tuple[str, bool]]:
    """Return each field of the page: its type, and whether relatives have it too."""
    found = {}
    for line in OUTPUT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not re.match(r"`[@a-z]+", cells[0]) or len(cells) < 4:
            continue
        for name in re.findall(r"`([^`]+)`", cells[0]):
            assert name not in found, f"{name} stands twice in output.md"
            found[name] = cells[1], cells[2] == "r"
    return found


ROWS = {name: row for name, row in _rows().items() if "." in name or name[0] in "@mt"}


def _is_documented(field: str) -> bool:
    if field in ROWS or field.startswith(OPEN):
        return True
    if any(name.endswith(".*") and field.startswith(name[:-1]) for name in ROWS):
        return True
    own = RELATIVE.sub("process.", field)
    return own != field and ROWS.get(own, ("", False))[1]


def _leaves(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _leaves(member, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for element in value:
            yield from _leaves(element, name)
    else:
        yield name


@pytest.fixture(scope="module")
def written() -> set[str]:
    """Return the fields of a pipeline's lines, of real logs and of the golden documents."""
    return {leaf for document in _written() for leaf in _leaves(document)}


def _written() -> Iterator[dict[str, Any]]:
    for path in sorted((PROJECT / "tests" / "ecs" / "golden").glob("*.json")):
        yield from json.loads(path.read_text("utf-8"))
    data = PROJECT / "tests" / "data"
    for path in (*sorted(data.glob("*.log")), data / "replay" / "kinds.log"):
        yield from documents(replayed(path.read_bytes())[0])
    bench = Bench(include_cgroup=True, include_namespaces=True, fork_events=True, ancestors=5)
    child = bench.child()
    for happened in (child.set_session(T + 2), child.execute("ls", T + 3, "x" * 300)):
        bench.tell(happened[0], audit=happened[1])
    bench.tell(child.die(11, T + 4))
    bench.pipeline.follow_clock(bench.now, bench.now, BOOT + 90 * SECOND)
    bench.pipeline.lines.write_self_event(
        "sessiond-degraded", bench.now, {"health": {"what": "x"}}, "x"
    )
    yield from bench.settle()


def test_every_field_that_is_written_is_documented(written: set[str]) -> None:
    """A missing field must be added to output.md."""
    assert len(written) > 150
    assert sorted(field for field in written if not _is_documented(field)) == []


def test_every_documented_field_can_be_written(written: set[str]) -> None:
    """A field that the test data lacks must be in the code, member by member."""
    code = "\n".join(path.read_text("utf-8") for path in (PROJECT / "sessiond").rglob("*.py"))
    words = set(re.findall(r"\w+", code))
    strange = [
        name
        for name in ROWS
        if name not in written and not set(name.rstrip(".*").split(".")) - {"@timestamp"} <= words
    ]
    assert strange == []


def test_documented_types_are_those_of_ecs() -> None:
    """The type column is that of the schema; sessiond's and Auditbeat's fields have their own."""
    known = FIELDS | AUDITBEAT
    for name, (kind, _) in ROWS.items():
        if name.startswith(tuple(f"{custom}." for custom in CUSTOM)):
            continue
        expected = known.get(name)
        assert expected is not None, f"{name} is no field of ECS"
        assert kind == (f"{expected}[]" if name in LISTS_BY_CONTRACT else expected), name


def test_every_option_of_the_event_is_in_the_documentation() -> None:
    """Each setting of ``event`` changes the output, which the pages describe."""
    pages = "\n".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    for name in EventSettings.__struct_fields__:
        assert f"event.{name}" in pages, name


def test_every_entry_type_and_every_hop_is_documented() -> None:
    """The table of entry leaders has every rule, and the table of losses every hop."""
    for name, _ in _RULES:
        assert f"`{name}`" in OUTPUT, name
    for hop in UNITS:
        assert hop in OUTPUT, hop


def test_every_field_of_the_host_is_documented() -> None:
    """This includes fields that only ``host_fields: full`` writes."""
    facts = HostFacts(
        hostname="h", id="i", boot_id="b", architecture="a", kernel="k", os_name="n",
        os_version="v", os_full="f", os_family="f", os_platform="p", ip=("192.0.2.1",),
        mac=("02-00",), pid_namespace=1,
    )  # fmt: skip
    leaves = set(_leaves({"host": facts.block("full")}))
    assert {name for name in ROWS if name.startswith("host.")} == leaves


def test_files_that_the_documentation_names_exist() -> None:
    """Paths in the pages exist in the repository, and each guarantee names existing tests."""
    pages = [*DOCS.glob("*.md"), PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"]
    named = re.compile(r"`((?:tests|sessiond|docs|etc|packaging|bench)/[\w./-]+\.\w+)`")
    examples = ("kafka", "NAME", "/a/")
    for page in pages:
        for path in named.findall(page.read_text("utf-8")):
            if not any(example in path for example in examples):
                assert (PROJECT / path).exists(), f"{page.name}: {path}"


def test_commands_in_the_pages_have_their_options() -> None:
    """Every ``sessiond COMMAND --option`` in a page exists."""
    parser = command_line()
    commands = commands_of(parser)
    seen = 0
    for page in (
        PROJECT / "README.md",
        *PROJECT.glob("docs/*.md"),
        *PROJECT.glob("*/**/README.md"),
    ):
        for name, rest in re.findall(r"sessiond +([a-z]+)\b([^\n`|&;]*)", page.read_text("utf-8")):
            if name in commands:
                known = {
                    each for action in commands[name]._actions for each in action.option_strings
                }
                used = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", rest.partition(" -- ")[0]))
                assert used <= known, f"{page.name}: {name}{rest}"
                seen += len(used)
    assert seen > 20


def test_the_folders_are_those_of_the_architecture() -> None:
    """Each has its row, in the order of the layers in ``.importlinter``."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w/]+)/` \|", text, re.MULTILINE)
    folders = {path.parent.name for path in (PROJECT / "sessiond").glob("*/__init__.py")}
    assert {*rows} == folders | {"audit/kernel"}
    contracts = (PROJECT / ".importlinter").read_text("utf-8")
    layers = re.findall(r"sessiond\.([\w.]+)", contracts.partition("contract:pure")[0])
    # A folder whose modules are layers of their own stands where the first of them does.
    of_layers = (
        max((r for r in rows if _is_in(layer, r)), key=len, default="") for layer in layers
    )
    assert rows == [row for row in dict.fromkeys(of_layers) if row]


def _is_in(layer: str, folder: str) -> bool:
    return f"{layer}.".startswith(folder.replace("/", ".") + ".")


def test_the_readme_is_short_and_has_its_two_commands() -> None:
    """At most 120 lines: purpose, quick start, install, an example, commands, links."""
    text = (PROJECT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert "\nsh packaging/setup.sh run && .venv/bin/sessiond run --output -\n" in text
    assert "\nsh packaging/setup.sh test && .venv/bin/python -m pytest\n" in text


def test_the_site_builds(tmp_path: Path) -> None:
    """Every link and heading exists, also in the README."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert (tmp_path / "index.html").exists()
    assert (tmp_path / "output" / "index.html").exists()
