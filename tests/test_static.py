"""Checks without running the program: style, types, architecture, the shipped unit."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.manager import PROJECT, UNIT, adapted

PACKAGE = PROJECT / "sessiond"
MODULES = sorted(path.relative_to(PROJECT) for path in PACKAGE.rglob("*.py"))

# Modules without a test file, and the tests that cover them: modules that open and connect other
# parts need a kernel and a daemon.
TESTED_ELSEWHERE = {
    "sessiond/audit/kernel/disabled.py": "tests/e2e/test_without_audit.py",
    "sessiond/__main__.py": "tests/support/daemon.py",
    "sessiond/audit/kernel/controller.py": "tests/e2e/test_lifecycle.py",
    "sessiond/audit/kernel/errors.py": "tests/audit/kernel/test_client.py",
    "sessiond/audit/kernel/listeners.py": "tests/cli/test_check.py",
    "sessiond/audit/kernel/settings.py": "tests/audit/kernel/test_client.py",
    "sessiond/audit/rules/plan.py": "tests/audit/rules/test_ruleset.py",
    "sessiond/cli/declare.py": "tests/cli/test_main.py",
    "sessiond/config/reference.py": "tests/config/test_load.py",
    "sessiond/daemon/daemon.py": "tests/e2e/test_lifecycle.py",
    "sessiond/daemon/factory.py": "tests/e2e/test_lifecycle.py",
    "sessiond/daemon/monitor.py": "tests/e2e/test_watch.py",
    "sessiond/daemon/status_server.py": "tests/cli/test_status.py",
    "sessiond/cli/setup.py": "tests/engines/test_elasticsearch.py",
    "sessiond/cli/traffic.py": "tests/filters/test_traffic.py",
    "sessiond/cli/filters.py": "tests/e2e/test_filters.py",
    "sessiond/cli/recordings.py": "tests/cli/test_viewer.py",
    "sessiond/filters/decide.py": "tests/pipeline/test_filtering.py",
    "sessiond/filters/saved.py": "tests/pipeline/test_snapshot.py",
    "sessiond/filters/stage.py": "tests/pipeline/test_filtering.py",
    "sessiond/filters/subject.py": "tests/pipeline/test_filtering.py",
    "sessiond/output/datagram.py": "tests/output/test_stream.py",
    "sessiond/output/reconnecting.py": "tests/output/test_stream.py",
    "sessiond/output/resolver.py": "tests/output/test_stream.py",
    "sessiond/output/rotation.py": "tests/output/test_file.py",
    "sessiond/output/sink.py": "tests/output/test_delivery.py",
    "sessiond/process/events.py": "tests/process/test_argv.py",
    "sessiond/sources/__init__.py": "tests/sources/ebpf/test_source.py",
    "sessiond/sources/ebpf/loader.py": "tests/sources/ebpf/test_source.py",
    "sessiond/sources/procfs/parse.py": "tests/sources/procfs/test_reader.py",
    "sessiond/sources/procfs/worker.py": "tests/sources/procfs/test_guard.py",
    "sessiond/system/clock.py": "tests/system/test_host.py",
    "sessiond/text.py": "tests/audit/test_record.py",
}


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"


def test_code_keeps_to_the_rules() -> None:
    """ruff finds no violation of the rules in pyproject.toml."""
    _run(sys.executable, "-m", "ruff", "check", "--quiet")


def test_code_is_formatted() -> None:
    """ruff would not change the format."""
    _run(sys.executable, "-m", "ruff", "format", "--check", "--quiet")


def test_types_fit() -> None:
    """mypy in strict mode finds nothing, including the tests."""
    _run(sys.executable, "-m", "mypy")


def test_imports_go_one_way() -> None:
    """The contracts of .importlinter hold."""
    _run(Path(sys.executable).with_name("lint-imports"))


def test_every_module_has_its_layer() -> None:
    """Every module is in the contract about imports."""
    contracts = configparser.ConfigParser()
    contracts.read(PROJECT / ".importlinter")
    layers = contracts["importlinter:contract:one-way"]["layers"].replace("|", " ").split()
    for path in MODULES:
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        assert name in {"sessiond", "sessiond.audit"} or any(
            name == layer or name.startswith(layer + ".") for layer in layers
        ), f"{name} has no layer in .importlinter"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_tests(module: Path) -> None:
    """The tests of sessiond/a/b.py are in tests/a/test_b.py."""
    if _is_empty(PROJECT / module):
        return
    if str(module) in TESTED_ELSEWHERE:
        assert (PROJECT / TESTED_ELSEWHERE[str(module)]).exists()
        return
    name = module.parent.name if module.stem == "__init__" else module.stem
    tests = PROJECT / "tests" / module.relative_to("sessiond").parent / f"test_{name}.py"
    assert tests.exists(), f"{module} has no tests in {tests.relative_to(PROJECT)}"
    assert "def test_" in tests.read_text()


def test_scripts_in_tests_import_modules_that_exist() -> None:
    """A script in a string must move with the module that it imports: mypy does not read it."""
    for path in sorted((PROJECT / "tests").rglob("*.py")):
        for name in re.findall(r"^ *from (sessiond[.\w]*) import", path.read_text(), re.MULTILINE):
            module = PROJECT.joinpath(*name.split("."))
            assert module.is_dir() or module.with_suffix(".py").exists(), f"{path}: {name}"


def _is_empty(path: Path) -> bool:
    """Return whether a module has nothing to test, such as only a docstring."""
    code = ast.parse(path.read_text()).body
    nothing = ast.Expr | ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom
    return all(isinstance(node, nothing) for node in code)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The shipped unit, with the path of an existing program."""
    path = tmp_path / UNIT.name
    path.write_text(adapted(UNIT.read_text(), {"ExecStart": f"{sys.executable} -m sessiond run"}))
    return path


def test_systemd_understands_the_unit(unit: Path) -> None:
    """systemd reports no unknown name and no invalid value in the unit."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_is_confined(unit: Path) -> None:
    """systemd's measure of exposure, of which 10 is the worst, is 1.7 or better."""
    _run("systemd-analyze", "security", "--offline=true", "--threshold=17", "--no-pager", unit)
