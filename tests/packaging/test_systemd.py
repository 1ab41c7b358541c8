"""The units: systemd accepts them, they are confined, and the documented drop-in confines more."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.manager import PROJECT, UNIT, adapted, strict_drop_in

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


def test_users_can_not_take_the_services_processor_time() -> None:
    """Only a weight of its control group counts against other groups: Nice= counts within one."""
    weight = re.search(r"^CPUWeight=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert weight is not None
    assert int(weight[1]) > 100, "the weight of any other service"


def test_the_strict_drop_in_confines_the_service_further(tmp_path: Path) -> None:
    """docs/operations.md has a drop-in for hosts where sessiond is the audit daemon."""
    unit = tmp_path / UNIT.name
    shipped = adapted(UNIT.read_text(), {"ExecStart": f"{sys.executable} -m sessiond run"})
    unit.write_text(shipped.replace("[Install]", f"{strict_drop_in()}\n[Install]"))
    for command in (
        ("verify", "--man=no"),
        ("security", "--offline=true", "--threshold=11", "--no-pager"),
    ):
        done = subprocess.run(["systemd-analyze", *command, unit], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
