"""The units of the metrics: systemd accepts them, and the service works."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from support.manager import PROJECT, adapted

UNITS = PROJECT / "packaging" / "systemd"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with the path of an existing program."""
    command = f"{sys.executable} -m sessiond status --prometheus -o ${{TEXTFILE}}"
    for name in ("sessiond-metrics.service", "sessiond-metrics.timer"):
        text = (UNITS / name).read_text()
        if name.endswith(".service"):
            text = adapted(text, {"ExecStart": command})
        (tmp_path / name).write_text(text)
    return tmp_path


def test_systemd_understands_the_metrics_units(units: Path) -> None:
    """systemd reports no unknown name and no invalid value."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units.iterdir()], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_metrics_service_is_confined(units: Path) -> None:
    """It runs as root, which may query the status, and may do little else."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager",
         units / "sessiond-metrics.service"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_metrics_service_may_write_where_it_writes() -> None:
    """The file of TEXTFILE is in the only directory that the sandbox leaves writable."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / "sessiond-metrics.service")
    file = Path(unit["Service"]["Environment"].removeprefix("TEXTFILE="))
    assert str(file.parent) == unit["Service"]["ReadWritePaths"].removeprefix("-")
    assert "${TEXTFILE}" in unit["Service"]["ExecStart"]
