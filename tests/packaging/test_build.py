"""The package: its contents, the packaged program, and reproducible builds."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.manager import PROJECT

from sessiond import __version__

PYTHONS = ("311", "312", "313", "314")

pytestmark = [
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb"),
    pytest.mark.timeout(900),  # pip on a busy machine
]


def run(*command: str | Path, **environment: str) -> str:
    """Run a command and return its output, which a failed test shows."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(directory: Path, kind: str = "deb") -> Path:
    """Build the package of the last commit, not compiled, in a copy at ``directory``."""
    run("git", "clone", "--quiet", "--no-hardlinks", PROJECT, directory)
    made = run("sh", directory / "packaging" / "build.sh", kind, SESSIOND_COMPILE="0")
    return directory / made.strip()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package") / "checkout")


@pytest.fixture(scope="module")
def root(package: Path) -> Path:
    """The unpacked package."""
    directory = package.parent / "root"
    run("dpkg-deb", "--raw-extract", package, directory)
    return directory


def test_the_version_is_in_one_place(package: Path) -> None:
    """Package, file name and program have the version of the source."""
    assert (
        package.name == f"sessiond_{__version__}-1_{run('dpkg', '--print-architecture')[:-1]}.deb"
    )
    assert run("dpkg-deb", "--field", package, "Version") == f"{__version__}-1\n"


def test_the_checksum_is_that_of_the_package(package: Path) -> None:
    """sha256sum accepts it."""
    done = subprocess.run(["sha256sum", "--check", f"{package.name}.sha256"], cwd=package.parent)
    assert done.returncode == 0


def test_everything_is_in_its_place(root: Path) -> None:
    """Program, units, user, manual pages, completions, documentation."""
    for path in (
        "usr/bin/sessiond",
        "usr/lib/systemd/system/sessiond.service",
        "usr/lib/systemd/system/sessiond-metrics.timer",
        "usr/lib/sysusers.d/sessiond.conf",
        "usr/share/man/man8/sessiond.8.gz",
        "usr/share/man/man5/sessiond.yml.5.gz",
        "usr/share/bash-completion/completions/sessiond",
        "usr/share/zsh/vendor-completions/_sessiond",
        "usr/share/doc/sessiond/copyright",
        "usr/share/doc/sessiond/changelog.Debian.gz",
        "usr/share/doc/sessiond/docs/operations.md",
        "usr/share/doc/sessiond/prometheus/alerts.yml",
        "usr/share/doc/sessiond/integrations/elastic/index-template.json",
    ):
        assert (root / path).stat().st_size > 0, path


def test_every_file_of_the_package_is_there(root: Path) -> None:
    """Modules, the tracer's source and its headers, patterns, pages."""
    tracked = set(run("git", "-C", PROJECT, "ls-files", "sessiond").split("\n"))
    packaged = {
        str(path.relative_to(root / "usr/lib/sessiond"))
        for path in (root / "usr/lib/sessiond/sessiond").rglob("*")
        if path.is_file()
    }
    assert packaged == tracked - {"", "sessiond/py.typed"}


def test_libraries_are_there_for_each_python(root: Path) -> None:
    """Their names differ, and each Python loads its own."""
    names = [path.name for path in (root / "usr/lib/sessiond").rglob("*.so")]
    for python in PYTHONS:
        assert len([name for name in names if f"cpython-{python}-" in name]) == 2, python
    assert (root / "usr/lib/sessiond/pyroute2/__init__.py").exists()
    assert not list(root.rglob("__pycache__"))
    assert not list(root.rglob("*.dist-info"))


def test_the_packaged_program_runs(root: Path) -> None:
    """It uses its own libraries, in preference to the system's."""
    library = root / "usr/lib/sessiond"
    program = "import msgspec, orjson, pyroute2; print(msgspec.__file__, orjson.__file__)"
    where = run(sys.executable, "-P", "-c", program, PYTHONPATH=str(library))
    assert where.split() == [f"{library}/msgspec/__init__.py", f"{library}/orjson/__init__.py"]
    command = (sys.executable, "-P", "-m", "sessiond")
    assert run(*command, "--version", PYTHONPATH=str(library)) == f"sessiond {__version__}\n"
    settings = run(*command, "check", "--settings", PYTHONPATH=str(library))
    assert settings == (root / "etc/sessiond.yml").read_text("utf-8")


def test_the_program_trusts_no_environment(root: Path) -> None:
    """Others can set PYTHONPATH and the like, and the daemon has capabilities."""
    program = (root / "usr/bin/sessiond").read_text()
    assert program.startswith("#!/usr/bin/python3 -I\n")
    assert 'sys.path.insert(0, "/usr/lib/sessiond")' in program


def test_the_configuration_is_a_conffile_that_others_cannot_read(root: Path) -> None:
    """Changes of the administrator stay, and no other user sees what is watched."""
    assert (root / "DEBIAN/conffiles").read_text() == "/etc/sessiond.yml\n"
    assert stat.S_IMODE((root / "etc/sessiond.yml").stat().st_mode) == 0o640


def test_units_run_the_packaged_program(root: Path) -> None:
    """They refer to the included manual pages."""
    units = list((root / "usr/lib/systemd/system").glob("*.service"))
    assert units
    for unit in units:
        text = unit.read_text()
        assert re.search(r"^ExecStart=/usr/bin/sessiond ", text, re.MULTILINE)
        assert "/opt/" not in text
        assert "Documentation=man:sessiond(8) man:sessiond.yml(5)\n" in text


def test_scripts_are_shell(root: Path) -> None:
    """Debian's /bin/sh parses them."""
    for name in ("postinst", "prerm", "postrm"):
        run("sh", "-n", root / "DEBIAN" / name)


def test_the_same_commit_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    """This holds also in another place and later."""
    again = build(tmp_path / "elsewhere" / "checkout")
    assert again.read_bytes() == package.read_bytes()


@pytest.mark.skipif(shutil.which("lintian") is None, reason="needs lintian")
def test_lintian_finds_no_error(package: Path) -> None:
    """There are no warnings either."""
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", package) == ""


@pytest.mark.skipif(shutil.which("rpm") is None, reason="needs rpm")
def test_the_rpm_has_the_same(tmp_path: Path) -> None:
    """Files, configuration and dependencies are the same; its scripts are not run here."""
    made = build(tmp_path / "checkout", "rpm")
    assert run("rpm", "-qp", "--qf", "%{NAME} %{VERSION}", made) == f"sessiond {__version__}"
    assert run("rpm", "-qp", "--configfiles", made) == "/etc/sessiond.yml\n"
    files = run("rpm", "-qpl", made).split()
    assert "/usr/bin/sessiond" in files
    assert "/usr/share/licenses/sessiond/LICENSE" in files
    assert any(each.startswith("python3-bcc") for each in run("rpm", "-qpR", made).split("\n"))
