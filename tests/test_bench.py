"""bench/run: its help, its errors, and a measurement."""

import re
import subprocess
from pathlib import Path

RUN = Path(__file__).parent.parent / "bench" / "run"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(RUN), *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_help_names_every_section() -> None:
    """A user of a single section finds its name."""
    done = bench("--help")
    assert done.returncode == 0
    for section in ("load", "flat", "delay", "idle", "rules", "table", "replay"):
        assert re.search(rf"^  {section} +\w", done.stdout, re.MULTILINE), section


def test_a_wrong_option_is_one_line() -> None:
    """There is no traceback, and nothing is measured."""
    done = bench("--rate", "0")
    assert done.returncode == 2
    assert "argument --rate: must be at least 1" in done.stderr


def test_the_growing_table_is_measured() -> None:
    """A pipeline runs with 100 and with 10,000 processes, and both cost something."""
    done = bench("--quick", "--section", "table", "--no-save")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^sessiond +([\d,]+) +([\d.]+) +[\d.]+$", done.stdout, re.MULTILINE)
    assert [size for size, _ in rows] == ["100", "10,000"]
    assert all(float(cost) > 1 for _, cost in rows)
